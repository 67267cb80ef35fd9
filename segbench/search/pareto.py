"""Several losses at once: who dominates whom, how crowded a front is, how much it covers. Pure functions.

A point is a tuple of losses, all to be minimised. One dominates another if it is nowhere worse and somewhere better.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Points = Sequence[Sequence[float]]
_Floats = NDArray[np.float64]


def nondominated_ranks(points: Points) -> list[int]:
    """Return the front that each point belongs to: 0 for those that none dominates, 1 for those that only they do, ...

    The non-dominated sort of NSGA-II (Deb, Pratap, Agarwal and Meyarivan, IEEE Trans. Evol. Comput. 6(2), 2002,
    section III-A).
    """
    table = _table(points)
    dominates = _dominates(table)
    num_above = dominates.sum(axis=0)
    ranks = np.full(len(table), -1)
    rank = 0
    while (ranks < 0).any():
        front = (ranks < 0) & (num_above == 0)
        ranks[front] = rank
        num_above = num_above - dominates[front].sum(axis=0)
        rank += 1
    return [int(rank) for rank in ranks]


def crowding_distances(points: Points) -> list[float]:
    """Return how far the neighbours of each point of one front are, summed over losses; infinite at its ends.

    NSGA-II's crowding distance (Deb et al., 2002, section III-B). Points at the same place have their neighbours'
    distances but for one end, so equal points are told apart by their order alone.
    """
    table = _finite(_table(points))
    distances = np.zeros(len(table))
    for losses in table.T:
        order = np.argsort(losses, kind="stable")
        span = losses[order[-1]] - losses[order[0]] if len(order) else 0.0
        if span <= 0:
            continue
        distances[order[[0, -1]]] = np.inf
        distances[order[1:-1]] += (losses[order[2:]] - losses[order[:-2]]) / span
    return [float(distance) for distance in distances]


def places(points: Points) -> list[int]:
    """Return how many points stand before each one: by front, within a front the less crowded first.

    NSGA-II's crowded-comparison operator; equal points have one place.
    """
    distinct = sorted(set(map(tuple, points)))
    ranks = nondominated_ranks(distinct)
    crowding = [0.0] * len(distinct)
    for rank in set(ranks):
        members = [index for index, other in enumerate(ranks) if other == rank]
        for index, distance in zip(members, crowding_distances([distinct[i] for i in members]), strict=True):
            crowding[index] = distance
    keys = {point: (ranks[index], -crowding[index]) for index, point in enumerate(distinct)}
    given = [keys[tuple(point)] for point in points]
    first = {key: place for place, key in reversed(list(enumerate(sorted(given))))}
    return [first[key] for key in given]


def places_within(groups: Sequence[Hashable], points: Points) -> list[int]:
    """Return the place of each point among those of its own group (:func:`places`)."""
    found = [0] * len(points)
    for group in set(groups):
        members = [index for index, other in enumerate(groups) if other == group]
        for index, place in zip(members, places([points[i] for i in members]), strict=True):
            found[index] = place
    return found


def front_of(points: Points) -> list[bool]:
    """Return of each point whether none dominates it."""
    return [int(number) == 0 for number in _dominates(_table(points)).sum(axis=0)]


def hypervolume(points: Points, reference: Sequence[float]) -> float:
    """Return the volume that the points dominate, up to a reference point (Zitzler and Thiele, PPSN 1998).

    By slices along the last loss (HSO: While, Hingston, Barone and Huband, IEEE Trans. Evol. Comput. 10(1), 2006):
    exact, and quick for two and three losses. Points that are not better than the reference in every loss add nothing.
    """
    inside = [tuple(point) for point in points if all(p < r for p, r in zip(point, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - min(point[0] for point in inside))
    inside.sort(key=lambda point: point[-1])
    ends = [*(point[-1] for point in inside[1:]), reference[-1]]
    volume = 0.0
    for index, end in enumerate(ends):
        depth = end - inside[index][-1]
        if depth > 0:
            volume += depth * hypervolume([point[:-1] for point in inside[: index + 1]], reference[:-1])
    return volume


def _table(points: Points) -> _Floats:
    table = np.array([tuple(point) for point in points], np.float64)
    return table if len(points) else table.reshape(0, 1)


def _finite(table: _Floats) -> _Floats:
    """Return the losses with infinite ones just beyond the largest finite one, where distances have a meaning."""
    finite = table[np.isfinite(table)]
    return np.where(np.isfinite(table), table, finite.max() + 1.0 if len(finite) else 0.0)


def _dominates(table: _Floats) -> NDArray[np.bool_]:
    """Return (n, n): whether the point of the row dominates that of the column."""
    no_worse = np.ones((len(table), len(table)), np.bool_)
    better = np.zeros_like(no_worse)
    for losses in table.T:
        no_worse &= losses[:, None] <= losses[None, :]
        better |= losses[:, None] < losses[None, :]
    return no_worse & better
