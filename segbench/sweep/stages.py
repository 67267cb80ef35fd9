"""The stages of a sweep: search, select, retrain, test.

It reads like the picture in docs/design.md: search, select, retrain, test, report. Each stage has a ledger; what is in
it is not done again, so the same command continues a sweep that was stopped at any moment.
"""

import re
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from segbench.core.enqueued import read_enqueued
from segbench.core.errors import SegbenchError
from segbench.core.ledger import Ledger, read_ledger
from segbench.core.paths import Stage, SweepPaths
from segbench.core.records import Assignment, StageWork, SweepObserver, TrialRecord
from segbench.data import absolute, keep_record, open_data
from segbench.final.retrain import continue_list, longest_first, plan_retraining, plan_tests
from segbench.final.selection import select_finalists
from segbench.results.folder import export_models, read_results, write_tables
from segbench.search.policy import SearchPolicy
from segbench.search.queue import FixedList, LedgerQueue, Policy
from segbench.search.warm_start import OldTrials, warm_start
from segbench.spec.load import LoadedSpec
from segbench.spec.schema import SweepSpec
from segbench.storage.mirror import Mirror
from segbench.sweep.costs import CostBook, architectures, asked_costs
from segbench.sweep.prior import take_old
from segbench.training.trial import TrialJob

Stages = Generator[StageWork[TrialJob], None, None]
Executor = Callable[[Iterator[StageWork[TrialJob]]], None]
"""Runs all trials of one stage after another; asks for a stage when all trials of the one before have ended."""

StageRun = Generator[StageWork[TrialJob], None, list[TrialRecord]]
"""Gives a stage's work out, and returns its records when it is done."""

TEST_FUNCTION = "segbench.final.evaluate:test"


@dataclass(frozen=True, kw_only=True)
class StageSetup:
    """How the trials of one stage are run."""

    stage: Stage
    num_trials: int
    max_epochs: int
    train: str
    metric: str | None
    train_on: Literal["train", "train+val"] = "train"
    keep_best: bool = False


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """The stage of retraining, which may begin before it is known whole."""

    setup: StageSetup
    ledger: Ledger
    policy: FixedList
    work: StageWork[TrialJob]


