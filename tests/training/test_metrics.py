"""Metrics: one confusion matrix, and equality with the libraries that define them."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from segbench.data.labels import CATEGORIES, EVALUATED_CATEGORIES, build_lut
from segbench.training.confusion import count_pixels, predict_classes
from segbench.training.metrics import (
    NUM_LABELS,
    as_confusion,
    class_f1,
    class_iou,
    class_precision,
    class_recall,
    group_rows,
    has_official_categories,
    metrics_from_confusion,
    official_category_iou,
)

GROUPS, _, LUT = build_lut(None)
WITHOUT_VOID, _, LUT_WITHOUT_VOID = build_lut(None, ("void",))

Array = npt.NDArray[np.uint8]


def random_maps(seed: int, num_classes: int, ids: list[int] | None = None) -> tuple[Array, Array]:
    """Return blocky label maps (ids 0..33) and predictions that are right about half of the time."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(ids if ids is not None else np.arange(34), size=(3, 12, 16)).astype(np.uint8)
    labels = labels.repeat(2, axis=1).repeat(2, axis=2)
    lut = LUT if num_classes == len(GROUPS) else LUT_WITHOUT_VOID
    right = np.where(lut[labels] == 255, 0, lut[labels])
    noise = rng.integers(0, num_classes, size=labels.shape)
    return labels, np.where(rng.random(labels.shape) < 0.5, right, noise).astype(np.uint8)


def count(prediction: Array, labels: Array, num_classes: int) -> npt.NDArray[np.int64]:
    return count_pixels(torch.from_numpy(prediction), torch.from_numpy(labels), num_classes).numpy()


def official_scores(
    folder: Path, labels: Array, prediction: Array, groups: tuple[str, ...]
) -> tuple[Mapping[str, float], float]:
    """Return what cityscapesScripts computes from PNG files; a group is written as its first evaluated id."""
    evaluation = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    args = evaluation.args
    args.evalInstLevelScore, args.quiet, args.JSONOutput = False, True, False
    first_id = {"void": 0, "flat": 7, "construction": 11, "object": 17, "nature": 21, "sky": 23, "human": 24}
    ids = np.array([first_id.get(group, 26) for group in groups], np.uint8)
    truths, predictions = [], []
    for index, (truth, predicted) in enumerate(zip(labels, prediction, strict=True)):
        truths.append(str(folder / f"a_{index:06d}_000000_gtFine_labelIds.png"))
        predictions.append(str(folder / f"a_{index:06d}_000000_pred.png"))
        Image.fromarray(truth).save(truths[-1])
        Image.fromarray(ids[predicted]).save(predictions[-1])
    result = evaluation.evaluateImgLists(predictions, truths, args)
    return result["categoryScores"], result["averageScoreCategories"]


@pytest.mark.parametrize("groups", [GROUPS, WITHOUT_VOID], ids=["with void", "void ignored"])
@pytest.mark.parametrize("seed", range(5))
def test_official_category_iou_equals_cityscapesscripts(tmp_path: Path, seed: int, groups: tuple[str, ...]) -> None:
    labels, prediction = random_maps(seed, len(groups))
    counts = count(prediction, labels, len(groups))
    theirs, mean = official_scores(tmp_path, labels, prediction, groups)
    ours = official_category_iou(counts, groups)
    for category in EVALUATED_CATEGORIES:
        assert ours[category] == pytest.approx(theirs[category], abs=1e-12)
    lut = LUT if "void" in groups else LUT_WITHOUT_VOID
    assert metrics_from_confusion(counts, lut, groups)["val/miou_official"] == pytest.approx(mean, abs=1e-12)


