"""Proposals that broke a requirement before they were trained: how they count."""

from segbench.core.records import Assignment

MAX_REFUSED_SHARE = 10
"""At most so many times ``budget.trials`` refused configurations come on top of the budget."""


def num_on_top(num_refused: int, budget: int) -> int:
    """Return how many trials come on top of ``budget.trials`` for those that broke a requirement untrained."""
    return min(num_refused, MAX_REFUSED_SHARE * budget)


def is_refused_proposal(assignment: Assignment) -> bool:
    """Whether a trial was proposed by the search and broke a requirement untrained."""
    return assignment.origin == "search" and assignment.is_refused
