"""Which configurations stand on the leaderboard, and in which order: pure functions of the records."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from segbench.core.records import Goal, TrialRecord, TrialState
from segbench.final.selection import rank_trials


@dataclass(frozen=True)
class Finalist:
    """A row of the leaderboard before it is printed: one configuration and all that was done with it."""

    search: TrialRecord
    retrain: tuple[TrialRecord, ...] = ()
    """One per seed, by number; empty when nothing is retrained."""
    test: tuple[TrialRecord, ...] = ()
    """Tests of these retrainings, by number."""

    @property
    def name(self) -> str:
        """Name of the search trial or baseline."""
        return self.search.assignment.name

    @property
    def finished(self) -> tuple[TrialRecord, ...]:
        """Seeds that ran to their end without an error."""
        good = (TrialState.COMPLETE, TrialState.PRUNED)
        return tuple(record for record in self.retrain if record.state in good)

    def search_score(self, goal: Goal) -> float | None:
        """Best score of the search trial."""
        return _best_score(self.search, goal)

    def scores(self, goal: Goal) -> list[float]:
        """Best validation score of each finished seed; empty when there is no validation split."""
        scores = (_best_score(record, goal) for record in self.finished)
        return [score for score in scores if score is not None]

    def score(self, goal: Goal) -> float | None:
        """Mean best validation score over finished seeds; the search's score where there is none."""
        scores = self.scores(goal)
        return mean(scores) if scores else self.search_score(goal)

    def best_seed(self, goal: Goal) -> TrialRecord | None:
        """Return the finished seed with the best score; the first finished one where there are no scores."""
        sign = 1 if goal == "maximize" else -1

        def key(record: TrialRecord) -> tuple[float, int]:
            score = _best_score(record, goal)
            return (-math.inf if score is None else sign * score, -record.number)

        return max(self.finished, key=key, default=None)


def rank_finalists(
    search: Sequence[TrialRecord], retrain: Sequence[TrialRecord], test: Sequence[TrialRecord], goal: Goal
) -> list[Finalist]:
    """Return the rows of the leaderboard, best first; ties keep the order of trial numbers.

    Retrained configurations are ranked by the mean validation score over finished seeds, by the search score
    where there is none (``retrain.data: train+val``); those without a finished seed come last. Test scores
    have no influence. When nothing was retrained, all search trials are ranked as for the selection of finalists.
    """
    if not retrain:
        return [Finalist(record) for record in rank_trials(search, goal)]
    by_number = {record.number: record for record in search}
    sources = {record.assignment.source for record in retrain}
    rows = []
    for number in sorted(source for source in sources if source is not None):
        seeds = tuple(record for record in retrain if record.assignment.source == number)
        numbers = {record.number for record in seeds}
        tests = tuple(record for record in test if record.assignment.source in numbers)
        rows.append(Finalist(by_number[number], seeds, tests))
    return sorted(rows, key=lambda row: _finalist_key(row, goal))


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean; None for no values."""
    return statistics.fmean(values) if values else None


def sample_std(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (ddof=1); None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def _finalist_key(row: Finalist, goal: Goal) -> tuple[bool, float, float, int]:
    seeds, search = mean(row.scores(goal)), row.search_score(goal)
    return (not row.finished, _descending(seeds, goal), _descending(search, goal), row.search.number)


def _descending(score: float | None, goal: Goal) -> float:
    """Return a key that sorts better scores first and missing ones last."""
    if score is None:
        return math.inf
    return -score if goal == "maximize" else score


def _best_score(record: TrialRecord, goal: Goal) -> float | None:
    best = record.best(goal)
    return None if best is None else best.score
