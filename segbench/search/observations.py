"""What a sampler learns of a trial, whoever made it: drawn, a baseline, a point of a grid, restored, of an older sweep.

An observation has the values of *every* active parameter, those that a baseline did not name included: they are in its
resolved configuration. A trial that diverged or needed more memory than there is was a result, the worst; one that fell
to a fault of the machines was none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from segbench.core.records import Assignment, Cause, Goal, Scalar, TrialRecord, TrialState
from segbench.spec.space import Categorical, Constant, Domain, Space, Transformed

_WORST = (Cause.NON_FINITE, Cause.MEMORY)
"""Failures that are the configuration's own."""


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
    """Of the active parameters that can be drawn, as the sampler knows them (:func:`to_sampler`)."""
    outcome: Outcome
    score: float | None
    epoch: int
    """Epochs that the score took, or that the trial reached."""


def observe(record: TrialRecord, space: Space, goal: Goal) -> Observation:
    """Return what a sampler learns of a trial.

    Args:
        record: the trial; of an audited one what would have been known without the audit.
        space: the parameters.
        goal: direction of improvement.
    """
    outcome, score = _outcome(record, goal)
    return Observation(values_of(record.assignment, space), outcome, score, record.epochs_done)


def values_of(assignment: Assignment, space: Space) -> dict[str, Scalar]:
    """Return the value of every active parameter that can be drawn, as the sampler knows it.

    What the trial was not given comes from its complete configuration. A value outside the space, which a baseline may
    have, is left out.
    """
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
        if takes_quantile(domain) and name in assignment.draws:
            values[name] = assignment.draws[name]
        elif parameter.contains(had[name]):
            values[name] = to_sampler(domain, had[name])
    return values


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
