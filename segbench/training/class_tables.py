"""The confusion matrix and the ratios of each class as CSV texts: of a test, and of a trial's best epoch."""

import csv
import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segbench.core.records import EpochRecord
from segbench.training.metrics import class_f1, class_iou, class_precision, class_recall


def class_tables(confusion: npt.ArrayLike, groups: Sequence[str]) -> dict[str, str]:
    """Return file name -> CSV text: ``confusion.csv`` and ``classes.csv``.

    Args:
        confusion: K x K pixel counts, row: truth, column: prediction.
        groups: names of the K classes.

    Returns:
        ``confusion.csv`` with a row per true class and a column per predicted one, in pixels; ``classes.csv`` with a
        row per class: IoU, precision, recall and F1, each in 0..1 and empty where it is 0 / 0, and its true pixels.
    """
    counts = np.asarray(confusion, np.int64)
    rows = [[group, *map(str, row)] for group, row in zip(groups, counts.tolist(), strict=True)]
    ratios = (class_iou(counts), class_precision(counts), class_recall(counts), class_f1(counts))
    columns = [groups, *(map(_cell, values.tolist()) for values in ratios), map(str, counts.sum(axis=1).tolist())]
    classes = [list(row) for row in zip(*columns, strict=True)]
    return {
        "confusion.csv": _csv([["truth", *groups], *rows]),
        "classes.csv": _csv([["group", "iou", "precision", "recall", "f1", "pixels"], *classes]),
    }


def group_names(epoch: EpochRecord) -> list[str]:
    """Return the names of an epoch's groups in the order of its confusion matrix; ``class 0`` ... where unknown."""
    names = [key.split("/iou/", 1)[1] for key in epoch.metrics if "/iou/" in key]
    size = len(epoch.confusion or ())
    return names if len(names) == size else [f"class {index}" for index in range(size)]


def _cell(ratio: float) -> str:
    return "" if math.isnan(ratio) else repr(ratio)


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
