"""Which finished trials the sampler looks at: all at first, later the best and an even selection of the rest.

TPE splits the trials into the best 25 (a tenth of them while there are fewer than 250) and the rest, and models the
density of each. The best are always shown, so the first density is that of all trials; the second is estimated from an
even sample of the rest. So what a proposal costs is bounded. A much smaller sample is no good: values seldom tried are
then tried less (measured in docs/method.md).
"""

from bisect import insort
from collections.abc import Iterator
from typing import Generic, TypeVar

MAX_REST = 1000
"""At most so many trials that are not among the best are shown, at least half as many."""
NUM_BEST = 25
"""TPE takes at most so many trials for good, in Optuna as in the paper (Bergstra et al., ICML 2013)."""

T = TypeVar("T")


class Window(Generic[T]):
    """A selection of trials that depends on the set of those added, not on their order: a restart shows the same.

    Of n trials beyond ``max_rest``, those whose number is divisible by the least power of two above n / max_rest stay.

    Args:
        max_rest: so many trials that are not among the best are shown; infinite: all.
    """

    def __init__(self, max_rest: float = MAX_REST) -> None:
        self._max_rest = max_rest
        self._num_added = 0
        self._stride = 1
        self._best: list[tuple[tuple[float, ...], int]] = []
        self._rest: list[int] = []
        self._trials: dict[int, T] = {}

    def add(self, number: int, rank: tuple[float, ...], trial: T) -> None:
        """Add a finished trial.

        Args:
            number: its number, from 0.
            rank: smaller is better, as the sampler sorts trials; ties go by number.
            trial: what is shown of it.
        """
        self._num_added += 1
        self._trials[number] = trial
        insort(self._best, (rank, number))
        if number % self._stride == 0:
            insort(self._rest, number)
        while self._num_added > self._max_rest * self._stride:
            self._stride *= 2
            self._rest = [kept for kept in self._rest if kept % self._stride == 0]
        dropped = self._best.pop()[1] if len(self._best) > NUM_BEST else number
        for candidate in (dropped, number):
            self._forget(candidate)
        if len(self._trials) > len(self._rest) + NUM_BEST:  # the stride has doubled
            for candidate in list(self._trials):
                self._forget(candidate)

    def __iter__(self) -> Iterator[T]:
        """Yield what is shown, by number."""
        return (self._trials[number] for number in sorted(self._trials))

    def _forget(self, number: int) -> None:
        is_best = any(number == other for _, other in self._best)
        if number % self._stride and not is_best:
            self._trials.pop(number, None)
