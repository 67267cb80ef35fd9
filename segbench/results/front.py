"""What a search for several metrics has found: the front, what it covers, and how that grew. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

from segbench.core.ledger import Records
from segbench.core.objectives import Objective
from segbench.core.records import TrialRecord, TrialState
from segbench.search.pareto import front_of, hypervolume


@dataclass(frozen=True)
class Found:
    """A trial that ran to its end and meets the requirements."""

    record: TrialRecord
    values: tuple[float, ...]
    """Of the metrics, in their order."""
    is_on_front: bool


@dataclass(frozen=True)
class Front:
    """What the trials of a search have found together."""

    objectives: Sequence[Objective]
    found: tuple[Found, ...]
    """By number."""
    reference: tuple[float, ...]
    """Where the hypervolume begins: of each metric the worst value among the trials found."""
    volumes: tuple[tuple[int, float], ...]
    """Trial number, and the hypervolume of all trials up to it; after each that is found."""

    @property
    def hypervolume(self) -> float:
        """Volume between the front and the reference point, in the metrics' units."""
        return self.volumes[-1][1]

    def describe_reference(self) -> str:
        """Return ``val/miou 0.21, model/latency_ms 41.2``."""
        pairs = zip(self.objectives, self.reference, strict=True)
        return ", ".join(f"{objective.name} {value:.4g}" for objective, value in pairs)


def measure_front(records: Records) -> Front | None:
    """Return the front of a search for several metrics; None for one metric, or before a trial has run to its end.

    Trials that were stopped have no part in it: their scores are of few epochs.
    """
    objectives = records.objectives
    ended = [
        (record, losses)
        for record in records.search
        if record.state is TrialState.COMPLETE
        and (best := record.best(records.goal)) is not None
        and record.broken_requirement(records.goal, records.requirements) is None
        and float("inf") not in (losses := record.losses_at(best, objectives or _first(records)))
    ]
    if not objectives or not ended:
        return None
    points = [losses for _, losses in ended]
    worst = tuple(map(max, zip(*points, strict=True)))
    marks = front_of(points)
    return Front(
        objectives=objectives,
        found=tuple(Found(r, _values(objectives, p), m) for (r, p), m in zip(ended, marks, strict=True)),
        reference=_values(objectives, worst),
        volumes=tuple(_volumes([record.number for record, _ in ended], points, worst)),
    )


def _first(records: Records) -> tuple[Objective, ...]:
    return (Objective(records.metric, records.goal),)


def _values(objectives: Sequence[Objective], losses: Sequence[float]) -> tuple[float, ...]:
    return tuple(objective.value(loss) for objective, loss in zip(objectives, losses, strict=True))


def _volumes(
    numbers: Sequence[int], points: Sequence[tuple[float, ...]], reference: Sequence[float]
) -> list[tuple[int, float]]:
    """Return the hypervolume after each point; only the front so far is kept, so that it takes little."""
    front: list[tuple[float, ...]] = []
    volumes: list[tuple[int, float]] = []
    for number, point in zip(numbers, points, strict=True):
        grown = [*front, point]
        kept = [each for each, is_kept in zip(grown, front_of(grown), strict=True) if is_kept]
        volume = hypervolume(kept, reference) if kept != front else volumes[-1][1]
        volumes.append((number, volume))
        front = kept
    return volumes
