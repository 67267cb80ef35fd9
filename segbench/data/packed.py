"""A decoded data set in one Arrow file: made once, mapped read-only by every process that trains on it.

The file is in Arrow's IPC format with one record batch (columns ``name``, ``split``, ``label_counts``, ``label``,
``image``) and the scenes in the order train, val, test: so each split is a contiguous slice, an ordinary numpy array
that points into the page cache. Its name is a hash of all that it depends on, the same on every machine; a file under
that name is right or damaged, and a damaged one is made again. It carries the digest of its content, by which one that
comes from elsewhere is checked. Labels are kept as label ids, so other groups need no new file.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock
from tqdm import tqdm

from segbench.core.errors import DataError
from segbench.core.paths import atomic_path
from segbench.data.labels import LABELS
from segbench.data.splits import SPLIT_NAMES, SplitName

FORMAT_VERSION = 3
CHUNK = 64
"""Scenes decoded before they are written; bounds the memory that packing takes."""

SUFFIX = ".arrow"
DIGITS = 16
"""Of a digest."""

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Recipe:
    """What a packed file holds and how to make it."""

    source: object
    """All that the pixels depend on (files with size and time, or a generator's seed), as JSON data."""
    size: tuple[int, int]
    """Height and width in pixels."""
    names: dict[SplitName, tuple[str, ...]]
    read: Callable[[int], tuple[UInt8Array, UInt8Array]]
    """Returns image (H, W, 3) and label ids (H, W) of a scene by its place in train, val, test; thread-safe."""

    @property
    def num_scenes(self) -> int:
        """Scenes in all splits."""
        return sum(map(len, self.names.values()))

    @property
    def key(self) -> str:
        """Content address: 20 hexadecimal digits."""
        content = [FORMAT_VERSION, self.size, self.names, self.source]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]


@dataclass(frozen=True, eq=False)
class PackedSet:
    """Read-only arrays that are views of a mapped file."""

    images: UInt8Array
    """(N, H, W, 3)."""
    labels: UInt8Array
    """(N, H, W) label ids."""
    label_counts: npt.NDArray[np.uint32]
    """(N, 35) pixels of each label id."""
    names: dict[SplitName, tuple[str, ...]]
    """Of the scenes of each split, in their order."""
    digest: str
    """16 hexadecimal digits of all pixels, label ids and names, in their order: the same on every machine."""

    def is_whole(self) -> bool:
        """Whether all bytes are those that were packed; reads everything, a second or two a gigabyte."""
        digest = _start_digest(self.names)
        for image, label, counts in zip(self.images, self.labels, self.label_counts, strict=True):
            digest.update(image)
            digest.update(label)
            if not np.array_equal(_count_labels(label), counts):
                return False
        return digest.hexdigest()[:DIGITS] == self.digest


def open_packed(recipe: Recipe, folder: Path) -> PackedSet:
    """Map the packed file of ``recipe`` in ``folder``; make it first if it is absent or damaged.

    Of several processes that ask at once, one packs and the others wait.

    Raises:
        DataError: A scene cannot be read, or ``folder`` cannot be written or is too full.
    """
    return open_made(recipe.key, folder, lambda path: _pack(recipe, path))