def test_official_category_iou_of_absent_categories_equals_cityscapesscripts(tmp_path: Path) -> None:
    labels, _ = random_maps(0, 8, ids=[0, 4, 7, 9, 11, 18, 29])  # object and vehicle only as ignored labels
    prediction = np.where(labels < 8, 1, 2).astype(np.uint8)
    theirs, mean = official_scores(tmp_path, labels, prediction, GROUPS)
    counts = count(prediction, labels, 8)
    ours = official_category_iou(counts, GROUPS)
    for category in EVALUATED_CATEGORIES:
        assert ours[category] == pytest.approx(theirs[category], abs=1e-12, nan_ok=True)
    assert sum(map(math.isnan, ours.values())) == 5
    assert metrics_from_confusion(counts, LUT, GROUPS)["val/miou_official"] == pytest.approx(mean, abs=1e-12)


def test_void_predicted_on_a_real_pixel_is_a_false_negative_and_ignored_truth_does_not_count() -> None:
    labels = np.array([7, 7, 7, 0, 9, 34], np.uint8)
    prediction = np.array([1, 1, 0, 1, 2, 1], np.uint8)
    official = official_category_iou(count(prediction, labels, 8), GROUPS)
    assert official["flat"] == pytest.approx(2 / 3)
    assert math.isnan(official["construction"])
    assert math.isnan(official["vehicle"])


def test_official_metric_is_given_only_for_the_official_categories() -> None:
    assert has_official_categories(GROUPS, LUT)
    assert has_official_categories(WITHOUT_VOID, LUT_WITHOUT_VOID)
    for ignored in ("sky", "flat"):
        groups, _, lut = build_lut(None, (ignored,))
        assert not has_official_categories(groups, lut)
    moved = {**CATEGORIES, "flat": (7,), "construction": (8, *CATEGORIES["construction"])}
    groups, _, lut = build_lut(moved)
    assert not has_official_categories(groups, lut)
    groups, _, lut = build_lut({"road": (7,), "rest": (8, 11)})
    assert not has_official_categories(groups, lut)
    counts = np.ones((NUM_LABELS, 2), np.int64)
    assert "val/miou_official" not in metrics_from_confusion(counts, lut, groups)


def test_metrics_equal_a_pixel_by_pixel_count() -> None:
    labels, prediction = random_maps(3, 7)
    metrics = metrics_from_confusion(count(prediction, labels, 7), LUT_WITHOUT_VOID, WITHOUT_VOID)
    truth = LUT_WITHOUT_VOID[labels]
    valid = truth != 255
    truth, predicted = truth[valid], prediction[valid]
    ious, f1s, weighted = [], [], 0.0
    for index, group in enumerate(WITHOUT_VOID):
        both = ((truth == index) & (predicted == index)).sum()
        either = ((truth == index) | (predicted == index)).sum()
        ious.append(both / either)
        f1s.append(2 * both / (2 * both + (either - both)))
        weighted += both / either * (truth == index).mean()
        assert metrics[f"val/iou/{group}"] == pytest.approx(both / either, abs=1e-12)
    assert metrics["val/miou"] == pytest.approx(np.mean(ious), abs=1e-12)
    assert metrics["val/f1"] == pytest.approx(np.mean(f1s), abs=1e-12)
    assert metrics["val/fwiou"] == pytest.approx(weighted, abs=1e-12)
    assert metrics["val/pixel_accuracy"] == pytest.approx((truth == predicted).mean(), abs=1e-12)


def test_absent_classes_are_left_out_of_the_mean_and_wrongly_predicted_ones_are_not() -> None:
    confusion = np.diag([5, 0, 3])
    assert class_iou(confusion).tolist()[::2] == [1.0, 1.0]
    assert math.isnan(class_iou(confusion)[1])
    by_label = np.zeros((NUM_LABELS, 3), np.int64)
    by_label[7], by_label[11] = [6, 2, 0], [0, 0, 0]
    groups, _, lut = build_lut({"a": (7,), "b": (11,), "c": (23,)})
    metrics = metrics_from_confusion(by_label, lut, groups, "test")
    assert metrics["test/iou/b"] == 0.0
    assert math.isnan(metrics["test/iou/c"])
    assert metrics["test/miou"] == pytest.approx((0.75 + 0) / 2)


