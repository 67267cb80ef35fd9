"""What a new sweep can learn from old ones: their trials, as far as they lie in the new space (``observations.fit``).

Scores of the same training on the same data count as they are. Of a sweep with other data, another length or another
training function only the order of its trials counts: where a trial stands among its own, there it is put among the
finished trials of the new sweep.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from segbench.core.records import EpochRecord, Goal, TrialRecord, TrialState
from segbench.search.observations import FitCounts, fit
from segbench.spec.space import Space


@dataclass(frozen=True)
class OldTrials:
    """Trials of one earlier sweep that have a result."""

    folder: str
    records: tuple[TrialRecord, ...]
    num_unusable: int
    """Trials of that sweep that failed, or had not ended."""
    by_rank: bool = False
    """Its scores do not compare with those of the new sweep."""


@dataclass(frozen=True)
class Ranked:
    """An old trial of which only its place among the others of its sweep counts."""

    record: TrialRecord
    quantile: float | None
    """Its place among that sweep's COMPLETE trials, 0 the best and 1 the worst; None for one that was stopped."""


@dataclass(frozen=True)
class WarmStart:
    """Old trials in terms of the new space."""

    records: tuple[TrialRecord, ...] = ()
    """Those whose scores count."""
    ranked: tuple[Ranked, ...] = ()
    """Those whose order counts."""
    counts: FitCounts = field(default_factory=FitCounts)

    def describe(self) -> str:
        """Return one line."""
        return self.counts.describe() + (f"; {len(self.ranked)} count by rank alone" if self.ranked else "")


def is_usable(record: TrialRecord, goal: Goal) -> bool:
    """Whether anything can be learnt from an old trial."""
    return record.state in (TrialState.COMPLETE, TrialState.PRUNED) and record.best(goal) is not None


def warm_start(old: Sequence[OldTrials], space: Space, goal: Goal) -> WarmStart:
    """Return the trials of old sweeps that the new space can hold."""
    records: list[TrialRecord] = []
    ranked: list[Ranked] = []
    num_clipped = num_dropped = 0
    for sweep in old:
        num_dropped += sweep.num_unusable
        quantiles = _quantiles(sweep.records, goal)
        for record, quantile in zip(sweep.records, quantiles, strict=True):
            fitted = fit(record.assignment, space)
            if fitted is None:
                num_dropped += 1
                continue
            num_clipped += fitted.is_clipped
            assignment = replace(record.assignment, params=fitted.params, draws=fitted.draws)
            adapted = replace(record, assignment=assignment, audited_rung=None)  # all that is known of it counts
            if sweep.by_rank:
                ranked.append(Ranked(adapted, quantile))
            else:
                records.append(adapted)
    counts = FitCounts(len(records) + len(ranked) - num_clipped, num_clipped, num_dropped)
    return WarmStart(tuple(records), tuple(ranked), counts)


def place(ranked: Sequence[Ranked], scores: Sequence[float], goal: Goal) -> list[TrialRecord]:
    """Return old trials with scores of the new sweep, best first.

    The trial at quantile q of its sweep gets the score at quantile q of the new sweep's finished trials, never one
    beyond their best or worst. While there are none, scores only keep the order. A trial that was stopped stays behind
    all that were not, as if it had been stopped before its first report.

    Args:
        ranked: the old trials.
        scores: best scores of the new sweep's COMPLETE trials, in any order.
        goal: direction of improvement.
    """
    best_first = sorted(scores, reverse=goal == "maximize") or ([1.0, 0.0] if goal == "maximize" else [0.0, 1.0])
    placed: list[TrialRecord] = []
    for old in sorted(ranked, key=lambda old: math.inf if old.quantile is None else old.quantile):
        epochs = old.record.epochs_done
        score = None if old.quantile is None else _at(best_first, old.quantile)
        shown = () if score is None else (EpochRecord(epoch=epochs, score=score, metrics={}),)
        placed.append(replace(old.record, epochs=shown))
    return placed


def _quantiles(records: Sequence[TrialRecord], goal: Goal) -> list[float | None]:
    """Return each trial's place among the COMPLETE ones, the middle of it: 0 to 1, best first, equal scores alike."""
    bests = [record.best(goal) if record.state is TrialState.COMPLETE else None for record in records]
    sign = -1 if goal == "maximize" else 1
    costs = sorted(sign * best.score for best in bests if best is not None)
    found: list[float | None] = []
    for best in bests:
        if best is None:
            found.append(None)
            continue
        cost = sign * best.score
        found.append((bisect_left(costs, cost) + bisect_right(costs, cost)) / 2 / len(costs))
    return found


def _at(best_first: Sequence[float], quantile: float) -> float:
    """Return the score at a quantile, linear between two, the ends beyond the outermost middles."""
    place = min(max(quantile * len(best_first) - 0.5, 0.0), len(best_first) - 1.0)
    below = int(place)
    above = min(below + 1, len(best_first) - 1)
    return best_first[below] + (place - below) * (best_first[above] - best_first[below])
