"""Which scene belongs to train, val or test: pure functions of names, without files and without dice.

Shuffling is sorting by a hash of (seed, scene), so a split depends neither on the order in which a file system
lists files nor on a random number generator's version.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from segbench.core.errors import DataError
from segbench.core.seeding import derive_seed

SplitName = Literal["train", "val", "test"]
SplitMethod = Literal["official", "pooled", "by-city"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "val", "test")

POOLED_COUNTS: dict[SplitName, int] = {"train": 2953, "val": 261, "test": 261}
"""Sizes of the pooled split of Cityscapes' 3475 labelled images; proportions for other sizes."""
OFFICIAL_VAL_SHARE = 0.1
"""Share of the train folder that steers the search where the val folder serves as test."""


class Scene(NamedTuple):
    """What a split may know of an image."""

    folder: str
    """Folder of the official layout: train, val or test."""
    city: str
    name: str


Partition = dict[SplitName, tuple[Scene, ...]]


def split_scenes(scenes: Sequence[Scene], method: SplitMethod, seed: int) -> Partition:
    """Return train, val and test, each sorted; together they are all ``scenes``, each scene once.

    Raises:
        DataError: A split would be empty, or ``by-city`` has fewer than three cities.
    """
    if method == "official":
        partition = _official(scenes, seed)
    elif method == "pooled":
        partition = _pooled(scenes, seed)
    else:
        partition = _by_city(scenes, seed)
    for name in SPLIT_NAMES:
        if not partition[name]:
            raise DataError(_empty_message(name, method, scenes))
    return {name: tuple(sorted(partition[name])) for name in SPLIT_NAMES}


def limit_partition(partition: Partition, limit: int | None) -> Partition:
    """Return at most ``limit`` scenes in all, evenly spread over each sorted split; None: all of them.

    Limiting comes after splitting, so that a limit moves no scene from one split to another; the proportions
    stay, and each split keeps a scene.
    """
    if limit is None or limit >= sum(map(len, partition.values())):
        return partition
    counts: dict[SplitName, int] = dict.fromkeys(SPLIT_NAMES, 1)
    for _ in range(limit - len(SPLIT_NAMES)):
        counts[min(SPLIT_NAMES, key=lambda name: counts[name] / len(partition[name]))] += 1
    return {name: _take_evenly(partition[name], counts[name]) for name in SPLIT_NAMES}


def _take_evenly(scenes: tuple[Scene, ...], count: int) -> tuple[Scene, ...]:
    return tuple(scenes[(2 * i + 1) * len(scenes) // (2 * count)] for i in range(count))


def _official(scenes: Sequence[Scene], seed: int) -> Partition:
    folders = {name: [scene for scene in scenes if scene.folder == name] for name in SPLIT_NAMES}
    if folders["test"]:
        return {name: tuple(folders[name]) for name in SPLIT_NAMES}
    shuffled = _shuffled(folders["train"], seed)
    num_val = max(1, round(len(shuffled) * OFFICIAL_VAL_SHARE))
    return {"train": shuffled[num_val:], "val": shuffled[:num_val], "test": tuple(folders["val"])}


def _pooled(scenes: Sequence[Scene], seed: int) -> Partition:
    shuffled = _shuffled(scenes, seed)
    num_val, num_test = (max(1, round(_target(name, len(scenes)))) for name in ("val", "test"))
    num_train = max(0, len(shuffled) - num_val - num_test)
    return {
        "train": shuffled[:num_train],
        "val": shuffled[num_train : num_train + num_val],
        "test": shuffled[num_train + num_val :],
    }


def _by_city(scenes: Sequence[Scene], seed: int) -> Partition:
    """Give the largest city left to the split that lacks most images, but leave no split without a city."""
    sizes = Counter(scene.city for scene in scenes)
    if len(sizes) < len(SPLIT_NAMES):
        raise DataError(
            f"split by-city needs at least 3 cities, and there are {len(sizes)} ({', '.join(sorted(sizes))}); "
            f"use split pooled, or add cities"
        )
    missing = {name: _target(name, len(scenes)) for name in SPLIT_NAMES}
    cities: dict[str, SplitName] = {}
    by_size = sorted(sizes, key=lambda city: (-sizes[city], derive_seed(seed, "split", city), city))
    for position, city in enumerate(by_size):
        empty = [name for name in SPLIT_NAMES if name not in cities.values()]
        candidates = empty if len(by_size) - position == len(empty) else SPLIT_NAMES
        # val and test have the same target: the hash, not the alphabet, decides between them
        cities[city] = max(candidates, key=lambda name: (missing[name], derive_seed(seed, "split", name)))
        missing[cities[city]] -= sizes[city]
    return {name: tuple(scene for scene in scenes if cities[scene.city] == name) for name in SPLIT_NAMES}


def _shuffled(scenes: Sequence[Scene], seed: int) -> tuple[Scene, ...]:
    return tuple(sorted(scenes, key=lambda scene: (derive_seed(seed, "split", *scene), scene)))


def _target(name: SplitName, num_scenes: int) -> float:
    return num_scenes * POOLED_COUNTS[name] / sum(POOLED_COUNTS.values())


def _empty_message(name: SplitName, method: SplitMethod, scenes: Sequence[Scene]) -> str:
    folders = Counter(scene.folder for scene in scenes)
    found = ", ".join(f"{folders[key]} in {key}/" for key in SPLIT_NAMES if folders[key]) or "none"
    advice = (
        "official needs at least 2 in train/ and 1 in val/; or use split pooled"
        if method == "official"
        else "at least 3 are needed; add some"
    )
    return f"split {method} leaves {name} empty: labelled images are {found}; {advice}"
