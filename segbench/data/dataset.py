"""From the settings of the sweep file to three splits of arrays."""

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segbench.core.address import cache_root, is_bucket
from segbench.core.config import DataConfig
from segbench.core.errors import DataError, StorageError
from segbench.data.cityscapes import check_files
from segbench.data.labels import Color, build_lut
from segbench.data.packed import SUFFIX, PackedSet, find_packed, open_packed
from segbench.data.recipes import has_source, make_plan, set_name
from segbench.data.shelf import Card, Shelf, advice, at
from segbench.data.splits import SPLIT_NAMES

MIN_SIZE_PX = 16


@dataclass(frozen=True, eq=False)
class Split:
    """Some scenes at the chosen size; the arrays are read-only views of a mapped file."""

    images: npt.NDArray[np.uint8]
    """(N, H, W, 3) RGB."""
    labels: npt.NDArray[np.uint8]
    """(N, H, W) label ids, 0..34; ``SegmentationData.lut`` makes class indices of them."""
    label_counts: npt.NDArray[np.uint32]
    """(N, 35) pixels of each label id."""
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SegmentationData:
    """What a training sees: three splits, and the K classes."""

    train: Split
    val: Split
    test: Split
    groups: tuple[str, ...]
    """Class names in class order; ignored groups are not among them."""
    colors: tuple[Color, ...]
    lut: npt.NDArray[np.uint8]
    """uint8[256]: label id -> class index 0..K-1, or 255 = ignored."""


def open_data(config: DataConfig) -> SegmentationData:
    """Return the data of ``config``; decodes and packs, or fetches it on first use, and is cached per process.

    Raises:
        DataError: Anything is wrong with the settings or the files; names the setting or the file.
        StorageError: The bucket of packed sets refuses, or does not answer.
    """
    return _open(json.dumps(asdict(config)))


@lru_cache(maxsize=4)
def _open(settings: str) -> SegmentationData:
    """Open by JSON text, because a DataConfig with groups cannot be hashed."""
    config = DataConfig(**json.loads(settings))
    groups, colors, lut = _classes(config)
    packed = _find_or_make(config)
    height, width = packed.images.shape[1:3]
    if (height, width) != tuple(config.size):
        raise DataError(f"data.size: {list(config.size)}, but {config.packed} holds {[height, width]}; write that")
    splits, start = {}, 0
    for name in SPLIT_NAMES:
        names = packed.names[name]
        rows = slice(start, start + len(names))
        splits[name] = Split(packed.images[rows], packed.labels[rows], packed.label_counts[rows], names)
        start += len(names)
    return SegmentationData(**splits, groups=groups, colors=colors, lut=lut)


def _find_or_make(config: DataConfig) -> PackedSet:
    """Look in this node's cache, then on the shelf, then pack here."""
    folder = cache_folder(config)
    if config.packed is None:
        return open_packed(make_plan(config).recipe, folder)
    if one := at(config.packed):
        shelf, key = one
        return shelf.fetch(key, folder)
    shelf = Shelf(config.packed)
    if not has_source(config):
        return shelf.fetch(_look_up(shelf, config).key, folder)
    recipe = make_plan(config).recipe
    if find_packed(recipe.key, folder) is None and shelf.has(recipe.key):
        return shelf.fetch(recipe.key, folder)
    return open_packed(recipe, folder)


def check_data(config: DataConfig) -> None:
    """Check settings, files (headers, sizes, missing labels) and splits; decodes, packs and fetches nothing.

    Where the pictures are not here, their packed set must be where ``config.packed`` says. What only decoding can tell
    (a PNG damaged in the middle) is an error of :func:`open_data`.

    Raises:
        DataError: Names the setting or the file.
    """
    _classes(config)
    try:
        if config.packed is None:
            check_files(make_plan(config).pairs)
        elif one := at(config.packed):
            shelf, key = one
            if not shelf.has(key):
                raise DataError(f"data.packed: {config.packed} is not there; {advice(shelf.uri)}")
        elif has_source(config):
            check_files(make_plan(config).pairs)
        else:
            _look_up(Shelf(config.packed), config)
    except StorageError as error:
        raise DataError(f"data.packed: {error}") from error


@dataclass(frozen=True)
class Shared:
    """A packed set that all nodes can fetch."""

    config: DataConfig
    """The settings by which they do: ``packed`` is the address of this one set."""
    is_uploaded: bool = False
    """Whether it was not there before."""
    changed: str = ""
    """What is not any more as it was when the sweep began, which goes on with what it began with."""


