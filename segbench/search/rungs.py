"""Which trial stops, which waits, which goes on: rules over (trial, epoch, score), none of which has a memory.

Asynchronous successive halving compares trials at *rungs*.

ASHA (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020), in the stopping form that
Ray uses: a trial that reaches a rung goes on if it is among the best 1/eta of those that have reached it so far.
Here eta is ``reduction_factor``, the rung's resource is a number of epochs.

A trial's score at a rung is the best it has had up to there, because the best epoch is what is kept of a trial.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Protocol

from segbench.core.objectives import Objective
from segbench.core.records import EpochRecord, Goal, TrialRecord, best_epoch
from segbench.core.seeding import derive_seed
from segbench.search.pareto import places
from segbench.spec.schema import Scheduler


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
    best = best_at(epochs, rung, goal)
    return None if best is None else best.score


def best_at(epochs: Sequence[EpochRecord], rung: int, goal: Goal) -> EpochRecord | None:
    """Return the epoch with the best finite score up to the first report at or past ``rung``; None if there is none."""
    reached = next((epoch.epoch for epoch in epochs if epoch.epoch >= rung), None)
    return None if reached is None else best_epoch([epoch for epoch in epochs if epoch.epoch <= reached], goal)


class Stopper(Protocol):
    """A rule of early stopping: what it answers depends on what was reported alone, so a restart changes nothing."""

    pauses: bool
    """Whether a trial that does not pass waits for its promotion, instead of being stopped."""

    def enter(self, record: TrialRecord) -> None:
        """Take in the trial's last report; again changes nothing."""
        ...

    def passes(self, record: TrialRecord) -> bool:
        """Whether a trial that was entered goes on after its last report."""
        ...

    def promoted(self, waiting: Sequence[TrialRecord]) -> int | None:
        """Return the number of the waiting trial that is to go on now; None when none deserves it yet."""
        ...


class Board:
    """Scores of trials at given epochs, grown one report at a time; a rank takes a search in a sorted list."""

    def __init__(self, epochs: Sequence[int], goal: Goal) -> None:
        self._goal: Goal = goal
        self._scores: dict[int, dict[int, float]] = {epoch: {} for epoch in epochs}
        self._sorted: dict[int, list[float]] = {epoch: [] for epoch in epochs}

    @property
    def scores(self) -> Mapping[int, Mapping[int, float]]:
        """Epoch -> trial number -> score."""
        return self._scores

    def put(self, epoch: int, number: int, score: float, losses: tuple[float, ...] = ()) -> None:
        """Set a trial's score, in place of what it had; ``losses`` are of all metrics, where there are several."""
        scores, ascending = self._scores[epoch], self._sorted[epoch]
        if number in scores:
            del ascending[bisect_left(ascending, scores[number])]
        scores[number] = score
        insort(ascending, score)

    def count(self, epoch: int) -> int:
        """Return how many trials have a score."""
        return len(self._sorted[epoch])

    def num_better(self, epoch: int, number: int) -> int:
        """Return how many trials are strictly better than one that has a score."""
        ascending, score = self._sorted[epoch], self._scores[epoch][number]
        is_max = self._goal == "maximize"
        return len(ascending) - bisect_right(ascending, score) if is_max else bisect_left(ascending, score)


class FrontBoard(Board):
    """Several metrics at given epochs: a trial is better by the front that it is on, and there by having more room.

    As Schmucker et al., "Multi-objective Asynchronous Successive Halving" (arXiv:2106.12639, 2021), promote: by
    non-dominated sorting, ties broken within a front.
    """

    def __init__(self, epochs: Sequence[int], goal: Goal) -> None:
        super().__init__(epochs, goal)
        self._losses: dict[int, dict[int, tuple[float, ...]]] = {epoch: {} for epoch in epochs}
        self._places: dict[int, dict[int, int]] = {}

    def put(self, epoch: int, number: int, score: float, losses: tuple[float, ...] = ()) -> None:
        """Set a trial's losses, in place of what it had."""
        super().put(epoch, number, score)
        if self._losses[epoch].get(number) != losses:
            self._losses[epoch][number] = losses
            self._places.pop(epoch, None)

    def num_better(self, epoch: int, number: int) -> int:
        """Return how many trials are strictly better than one that has a score."""
        if epoch not in self._places:
            losses = self._losses[epoch]
            self._places[epoch] = dict(zip(losses, places(list(losses.values())), strict=True))
        return self._places[epoch][number]


