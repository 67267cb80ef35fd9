import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as official_labels

from segbench.core.errors import DataError
from segbench.data.labels import (
    CATEGORIES,
    CATEGORY_COLORS,
    EVALUATED_CATEGORIES,
    IGNORED_IDS,
    LABELS,
    build_lut,
    official_lut,
)
from segbench.spec.checks import DEFAULT_GROUPS


def stored(label_id: int) -> int:
    return 34 if label_id == -1 else label_id


def test_the_table_is_that_of_cityscapesscripts():
    ours = {label.id: (label.name, label.category, label.ignored, label.color) for label in LABELS}
    theirs = {stored(x.id): (x.name, x.category, x.ignoreInEval, x.color) for x in official_labels}
    assert ours == theirs
    assert [label.id for label in LABELS] == list(range(35))


def test_categories_are_numbered_as_by_cityscapes_and_named_as_the_sweep_file_expects():
    names, colors, lut = build_lut(None)
    assert names == tuple(CATEGORIES) == DEFAULT_GROUPS
    assert colors == tuple(CATEGORY_COLORS.values())
    assert [lut[stored(x.id)] for x in official_labels] == [x.categoryId for x in official_labels]
    assert (lut[35:] == 255).all()


def test_the_official_table_leaves_out_what_is_ignored_in_evaluation():
    lut = official_lut()
    for label in official_labels:
        expected = 255 if label.ignoreInEval else label.categoryId - 1
        assert lut[stored(label.id)] == expected, label.name
    assert len(EVALUATED_CATEGORIES) == 7
    assert frozenset(stored(x.id) for x in official_labels if x.ignoreInEval) == IGNORED_IDS


def test_ignored_groups_and_ids_in_no_group_become_255():
    names, colors, lut = build_lut({"road": [7], "void": [0, 1], "plate": [-1, 26]}, ignore=["void"])
    assert names == ("road", "plate")
    assert colors == ((128, 64, 128), (0, 0, 142))
    assert (lut[7], lut[34], lut[26]) == (0, 1, 1)
    assert np.count_nonzero(lut != 255) == 3


def test_ignoring_void_moves_the_other_classes_up():
    names, colors, lut = build_lut(None, ignore=("void",))
    assert names == EVALUATED_CATEGORIES
    assert colors[0] == CATEGORY_COLORS["flat"]
    assert lut[0] == 255
    assert lut[7] == 0


@pytest.mark.parametrize(
    ("groups", "ignore", "message"),
    [
        ({"a": [7], "b": [99]}, (), "'b' has label id 99, which does not exist; allowed are 0 to 33"),
        ({"a": [7, 8], "b": [8]}, (), r"label id 8 \(sidewalk\) is in 'a' and in 'b'"),
        ({"a": [7], "b": []}, (), "'b' has no label ids"),
        (None, ("viod",), "no group 'viod'; there are void, flat.*did you mean 'void'"),
        ({"a": [7]}, ("a",), "all groups are ignored"),
    ],
)
def test_wrong_groups_are_named(groups, ignore, message):
    with pytest.raises(DataError, match=message):
        build_lut(groups, ignore)
