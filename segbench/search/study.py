"""Optuna's study as a view of the ledger: the only place that imports optuna.

It is made again from the records at every start, so it cannot disagree with them, and it lies in Optuna's journal
format where ``optuna-dashboard`` opens it. The sampler of trial n is seeded by (sweep seed, n), so a restart
changes no proposal.
"""

import copy
import json
import math
import warnings
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from segbench.core.errors import DiskFullError
from segbench.core.paths import is_disk_full
from segbench.core.records import Assignment, EpochRecord, Goal, Scalar, TrialRecord, TrialState
from segbench.core.seeding import derive_seed
from segbench.search.observations import (
    Observation,
    Outcome,
    from_sampler,
    observe,
    takes_quantile,
    to_sampler,
    values_of,
)
from segbench.search.parzen import Guess
from segbench.search.sampler import ParzenSampler, place_of
from segbench.search.window import MAX_REST, Window
from segbench.spec.domains import is_same
from segbench.spec.schema import SweepSpec
from segbench.spec.space import Categorical, Constant, Integer, Parameter, Real, Space

optuna.logging.set_verbosity(optuna.logging.ERROR)

_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAIL: OptunaState.FAIL,
}

_Known = dict[str, tuple[Scalar, BaseDistribution]]
"""Values that Optuna is told, by parameter name."""