class Rungs:
    """Asynchronous successive halving that stops: a :class:`Stopper`.

    The contents of the rungs are only a cache of :func:`rung_scores`: built again from the ledger's records at a
    restart.

    Args:
        epochs: the rungs, ascending.
        reduction_factor: one in so many passes, at least 2.
        goal: direction of improvement.
        records: trials that have reported before.
        objectives: all metrics, where there are several: then a trial is compared by non-dominated rank.
    """

    pauses = False

    def __init__(
        self,
        epochs: Sequence[int],
        reduction_factor: int,
        goal: Goal,
        records: Iterable[TrialRecord] = (),
        objectives: Sequence[Objective] = (),
    ) -> None:
        self._reduction_factor = reduction_factor
        self._goal: Goal = goal
        self._objectives = objectives
        self._board = FrontBoard(epochs, goal) if objectives else Board(epochs, goal)
        for record in records:
            for rung in epochs:
                self._put(rung, record.as_stopped())

    @property
    def scores(self) -> Mapping[int, Mapping[int, float]]:
        """Rung -> trial number -> score."""
        return self._board.scores

    def enter(self, record: TrialRecord) -> None:
        """Enter the trial into the rungs that its last report has reached; again changes nothing.

        One whose score is NaN there enters too, with the best that it had: what a rung holds depends on what was
        reported alone, so that it is the same after a restart.
        """
        for rung in self._reached(record):
            self._put(rung, record)

    def passes(self, record: TrialRecord) -> bool:
        """Whether a trial that was entered goes on after its last report.

        Asking twice gives the same answer as long as no other trial has reported in between.
        """
        return all(self._passes_rung(record.number, rung) for rung in self._reached(record))

    def promoted(self, waiting: Sequence[TrialRecord]) -> int | None:
        """Return None: nothing waits."""
        return None

    def _passes_rung(self, number: int, rung: int) -> bool:
        if number not in self.scores[rung]:
            return True
        return is_among_best(self._board.num_better(rung, number), self._board.count(rung), self._reduction_factor)

    def _put(self, rung: int, record: TrialRecord) -> None:
        best = best_at(record.epochs, rung, self._goal)
        if best is not None:
            losses = record.losses_at(best, self._objectives) if self._objectives else ()
            self._board.put(rung, record.number, best.score, losses)

    def _reached(self, record: TrialRecord) -> list[int]:
        """Return the rungs that the last report is the first to reach."""
        before = record.epochs[-2].epoch if len(record.epochs) > 1 else 0
        return [rung for rung in self.scores if before < rung <= record.epochs_done]


class Promotion(Rungs):
    """Asynchronous successive halving as in the paper: a trial waits at a rung until it is among the best 1/eta.

    So none is judged by the few that came before it. A trial that is among them as it arrives goes on at once.

    Args:
        epochs: the rungs, ascending.
        reduction_factor: one in so many is promoted, at least 2.
        goal: direction of improvement.
        records: trials that have reported before.
        is_progressive: as in PASHA (Bohdal et al., ICLR 2023), nothing is promoted past the second rung, or past a
            rung whose trials stand in the same order as at the rung before: then more epochs would tell nothing new.
        objectives: as of :class:`Rungs`.
    """

    pauses = True

    def __init__(
        self,
        epochs: Sequence[int],
        reduction_factor: int,
        goal: Goal,
        records: Iterable[TrialRecord] = (),
        is_progressive: bool = False,
        objectives: Sequence[Objective] = (),
    ) -> None:
        super().__init__(epochs, reduction_factor, goal, records, objectives)
        self._is_progressive = is_progressive

    def promoted(self, waiting: Sequence[TrialRecord]) -> int | None:
        """Return the best of the trials that wait at the highest rung where one deserves to go on."""
        rungs = list(self.scores)
        there: dict[int, list[int]] = {rung: [] for rung in rungs}
        for record in waiting:
            rung = rungs[bisect_right(rungs, record.epochs_done) - 1]
            if record.number in self.scores[rung]:
                there[rung].append(record.number)
        for rung in reversed(rungs):
            best = next(iter(self._in_order(there[rung], rung)), None)
            if best is not None and self._passes_rung(best, rung):
                return best
        return None

    def _passes_rung(self, number: int, rung: int) -> bool:
        if number not in self.scores[rung]:
            return True
        if self._is_progressive and rung >= self._last_useful_rung():
            return False
        return self._board.num_better(rung, number) < self._board.count(rung) // self._reduction_factor

    def _last_useful_rung(self) -> int:
        """Return the first rung, from the second, whose trials stand in the order that they had at the one before."""
        rungs = sorted(self.scores)
        for before, rung in pairwise(rungs):
            there = list(self.scores[rung])
            if len(there) < 2 or self._in_order(there, before) == self._in_order(there, rung):
                return rung
        return rungs[-1] + 1 if rungs else 0

    def _in_order(self, numbers: Iterable[int], rung: int) -> list[int]:
        """Return trials as they stand at a rung, best first."""
        return sorted(numbers, key=lambda number: (self._board.num_better(rung, number), number))


