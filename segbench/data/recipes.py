"""From the settings of the sweep file to what a packed file holds: which scenes, in which split, of which files."""

import re
from dataclasses import dataclass
from pathlib import Path

from segbench.core.config import DataConfig
from segbench.core.errors import DataError
from segbench.core.seeding import derive_seed
from segbench.data.cityscapes import IMAGES, ImagePair, fingerprint, index_folder, read_pair
from segbench.data.packed import FORMAT_VERSION, Recipe, UInt8Array
from segbench.data.splits import SPLIT_NAMES, Partition, Scene, SplitName, limit_partition, split_scenes
from segbench.data.streets import GENERATOR_VERSION, make_street


@dataclass(frozen=True)
class Plan:
    """Everything known of the data before a pixel is read."""

    recipe: Recipe
    pairs: tuple[ImagePair, ...]
    """Files behind the scenes, in the recipe's order; none for streets."""


def make_plan(config: DataConfig) -> Plan:
    """Return what is to be packed; reads names and sizes of files.

    Raises:
        DataError: The files are not there, or a split would be empty.
    """
    return Plan(_streets_recipe(config), ()) if config.dataset == "streets" else _cityscapes_plan(config)


def has_source(config: DataConfig) -> bool:
    """Whether the data set can be packed on this machine."""
    return config.dataset == "streets" or (config.root is not None and (_root(config.root) / IMAGES).is_dir())


def set_name(config: DataConfig) -> str:
    """Return what the packed set of a section is called, by one who does not have the files: safe as a file name.

    Groups are not in it: label ids are packed, so other groups need no other file.
    """
    height, width = config.size
    if config.dataset == "streets":
        what = f"streets-{height}x{width}-{'+'.join(map(str, config.num_images))}"
    else:
        folder = config.dataset if config.root is None else _root(config.root).absolute().name
        what = f"{re.sub(r'[^A-Za-z0-9._-]', '_', folder)}-{height}x{width}-{config.split}"
    limit = "" if config.limit is None else f"-limit{config.limit}"
    return f"{what}-seed{config.seed}{limit}-v{FORMAT_VERSION}"


def _root(root: str) -> Path:
    return Path(root).expanduser()


def _cityscapes_plan(config: DataConfig) -> Plan:
    if config.root is None:
        raise DataError("data.root: dataset cityscapes needs the folder that holds leftImg8bit/ and gtFine/")
    root = _root(config.root)
    if not root.is_dir():
        raise DataError(f"data.root: {root} is no folder; give the one that holds leftImg8bit/ and gtFine/")
    pair_of = {pair.scene: pair for pair in index_folder(root)}
    partition = split_scenes(list(pair_of), config.split, config.seed)
    partition = limit_partition(partition, config.limit)
    pairs = tuple(pair_of[scene] for scene in _in_order(partition))
    size = (config.size[0], config.size[1])

    def read(place: int) -> tuple[UInt8Array, UInt8Array]:
        return read_pair(pairs[place], size)

    return Plan(Recipe(["cityscapes", fingerprint(pairs)], size, _names(partition), read), pairs)


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
