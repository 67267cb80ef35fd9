"""Cityscapes label ids, their categories and colours, and the way to group them into classes.

Three different things with three names: a *label id* is what a label PNG holds (0-33, and 34 for the licence
plate, whose official id -1 does not fit a byte); a *group* is a class of the sweep, by default one of the 8
categories; the *ignore index* 255 marks pixels that are neither trained on nor scored.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segbench.core.errors import DataError

Color = tuple[int, int, int]

IGNORE_INDEX = 255
LICENSE_PLATE = 34
"""Where the licence plate (official id -1) is stored."""


@dataclass(frozen=True)
class Label:
    """A row of the Cityscapes label table."""

    id: int
    name: str
    category: str
    ignored: bool
    """Ground-truth pixels of this label do not count in the official evaluation."""
    color: Color


LABELS: tuple[Label, ...] = (
    Label(0, "unlabeled", "void", True, (0, 0, 0)),
    Label(1, "ego vehicle", "void", True, (0, 0, 0)),
    Label(2, "rectification border", "void", True, (0, 0, 0)),
    Label(3, "out of roi", "void", True, (0, 0, 0)),
    Label(4, "static", "void", True, (0, 0, 0)),
    Label(5, "dynamic", "void", True, (111, 74, 0)),
    Label(6, "ground", "void", True, (81, 0, 81)),
    Label(7, "road", "flat", False, (128, 64, 128)),
    Label(8, "sidewalk", "flat", False, (244, 35, 232)),
    Label(9, "parking", "flat", True, (250, 170, 160)),
    Label(10, "rail track", "flat", True, (230, 150, 140)),
    Label(11, "building", "construction", False, (70, 70, 70)),
    Label(12, "wall", "construction", False, (102, 102, 156)),
    Label(13, "fence", "construction", False, (190, 153, 153)),
    Label(14, "guard rail", "construction", True, (180, 165, 180)),
    Label(15, "bridge", "construction", True, (150, 100, 100)),
    Label(16, "tunnel", "construction", True, (150, 120, 90)),
    Label(17, "pole", "object", False, (153, 153, 153)),
    Label(18, "polegroup", "object", True, (153, 153, 153)),
    Label(19, "traffic light", "object", False, (250, 170, 30)),
    Label(20, "traffic sign", "object", False, (220, 220, 0)),
    Label(21, "vegetation", "nature", False, (107, 142, 35)),
    Label(22, "terrain", "nature", False, (152, 251, 152)),
    Label(23, "sky", "sky", False, (70, 130, 180)),
    Label(24, "person", "human", False, (220, 20, 60)),
    Label(25, "rider", "human", False, (255, 0, 0)),
    Label(26, "car", "vehicle", False, (0, 0, 142)),
    Label(27, "truck", "vehicle", False, (0, 0, 70)),
    Label(28, "bus", "vehicle", False, (0, 60, 100)),
    Label(29, "caravan", "vehicle", True, (0, 0, 90)),
    Label(30, "trailer", "vehicle", True, (0, 0, 110)),
    Label(31, "train", "vehicle", False, (0, 80, 100)),
    Label(32, "motorcycle", "vehicle", False, (0, 0, 230)),
    Label(33, "bicycle", "vehicle", False, (119, 11, 32)),
    Label(LICENSE_PLATE, "license plate", "vehicle", True, (0, 0, 142)),
)

CATEGORY_COLORS: dict[str, Color] = {
    "void": (0, 0, 0),
    "flat": (128, 64, 128),
    "construction": (70, 70, 70),
    "object": (153, 153, 153),
    "nature": (107, 142, 35),
    "sky": (70, 130, 180),
    "human": (220, 20, 60),
    "vehicle": (0, 0, 142),
}
"""The 8 categories in the order of their Cityscapes category ids, each with the colour of its commonest label."""

CATEGORIES: dict[str, tuple[int, ...]] = {
    category: tuple(label.id for label in LABELS if label.category == category) for category in CATEGORY_COLORS
}
"""Category -> label ids: the groups of a sweep that names none."""

EVALUATED_CATEGORIES: tuple[str, ...] = tuple(name for name in CATEGORIES if name != "void")
"""The 7 categories of the official category IoU."""

VOID_IDS = frozenset(CATEGORIES["void"])
IGNORED_IDS = frozenset(label.id for label in LABELS if label.ignored)
"""Label ids whose ground-truth pixels the official evaluation leaves out."""


def official_lut() -> npt.NDArray[np.uint8]:
    """Return the truth side of the official category IoU: uint8[256], label id -> 0..6, or 255 = not counted.

    The index is that of EVALUATED_CATEGORIES. Void and all other labels that are ignored in evaluation are 255.
    A *prediction* of an ignored label is not left out: it is an error, as in cityscapesScripts.
    """
    lut = np.full(256, IGNORE_INDEX, np.uint8)
    for label in LABELS:
        if not label.ignored:
            lut[label.id] = EVALUATED_CATEGORIES.index(label.category)
    return lut


def build_lut(
    groups: Mapping[str, Sequence[int]] | None, ignore: Collection[str] = ()
) -> tuple[tuple[str, ...], tuple[Color, ...], npt.NDArray[np.uint8]]:
    """Return class names, class colours and the table label id -> class index.

    Args:
        groups: Group name -> label ids, in class order; None: the 8 categories.
        ignore: Groups that become no class: their pixels are 255.

    Returns:
        Names and colours of the K groups that are not ignored, and uint8[256] with values 0..K-1, or 255 for
        ignored groups, ids in no group, and numbers that are no label id.

    Raises:
        DataError: An unknown id, an id in two groups, an unknown name in ``ignore``, or no class left.
    """
    groups = CATEGORIES if groups is None else groups
    _check_groups(groups, ignore)
    names = tuple(name for name in groups if name not in ignore)
    lut = np.full(256, IGNORE_INDEX, np.uint8)
    for index, name in enumerate(names):
        for label_id in groups[name]:
            lut[_stored(label_id)] = index
    return names, tuple(_group_color(name, groups[name]) for name in names), lut


def _check_groups(groups: Mapping[str, Sequence[int]], ignore: Collection[str]) -> None:
    owner: dict[int, str] = {}
    for name, label_ids in groups.items():
        if not label_ids:
            raise DataError(f"data.groups: {name!r} has no label ids; give some, or drop the group")
        for label_id in label_ids:
            if not 0 <= _stored(label_id) < len(LABELS):
                raise DataError(
                    f"data.groups: {name!r} has label id {label_id}, which does not exist; "
                    f"allowed are 0 to 33, and -1 (licence plate); docs/data.md has the table"
                )
            other = owner.setdefault(_stored(label_id), name)
            if other != name:
                raise DataError(
                    f"data.groups: label id {label_id} ({LABELS[_stored(label_id)].name}) is in {other!r} and in "
                    f"{name!r}; keep it in one of them"
                )
    for name in ignore:
        if name not in groups:
            near = difflib.get_close_matches(name, groups, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"data.ignore: no group {name!r}; there are {', '.join(groups)}{hint}")
    num_classes = len(set(groups) - set(ignore))
    if num_classes == 0:
        raise DataError("data.ignore: all groups are ignored, so there is nothing to learn; keep at least two")
    if num_classes > IGNORE_INDEX:  # pragma: no cover - there are only 35 ids
        raise DataError(f"data.groups: {num_classes} groups are too many for a byte")


def _stored(label_id: int) -> int:
    """Return where an official label id is stored: itself, but 34 for -1."""
    return LICENSE_PLATE if label_id == -1 else label_id


def _group_color(name: str, label_ids: Sequence[int]) -> Color:
    """Return the category's colour for a category, else the first label's."""
    if CATEGORIES.get(name) == tuple(sorted(map(_stored, label_ids))):
        return CATEGORY_COLORS[name]
    return LABELS[_stored(label_ids[0])].color
