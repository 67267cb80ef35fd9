"""Asynchronous successive halving: which trial stops at which rung.

ASHA (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020), in the stopping form that
Ray uses: a trial that reaches a rung goes on if it is among the best 1/eta of those that have reached it so far.
Here eta is ``reduction_factor``, the rung's resource is a number of epochs.

A trial's score at a rung is the best it has had up to there, because the best epoch is what is kept of a trial.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence

from segbench.core.records import EpochRecord, Goal, TrialRecord, best_epoch


def passes_rung(score: float, others: Iterable[float], reduction_factor: int, goal: Goal) -> bool:
    """Whether a trial with ``score`` goes on, given the scores of the other trials at the rung.

    It does when fewer than ``max(1, n // reduction_factor)`` of the ``n`` trials at the rung, itself included,
    are strictly better. So the first one passes, ties pass, and the answer does not depend on the order of
    ``others``.
    """
    scores = list(others)
    better = sum(other > score if goal == "maximize" else other < score for other in scores)
    return is_among_best(better, len(scores) + 1, reduction_factor)


def is_among_best(num_better: int, num_trials: int, reduction_factor: int) -> bool:
    """Whether a trial goes on when ``num_better`` of the ``num_trials`` at its rung, itself included, are better."""
    return num_better < max(1, num_trials // reduction_factor)


def rung_scores(records: Iterable[TrialRecord], rung: int, goal: Goal) -> dict[int, float]:
    """Return trial number -> score of the trials that have reached ``rung`` with a finite score.

    An audited trial has reached none after the one at which it would have been stopped.
    """
    scores = {}
    for record in records:
        score = score_at(record.as_stopped().epochs, rung, goal)
        if score is not None:
            scores[record.number] = score
    return scores


def score_at(epochs: Sequence[EpochRecord], rung: int, goal: Goal) -> float | None:
    """Return the best finite score up to the first report at or past epoch ``rung``; None if there is none."""
    reached = next((epoch.epoch for epoch in epochs if epoch.epoch >= rung), None)
    if reached is None:
        return None
    best = best_epoch([epoch for epoch in epochs if epoch.epoch <= reached], goal)
    return None if best is None else best.score


class Rungs:
    """The contents of all rungs, grown one report at a time; an answer takes a search in a sorted list.

    Only a cache of :func:`rung_scores`: built again from the ledger's records at a restart.

    Args:
        epochs: the rungs, ascending.
        reduction_factor: one in so many passes, at least 2.
        goal: direction of improvement.
        records: trials that have reported before.
    """

    def __init__(
        self, epochs: Sequence[int], reduction_factor: int, goal: Goal, records: Iterable[TrialRecord] = ()
    ) -> None:
        known = list(records)
        self._reduction_factor = reduction_factor
        self._goal: Goal = goal
        self._scores = {rung: rung_scores(known, rung, goal) for rung in epochs}
        self._sorted = {rung: sorted(scores.values()) for rung, scores in self._scores.items()}

    @property
    def scores(self) -> Mapping[int, Mapping[int, float]]:
        """Rung -> trial number -> score."""
        return self._scores

    def enter(self, record: TrialRecord) -> None:
        """Enter the trial into the rungs that its last report has reached; again changes nothing.

        One whose score is NaN there enters too, with the best that it had: what a rung holds depends on what was
        reported alone, so that it is the same after a restart.
        """
        for rung in self._reached(record):
            score = score_at(record.epochs, rung, self._goal)
            if score is None:
                continue
            before = self._scores[rung].get(record.number)
            if before is not None:
                del self._sorted[rung][bisect_left(self._sorted[rung], before)]
            self._scores[rung][record.number] = score
            insort(self._sorted[rung], score)

    def passes(self, record: TrialRecord) -> bool:
        """Whether a trial that was entered goes on after its last report.

        Asking twice gives the same answer as long as no other trial has reported in between.
        """
        return all(self._passes_rung(record.number, rung) for rung in self._reached(record))

    def _passes_rung(self, number: int, rung: int) -> bool:
        score, ascending = self._scores[rung].get(number), self._sorted[rung]
        if score is None:
            return True
        maximize = self._goal == "maximize"
        num_better = len(ascending) - bisect_right(ascending, score) if maximize else bisect_left(ascending, score)
        return is_among_best(num_better, len(ascending), self._reduction_factor)

    def _reached(self, record: TrialRecord) -> list[int]:
        """Return the rungs that the last report is the first to reach."""
        before = record.epochs[-2].epoch if len(record.epochs) > 1 else 0
        return [rung for rung in self._scores if before < rung <= record.epochs_done]
