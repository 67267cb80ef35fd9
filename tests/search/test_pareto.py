"""Fronts, crowding and hypervolume against what they are by definition."""

import itertools
import math

import numpy as np
import pytest

from segbench.search.pareto import (
    crowding_distances,
    front_of,
    hypervolume,
    nondominated_ranks,
    places,
    places_within,
)


def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def drawn(seed: int, count: int, dimensions: int) -> list[tuple[float, ...]]:
    """Points on a coarse grid, so that some are equal and some share a loss."""
    rng = np.random.default_rng(seed)
    return [tuple(float(x) for x in row) for row in rng.integers(0, 6, (count, dimensions))]


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_fronts_are_peeled_off_one_by_one(seed: int, dimensions: int) -> None:
    points = drawn(seed, 30, dimensions)
    left, rank, expected = set(range(30)), 0, {}
    while left:
        front = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        expected |= dict.fromkeys(front, rank)
        left, rank = left - front, rank + 1
    assert nondominated_ranks(points) == [expected[i] for i in range(30)]
    assert front_of(points) == [expected[i] == 0 for i in range(30)]


def test_ends_are_never_crowded_and_the_middle_of_a_gap_less_than_its_neighbours() -> None:
    ends_and_middle = crowding_distances([(0.0, 4.0), (1.0, 3.0), (1.5, 2.0), (4.0, 0.0)])
    assert ends_and_middle == [math.inf, 1.5 / 4 + 2 / 4, 3 / 4 + 3 / 4, math.inf]
    assert crowding_distances([]) == []
    assert crowding_distances([(1.0, 1.0), (1.0, 1.0)]) == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_places_do_not_depend_on_the_order_and_equal_points_share_one(seed: int) -> None:
    points = drawn(seed, 20, 2)
    found = dict(zip(points, places(points), strict=True))
    order = np.random.default_rng(seed).permutation(20)
    shuffled = [points[i] for i in order]
    assert places(shuffled) == [found[point] for point in shuffled]
    ranks = dict(zip(points, nondominated_ranks(points), strict=True))
    for a, b in itertools.combinations(points, 2):
        assert (found[a] < found[b]) or ranks[a] >= ranks[b], "a front stands before the next one"


def test_one_loss_is_ranked_as_it_is() -> None:
    assert places([(3.0,), (1.0,), (2.0,), (1.0,)]) == [3, 0, 2, 0]


def test_infinite_losses_come_last_and_break_nothing() -> None:
    assert places([(math.inf, math.inf), (1.0, 2.0), (2.0, math.inf)]) == [2, 0, 1]


def test_groups_are_apart() -> None:
    assert places_within(["a", "b", "a"], [(2.0, 2.0), (5.0, 5.0), (1.0, 1.0)]) == [1, 0, 0]


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_hypervolume_is_the_number_of_cells_below(seed: int, dimensions: int) -> None:
    points = drawn(seed, 8, dimensions)
    cells = itertools.product(range(5), repeat=dimensions)
    covered = sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)
    assert hypervolume(points, [5.0] * dimensions) == covered


def test_what_is_not_better_than_the_reference_adds_nothing() -> None:
    assert hypervolume([(1.0, 6.0), (math.inf, 0.0)], (5.0, 5.0)) == 0.0
    assert hypervolume([], (5.0, 5.0)) == 0.0