class Study:
    """One Optuna study that hears all that the ledger says; trial numbers are the ledger's.

    Args:
        path: Optuna's journal file; replaced.
        spec: name, metric and search settings are read.
        space: the search space.
        records: trials of earlier starts, by number from 0.
        prior: trials of earlier sweeps; they stand before those of this one.
    """

    def __init__(
        self,
        path: Path,
        spec: SweepSpec,
        space: Space,
        records: Sequence[TrialRecord] = (),
        prior: Sequence[TrialRecord] = (),
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._search = spec.search
        self._goal: Goal = spec.metric.goal
        self._requirements = spec.requirements
        self._several = spec.metric.several
        self._space = space
        self._storage = _Storage(_Journal(path), math.inf if self._several else MAX_REST)
        goals = [objective.goal for objective in spec.metric.objectives]
        self._study = optuna.create_study(storage=self._storage, study_name=spec.name, directions=goals)
        self._study_id = self._storage.get_study_id_from_name(spec.name)
        with _quietly():
            self._study.set_metric_names([objective.name for objective in spec.metric.objectives])
        self._trials: dict[int, optuna.Trial] = {}
        self._parzen = ParzenSampler(
            seed=spec.search.seed,
            num_startup=spec.search.startup_trials,
            first=len(prior) + len(spec.baselines),
            guesses=guesses_of(space),
        )
        for record in (*prior, *records):
            self._restore(record.as_stopped())

    @property
    def states(self) -> list[str]:
        """Optuna's state of each trial, by number."""
        return [trial.state.name for trial in JournalStorage.get_all_trials(self._storage, self._study_id)]

    def suggest(self, number: int) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
        """Return the parameters of trial ``number``, and the quantiles behind those that have one."""
        self._study.sampler = self._sampler(number)
        trial = self._study.ask()
        self._begin(number, trial)
        params: dict[str, Scalar] = {}
        draws: dict[str, Scalar] = {}
        for parameter in self._space.parameters:
            if not self._space.is_active(parameter, params):
                continue
            domain = parameter.domain
            if isinstance(domain, Constant):
                params[parameter.name] = domain.value
                continue
            drawn = _suggest(trial, parameter.name, as_distribution(parameter))
            if takes_quantile(domain):
                draws[parameter.name] = drawn
            params[parameter.name] = from_sampler(domain, drawn)
        return params, draws

    def place(self, records: Sequence[TrialRecord]) -> None:
        """Show the sampler trials of other sweeps, best first; later calls change their scores alone."""
        if not self._storage.placed:
            self._storage.placed = [self._outsider(n, record) for n, record in enumerate(records, -len(records))]
        for trial, record in zip(self._storage.placed, records, strict=True):
            trial.value = record.last_score

    def _outsider(self, number: int, record: TrialRecord) -> FrozenTrial:
        """Return a trial that no journal has, before those of the study: of equal scores the better rank is first."""
        known = self._known(record.assignment)
        trial = optuna.trial.create_trial(
            state=_STATES[record.state],
            params={name: value for name, (value, _) in known.items()},
            distributions={name: distribution for name, (_, distribution) in known.items()},
            value=record.last_score,
        )
        trial.number = number
        return trial

    def enter(self, assignment: Assignment) -> None:
        """Enter a trial that Optuna did not propose: a baseline, a point of a grid, an unfinished trial."""
        trial_id = self._add(OptunaState.RUNNING, self._known(assignment))
        self._begin(assignment.number, optuna.Trial(self._study, trial_id))

    def hear_epoch(self, record: TrialRecord) -> None:
        """Report the trial's last epoch as an intermediate value."""
        self._report(record.number, record.epochs[-1])

    def hear_end(self, record: TrialRecord) -> None:
        """Tell the true state; the value of a COMPLETE trial is its best score."""
        trial = self._trials.pop(record.number)
        for key, attribute in self._attributes(record).items():
            trial.set_user_attr(key, attribute)
        best = record.best(self._goal) if record.state is TrialState.COMPLETE else None
        self._storage.running.pop(record.number, None)
        self._storage.waiting.pop(record.number, None)
        told = self._study.tell(trial, self._values(record, best), state=_STATES[record.state])
        self._show(told, record)

    def hear_pause(self, record: TrialRecord) -> None:
        """Let the sampler see a trial that waits as one that was stopped there; in the journal it runs."""
        paused = copy.copy(self._storage.get_trial(self._storage.running.pop(record.number)))
        paused.state = OptunaState.PRUNED
        if self._several:
            paused.values = self._values(record, record.epochs[-1])
        self._storage.waiting[record.number] = paused

    def hear_promotion(self, number: int) -> None:
        """Let the sampler see a trial as running again."""
        self._storage.running[number] = self._storage.waiting.pop(number)._trial_id

    def _restore(self, record: TrialRecord) -> None:
        if not record.state.is_finished:
            self.enter(record.assignment)
            for epoch in record.epochs:
                self._report(record.number, epoch)
            if record.state is TrialState.PAUSED:
                self.hear_pause(record)
            return
        seen = self._observe(record)
        trial_id = self._add(
            _STATES[record.state],
            self._known(record.assignment),
            **({"values": self._several_told(record)} if self._several else {"value": seen.score}),
            intermediate_values={epoch.epoch: epoch.score for epoch in record.epochs},
            user_attrs=self._attributes(record),
        )
        self._show(self._storage.get_trial(trial_id), record)

    def _report(self, number: int, epoch: EpochRecord) -> None:
        trial = self._trials[number]
        if self._several:  # what Optuna's own report refuses, its storage and its dashboard take
            self._storage.set_trial_intermediate_value(trial._trial_id, epoch.epoch, epoch.score)
        else:
            trial.report(epoch.score, epoch.epoch)

    def _values(self, record: TrialRecord, epoch: EpochRecord | None) -> list[float] | None:
        """Return the metrics after an epoch, as Optuna knows them."""
        if epoch is None:
            return None
        if not self._several:
            return [epoch.score]
        losses = record.losses_at(epoch, self._several)
        return [objective.value(loss) for objective, loss in zip(self._several, losses, strict=True)]

    def _several_told(self, record: TrialRecord) -> list[float] | None:
        """Return the values of a trial that ran to its end; of several metrics Optuna has no others."""
        return self._values(record, record.best(self._goal)) if record.state is TrialState.COMPLETE else None

    def _observe(self, record: TrialRecord) -> Observation:
        return observe(record, self._space, self._goal, self._requirements)

    def _add(self, state: OptunaState, known: _Known, **fields: Any) -> int:
        """Add a trial that Optuna did not propose, and return its id."""
        trial = optuna.trial.create_trial(
            state=state,
            params={name: value for name, (value, _) in known.items()},
            distributions={name: distribution for name, (_, distribution) in known.items()},
            **fields,
        )
        return int(self._storage.create_new_trial(self._study_id, template_trial=trial))

    def _begin(self, number: int, trial: optuna.Trial) -> None:
        self._trials[number] = trial
        self._storage.running[number] = trial._trial_id

    def _show(self, trial: FrozenTrial, record: TrialRecord) -> None:
        """Let the sampler see a finished trial, ranked as TPE does: complete ones, those stopped late, the worst."""
        seen = self._observe(record)
        sign = -1 if self._goal == "maximize" else 1
        if seen.outcome is Outcome.SCORED and seen.score is not None:
            self._storage.finished.add(trial.number, (0, 0, sign * seen.score), trial)
        elif seen.outcome is Outcome.STOPPED and seen.score is not None:
            if trial.state is OptunaState.COMPLETE:  # it breaks a requirement
                trial = copy.copy(trial)
                trial.state = OptunaState.PRUNED
            elif self._several:
                trial = copy.copy(trial)
                trial.values = self._values(record, record.epochs[-1])
            self._storage.finished.add(trial.number, (1, -(trial.last_step or 0), sign * seen.score), trial)
        elif seen.outcome is Outcome.WORST:
            worst = copy.copy(trial)  # Optuna's samplers skip FAIL; what was NaN before its first epoch ranks last
            worst.state, worst.values, worst.intermediate_values = OptunaState.PRUNED, None, {0: math.nan}
            self._storage.finished.add(trial.number, (2, 0, 0), worst)

    def _known(self, assignment: Assignment) -> _Known:
        values = values_of(assignment, self._space)
        return {name: (value, as_distribution(self._space[name])) for name, value in values.items()}

    def _attributes(self, record: TrialRecord) -> dict[str, Any]:
        """Return what optuna-dashboard shows beside the parameters: the reason, and values told as something else."""
        known = values_of(record.assignment, self._space)
        meant = {name: from_sampler(self._space[name].domain, value) for name, value in known.items()}
        shown = {name: value for name, value in meant.items() if not is_same(value, known[name])}
        return {**({"values": shown} if shown else {}), **({"reason": record.reason} if record.reason else {})}

    def _sampler(self, number: int) -> BaseSampler:
        search = self._search
        seed, startup = derive_seed(search.seed, "sampler", number), search.startup_trials
        with _quietly():
            match search.algorithm:
                case "tpe":
                    return self._parzen
                case "tpe-multivariate":
                    return TPESampler(
                        seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
                    )
                case "gp":
                    return GPSampler(seed=seed, n_startup_trials=startup)
                case "cmaes":
                    return CmaEsSampler(seed=seed, n_startup_trials=startup)
                case "qmc":
                    return QMCSampler(seed=search.seed, scramble=True, warn_independent_sampling=False)
                case _:
                    return RandomSampler(seed=seed)


class _Storage(JournalStorage):  # type: ignore[misc]
    """Shows Optuna a window of the finished trials and those that run, so that a proposal costs the same for ever."""

    def __init__(self, journal: BaseJournalBackend, max_rest: float) -> None:
        super().__init__(journal)
        self.finished: Window[FrozenTrial] = Window(max_rest)
        self.placed: list[FrozenTrial] = []
        """Trials of other sweeps, which no journal has."""
        self.running: dict[int, int] = {}
        """Trial number -> Optuna's id."""
        self.waiting: dict[int, FrozenTrial] = {}
        """Trial number -> the trial, as if it had been stopped where it waits."""

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        """Return what the sampler is to see, by number."""
        running = (self.get_trial(trial_id) for trial_id in self.running.values())
        shown = [*self.placed, *self.finished, *self.waiting.values(), *running]
        wanted = [trial for trial in shown if states is None or trial.state in states]
        return sorted(wanted, key=lambda trial: trial.number)


class _Journal(BaseJournalBackend):  # type: ignore[misc]
    """Optuna's journal file, written by this process alone.

    Unlike Optuna's own backend it takes no lock, waits for no disk and reads nothing back: the file is a view of the
    ledger, made again at every start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unread: list[str] = []
        self._num_read = 0

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write one line each."""
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in lines)
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise DiskFullError(f"{self._path}: {error.strerror}; free some space, then continue") from error
        self._unread += lines

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return what this process has written since it read last."""
        lines = self._unread[log_number_from - self._num_read :]
        self._num_read, self._unread = log_number_from + len(lines), []
        return [json.loads(line) for line in lines]


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out Optuna's warnings on features that it has called experimental for years; the version is pinned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


_CONFIDENCE = {"low": 0.5, "medium": 1.0, "high": 2.0}
"""Weight of a guess, in observations."""


def guesses_of(space: Space) -> dict[str, Guess]:
    """Return where the sweep file expects the best values (``prior:``), as the sampler knows them."""
    guesses = {}
    for parameter in space.parameters:
        if parameter.prior is not None and not isinstance(parameter.domain, Constant):
            known = to_sampler(parameter.domain, parameter.prior)
            place = place_of(as_distribution(parameter), known)
            guesses[parameter.name] = Guess(place, _CONFIDENCE[parameter.prior_confidence])
    return guesses


def as_distribution(parameter: Parameter) -> BaseDistribution:
    """Return what Optuna draws a parameter from: the value, its place in a list, or a quantile of it."""
    domain = parameter.domain
    if isinstance(domain, Categorical) and not takes_quantile(domain):
        return CategoricalDistribution(range(len(domain.values)))
    if isinstance(domain, Integer):
        return IntDistribution(domain.low, domain.high)
    if isinstance(domain, Real):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    assert takes_quantile(domain)
    return FloatDistribution(0.0, 1.0)


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Scalar:
    if isinstance(distribution, CategoricalDistribution):
        choice: Scalar = trial.suggest_categorical(name, distribution.choices)
        return choice
    if isinstance(distribution, IntDistribution):
        return int(trial.suggest_int(name, distribution.low, distribution.high))
    assert isinstance(distribution, FloatDistribution)
    return float(trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log))
