"""From the settings of the sweep file to three splits of arrays."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segbench.config import DataConfig
from segbench.data.cityscapes import ImagePair, check_files, fingerprint, index_folder, read_pair
from segbench.data.labels import Color, build_lut
from segbench.data.packed import Recipe, UInt8Array, find_packed, open_packed
from segbench.data.splits import SPLIT_NAMES, Partition, Scene, SplitName, limit_partition, split_scenes
from segbench.data.streets import GENERATOR_VERSION, make_street
from segbench.errors import DataError
from segbench.seeding import derive_seed
from segbench.storage.address import cache_root

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


@dataclass(frozen=True)
class _Plan:
    """Everything known of the data before a pixel is read."""

    groups: tuple[str, ...]
    colors: tuple[Color, ...]
    lut: npt.NDArray[np.uint8]
    recipe: Recipe
    pairs: tuple[ImagePair, ...]
    """Files behind the scenes, in the recipe's order; none for streets."""


def open_data(config: DataConfig) -> SegmentationData:
    """Return the data of ``config``; decodes and packs it on first use, and is cached per process.

    Raises:
        DataError: Anything is wrong with the settings or the files; names the setting or the file.
    """
    return _open(json.dumps(asdict(config)))


def check_data(config: DataConfig) -> None:
    """Check settings, files (headers, sizes, missing labels) and splits; decodes and packs nothing.

    What only decoding can tell (a PNG damaged in the middle) is an error of :func:`open_data`.

    Raises:
        DataError: Names the setting or the file.
    """
    check_files(_plan(config).pairs)


@dataclass(frozen=True)
class DataFacts:
    """Which data exactly."""

    digest: str
    """16 hexadecimal digits of all pixels, label ids and names, in their order: the same on every machine."""
    num_images: dict[str, int]
    groups: tuple[str, ...]


def describe_data(config: DataConfig) -> DataFacts | None:
    """Return what tells this data set from others; None where it is not packed on this machine (yet).

    Reads the whole packed file, a second a gigabyte.

    Raises:
        DataError: the settings are wrong, or the files are not there.
    """
    plan = _plan(config)
    packed = find_packed(plan.recipe, cache_folder(config))
    if packed is None:
        return None
    digest = hashlib.sha256(json.dumps(plan.recipe.names).encode())
    for image, labels in zip(packed.images, packed.labels, strict=True):
        digest.update(image)
        digest.update(labels)
    num_images = {str(name): len(names) for name, names in plan.recipe.names.items()}
    return DataFacts(digest.hexdigest()[:16], num_images, plan.groups)


@lru_cache(maxsize=4)
def _open(settings: str) -> SegmentationData:
    """Open by JSON text, because a DataConfig with groups cannot be hashed."""
    config = DataConfig(**json.loads(settings))
    plan = _plan(config)
    packed = open_packed(plan.recipe, cache_folder(config))
    splits, start = {}, 0
    for name in SPLIT_NAMES:
        names = plan.recipe.names[name]
        rows = slice(start, start + len(names))
        splits[name] = Split(packed.images[rows], packed.labels[rows], packed.label_counts[rows], names)
        start += len(names)
    return SegmentationData(**splits, groups=plan.groups, colors=plan.colors, lut=plan.lut)


def _plan(config: DataConfig) -> _Plan:
    height, width = config.size
    if min(height, width) < MIN_SIZE_PX:
        raise DataError(f"data.size: {height}x{width} is too small; at least {MIN_SIZE_PX} pixels each way")
    groups, colors, lut = build_lut(config.groups, config.ignore)
    lut.flags.writeable = False
    if config.dataset == "streets":
        return _Plan(groups, colors, lut, _streets_recipe(config), ())
    recipe, pairs = _cityscapes_recipe(config)
    return _Plan(groups, colors, lut, recipe, pairs)


def _cityscapes_recipe(config: DataConfig) -> tuple[Recipe, tuple[ImagePair, ...]]:
    if config.root is None:
        raise DataError("data.root: dataset cityscapes needs the folder that holds leftImg8bit/ and gtFine/")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DataError(f"data.root: {root} is no folder; give the one that holds leftImg8bit/ and gtFine/")
    pair_of = {pair.scene: pair for pair in index_folder(root)}
    partition = split_scenes(list(pair_of), config.split, config.seed)
    partition = limit_partition(partition, config.limit)
    pairs = tuple(pair_of[scene] for scene in _in_order(partition))
    size = (config.size[0], config.size[1])

    def read(place: int) -> tuple[UInt8Array, UInt8Array]:
        return read_pair(pairs[place], size)

    return Recipe(["cityscapes", fingerprint(pairs)], size, _names(partition), read), pairs


def _streets_recipe(config: DataConfig) -> Recipe:
    if min(config.num_images) < 1:
        raise DataError(f"data.num_images: {list(config.num_images)}; each split needs at least one scene")
    partition: Partition = {
        name: tuple(Scene(name, "streets", f"{name}_{index:06d}") for index in range(count))
        for name, count in zip(SPLIT_NAMES, config.num_images, strict=True)
    }
    partition = limit_partition(partition, config.limit)
    scenes = _in_order(partition)
    size = (config.size[0], config.size[1])

    def read(place: int) -> tuple[UInt8Array, UInt8Array]:
        # a seed per split: more training scenes leave the validation scenes what they were
        scene = scenes[place]
        return make_street(derive_seed(config.seed, scene.folder), int(scene.name.split("_")[1]), size)

    return Recipe(["streets", GENERATOR_VERSION, config.seed], size, _names(partition), read)


def _in_order(partition: Partition) -> list[Scene]:
    return [scene for name in SPLIT_NAMES for scene in partition[name]]


def _names(partition: Partition) -> dict[SplitName, tuple[str, ...]]:
    return {name: tuple(scene.name for scene in partition[name]) for name in SPLIT_NAMES}


def absolute(config: DataConfig) -> DataConfig:
    """Return the section as a worker needs it, whose current folder is another one."""

    def resolve(path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().absolute())

    return replace(config, root=resolve(config.root), cache_dir=resolve(config.cache_dir))


def cache_folder(config: DataConfig) -> Path:
    """Return the folder in which this machine keeps what is made once: packed data, measurements, compiled code."""
    return Path(config.cache_dir).expanduser() if config.cache_dir else cache_root()
