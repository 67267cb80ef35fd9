"""What a sampler learns of a trial, whoever made it: drawn, a baseline, a point of a grid, restored, of an older sweep.

An observation has the values of *every* active parameter, those that a baseline did not name included: they are in its
resolved configuration. A trial that was drawn before ``parameters:`` became what it is now counts where it lies in the
space, or hardly beyond its bounds. A trial that diverged or needed more memory than there is was a result, the worst;
one that fell to a fault of the machines was none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from segbench.core.objectives import Requirement
from segbench.core.records import Assignment, Cause, Goal, Scalar, TrialRecord, TrialState
from segbench.spec.domains import Domain, is_number, is_same
from segbench.spec.space import Categorical, Constant, Integer, Parameter, Real, Space, Transformed

_WORST = (Cause.NON_FINITE, Cause.MEMORY, Cause.REQUIREMENT)
"""Failures that are the configuration's own."""

CLIP_SHARE = 0.1
"""A number beyond a range by at most this share of its width counts as the bound."""


class Outcome(Enum):
    """How a trial counts for the sampler."""

    RUNNING = "running"
    """Expected to be no better than the others until it has ended."""
    SCORED = "scored"
    """Ran to its end; its best score counts."""
    STOPPED = "stopped"
    """Stopped at a rung, or waits there; its last score counts, behind those that came further."""
    WORST = "worst"
    """Diverged, out of memory, or never trained because its model breaks a requirement."""
    NONE = "none"
    """Says nothing of its configuration."""


@dataclass(frozen=True)
class Observation:
    """One trial as a sampler sees it."""

    values: Mapping[str, Scalar]
    """Of the active parameters that can be drawn, as the sampler knows them (:func:`to_sampler`)."""
    outcome: Outcome
    score: float | None
    epoch: int
    """Epochs that the score took, or that the trial reached."""


@dataclass(frozen=True)
class Fit:
    """A trial in terms of a space that it may not have been drawn from."""

    params: Mapping[str, Scalar]
    """Of every active parameter."""
    draws: Mapping[str, Scalar]
    """Quantiles of the transformed ones."""
    is_clipped: bool


@dataclass(frozen=True)
class FitCounts:
    """How many trials lie in a space."""

    kept: int = 0
    clipped: int = 0
    dropped: int = 0

    def describe(self) -> str:
        """Return one line."""
        return f"{self.kept} trials kept, {self.clipped} clipped, {self.dropped} dropped"


def observe(record: TrialRecord, space: Space, goal: Goal, requirements: Sequence[Requirement] = ()) -> Observation:
    """Return what a sampler learns of a trial.

    Args:
        record: the trial; of an audited one what would have been known without the audit.
        space: the parameters.
        goal: direction of improvement.
        requirements: of the sweep; a trial whose best epoch breaks one counts as if it had been stopped at its end,
            behind those that meet them.
    """
    outcome, score = _outcome(record, goal)
    if outcome is Outcome.SCORED and record.broken_requirement(goal, requirements) is not None:
        outcome = Outcome.STOPPED
    is_drawn = record.assignment.origin == "search"
    if is_drawn and record.state.is_finished and fit(record.assignment, space) is None:
        outcome = Outcome.NONE  # drawn from the space as it was before
    return Observation(values_of(record.assignment, space), outcome, score, record.epochs_done)


def values_of(assignment: Assignment, space: Space) -> dict[str, Scalar]:
    """Return the value of every active parameter that can be drawn, as the sampler knows it.

    What the trial was not given comes from its complete configuration. A value outside the space, which a baseline may
    have, is left out.
    """
    fitted = fit(assignment, space) if assignment.origin == "search" else None
    if fitted is not None:
        drawn = (p for p in space.parameters if p.name in fitted.params and not isinstance(p.domain, Constant))
        return {p.name: fitted.draws.get(p.name, to_sampler(p.domain, fitted.params[p.name])) for p in drawn}
    had = {**assignment.config, **assignment.params}
    seen: dict[str, Scalar] = {}
    values: dict[str, Scalar] = {}
    for parameter in space.parameters:
        name, domain = parameter.name, parameter.domain
        if name not in had or not space.is_active(parameter, seen):
            continue
        seen[name] = had[name]
        if isinstance(domain, Constant):
            continue
        if parameter.contains(had[name]):
            values[name] = _quantile(assignment, parameter, had[name])
    return values