def share_data(config: DataConfig, begun_with: str | None = None) -> Shared:
    """Put the packed set of ``config`` where all nodes find it; fetches nothing, and packs only what is nowhere yet.

    Args:
        config: the settings; those without ``packed``, or with the address of one set, come back as they are.
        begun_with: key of the set that a sweep has begun with. If it is still there, it is the one.

    Raises:
        DataError: the pictures cannot be packed, there are neither pictures nor a packed set of them, or the bucket
            cannot be used.
    """
    if config.packed is None or config.packed.endswith(SUFFIX):
        return Shared(config)
    try:
        return _share(config, Shelf(config.packed), begun_with)
    except StorageError as error:
        raise DataError(f"data.packed: {error}") from error


def _share(config: DataConfig, shelf: Shelf, begun_with: str | None) -> Shared:
    if begun_with is not None and shelf.has(begun_with):
        return Shared(replace(config, packed=shelf.address(begun_with)), changed=_changed(config, shelf, begun_with))
    if not has_source(config):
        return Shared(replace(config, packed=shelf.address(_look_up(shelf, config).key)))
    recipe, folder, name = make_plan(config).recipe, cache_folder(config), set_name(config)
    card = shelf.find(name)
    is_uploaded = False
    if card is None or card.key != recipe.key or find_packed(recipe.key, folder) is not None:
        is_uploaded = shelf.put(name, recipe.key, open_packed(recipe, folder), folder)
    return Shared(replace(config, packed=shelf.address(recipe.key)), is_uploaded)


def is_shared(config: DataConfig) -> bool:
    """Whether the packed set is where ``config.packed`` says, by its name.

    Raises:
        StorageError: the bucket refuses, or does not answer.
    """
    assert config.packed is not None
    if one := at(config.packed):
        shelf, key = one
        return shelf.has(key)
    return Shelf(config.packed).find(set_name(config)) is not None


def _changed(config: DataConfig, shelf: Shelf, key: str) -> str:
    """Return what is another than the set ``key`` now, in words."""
    if has_source(config):
        is_same = make_plan(config).recipe.key == key
        return "" if is_same else f"the files in {config.root} have changed"
    card = shelf.find(set_name(config))
    return "" if card is None or card.key == key else f"{shelf.uri} has a newer set of this name"


def _look_up(shelf: Shelf, config: DataConfig) -> Card:
    name = set_name(config)
    card = shelf.find(name)
    if card is None:
        where = "data.root names no folder" if config.root is None else f"there is no data.root {config.root} here"
        raise DataError(f"{where}, and no packed set in {shelf.uri} ({name}.json); {advice(shelf.uri)}")
    return card


def count_images(config: DataConfig) -> dict[str, int] | None:
    """Return the number of images of each split; None where the data are elsewhere.

    Raises:
        DataError: the settings are wrong, or the files are not there.
    """
    if has_source(config):
        return {str(name): len(names) for name, names in make_plan(config).recipe.names.items()}
    facts = describe_data(config)
    return None if facts is None else facts.num_images


@dataclass(frozen=True)
class DataFacts:
    """Which data exactly."""

    digest: str
    """16 hexadecimal digits of all pixels, label ids and names, in their order: the same on every machine."""
    num_images: dict[str, int]
    groups: tuple[str, ...]
    key: str
    """Of the packed set."""


def describe_data(config: DataConfig) -> DataFacts | None:
    """Return what tells this data set from others; None where it is not packed on this machine (yet).

    Raises:
        DataError: the settings are wrong, or the files are not there.
    """
    is_one = config.packed is not None and config.packed.endswith(SUFFIX)
    key = Path(str(config.packed)).stem if is_one else make_plan(config).recipe.key
    packed = find_packed(key, cache_folder(config))
    if packed is None:
        return None
    num_images = {str(name): len(names) for name, names in packed.names.items()}
    return DataFacts(packed.digest, num_images, _classes(config)[0], key)


def _classes(config: DataConfig) -> tuple[tuple[str, ...], tuple[Color, ...], npt.NDArray[np.uint8]]:
    height, width = config.size
    if min(height, width) < MIN_SIZE_PX:
        raise DataError(f"data.size: {height}x{width} is too small; at least {MIN_SIZE_PX} pixels each way")
    groups, colors, lut = build_lut(config.groups, config.ignore)
    lut.flags.writeable = False
    return groups, colors, lut


def absolute(config: DataConfig) -> DataConfig:
    """Return the section as a worker needs it, whose current folder is another one."""

    def resolve(path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().absolute())

    packed = config.packed if config.packed and is_bucket(config.packed) else resolve(config.packed)
    return replace(config, root=resolve(config.root), cache_dir=resolve(config.cache_dir), packed=packed)


def cache_folder(config: DataConfig) -> Path:
    """Return the folder in which this machine keeps what is made once: packed data, measurements, compiled code."""
    return Path(config.cache_dir).expanduser() if config.cache_dir else cache_root()
