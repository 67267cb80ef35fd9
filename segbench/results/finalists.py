"""Which configurations stand on the leaderboard, and in which order: pure functions of the records."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from segbench.core.ledger import Records
from segbench.core.objectives import Objective, Requirement, violation
from segbench.core.records import Goal, TrialRecord, TrialState
from segbench.final.selection import rank_trials
from segbench.search.pareto import front_of


@dataclass(frozen=True)
class Finalist:
    """A row of the leaderboard before it is printed: one configuration and all that was done with it."""

    search: TrialRecord
    retrain: tuple[TrialRecord, ...] = ()
    """One per seed, by number; empty when nothing is retrained."""
    test: tuple[TrialRecord, ...] = ()
    """Tests of these retrainings, by number."""
    goal: Goal = "maximize"
    """Direction of improvement of the scores."""
    requirements: Sequence[Requirement] = ()
    """Of the sweep."""

    @property
    def name(self) -> str:
        """Name of the search trial or baseline."""
        return self.search.assignment.name

    @property
    def finished(self) -> tuple[TrialRecord, ...]:
        """Seeds that ran to their end without an error."""
        good = (TrialState.COMPLETE, TrialState.PRUNED)
        return tuple(record for record in self.retrain if record.state in good)

    @property
    def search_score(self) -> float | None:
        """Best score of the search trial."""
        return _best_score(self.search, self.goal)

    @property
    def scores(self) -> list[float]:
        """Best validation score of each finished seed; empty when there is no validation split."""
        scores = (_best_score(record, self.goal) for record in self.finished)
        return [score for score in scores if score is not None]

    @property
    def score(self) -> float | None:
        """Mean best validation score over finished seeds; the search's score where there is none."""
        return mean(self.scores) if self.scores else self.search_score

    @property
    def is_whole(self) -> bool:
        """Whether a training of full length has ended: a seed, or the search trial."""
        return bool(self.finished) or self.search.state is TrialState.COMPLETE

    @property
    def broken_requirement(self) -> str | None:
        """The first requirement that the row breaks, as a sentence: of the means over finished seeds' best epochs."""
        if not self.requirements or self.score is None:
            return None
        return violation(self.requirements, self._means([requirement.metric for requirement in self.requirements]))

    def losses(self, objectives: Sequence[Objective]) -> tuple[float, ...]:
        """Return what is to be minimised of several metrics: of the score, then of costs or means over seeds."""
        first, *others = objectives
        means = self._means([other.name for other in others])
        return (first.loss(self.score), *(other.loss(means.get(other.name)) for other in others))

    def _means(self, metrics: Sequence[str]) -> dict[str, object]:
        """Return what the model costs, and means of metrics over finished seeds' best epochs, where all have them."""
        means: dict[str, object] = dict(self.search.assignment.costs)
        epochs = [best for record in self.finished or (self.search,) if (best := record.best(self.goal)) is not None]
        for metric in metrics:
            values = [epoch.metrics.get(metric) for epoch in epochs]
            numbers = [float(value) for value in values if isinstance(value, int | float)]
            if metric not in means and len(numbers) == len(epochs):
                means[metric] = mean(numbers)
        return means

    @property
    def best_seed(self) -> TrialRecord | None:
        """The finished seed with the best score; the first finished one where there are no scores."""
        sign = 1 if self.goal == "maximize" else -1

        def key(record: TrialRecord) -> tuple[float, int]:
            score = _best_score(record, self.goal)
            return (-math.inf if score is None else sign * score, -record.number)

        return max(self.finished, key=key, default=None)


def rank_finalists(records: Records) -> list[Finalist]:
    """Return the rows of the leaderboard, best first; ties keep the order of trial numbers.

    Retrained configurations are ranked by the mean validation score over finished seeds, by the search score
    where there is none (``retrain.data: train+val``); those that break a requirement come behind those that do not,
    those without a finished seed last. Test scores have no influence. When nothing was retrained, all search trials
    are ranked as for the selection of finalists.
    """
    goal = records.goal
    if not records.retrain:
        ranked = rank_trials(records.search, goal, records.requirements)
        return [Finalist(record, goal=goal, requirements=records.requirements) for record in ranked]
    by_number = {record.number: record for record in records.search}
    sources = {record.assignment.source for record in records.retrain}
    rows = []
    for number in sorted(source for source in sources if source is not None):
        seeds = tuple(record for record in records.retrain if record.assignment.source == number)
        numbers = {record.number for record in seeds}
        tests = tuple(record for record in records.test if record.assignment.source in numbers)
        rows.append(Finalist(by_number[number], seeds, tests, goal, records.requirements))
    return sorted(rows, key=_finalist_key)


def rows_on_front(rows: Sequence[Finalist], objectives: Sequence[Objective]) -> list[bool]:
    """Return of each row whether none dominates it, of those that ran to their end and meet the requirements."""
    if not objectives:
        return [False] * len(rows)
    able = [row.is_whole and row.score is not None and row.broken_requirement is None for row in rows]
    losses = [row.losses(objectives) for row, is_able in zip(rows, able, strict=True) if is_able]
    found = iter(front_of(losses))
    return [is_able and next(found) for is_able in able]


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean; None for no values."""
    return statistics.fmean(values) if values else None


def sample_std(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (ddof=1); None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def _finalist_key(row: Finalist) -> tuple[bool, bool, float, float, int]:
    seeds, search = mean(row.scores), row.search_score
    is_broken = row.broken_requirement is not None
    return (not row.finished, is_broken, _descending(seeds, row.goal), _descending(search, row.goal), row.search.number)


def _descending(score: float | None, goal: Goal) -> float:
    """Return a key that sorts better scores first and missing ones last."""
    if score is None:
        return math.inf
    return -score if goal == "maximize" else score


def _best_score(record: TrialRecord, goal: Goal) -> float | None:
    best = record.best(goal)
    return None if best is None else best.score
