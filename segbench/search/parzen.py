"""Parzen estimators of one parameter: where trials lie, as a density that can be drawn from.

As in TPE (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011, section 4, and "Making a
Science of Model Search", ICML 2013), with Optuna's choice of bandwidths. A number is known by its place in its range,
0 to 1 (in the logarithm where it is searched there); a category by its place in the list.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]

_NUM_NARROWEST = 100
"""No bandwidth is below the range divided by one more than the number of points, or by so many."""


@dataclass(frozen=True)
class Guess:
    """Where an expert expects the best value: as many more observations there as its weight says."""

    place: float
    """Of a number in its range, 0 to 1; of a category in the list."""
    weight: float


class Density(Protocol):
    """A distribution of places."""

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Return ``count`` places."""
        ...

    def log_pdf(self, places: Floats) -> Floats:
        """Return the logarithm of the density at each place."""
        ...


@dataclass(frozen=True)
class NumberDensity:
    """A mixture of normal distributions, each cut at 0 and 1."""

    weights: Floats
    """(K,), sum 1."""
    means: Floats
    """(K,)"""
    widths: Floats
    """(K,) standard deviations before the cut."""

    @classmethod
    def fit(cls, places: Floats, guess: Guess | None = None) -> "NumberDensity":
        """Return one component for each of ``places`` (n,), and one for the whole range.

        A component is as wide as the larger distance to its neighbours, so the density is smooth where there is little.
        """
        means = np.append(places, 0.5)
        order = np.argsort(means, kind="stable")
        gaps = np.diff(np.concatenate([[0.0], means[order], [1.0]]))
        if len(places):
            gaps[0] = gaps[-1] = 0.0  # the ends of the range are no neighbours
        widths = np.empty(len(means))
        widths[order] = np.clip(np.maximum(gaps[:-1], gaps[1:]), 1 / min(_NUM_NARROWEST, len(means)), 1.0)
        widths[-1] = 1.0
        weights = np.ones(len(means))
        if guess is not None:
            means, widths = np.append(means, guess.place), np.append(widths, 0.15)
            weights = np.append(weights, guess.weight)
        return cls(weights / weights.sum(), means, widths)

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Return ``count`` places."""
        chosen = np.searchsorted(np.cumsum(self.weights)[:-1], rng.uniform(size=count), side="right")
        means, widths = self.means[chosen], self.widths[chosen]
        below = ndtr(-means / widths)
        inside = ndtr((1 - means) / widths) - below
        places: Floats = np.clip(means + widths * ndtri(below + rng.uniform(size=count) * inside), 0.0, 1.0)
        return places

    def log_pdf(self, places: Floats) -> Floats:
        """Return the logarithm of the density at each place."""
        inside = ndtr((1 - self.means) / self.widths) - ndtr(-self.means / self.widths)
        scaled = (places[:, None] - self.means) / self.widths
        heights = self.weights / (inside * self.widths * np.sqrt(2 * np.pi))
        density: Floats = np.exp(-0.5 * scaled**2) @ heights
        return np.log(density)


@dataclass(frozen=True)
class CategoryDensity:
    """Shares of the categories; one that was never seen has some too."""

    shares: Floats
    """(C,), sum 1."""

    @classmethod
    def fit(cls, places: Floats, num_categories: int, guess: Guess | None = None) -> "CategoryDensity":
        """Return the shares among ``places`` (n,), with one observation spread over all categories."""
        counts = np.bincount(places.astype(np.intp), minlength=num_categories) + 1.0 / num_categories
        if guess is not None:
            counts[int(guess.place)] += guess.weight
        return cls(counts / counts.sum())

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Return ``count`` places."""
        return np.searchsorted(np.cumsum(self.shares)[:-1], rng.uniform(size=count), side="right").astype(np.float64)

    def log_pdf(self, places: Floats) -> Floats:
        """Return the logarithm of the share of each place."""
        return np.log(self.shares)[places.astype(np.intp)]