class Sweep:
    """A checked sweep file, its folder, who runs it and who watches.

    Args:
        loaded: the sweep file and its space.
        paths: its folder.
        execute: runs the trials of a stage.
        observers: hear of every trial.
        mirror: of the folder in a bucket; it is an observer too.
    """

    def __init__(
        self,
        loaded: LoadedSpec,
        paths: SweepPaths,
        execute: Executor,
        observers: Sequence[SweepObserver] = (),
        mirror: Mirror | None = None,
    ) -> None:
        self.spec: SweepSpec = loaded.spec
        self.space = loaded.space
        self.paths = paths
        self._execute = execute
        self._observers = observers if mirror is None else [*observers, mirror]
        self._mirror = mirror
        self._retraining: Retraining | None = None
        self._old: tuple[OldTrials, ...] = ()

    def run(self) -> None:
        """Search, retrain and test what is not done yet; write the tables, also when interrupted.

        Raises:
            SegbenchError: no trial has a score.
            StateError: the data are not those that the sweep has begun with.
            UserError: the scores of a sweep in ``search.warm_start`` do not compare with this one's.
        """
        try:
            if self.spec.is_segmentation:
                open_data(self.spec.data)  # packed or fetched once, before the first trial
                keep_record(self.paths.data, self.spec.data)
            self._old = take_old(self.paths, self.spec)
            if self._mirror is not None:
                self._mirror.push()  # the sweep file, what trials read, what decisions depend on
            with closing(self._stages()) as stages:
                self._execute(stages)
        finally:
            if self._mirror is not None:
                self._mirror.fetch()
            results = read_results(self.paths, self.spec)
            write_tables(results)
        export_models(results)

    def _stages(self) -> Stages:
        with ExitStack() as ledgers:
            finalists = self._select((yield from self._search(ledgers)))
            retrained = yield from self._retrain(finalists, ledgers)
            yield from self._test(retrained, ledgers)

    def _search(self, ledgers: ExitStack) -> StageRun:
        ledger = self._open("search", ledgers)
        prior = warm_start(self._old, self.space, self.spec.metric.goal)
        wishes = partial(read_enqueued, self.paths.enqueued)
        policy = SearchPolicy(
            self.spec, self.space, self.paths.study, ledger.records, prior, wishes, self._book(ledger).of
        )
        setup = StageSetup(
            stage="search",
            num_trials=policy.num_trials,
            max_epochs=self.spec.scheduler.max_epochs,
            train=self.spec.train,
            metric=self.spec.metric.name,
            keep_best=self.spec.retrain is None,
        )
        self._announce(setup, ledger)
        work = self._work(setup, ledger, policy)
        yield replace(work, ahead=lambda: self._retrain_baselines(ledger, ledgers))
        return ledger.records

    def _book(self, ledger: Ledger) -> CostBook:
        """Return what models cost; of the architectures that can be listed all are measured before the first trial."""
        book = CostBook(self.paths.costs, self.spec, ledger.records)
        for config in architectures(self.spec, self.space) if asked_costs(self.spec) else ():
            book.of(config)
        return book

    def _select(self, searched: Sequence[TrialRecord]) -> list[TrialRecord]:
        top_k = self.spec.retrain.top_k if self.spec.retrain else 1
        finalists = select_finalists(
            searched, top_k, self.spec.metric.goal, self.spec.requirements, self.spec.metric.several
        )
        if not finalists:
            reasons = "; ".join(_different(record.reason for record in searched))
            raise SegbenchError(
                f"none of the {len(searched)} trials has a score ({reasons}); {self.paths.trials} has the details. "
                "Mend the cause and start again with another --out"
            )
        return finalists

    def _retrain_baselines(self, ledger: Ledger, ledgers: ExitStack) -> StageWork[TrialJob] | None:
        """Return the retraining of the baselines: finalists whatever the search finds, once all of them have ended."""
        if self._retraining is not None:
            return self._retraining.work
        if self.spec.retrain is None or not self.spec.baselines:
            return None
        baselines = [record for record in ledger.records if record.assignment.origin == "baseline"]
        if not all(record.state.is_finished for record in baselines):
            return None
        finalists = select_finalists(baselines, 0, self.spec.metric.goal)
        return self._plan_retraining(finalists, ledgers).work if finalists else None

    def _retrain(self, finalists: Sequence[TrialRecord], ledgers: ExitStack) -> StageRun:
        if self.spec.retrain is None:
            return []
        retraining = self._plan_retraining(finalists, ledgers)
        self._announce(retraining.setup, retraining.ledger)
        yield retraining.work
        return retraining.ledger.records

    def _plan_retraining(self, finalists: Sequence[TrialRecord], ledgers: ExitStack) -> Retraining:
        """Return the retraining of ``finalists``, and of what has begun; it takes the place of a shorter plan."""
        retrain = self.spec.retrain
        assert retrain is not None, "asked for with retrain only"
        if self._retraining is None:
            ledger, policy = self._open("retrain", ledgers), FixedList([])
        else:
            ledger, policy = self._retraining.ledger, self._retraining.policy
        epochs = retrain.epochs or self.spec.scheduler.max_epochs
        begun = ledger.records
        planned = plan_retraining(finalists, retrain.seeds, epochs, self.spec.search.seed)
        policy.assignments = longest_first(begun, continue_list(begun, planned), finalists)
        setup = StageSetup(
            stage="retrain",
            num_trials=len(policy.assignments),
            max_epochs=epochs,
            train=self.spec.train,
            metric=self.spec.metric.name if retrain.data == "train" else None,
            train_on=retrain.data,
            keep_best=True,
        )
        work = self._work(setup, ledger, policy) if self._retraining is None else self._retraining.work
        self._retraining = Retraining(setup=setup, ledger=ledger, policy=policy, work=work)
        return self._retraining

    def _test(self, retrained: Sequence[TrialRecord], ledgers: ExitStack) -> StageRun:
        assignments = continue_list(read_ledger(self.paths.ledger("test")), plan_tests(retrained))
        if not assignments or not self.spec.is_segmentation:
            return []
        setup = StageSetup(stage="test", num_trials=len(assignments), max_epochs=1, train=TEST_FUNCTION, metric=None)
        ledger = self._open("test", ledgers)
        self._announce(setup, ledger)
        yield self._work(setup, ledger, FixedList(assignments))
        return ledger.records

    def _open(self, stage: Stage, ledgers: ExitStack) -> Ledger:
        publish = None if self._mirror is None else self._mirror.publisher(stage)
        return ledgers.enter_context(closing(Ledger(self.paths.ledger(stage), publish=publish)))

    def _announce(self, setup: StageSetup, ledger: Ledger) -> None:
        for observer in self._observers:
            observer.on_stage(setup.stage, setup.num_trials, setup.max_epochs)
            for record in ledger.records:
                observer.on_trial(record, setup.stage)

    def _work(self, setup: StageSetup, ledger: Ledger, policy: Policy) -> StageWork[TrialJob]:
        queue = LedgerQueue(
            ledger,
            policy,
            setup.metric,
            self.spec.metric.goal,
            partial(self._on_change, setup.stage),
            self.spec.budget.max_failures,
        )
        return StageWork(queue=queue, make_job=partial(self._job, setup))

    def _on_change(self, stage: Stage, record: TrialRecord) -> None:
        if record.state.is_finished:
            self._remove_checkpoint(stage, record)
        for observer in self._observers:
            observer.on_trial(record, stage)

    def _remove_checkpoint(self, stage: Stage, record: TrialRecord) -> None:
        """Remove what a trial that has ended would have continued from."""
        shutil.rmtree(self.paths.last(stage, record.assignment.name), ignore_errors=True)

    def _job(self, setup: StageSetup, assignment: Assignment) -> TrialJob:
        is_test = setup.stage == "test"
        return TrialJob(
            assignment=assignment,
            train=setup.train,
            folder=self.paths.address(self.paths.trial(setup.stage, assignment.name)),
            data=absolute(self.spec.data) if self.spec.is_segmentation else None,
            train_on=setup.train_on,
            metric=setup.metric,
            goal=self.spec.metric.goal,
            keep_best=setup.keep_best,
            checkpoint=self.paths.address(self.paths.best("retrain", assignment.name)) if is_test else None,
            use_gpu=self.spec.resources.uses_gpu,
            sharing=self.paths.address(self.paths.sharing) if self.spec.resources.gpu == "auto" else None,
            num_threads=max(1, int(self.spec.resources.cpu)),
        )


_MAX_REASONS = 5


def _different(reasons: Iterable[str]) -> list[str]:
    """Return the reasons that differ in more than numbers, as they first came; of many the first few."""
    found = {re.sub(r"[\d.]+", "#", reason): reason for reason in sorted(set(reasons), reverse=True)}
    shown = sorted(found.values())
    return shown if len(shown) <= _MAX_REASONS else [*shown[:_MAX_REASONS], "..."]
