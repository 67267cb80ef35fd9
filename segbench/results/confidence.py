"""How sure the leaderboard's test scores are: intervals, and which rows cannot be told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np

from segbench.core.paths import SweepPaths
from segbench.core.seeding import derive_seed
from segbench.final.images import IMAGES_FILE, read_image_results
from segbench.results.finalists import Finalist
from segbench.results.statistics import (
    Bootstrap,
    Difference,
    Interval,
    Resamples,
    adjust_p_values,
    bootstrap_miou,
    compare,
    interval,
)

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """Two rows on the same test images."""

    first: str
    second: str
    difference: Difference
    """First minus second."""
    adjusted_p_value: float
    """By Holm's method over all pairs of the leaderboard."""

    @property
    def is_different(self) -> bool:
        """Whether the two can be told apart."""
        return self.adjusted_p_value < SIGNIFICANCE


@dataclass(frozen=True)
class Confidence:
    """What the test images say about the rows of a leaderboard, by name; empty where there are too few images."""

    intervals: Mapping[str, Interval] = field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    num_images: int = 0

    def between(self, first: str, second: str) -> Comparison | None:
        """Return the comparison of two rows; None where there is none. Its sign is as stored."""
        return next((c for c in self.comparisons if {c.first, c.second} == {first, second}), None)

    def tied_with(self, name: str) -> list[str]:
        """Return the rows that cannot be told from this one."""
        pairs = [c for c in self.comparisons if name in (c.first, c.second) and not c.is_different]
        return [c.second if c.first == name else c.first for c in pairs]


def measure_confidence(paths: SweepPaths, finalists: Sequence[Finalist], seed: int = 0) -> Confidence:
    """Return intervals of all rows and comparisons of all pairs, from what the tests left in their folders.

    Rows are left out whose tests are on other images than the first row's.

    Args:
        paths: the sweep's folder.
        finalists: rows, best first.
        seed: of the resampling.
    """
    files = []
    for finalist in finalists:
        folders = [paths.trial("test", record.assignment.name) for record in finalist.test if record.epochs]
        stamps = [(str(folder), _stamp(folder / IMAGES_FILE)) for folder in folders]
        if stamps and all(stamp for _, stamp in stamps):
            files.append((finalist.name, tuple(stamps)))
    return _measure(tuple(files), seed)


@lru_cache(maxsize=8)
def _measure(files: tuple[tuple[str, tuple[tuple[str, int], ...]], ...], seed: int) -> Confidence:
    """Do it once for the same files: tables, report and MLflow all ask."""
    rows: dict[str, Bootstrap] = {}
    images: tuple[str, ...] | None = None
    resamples = Resamples(np.ones((1, 1), np.float32))
    for name, folders in files:
        results = [read_image_results(Path(folder), label_maps=()) for folder, _ in folders]
        seeds = [result for result in results if result is not None]
        if images is None:
            images = seeds[0].names
            resamples = Resamples.draw(len(images), derive_seed(seed, "bootstrap"))
        if all(result.names == images for result in seeds):
            rows[name] = bootstrap_miou([result.counts for result in seeds], resamples)
    intervals = {name: found for name, row in rows.items() if (found := interval(row, resamples)) is not None}
    differences = {(a, b): compare(rows[a], rows[b], resamples) for a, b in combinations(intervals, 2)}
    pairs = {pair: difference for pair, difference in differences.items() if difference is not None}
    adjusted = adjust_p_values([difference.p_value for difference in pairs.values()])
    comparisons = [
        Comparison(a, b, difference, p) for ((a, b), difference), p in zip(pairs.items(), adjusted, strict=True)
    ]
    return Confidence(intervals, tuple(comparisons), len(images or ()))


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0
