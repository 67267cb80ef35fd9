"""Ratios of one integer confusion matrix: IoU, accuracy, F1 (formulas and conventions: docs/metrics.md).

Counting comes first (confusion.py, on the device, by label id), ratios last, here, in float64 and without
torch, so that a report can make them again from the stored counts.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segbench.core.records import Confusion
from segbench.data.labels import EVALUATED_CATEGORIES, IGNORE_INDEX, LABELS, official_lut

Counts = npt.NDArray[np.int64]

NUM_LABELS = len(LABELS)
"""Rows of a matrix by label id: 0..33, and 34 for the licence plate."""


def group_rows(by_label: npt.ArrayLike, lut: npt.NDArray[np.uint8]) -> Counts:
    """Return K x K pixel counts (row: true class, column: predicted class).

    Args:
        by_label: (35, K) pixel counts, row: label id.
        lut: uint8[256], label id -> class, or 255 for pixels that do not count.
    """
    counts = np.asarray(by_label, np.int64)
    grouped = np.zeros((counts.shape[1], counts.shape[1]), np.int64)
    for row, group in zip(counts, lut, strict=False):
        if group != IGNORE_INDEX:
            grouped[group] += row
    return grouped


def class_iou(confusion: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the IoU of each class; NaN for one in neither prediction nor truth."""
    return intersection_over_union(*_margins(confusion))


def intersection_over_union(
    tp: npt.ArrayLike, truth: npt.ArrayLike, predicted: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Return tp / (truth + predicted - tp) elementwise, in other words tp / (tp + fp + fn); NaN for 0 / 0.

    Args:
        tp: pixels of a class that were predicted as it.
        truth: pixels of the class, same shape.
        predicted: pixels predicted as the class, same shape.
    """
    return _ratio(tp, np.asarray(truth) + np.asarray(predicted) - np.asarray(tp))


def class_f1(confusion: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the F1 (Dice) of each class, 2 tp / (2 tp + fp + fn); NaN for one in neither."""
    tp, truth, predicted = _margins(confusion)
    return _ratio(2 * tp, truth + predicted)


def class_recall(confusion: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the share of each class's pixels that were found; NaN for a class without pixels."""
    tp, truth, _ = _margins(confusion)
    return _ratio(tp, truth)


def class_precision(confusion: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the share of each class's predictions that are right; NaN for one never predicted."""
    tp, _, predicted = _margins(confusion)
    return _ratio(tp, predicted)


def pixel_accuracy(confusion: npt.ArrayLike) -> float:
    """Return the share of pixels whose class is right; NaN without pixels."""
    tp, truth, _ = _margins(confusion)
    return float(_ratio(tp.sum(), truth.sum()))


def frequency_weighted_iou(confusion: npt.ArrayLike) -> float:
    """Return the mean IoU weighted by each class's share of the true pixels; NaN without pixels."""
    _, truth, _ = _margins(confusion)
    present = truth > 0
    weights = _ratio(truth[present], truth.sum())
    return float((weights * class_iou(confusion)[present]).sum()) if present.any() else math.nan


def official_category_iou(by_label: npt.ArrayLike, groups: Sequence[str]) -> dict[str, float]:
    """Return the IoU of the 7 Cityscapes categories as cityscapesScripts defines it.

    Pixels whose true label is ignored in the official evaluation do not count at all. A prediction of another
    group, such as void, on a pixel that counts is a false negative.

    Args:
        by_label: (35, K) pixel counts, row: label id.
        groups: names of the K columns; the 7 categories must be among them.
    """
    counts = np.asarray(by_label, np.int64)
    by_category = np.zeros((len(EVALUATED_CATEGORIES), counts.shape[1]), np.int64)
    for row, category in zip(counts, official_lut(), strict=False):
        if category != IGNORE_INDEX:
            by_category[category] += row
    columns = [groups.index(name) for name in EVALUATED_CATEGORIES]
    tp = by_category[np.arange(len(columns)), columns]
    iou = intersection_over_union(tp, by_category.sum(1), by_category.sum(0)[columns])
    return dict(zip(EVALUATED_CATEGORIES, iou.tolist(), strict=True))


def has_official_categories(groups: Sequence[str], lut: npt.NDArray[np.uint8]) -> bool:
    """Whether the classes are the Cityscapes categories, so that the official category IoU can be formed."""
    if not set(EVALUATED_CATEGORIES) <= set(groups) <= {"void", *EVALUATED_CATEGORIES}:
        return False
    return all(lut[label.id] == groups.index(label.category) for label in LABELS if not label.ignored)


def metrics_from_confusion(
    by_label: npt.ArrayLike, lut: npt.NDArray[np.uint8], groups: Sequence[str], prefix: str = "val"
) -> dict[str, float]:
    """Return all metrics of one split by name, such as ``val/miou`` and ``val/iou/sky``.

    Args:
        by_label: (35, K) pixel counts of the whole split, row: label id, column: predicted class.
        lut: uint8[256], label id -> class 0..K-1, or 255 for pixels that do not count.
        groups: names of the K classes.
        prefix: ``val`` or ``test``.

    Returns:
        ``miou``, ``pixel_accuracy``, ``fwiou``, ``f1``, ``iou/<group>`` (NaN for a group in neither prediction nor
        truth, which the means leave out), and with the default groups ``miou_official``.
    """
    confusion = group_rows(by_label, lut)
    iou = class_iou(confusion)
    metrics = {
        "miou": mean_of_present(iou),
        "pixel_accuracy": pixel_accuracy(confusion),
        "fwiou": frequency_weighted_iou(confusion),
        "f1": mean_of_present(class_f1(confusion)),
        **{f"iou/{group}": float(value) for group, value in zip(groups, iou, strict=True)},
    }
    if has_official_categories(groups, lut):
        official = official_category_iou(by_label, groups)
        metrics["miou_official"] = mean_of_present(list(official.values()))
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def as_confusion(counts: npt.ArrayLike) -> Confusion:
    """Return K x K counts as the records keep them."""
    return tuple(tuple(row) for row in np.asarray(counts, np.int64).tolist())


def mean_of_present(values: npt.ArrayLike) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    array = np.asarray(values, np.float64)
    present = array[~np.isnan(array)]
    return float(present.mean()) if present.size else math.nan


def _margins(confusion: npt.ArrayLike) -> tuple[Counts, Counts, Counts]:
    """Return the true positives, the row sums (truth) and the column sums (predictions) of each class."""
    counts = np.asarray(confusion, np.int64)
    return counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)


def _ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Divide; 0 / 0 is NaN without a warning."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.true_divide(numerator, denominator), np.float64)