def test_ignored_pixels_do_not_count() -> None:
    labels, prediction = random_maps(1, 7)
    counts = count(prediction, labels, 7)
    before = metrics_from_confusion(counts, LUT_WITHOUT_VOID, WITHOUT_VOID)
    counts[:7] += 1000  # void rows
    assert metrics_from_confusion(counts, LUT_WITHOUT_VOID, WITHOUT_VOID) == before


def test_without_any_pixel_every_metric_is_nan_and_nothing_warns() -> None:
    metrics = metrics_from_confusion(np.zeros((NUM_LABELS, 8)), LUT, GROUPS)
    assert all(math.isnan(value) for value in metrics.values())


def test_counting_in_parts_equals_counting_at_once_and_is_not_a_mean_of_parts() -> None:
    labels, prediction = random_maps(2, 8)
    whole = count(prediction, labels, 8)
    parts = [count(p[None], t[None], 8) for p, t in zip(prediction, labels, strict=True)]
    assert np.array_equal(whole, np.sum(parts, axis=0))
    means = [metrics_from_confusion(part, LUT, GROUPS)["val/miou"] for part in parts]
    assert metrics_from_confusion(whole, LUT, GROUPS)["val/miou"] != pytest.approx(np.mean(means), abs=1e-6)


def test_counts_are_by_label_id_up_to_the_licence_plate() -> None:
    labels = np.arange(35, dtype=np.uint8)
    prediction = np.full(35, 7, np.uint8)
    counts = count(prediction, labels, 8)
    assert counts.shape == (NUM_LABELS, 8)
    assert counts.dtype == np.int64
    assert counts[:, 7].tolist() == [1] * 35
    assert counts.sum() == 35


def test_an_unknown_label_id_is_refused() -> None:
    with pytest.raises(ValueError, match="out of range"):
        count(np.zeros(1, np.uint8), np.array([40], np.uint8), 8)


@pytest.mark.parametrize("num_classes", [2, 8, 35])
def test_counting_without_bincount_gives_the_same(num_classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 35, (2, 8, 8)).astype(np.uint8))
    prediction = torch.from_numpy(rng.integers(0, num_classes, (2, 8, 8)).astype(np.uint8))
    expected = torch.zeros(35, num_classes, dtype=torch.int64)
    expected.index_put_((labels.long(), prediction.long()), torch.tensor(1), accumulate=True)
    assert torch.equal(count_pixels(prediction, labels, num_classes), expected)


def test_predicted_class_is_the_first_largest_logit() -> None:
    logits = torch.randn(2, 8, 9, 7, generator=torch.Generator().manual_seed(0)).round(decimals=0)
    prediction = predict_classes(logits)
    assert prediction.dtype == torch.uint8
    assert np.array_equal(prediction.numpy(), logits.numpy().argmax(axis=1))


def test_precision_recall_and_f1_agree() -> None:
    confusion = np.array([[6, 2], [1, 3]])
    precision, recall = class_precision(confusion), class_recall(confusion)
    assert precision.tolist() == pytest.approx([6 / 7, 3 / 5])
    assert recall.tolist() == pytest.approx([6 / 8, 3 / 4])
    assert class_f1(confusion).tolist() == pytest.approx((2 * precision * recall / (precision + recall)).tolist())


def test_grouped_counts_become_plain_integers() -> None:
    by_label = np.zeros((NUM_LABELS, 8), np.int64)
    by_label[7, 1], by_label[9, 2], by_label[34, 7] = 5, 2, 3
    confusion = as_confusion(group_rows(by_label, LUT))
    assert confusion[1] == (0, 5, 2, 0, 0, 0, 0, 0)
    assert confusion[7][7] == 3
    assert all(type(value) is int for row in confusion for value in row)
