"""What a sampler learns of a trial, whoever made it: drawn, a baseline, a point of a grid, restored, of an older sweep.

An observation has the values of *every* active parameter, those that a baseline did not name included: they are in its
resolved configuration. A trial that diverged or needed more memory than there is was a result, the worst; one that fell
to a fault of the machines was none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from segbench.core.records import Assignment, Cause, Goal, Scalar, TrialRecord, TrialState
from segbench.spec.space import Constant, Space, Transformed

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
    """Of the active parameters that can be drawn; of transformed ones the quantile."""
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
        if isinstance(domain, Transformed) and name in assignment.draws:
            values[name] = assignment.draws[name]
        elif parameter.contains(had[name]):
            values[name] = domain.position(had[name]) if isinstance(domain, Transformed) else had[name]
    return values


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
