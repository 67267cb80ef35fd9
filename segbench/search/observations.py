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

from segbench.core.records import Assignment, Cause, Goal, Scalar, TrialRecord, TrialState
from segbench.spec.domains import Domain, is_number
from segbench.spec.space import Constant, Integer, Parameter, Real, Space, Transformed

_WORST = (Cause.NON_FINITE, Cause.MEMORY)
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
    """Stopped at a rung; its last score counts, behind those that came further."""
    WORST = "worst"
    """Diverged, or out of memory."""
    NONE = "none"
    """Says nothing of its configuration."""


@dataclass(frozen=True)
class Observation:
    """One trial as a sampler sees it."""

    values: Mapping[str, Scalar]
    """Of the active parameters that can be drawn; of transformed ones the quantile."""
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


def observe(record: TrialRecord, space: Space, goal: Goal) -> Observation:
    """Return what a sampler learns of a trial.

    Args:
        record: the trial; of an audited one what would have been known without the audit.
        space: the parameters.
        goal: direction of improvement.
    """
    outcome, score = _outcome(record, goal)
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
        return {p.name: fitted.draws.get(p.name, fitted.params[p.name]) for p in drawn}
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
        if isinstance(parameter.domain, Transformed):
            draws[parameter.name] = _quantile(assignment, parameter, value)
    return Fit(params, draws, is_clipped)


def count_fits(records: Sequence[TrialRecord], space: Space) -> FitCounts:
    """Return how many of a sweep's own drawn trials lie in ``space``."""
    fits = [fit(record.assignment, space) for record in records if record.assignment.origin == "search"]
    clipped = sum(found is not None and found.is_clipped for found in fits)
    dropped = sum(found is None for found in fits)
    return FitCounts(len(fits) - clipped - dropped, clipped, dropped)


def _quantile(assignment: Assignment, parameter: Parameter, value: Scalar) -> Scalar:
    """Return what a sampler draws for ``value``; of a transformed parameter the recorded quantile, if it holds."""
    domain = parameter.domain
    if not isinstance(domain, Transformed):
        return value
    drawn = assignment.draws.get(parameter.name)
    is_valid = isinstance(drawn, float) and domain.value(drawn) == value
    return drawn if is_valid else domain.position(value)  # type: ignore[arg-type]


def _clip(value: Scalar, domain: Domain) -> Scalar:
    """Return the bound that ``value`` is just beyond; None when it is too far away or no number."""
    if not isinstance(domain, Integer | Real) or not is_number(value):
        return None
    assert isinstance(value, int | float)
    if domain.log and value <= 0:
        return None
    low, high, at = (math.log(v) if domain.log else v for v in (domain.low, domain.high, value))
    margin = CLIP_SHARE * (high - low)
    if low - margin <= at < low:
        return domain.low
    if high < at <= high + margin:
        return domain.high
    return None


def _outcome(record: TrialRecord, goal: Goal) -> tuple[Outcome, float | None]:
    best = record.best(goal)
    match record.state:
        case TrialState.RUNNING:
            return Outcome.RUNNING, None
        case TrialState.COMPLETE if best is not None:
            return Outcome.SCORED, best.score
        case TrialState.PRUNED:
            return Outcome.STOPPED, record.last_score  # what Optuna itself registers for a pruned trial
        case TrialState.FAIL if record.cause in _WORST:
            return Outcome.WORST, None
        case _:
            return Outcome.NONE, None