def fit(assignment: Assignment, space: Space) -> Fit | None:
    """Return a trial in terms of ``space``; None where it does not lie in it.

    The rule, for each parameter that is active in the space, with the value that the trial had (drawn or fixed):

    - a value that can be drawn is kept;
    - a number beyond a range by at most a tenth of its width (in the logarithm for log ranges) is clipped to the bound;
    - anything else drops the trial.
    """
    had: Mapping[str, Scalar] = {**assignment.config, **assignment.params}
    params: dict[str, Scalar] = {}
    draws: dict[str, Scalar] = {}
    is_clipped = False
    for parameter in space.parameters:
        if not space.is_active(parameter, params):
            continue
        if parameter.name not in had:
            return None
        value = had[parameter.name]
        if not parameter.contains(value):
            clipped = _clip(value, parameter.domain)
            if clipped is None:
                return None
            value, is_clipped = clipped, True
        params[parameter.name] = value
        if takes_quantile(parameter.domain):
            draws[parameter.name] = _quantile(assignment, parameter, value)
    return Fit(params, draws, is_clipped)


def count_fits(records: Sequence[TrialRecord], space: Space) -> FitCounts:
    """Return how many of a sweep's own drawn trials lie in ``space``."""
    fits = [fit(record.assignment, space) for record in records if record.assignment.origin == "search"]
    clipped = sum(found is not None and found.is_clipped for found in fits)
    dropped = sum(found is None for found in fits)
    return FitCounts(len(fits) - clipped - dropped, clipped, dropped)


def takes_quantile(domain: Domain) -> bool:
    """Whether the sampler draws a number from 0 to 1 that stands for the value, because it lacks the distribution."""
    return isinstance(domain, Transformed) or (isinstance(domain, Categorical) and domain.probabilities is not None)


def to_sampler(domain: Domain, value: Scalar) -> Scalar:
    """Return what the sampler knows a value by: its quantile, its place in the list, or itself.

    A place tells 1 from true, which Optuna takes for one category.
    """
    if takes_quantile(domain):
        return domain.position(value)  # type: ignore[arg-type]
    return domain.index(value) if isinstance(domain, Categorical) else value


def from_sampler(domain: Domain, drawn: Scalar) -> Scalar:
    """Return the value that the sampler meant, the inverse of :func:`to_sampler`."""
    if takes_quantile(domain):
        assert isinstance(drawn, float)
        return domain.value_at(drawn)
    if isinstance(domain, Categorical):
        assert isinstance(drawn, int)
        return domain.values[drawn]
    return drawn


def _quantile(assignment: Assignment, parameter: Parameter, value: Scalar) -> Scalar:
    """Return what a sampler draws for ``value``: of one that it draws by quantile the recorded one, if it holds."""
    domain = parameter.domain
    drawn = assignment.draws.get(parameter.name)
    if takes_quantile(domain) and isinstance(drawn, float) and is_same(from_sampler(domain, drawn), value):
        return drawn
    return to_sampler(domain, value)


def _clip(value: Scalar, domain: Domain) -> Scalar:
    """Return the bound that ``value`` is just beyond; None when it is too far away or no number."""
    base = domain.base if isinstance(domain, Transformed) else domain
    if not isinstance(base, Integer | Real) or not is_number(value):
        return None
    assert isinstance(value, int | float)
    is_log = isinstance(base, Real) and base.log
    if is_log and value <= 0:
        return None
    low, high, at = (math.log(v) if is_log else v for v in (base.low, base.high, value))
    margin = CLIP_SHARE * (high - low)
    if low - margin <= at < low:
        return domain.probes()[0]
    if high < at <= high + margin:
        return domain.probes()[-1]
    return None


def _outcome(record: TrialRecord, goal: Goal) -> tuple[Outcome, float | None]:
    best = record.best(goal)
    match record.state:
        case TrialState.RUNNING:
            return Outcome.RUNNING, None
        case TrialState.COMPLETE if best is not None:
            return Outcome.SCORED, best.score
        case TrialState.PRUNED | TrialState.PAUSED:
            return Outcome.STOPPED, record.last_score  # what Optuna itself registers for a pruned trial
        case TrialState.FAIL if record.cause in _WORST:
            return Outcome.WORST, None
        case _:
            return Outcome.NONE, None
