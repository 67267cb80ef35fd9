"""Optuna's study as a view of the ledger: the only place that imports optuna.

It is made again from the records at every start, so it cannot disagree with them, and it lies in Optuna's journal
format where ``optuna-dashboard`` opens it. The sampler of trial n is seeded by (sweep seed, n), so a restart
changes no proposal.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState as OptunaState

from segbench.records import Goal, Scalar, TrialRecord, TrialState
from segbench.seeding import derive_seed
from segbench.spec.schema import SweepSpec
from segbench.spec.space import Categorical, Constant, Integer, Parameter, Real, Space, Transformed

optuna.logging.set_verbosity(optuna.logging.ERROR)

_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAIL: OptunaState.FAIL,
}


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
        self._space = space
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name=spec.name,
            direction=spec.metric.goal,
        )
        with _quietly():
            self._study.set_metric_names([spec.metric.name])
        self._trials: dict[int, optuna.Trial] = {}
        for record in (*prior, *records):
            self._restore(record)

    @property
    def states(self) -> list[str]:
        """Optuna's state of each trial, by number."""
        return [trial.state.name for trial in self._study.get_trials(deepcopy=False)]

    def suggest(self, number: int) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
        """Return the parameters of trial ``number``, and the quantiles behind those that have one."""
        self._study.sampler = self._sampler(number)
        trial = self._study.ask()
        self._trials[number] = trial
        params: dict[str, Scalar] = {}
        draws: dict[str, Scalar] = {}
        for parameter in self._space.parameters:
            if not self._space.is_active(parameter, params):
                continue
            domain = parameter.domain
            if isinstance(domain, Constant):
                params[parameter.name] = domain.value
                continue
            drawn = _suggest(trial, parameter.name, _distribution(parameter))
            if isinstance(domain, Transformed):
                assert isinstance(drawn, float)
                draws[parameter.name] = drawn
                drawn = domain.value(drawn)
            params[parameter.name] = drawn
        return params, draws

    def enter(self, number: int, params: Mapping[str, Scalar], draws: Mapping[str, Scalar]) -> None:
        """Enter a trial with given parameters: a baseline, a point of a grid, an unfinished trial.

        Optuna is told those that lie in the space; a baseline may lie outside.
        """
        known = self._known(params, draws)
        self._study.enqueue_trial({name: value for name, (value, _) in known.items()})
        trial = self._study.ask()
        for name, (_, distribution) in known.items():
            _suggest(trial, name, distribution)
        self._trials[number] = trial

    def hear_epoch(self, record: TrialRecord) -> None:
        """Report the trial's last epoch as an intermediate value."""
        epoch = record.epochs[-1]
        self._trials[record.number].report(epoch.score, epoch.epoch)

    def hear_end(self, record: TrialRecord) -> None:
        """Tell the true state; the value of a COMPLETE trial is its best score."""
        trial = self._trials.pop(record.number)
        if record.reason:
            trial.set_user_attr("reason", record.reason)
        best = record.best(self._goal) if record.state is TrialState.COMPLETE else None
        self._study.tell(trial, best.score if best else None, state=_STATES[record.state])

    def _restore(self, record: TrialRecord) -> None:
        assignment = record.assignment
        if not record.state.is_finished:
            self.enter(record.number, assignment.params, assignment.draws)
            for epoch in record.epochs:
                self._trials[record.number].report(epoch.score, epoch.epoch)
            return
        known = self._known(assignment.params, assignment.draws)
        best = record.best(self._goal)
        value = None
        if record.state is TrialState.COMPLETE and best is not None:
            value = best.score
        elif record.state is TrialState.PRUNED:
            value = record.last_score  # what Optuna itself registers for a pruned trial
        self._study.add_trial(
            optuna.trial.create_trial(
                state=_STATES[record.state],
                value=value,
                params={name: value for name, (value, _) in known.items()},
                distributions={name: distribution for name, (_, distribution) in known.items()},
                intermediate_values={epoch.epoch: epoch.score for epoch in record.epochs},
                user_attrs={"reason": record.reason} if record.reason else {},
            )
        )

    def _known(
        self, params: Mapping[str, Scalar], draws: Mapping[str, Scalar]
    ) -> dict[str, tuple[Scalar, BaseDistribution]]:
        known: dict[str, tuple[Scalar, BaseDistribution]] = {}
        for parameter in self._space.parameters:
            name = parameter.name
            if isinstance(parameter.domain, Constant) or not self._space.is_active(parameter, params):
                continue
            if isinstance(parameter.domain, Transformed):
                if name in draws:
                    known[name] = (draws[name], _distribution(parameter))
            elif name in params and parameter.contains(params[name]):
                known[name] = (params[name], _distribution(parameter))
        return known

    def _sampler(self, number: int) -> BaseSampler:
        seed = derive_seed(self._search.seed, "sampler", number)
        if self._search.algorithm == "tpe":
            with _quietly():
                return TPESampler(
                    seed=seed,
                    n_startup_trials=self._search.startup_trials,
                    multivariate=True,
                    group=True,
                    constant_liar=True,
                )
        return RandomSampler(seed=seed)


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out Optuna's warnings on features that it has called experimental for years; the version is pinned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _distribution(parameter: Parameter) -> BaseDistribution:
    domain = parameter.domain
    if isinstance(domain, Categorical):
        return CategoricalDistribution(domain.values)
    if isinstance(domain, Integer):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, Real):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    assert isinstance(domain, Transformed)
    return FloatDistribution(0.0, 1.0)


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Scalar:
    if isinstance(distribution, CategoricalDistribution):
        choice: Scalar = trial.suggest_categorical(name, distribution.choices)
        return choice
    if isinstance(distribution, IntDistribution):
        return int(
            trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log, step=distribution.step)
        )
    assert isinstance(distribution, FloatDistribution)
    return float(trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log))
