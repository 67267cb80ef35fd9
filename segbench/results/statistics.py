"""How sure a mean IoU is, and whether two models differ: the bootstrap over test images (docs/results.md).

The images are what was drawn from a larger world, so images are resampled, never pixels: the counts of the drawn images
are summed and mIoU is formed of the sums. A row with several seeds is the mean over its seeds, all on the same drawn
images. Intervals and tests are studentised and symmetric (Hall 1988, "On symmetric bootstrap confidence intervals"):
each resample's deviation is divided by its own standard error, which is that of the linearised mIoU. The percentile
method covers 90 % instead of 95 % at 20 images, this one 95-96 % (benchmarks/coverage.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segbench.training.metrics import intersection_over_union

Floats = npt.NDArray[np.float64]

NUM_RESAMPLES = 4000
LEVEL = 0.95
MIN_IMAGES = 8
"""With fewer there is no interval: too many resamples are a few images repeated."""


@dataclass(frozen=True)
class Interval:
    """Where the value would lie on endlessly many images like these, in 95 of 100 such intervals."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Two rows compared on the same images."""

    value: float
    """First minus second."""
    interval: Interval
    p_value: float
    """Share of resamples that deviate as far as this from no difference; at least 1 / (resamples + 1)."""


@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each image is drawn in each resample: the same draws for all rows, so that rows can be compared.

    Args:
        weights: float32 (B, N) whole numbers; each row sums to N.
    """

    weights: npt.NDArray[np.float32]

    @classmethod
    def draw(cls, num_images: int, seed: int, num_resamples: int = NUM_RESAMPLES) -> "Resamples":
        """Draw with replacement from ``num_images``."""
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_resamples)
        return cls(drawn.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """mIoU of one row, on the images as they are and on every resample."""

    value: float
    influence: Floats
    """(N,) how far each image pulls the value; the sum of squares is the variance."""
    values: Floats
    """(B,)"""
    influences: npt.NDArray[np.float32]
    """(B, N) the influence of each image within each resample."""

    def minus(self, other: "Bootstrap") -> "Bootstrap":
        """Return the difference of two rows on the same draws."""
        return Bootstrap(
            self.value - other.value,
            self.influence - other.influence,
            self.values - other.values,
            self.influences - other.influences,
        )


def bootstrap_miou(seeds: Sequence[npt.NDArray[np.int64]], resamples: Resamples) -> Bootstrap:
    """Return the mean mIoU of several trainings on resampled images.

    Args:
        seeds: (N, K, K) pixel counts of each training, on the same N images; row: truth, column: prediction.
        resamples: draws of N images.
    """
    parts = [_bootstrap_one(_margins(counts), resamples) for counts in seeds]
    return Bootstrap(
        float(np.mean([part.value for part in parts])),
        np.mean([part.influence for part in parts], axis=0),
        np.mean([part.values for part in parts], axis=0),
        np.mean([part.influences for part in parts], axis=0),
    )


def interval(bootstrap: Bootstrap, resamples: Resamples) -> Interval | None:
    """Return the 95 % interval of a row's mIoU, within 0 and 1; None for fewer than ``MIN_IMAGES`` images."""
    if len(bootstrap.influence) < MIN_IMAGES:
        return None
    low, high = _bounds(bootstrap, resamples)
    return Interval(max(low, 0.0), min(high, 1.0))


def compare(first: Bootstrap, second: Bootstrap, resamples: Resamples) -> Difference | None:
    """Return the paired comparison of two rows; None for fewer than ``MIN_IMAGES`` images."""
    difference = first.minus(second)
    if len(difference.influence) < MIN_IMAGES:
        return None
    deviations = _deviations(difference, resamples)
    observed = _studentise(np.array(difference.value), np.array(_standard_error(difference)))
    p_value = (1 + np.count_nonzero(deviations >= abs(observed))) / (1 + len(deviations))
    return Difference(difference.value, Interval(*_bounds(difference, resamples)), float(p_value))


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values: calling those below 0.05 different errs anywhere in at most 5 of 100 tables."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def binomial_interval(successes: int, trials: int) -> Interval:
    """Return the exact 95 % interval of a share (Clopper and Pearson 1934): it errs in at most 5 of 100 cases."""
    from scipy.stats import binomtest  # a second to import, for the audit alone

    found = binomtest(successes, trials).proportion_ci(LEVEL, method="exact")
    return Interval(float(found.low), float(found.high))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's correlation, ties at their mean rank; None for fewer than three pairs or a constant side."""
    ranks = [_mean_ranks(np.asarray(values, np.float64)) for values in (first, second)]
    if len(first) < 3 or any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _bootstrap_one(margins: Floats, resamples: Resamples) -> Bootstrap:
    total = margins.sum(axis=0)
    sums = resamples.weights.astype(np.float64) @ margins
    return Bootstrap(
        float(_miou(total)),
        margins @ _gradient(total),
        _miou(sums),
        (_gradient(sums) @ margins.T).astype(np.float32),
    )


def _bounds(bootstrap: Bootstrap, resamples: Resamples) -> tuple[float, float]:
    width = float(np.quantile(_deviations(bootstrap, resamples), LEVEL)) * _standard_error(bootstrap)
    return bootstrap.value - width, bootstrap.value + width


def _standard_error(bootstrap: Bootstrap) -> float:
    num_images = len(bootstrap.influence)
    return float(np.sqrt((bootstrap.influence**2).sum() * num_images / (num_images - 1)))


def _deviations(bootstrap: Bootstrap, resamples: Resamples) -> Floats:
    """Return how many of its own standard errors each resample lies from the value, without sign."""
    num_images = len(bootstrap.influence)
    squares = np.einsum("bn,bn,bn->b", resamples.weights, bootstrap.influences, bootstrap.influences)
    errors = np.sqrt(squares.astype(np.float64) * num_images / (num_images - 1))
    return np.abs(_studentise(bootstrap.values - bootstrap.value, errors))


def _studentise(deviation: Floats, error: Floats) -> Floats:
    """Divide; a difference of exactly nothing, as of two equal models, is 0."""
    return np.asarray(np.divide(deviation, np.maximum(error, 1e-12)))


def _margins(counts: npt.NDArray[np.int64]) -> Floats:
    """Return (N, 3K) true positives, row sums (truth) and column sums (predictions) from (N, K, K) counts."""
    sums = (counts.diagonal(axis1=1, axis2=2), counts.sum(axis=2), counts.sum(axis=1))
    return np.concatenate(sums, axis=1).astype(np.float64)


def _miou(margins: Floats) -> Floats:
    """Return the mean IoU of the classes that are there, from (..., 3K) margins."""
    return np.asarray(np.nanmean(intersection_over_union(*np.split(margins, 3, axis=-1)), axis=-1))


def _gradient(margins: Floats) -> Floats:
    """Return the derivatives of :func:`_miou`, (..., 3K); its product with an image's margins is the influence.

    mIoU does not change when all counts are doubled, so the influences sum to zero (Euler).
    """
    tp, union = _tp_and_union(margins)
    present = union > 0
    scale = np.where(present, 1 / np.maximum(union, 1) ** 2, 0) / present.sum(axis=-1, keepdims=True)
    return np.concatenate([(union + tp) * scale, -tp * scale, -tp * scale], axis=-1)


def _tp_and_union(margins: Floats) -> tuple[Floats, Floats]:
    tp, truth, predicted = np.split(margins, 3, axis=-1)
    return tp, truth + predicted - tp


def _mean_ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place], np.float64)