def open_made(key: str, folder: Path, make: Callable[[Path], None]) -> PackedSet:
    """Map the packed file ``key`` in ``folder``; let ``make`` write it first if it is absent or damaged.

    Of several processes that ask at once, one makes it and the others wait.

    Raises:
        DataError: ``folder`` cannot be written or is too full, or ``make`` raises it.
    """
    packed = find_packed(key, folder)
    if packed is not None:
        return packed
    path = packed_path(key, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            packed = find_packed(key, folder)
            if packed is None:
                for stale in folder.glob(f".{path.name}.*.tmp"):  # of a process that was killed; we hold the lock
                    stale.unlink()
                make(path)
                packed = find_packed(key, folder)
    except OSError as error:
        raise DataError(f"cache folder {folder}: {error}; name another by data.cache_dir or $SEGBENCH_CACHE") from error
    if packed is None:
        raise DataError(f"{path}: damaged right after it was written; check the disk, or name another cache_dir")
    return packed


def packed_path(key: str, folder: Path) -> Path:
    """Return the packed file ``key`` in ``folder``."""
    return folder / f"{key}{SUFFIX}"


def find_packed(key: str, folder: Path) -> PackedSet | None:
    """Map the packed file ``key`` in ``folder``; None where there is none that is whole, as far as its frame tells."""
    return map_packed(packed_path(key, folder), key)


def map_packed(path: Path, key: str) -> PackedSet | None:
    """Return the arrays of a packed file, or None if it is absent, cut off or not of this key."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
        told = {name.decode(): text.decode() for name, text in (reader.schema.metadata or {}).items()}
        if (told.get("segbench.format"), told.get("segbench.key")) != (str(FORMAT_VERSION), key):
            return None
        height, width, count = (int(told[f"segbench.{name}"]) for name in ("height", "width", "count"))
        if reader.num_record_batches != 1 or reader.schema != _schema((height, width)):
            return None
        batch = reader.get_batch(0)
        batch.validate()
    except (pa.ArrowInvalid, OSError, KeyError, ValueError):
        return None
    if batch.num_rows != count:
        return None
    images = np.frombuffer(batch.column("image").buffers()[1], np.uint8)
    labels = np.frombuffer(batch.column("label").buffers()[1], np.uint8)
    counts = np.frombuffer(batch.column("label_counts").values.buffers()[1], np.uint32)
    named = list(zip(batch.column("split").to_pylist(), batch.column("name").to_pylist(), strict=True))
    return PackedSet(
        images=images.reshape(count, height, width, 3),
        labels=labels.reshape(count, height, width),
        label_counts=counts.reshape(count, len(LABELS)),
        names={split: tuple(name for of, name in named if of == split) for split in SPLIT_NAMES},
        digest=told.get("segbench.digest", ""),
    )


def _schema(size: tuple[int, int]) -> Any:
    pixels = size[0] * size[1]
    columns = [
        pa.field("name", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label_counts", pa.list_(pa.uint32(), len(LABELS)), nullable=False),
        pa.field("label", pa.binary(pixels), nullable=False),
        pa.field("image", pa.binary(3 * pixels), nullable=False),
    ]
    return pa.schema(columns)


def _metadata(recipe: Recipe, digest: str) -> dict[str, str]:
    height, width = recipe.size
    values = {
        "segbench.format": FORMAT_VERSION,
        "segbench.key": recipe.key,
        "segbench.digest": digest,
        "segbench.height": height,
        "segbench.width": width,
        "segbench.count": recipe.num_scenes,
    }
    return {key: str(value) for key, value in values.items()}


def _start_digest(names: dict[SplitName, tuple[str, ...]]) -> "hashlib._Hash":
    return hashlib.sha256(json.dumps({name: names[name] for name in SPLIT_NAMES}).encode())


def _count_labels(label: UInt8Array) -> npt.NDArray[np.uint32]:
    return np.bincount(label.reshape(-1), minlength=len(LABELS)).astype(np.uint32)


def _pack(recipe: Recipe, path: Path) -> None:
    """Decode everything into two scratch files, then write them as one record batch.

    An IPC record batch keeps each column in one piece, so images cannot be appended one by one; the scratch
    files take their place in memory, which 29 GB of full-size Cityscapes would not fit.
    """
    height, width = recipe.size
    check_space(2 * recipe.num_scenes * height * width * 4, path.parent, "packing")  # the file and the scratch files
    with (
        tempfile.TemporaryFile(dir=path.parent) as images,
        tempfile.TemporaryFile(dir=path.parent) as labels,
        atomic_path(path) as target,
    ):
        counts = []
        digest = _start_digest(recipe.names)
        for image, label in _read_all(recipe):
            for content, scratch in ((image.tobytes(), images), (label.tobytes(), labels)):
                digest.update(content)
                scratch.write(content)
            counts.append(_count_labels(label))
        schema = _schema(recipe.size).with_metadata(_metadata(recipe, digest.hexdigest()[:DIGITS]))
        columns = [
            pa.array([name for split in SPLIT_NAMES for name in recipe.names[split]], pa.string()),
            pa.array([split for split in SPLIT_NAMES for _ in recipe.names[split]], pa.string()),
            pa.FixedSizeListArray.from_arrays(np.concatenate(counts), type=schema.field("label_counts").type),
            _as_column(labels, schema.field("label").type, recipe.num_scenes),
            _as_column(images, schema.field("image").type, recipe.num_scenes),
        ]
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _read_all(recipe: Recipe) -> Iterator[tuple[UInt8Array, UInt8Array]]:
    height, width = recipe.size
    title = f"packing {recipe.num_scenes} scenes at {height}x{width}"
    # disable=None: a bar on a terminal, silence in logs
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=recipe.num_scenes, desc=title, disable=None) as bar:
        for start in range(0, recipe.num_scenes, CHUNK):
            chunk = range(start, min(start + CHUNK, recipe.num_scenes))
            for image, label in pool.map(recipe.read, chunk):
                assert image.shape == (height, width, 3)
                assert label.shape == (height, width)
                yield image, label
                bar.update()


def _as_column(scratch: IO[bytes], binary: Any, num_scenes: int) -> Any:
    """Return a column whose values are the mapped bytes of ``scratch``."""
    scratch.flush()
    mapped = np.memmap(scratch, np.uint8, "r")
    return pa.Array.from_buffers(binary, num_scenes, [None, pa.py_buffer(mapped)])


def check_space(needed: int, folder: Path, what: str) -> None:
    """Raise DataError when fewer than ``needed`` bytes are free for ``what`` in the cache folder."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"cache folder {folder}: {what} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; make "
            f"room, or name another by data.cache_dir or $SEGBENCH_CACHE"
        )
