import numpy as np
import pytest

from segbench.data.labels import LABELS, build_lut
from segbench.data.streets import make_street

SIZE = (64, 128)


@pytest.fixture(scope="module")
def streets() -> list[tuple[np.ndarray, np.ndarray]]:
    return [make_street(0, index, SIZE) for index in range(60)]


def test_a_scene_is_a_picture_and_a_map_of_label_ids(streets):
    for image, labels in streets:
        assert (image.shape, image.dtype) == ((*SIZE, 3), np.uint8)
        assert (labels.shape, labels.dtype) == (SIZE, np.uint8)
        assert labels.max() < len(LABELS)
        assert image.std() > 8


def test_seed_and_index_alone_decide(streets):
    again = make_street(0, 7, SIZE)
    assert np.array_equal(again[0], streets[7][0])
    assert np.array_equal(again[1], streets[7][1])
    for other in (make_street(1, 7, SIZE), make_street(0, 8, SIZE)):
        assert (other[1] != again[1]).mean() > 0.05


@pytest.mark.parametrize("size", [(16, 16), (37, 53), (128, 64), (96, 96)])
def test_any_size_shows_the_same_scene(size):
    _, wanted = make_street(3, 5, (128, 256))
    image, labels = make_street(3, 5, size)
    assert image.shape == (*size, 3)
    rows = ((np.arange(size[0]) + 0.5) * 128 / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * 256 / size[1]).astype(int)
    # leaves differ, and thin things are never thinner than a pixel
    assert (labels == wanted[rows[:, None], columns]).mean() > 0.7


def test_all_categories_occur_as_unevenly_as_in_cityscapes(streets):
    _, _, lut = build_lut(None)
    counts = np.bincount(lut[np.stack([labels for _, labels in streets])].ravel(), minlength=8)
    void, flat, construction, thing, nature, sky, human, vehicle = counts / counts.sum()
    assert 0.25 < flat < 0.5
    assert 0.15 < construction < 0.4
    assert 0.08 < nature < 0.25
    assert 0.02 < sky < 0.15
    assert 0.02 < vehicle < 0.15
    assert 0.01 < void < 0.1
    assert 0.005 < thing < 0.04
    assert 0.005 < human < 0.03


def test_many_label_ids_occur_also_some_that_are_ignored_in_evaluation(streets):
    present = set(np.unique(np.stack([labels for _, labels in streets])).tolist())
    assert {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 33} <= present
    assert present & {9, 10, 14, 18}


def test_colour_alone_does_not_tell_the_category(streets):
    """The best guess from a pixel's colour (16 levels a channel) misses small classes nearly always."""
    _, _, lut = build_lut(None, ignore=("void",))
    images = np.concatenate([image.reshape(-1, 3) for image, _ in streets]) // 16
    classes = np.concatenate([lut[labels].ravel() for _, labels in streets])
    code = images.astype(int) @ [256, 16, 1]
    valid = classes != 255
    table = np.zeros((4096, 7), int)
    np.add.at(table, (code[valid], classes[valid]), 1)
    guess = table.argmax(1)[code[valid]]
    confusion = np.bincount(classes[valid] * 7 + guess, minlength=49).reshape(7, 7)
    iou = np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))
    assert iou.mean() < 0.4
    assert iou[5] < 0.1
    assert iou[2] < 0.1
