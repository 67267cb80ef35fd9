"""The main job: one sweep file in, a leaderboard out.

    python -m segbench.sweep sweeps/quickstart.yaml

It reads like the picture in docs/design.md: search, select, retrain, test, report. Each stage has a ledger; what is in
it is not done again, so the same command continues a sweep that was stopped at any moment.
"""

import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from segbench.data import absolute, keep_record, open_data
from segbench.errors import SegbenchError
from segbench.final.retrain import continue_list, longest_first, plan_retraining, plan_tests
from segbench.final.selection import select_finalists
from segbench.folder import read_prior
from segbench.ledger import Ledger, read_ledger
from segbench.paths import Stage, SweepPaths
from segbench.records import Assignment, SweepObserver, TrialQueue, TrialRecord
from segbench.report.folder import export_models, write_tables
from segbench.search.policy import SearchPolicy
from segbench.search.queue import FixedList, LedgerQueue, Policy
from segbench.spec.load import LoadedSpec
from segbench.spec.schema import SweepSpec
from segbench.storage.mirror import Mirror
from segbench.training.trial import TrialJob

StageWork = tuple[TrialQueue, Callable[[Assignment], TrialJob]]
"""The trials of a stage, and what completes an assignment to what a worker needs."""
Executor = Callable[[Iterator[StageWork]], None]
"""Runs all trials of one stage after another; asks for a stage when all trials of the one before have ended."""

StageRun = Generator[StageWork, None, list[TrialRecord]]
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

    def run(self) -> None:
        """Search, retrain and test what is not done yet; write the tables, also when interrupted.

        Raises:
            SegbenchError: no trial has a score.
            StateError: the data are not those that the sweep has begun with.
        """
        try:
            if self._mirror is not None:
                self._mirror.push()  # the sweep file, and what trials read
            if self.spec.is_segmentation:
                open_data(self.spec.data)  # packed or fetched once, before the first trial
                keep_record(self.paths.data, self.spec.data)
            with closing(self._stages()) as stages:
                self._execute(stages)
        finally:
            if self._mirror is not None:
                self._mirror.fetch()
            write_tables(self.paths, self.spec.metric.name, self.spec.metric.goal)
        export_models(self.paths, self.spec.metric.goal)

    def _stages(self) -> Generator[StageWork]:
        finalists = self._select((yield from self._search()))
        retrained = yield from self._retrain(finalists)
        yield from self._test(retrained)

    def _search(self) -> StageRun:
        with self._ledger("search") as ledger:
            prior = read_prior(self.spec, self.space).records
            policy = SearchPolicy(self.spec, self.space, self.paths.study, ledger.records, prior)
            setup = StageSetup(
                stage="search",
                num_trials=policy.num_trials,
                max_epochs=self.spec.scheduler.max_epochs,
                train=self.spec.train,
                metric=self.spec.metric.name,
                keep_best=self.spec.retrain is None,
            )
            return (yield from self._run_stage(setup, ledger, policy))

    def _select(self, searched: Sequence[TrialRecord]) -> list[TrialRecord]:
        top_k = self.spec.retrain.top_k if self.spec.retrain else 1
        finalists = select_finalists(searched, top_k, self.spec.metric.goal)
        if not finalists:
            reasons = "; ".join(sorted({record.reason for record in searched}))
            raise SegbenchError(
                f"none of the {len(searched)} trials has a score ({reasons}); {self.paths.trials} has the details. "
                "Mend the cause and start again with another --out"
            )
        return finalists

    def _retrain(self, finalists: Sequence[TrialRecord]) -> StageRun:
        retrain = self.spec.retrain
        if retrain is None:
            return []
        epochs = retrain.epochs or self.spec.scheduler.max_epochs
        begun = read_ledger(self.paths.ledger("retrain"))
        planned = plan_retraining(finalists, retrain.seeds, epochs, self.spec.search.seed)
        assignments = continue_list(begun, planned)
        setup = StageSetup(
            stage="retrain",
            num_trials=len(assignments),
            max_epochs=epochs,
            train=self.spec.train,
            metric=self.spec.metric.name if retrain.data == "train" else None,
            train_on=retrain.data,
            keep_best=True,
        )
        with self._ledger("retrain") as ledger:
            policy = FixedList(longest_first(begun, assignments, finalists))
            return (yield from self._run_stage(setup, ledger, policy))

    def _test(self, retrained: Sequence[TrialRecord]) -> StageRun:
        assignments = continue_list(read_ledger(self.paths.ledger("test")), plan_tests(retrained))
        if not assignments or not self.spec.is_segmentation:
            return []
        setup = StageSetup(stage="test", num_trials=len(assignments), max_epochs=1, train=TEST_FUNCTION, metric=None)
        with self._ledger("test") as ledger:
            return (yield from self._run_stage(setup, ledger, FixedList(assignments)))

    def _ledger(self, stage: Stage) -> closing[Ledger]:
        publish = None if self._mirror is None else self._mirror.publisher(stage)
        return closing(Ledger(self.paths.ledger(stage), publish=publish))

    def _run_stage(self, setup: StageSetup, ledger: Ledger, policy: Policy) -> StageRun:
        for observer in self._observers:
            observer.on_stage(setup.stage, setup.num_trials, setup.max_epochs)
            for record in ledger.records:
                observer.on_trial(record)
        observer = _StageObserver(self.paths, setup.stage, self._observers)
        max_failures = self.spec.budget.max_failures
        queue = LedgerQueue(ledger, policy, setup.metric, self.spec.metric.goal, observer, max_failures)
        yield queue, lambda assignment: self._job(setup, assignment)
        return ledger.records

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


class _StageObserver:
    """Passes on what happens, and removes the checkpoint of a trial that has ended."""

    def __init__(self, paths: SweepPaths, stage: Stage, observers: Sequence[SweepObserver]) -> None:
        self._paths = paths
        self._stage = stage
        self._observers = observers

    def on_stage(self, stage: str, num_trials: int, max_epochs: int) -> None:
        """Never called: a stage tells its observers itself."""

    def on_trial(self, record: TrialRecord) -> None:
        """Remove what is useless now, then pass on."""
        if record.state.is_finished:
            shutil.rmtree(self._paths.last(self._stage, record.assignment.name), ignore_errors=True)
        for observer in self._observers:
            observer.on_trial(record)


if __name__ == "__main__":
    from segbench.cli import main

    main(["sweep", *sys.argv[1:]])
