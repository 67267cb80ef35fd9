"""What the sampler sees of a long search."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.search.window import MAX_REST, NUM_BEST, Window


def window(ranks: dict[int, float]) -> Window[int]:
    result: Window[int] = Window()
    for number, rank in ranks.items():
        result.add(number, (rank,), number)
    return result


def test_a_short_search_is_seen_whole() -> None:
    assert list(window({number: -number for number in range(MAX_REST)})) == list(range(MAX_REST))


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([0, 30, MAX_REST, MAX_REST + 1, 2100]))
def test_what_is_seen_does_not_depend_on_the_order_of_ends(random: object, count: int) -> None:
    """So a restart, which reads trials by number, goes on with what was seen before."""
    ranks = {number: random.randint(0, 9) for number in range(count)}  # type: ignore[attr-defined]
    shuffled = list(ranks.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert list(window(dict(shuffled))) == list(window(ranks))


@pytest.mark.parametrize("count", [MAX_REST + 1, 2500, 5000])
def test_a_long_search_shows_its_best_and_an_even_selection(count: int) -> None:
    ranks = {number: (number * 7919) % count for number in range(count)}
    seen = list(window(ranks))
    best = sorted(ranks, key=lambda number: ranks[number])[:NUM_BEST]
    assert set(best) <= set(seen)
    rest = sorted(set(seen) - set(best))
    assert len(seen) <= MAX_REST + NUM_BEST
    assert len(rest) >= MAX_REST / 2 - NUM_BEST
    steps = {later - earlier for earlier, later in itertools.pairwise(rest)}
    assert max(steps) <= 3 * min(steps)  # those between are among the best