class Brackets:
    """Asynchronous Hyperband (Li et al., JMLR 2018): trials compare with those of their own bracket.

    Bracket 0 has all rungs, bracket 1 all but the first, ..., the last has none. A trial's bracket is drawn with the
    weights that Hyperband gives them, so that each has about the same share of the epochs.

    Args:
        epochs: the rungs of bracket 0, ascending.
        reduction_factor: one in so many passes, at least 2.
        goal: direction of improvement.
        draw: trial number -> uniform number in [0, 1).
        records: trials that have reported before.
        objectives: as of :class:`Rungs`.
    """

    pauses = False

    def __init__(
        self,
        epochs: Sequence[int],
        reduction_factor: int,
        goal: Goal,
        draw: Callable[[int], float],
        records: Iterable[TrialRecord] = (),
        objectives: Sequence[Objective] = (),
    ) -> None:
        known = list(records)
        self._draw = draw
        self._weights = bracket_weights(len(epochs), reduction_factor)
        self._brackets = [
            Rungs(epochs[first:], reduction_factor, goal, [r for r in known if self._is_in(r, first)], objectives)
            for first in range(len(epochs) + 1)
        ]

    def enter(self, record: TrialRecord) -> None:
        """Take in the trial's last report, in its bracket; a baseline's in all of them."""
        for number, bracket in enumerate(self._brackets):
            if self._is_in(record, number):
                bracket.enter(record)

    def passes(self, record: TrialRecord) -> bool:
        """Whether a trial that was entered goes on after its last report."""
        return self._brackets[self.bracket_of(record.number)].passes(record)

    def promoted(self, waiting: Sequence[TrialRecord]) -> int | None:
        """Return None: nothing waits."""
        return None

    def bracket_of(self, number: int) -> int:
        """Return the bracket of a trial."""
        left = self._draw(number) * sum(self._weights)
        for bracket, weight in enumerate(self._weights):
            left -= weight
            if left < 0:
                return bracket
        return len(self._weights) - 1

    def _is_in(self, record: TrialRecord, bracket: int) -> bool:
        return record.assignment.origin == "baseline" or self.bracket_of(record.number) == bracket


def bracket_weights(num_rungs: int, reduction_factor: int) -> list[float]:
    """Return each bracket's share of the trials, from the one with all rungs to the one with none.

    Hyperband's number of configurations: ``(S + 1) / (s + 1) * eta ** s`` for the bracket with ``s`` of ``S`` rungs.
    """
    return [reduction_factor**rungs / (rungs + 1) for rungs in range(num_rungs, -1, -1)]


