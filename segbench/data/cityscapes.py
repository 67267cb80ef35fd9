"""Images and label maps in the official Cityscapes layout: index, checks, reading.

<root>/leftImg8bit/{train,val,test}/<city>/<name>_leftImg8bit.png
<root>/gtFine/{train,val,test}/<city>/<name>_gtFine_labelIds.png

Any folder in this layout will do. Other folders beside train, val and test (``train_extra``) are not read.
"""

import os
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from segbench.core.errors import DataError
from segbench.data.labels import LICENSE_PLATE, VOID_IDS
from segbench.data.splits import SPLIT_NAMES, Scene

IMAGES = "leftImg8bit"
IMAGE_SUFFIX = "_leftImg8bit.png"
LABEL_SUFFIX = "_gtFine_labelIds.png"
IMAGE_MODES = frozenset({"RGB", "RGBA", "L", "P"})
LABEL_MODES = frozenset({"L", "P"})
PNG_END = b"IEND\xaeB`\x82"
NUM_PROBES = 8
"""Label maps of the test folder that are looked into to learn whether they are dummies."""

UInt8Array = npt.NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class ImagePair:
    """An image and its label map."""

    scene: Scene
    image: Path
    label: Path


def index_folder(root: Path) -> tuple[ImagePair, ...]:
    """Return all labelled images under ``root``, sorted.

    A ``test`` folder without labels, or with dummy labels of nothing but void (as Cityscapes ships them), is
    left out as a whole.

    Raises:
        DataError: No such folder, no images, or an image without a label map.
    """
    images = root / IMAGES
    if not images.is_dir():
        hint = "; give its parent folder" if root.name in ("leftImg8bit", "gtFine") else ""
        raise DataError(f"data.root: {root} has no folder leftImg8bit{hint} (docs/data.md shows the layout)")
    pairs = [pair for folder in SPLIT_NAMES for pair in _labelled(_index_split(root, folder), is_test=folder == "test")]
    if not pairs:
        raise DataError(f"data.root: no labelled image in {images}; expected {{train,val}}/<city>/<name>{IMAGE_SUFFIX}")
    return tuple(sorted(pairs, key=lambda pair: pair.scene))


def check_files(pairs: Iterable[ImagePair]) -> None:
    """Check header and end of all files: PNG, complete, 8 bits, label map of the image's size.

    Nothing is decoded: a fraction of a millisecond a file.

    Raises:
        DataError: Names the first file that is wrong.
    """
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(_check_pair, pairs):
            pass


def read_pair(pair: ImagePair, size: tuple[int, int]) -> tuple[UInt8Array, UInt8Array]:
    """Decode and resize an image (antialiased bilinear) and its label map (nearest).

    Returns:
        Image (H, W, 3) and label ids (H, W) with values 0..34, both uint8.

    Raises:
        DataError: A file cannot be decoded, or holds a number that is no label id.
    """
    _check_pair(pair)
    target = (size[1], size[0])
    image = _decode(pair.image, lambda png: png.convert("RGB").resize(target, Image.Resampling.BILINEAR))
    # ids are looked at before resizing, which may drop the only wrong pixel
    label = _decode(pair.label, lambda png: png)
    ids = _as_label_ids(np.asarray(label), pair.label)
    if ids.shape != size:
        ids = np.asarray(Image.fromarray(ids).resize(target, Image.Resampling.NEAREST))
    return np.asarray(image), ids


def fingerprint(pairs: Iterable[ImagePair]) -> list[tuple[str, str, str, int, int]]:
    """Return place, bytes and modification time (ns) of all files: what a packed file depends on.

    The place is without the root, so that it is the same on every machine with a faithful copy of the folder.
    """
    return [(*pair.scene, *_file_state(path)) for pair in pairs for path in (pair.image, pair.label)]


def _file_state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:  # a broken link, or no permission
        raise _unreadable(path, error) from error
    return stat.st_size, stat.st_mtime_ns


def _index_split(root: Path, folder: str) -> list[ImagePair]:
    pairs = []
    for image in sorted((root / IMAGES / folder).glob(f"*/*{IMAGE_SUFFIX}")):
        city, name = image.parent.name, image.name.removesuffix(IMAGE_SUFFIX)
        label = root / "gtFine" / folder / city / (name + LABEL_SUFFIX)
        pairs.append(ImagePair(Scene(folder, city, name), image, label))
    return pairs


def _labelled(pairs: list[ImagePair], is_test: bool) -> list[ImagePair]:
    missing = [pair for pair in pairs if not pair.label.is_file()]
    if is_test and (len(missing) == len(pairs) or _are_dummies(pairs)):
        return []
    if missing:
        more = f" ({len(missing)} of {len(pairs)} images of this folder have none)" if len(missing) > 1 else ""
        raise DataError(f"{missing[0].image}: no label map{more}; expected {missing[0].label}")
    return pairs


def _are_dummies(pairs: list[ImagePair]) -> bool:
    """Whether a few evenly spread label maps hold nothing but void; a real street never does."""
    step = max(1, len(pairs) // NUM_PROBES)
    present = [pair.label for pair in pairs[::step] if pair.label.is_file()]
    return all(VOID_IDS.issuperset(np.unique(_decode(label, np.asarray)).tolist()) for label in present)


def _check_pair(pair: ImagePair) -> None:
    image_size = _check_png(pair.image, IMAGE_MODES, "an 8-bit colour image")
    label_size = _check_png(pair.label, LABEL_MODES, "a map of 8-bit label ids")
    if image_size != label_size:
        raise DataError(
            f"{pair.label}: {_size(label_size)} pixels, but its image has {_size(image_size)}; "
            f"both must have the same size"
        )


def _check_png(path: Path, modes: frozenset[str], expected: str) -> tuple[int, int]:
    """Return width and height from the header."""
    try:
        with path.open("rb") as file:
            file.seek(-min(len(PNG_END), path.stat().st_size), os.SEEK_END)
            is_complete = file.read() == PNG_END
        with Image.open(path) as png:
            mode, size = png.mode, png.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    if not is_complete:
        raise DataError(f"{path}: the PNG is cut off; copy it again")
    if mode not in modes:
        raise DataError(f"{path}: pixel format {mode}, but {expected} must be one of {', '.join(sorted(modes))}")
    return size


def _decode(path: Path, use: Callable[[Image.Image], T]) -> T:
    """Open and decode ``path`` and return what ``use`` makes of it."""
    try:
        with Image.open(path) as png:
            png.load()
            return use(png)
    except (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def _as_label_ids(values: UInt8Array, path: Path) -> UInt8Array:
    """Return ``values`` with -1 (255 in a byte) stored as 34; other numbers above 34 are errors."""
    if values.ndim != 2 or values.dtype != np.uint8:
        raise DataError(f"{path}: not a map of 8-bit label ids")
    if values.max(initial=0) <= LICENSE_PLATE:
        return values
    ids = np.where(values == 255, np.uint8(LICENSE_PLATE), values)
    if ids.max() > LICENSE_PLATE:
        raise DataError(
            f"{path}: {ids.max()} is no Cityscapes label id (0 to 33, or 255 for -1); "
            f"is it a label map of another kind (colour, instanceIds)?"
        )
    return ids


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = "no such file" if isinstance(error, FileNotFoundError) else f"not a readable PNG ({error})"
    return DataError(f"{path}: {reason}; copy it again, or remove image and label map")


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