class MedianRule:
    """Stops a trial whose best score is below the median of the other trials' running means at that epoch.

    As in Vizier (Golovin et al., KDD 2017), from ``first`` on, where at least ``MIN_OTHERS`` others have come so far.

    Args:
        first: first epoch after which a trial can be stopped.
        max_epochs: length of a full trial.
        goal: direction of improvement.
        records: trials that have reported before.
    """

    pauses = False
    MIN_OTHERS = 4

    def __init__(self, first: int, max_epochs: int, goal: Goal, records: Iterable[TrialRecord] = ()) -> None:
        self._goal: Goal = goal
        self._board = Board(range(first, max_epochs), goal)
        for record in records:
            epochs = record.as_stopped().epochs
            for index in range(len(epochs)):
                self._put(record.number, epochs[: index + 1])

    def enter(self, record: TrialRecord) -> None:
        """Take in the trial's running mean."""
        self._put(record.number, record.epochs)

    def passes(self, record: TrialRecord) -> bool:
        """Whether fewer than half of the others have a better mean than this trial's best score."""
        epoch, best = record.epochs_done, record.best(self._goal)
        others = {n: s for n, s in self._board.scores.get(epoch, {}).items() if n != record.number}
        if best is None or len(others) < self.MIN_OTHERS:
            return True
        sign = 1 if self._goal == "maximize" else -1
        return 2 * sum(sign * score > sign * best.score for score in others.values()) <= len(others)

    def promoted(self, waiting: Sequence[TrialRecord]) -> int | None:
        """Return None: nothing waits."""
        return None

    def _put(self, number: int, epochs: Sequence[EpochRecord]) -> None:
        finite = [epoch.score for epoch in epochs if math.isfinite(epoch.score)]
        if finite and epochs[-1].epoch in self._board.scores:
            self._board.put(epochs[-1].epoch, number, fmean(finite))


class ByFamily:
    """Compares trials with those of their own family only, by a rule for each.

    A network of one family may learn faster than one of another and end lower: compared at an early rung, the one that
    ends higher would hardly ever get there.

    Args:
        make: returns the rule of one family, from its trials that have reported before.
        family_of: trial -> its family.
        records: trials that have reported before.
    """

    def __init__(
        self,
        make: Callable[[Sequence[TrialRecord]], Stopper],
        family_of: Callable[[TrialRecord], Hashable],
        records: Iterable[TrialRecord] = (),
    ) -> None:
        self._make = make
        self._family_of = family_of
        self.pauses = make(()).pauses
        known: dict[Hashable, list[TrialRecord]] = {}
        for record in records:
            known.setdefault(family_of(record), []).append(record)
        self._rules = {family: make(members) for family, members in known.items()}

    def enter(self, record: TrialRecord) -> None:
        """Take in the trial's last report; again changes nothing."""
        self._rule(record).enter(record)

    def passes(self, record: TrialRecord) -> bool:
        """Whether a trial that was entered goes on after its last report."""
        return self._rule(record).passes(record)

    def promoted(self, waiting: Sequence[TrialRecord]) -> int | None:
        """Return the number of the waiting trial that is to go on now, of the first family that has one."""
        families = sorted({self._family_of(record) for record in waiting}, key=repr)
        for family in families:
            members = [record for record in waiting if self._family_of(record) == family]
            if (number := self._rule(members[0]).promoted(members)) is not None:
                return number
        return None

    def _rule(self, record: TrialRecord) -> Stopper:
        family = self._family_of(record)
        if family not in self._rules:
            self._rules[family] = self._make(())
        return self._rules[family]


def stopper_for(
    scheduler: Scheduler,
    goal: Goal,
    seed: int,
    records: Iterable[TrialRecord] = (),
    family_of: Callable[[TrialRecord], Hashable] = lambda record: (),
    objectives: Sequence[Objective] = (),
) -> Stopper:
    """Return the rule that a sweep file asks for.

    Args:
        scheduler: the section of the sweep file.
        goal: direction of improvement.
        seed: of the sweep; brackets are drawn from it and the trial's number.
        records: trials that have reported before.
        family_of: trial -> the family within which it is compared; None of it: all are one.
        objectives: all metrics, where there are several.
    """
    return ByFamily(lambda known: _rule_for(scheduler, goal, seed, known, objectives), family_of, records)


def _rule_for(
    scheduler: Scheduler, goal: Goal, seed: int, records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> Stopper:
    rungs, factor = scheduler.rungs, scheduler.reduction_factor
    match scheduler.type:
        case "asha-promote" | "pasha":
            return Promotion(rungs, factor, goal, records, scheduler.type == "pasha", objectives)
        case "hyperband":

            def draw(number: int) -> float:
                return derive_seed(seed, "bracket", number) / 2**31

            return Brackets(rungs, factor, goal, draw, records, objectives)
        case "median":
            return MedianRule(scheduler.first_rung, scheduler.max_epochs, goal, records)
        case _:
            return Rungs(rungs, factor, goal, records, objectives)


def is_audited(scheduler: Scheduler, seed: int, number: int) -> bool:
    """Whether a trial runs on if it is to be stopped: whether the draw of (seed, "audit", number) is in the share."""
    return derive_seed(seed, "audit", number) < scheduler.audit * 2**31
