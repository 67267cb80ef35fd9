"""Private memory that a further concurrent trial adds on the same data: segbench, and a loader that copies.

    python benchmarks/memory.py

A first trial keeps the set open. Then another process trains its data path over the whole set (every sample gathered,
augmented and thrown away), and its private pages (Private_* of /proc/<pid>/smaps_rollup: unique set size) are counted
before it opens the set and after an epoch. Libraries, and the buffers of a batch, are there before. Linux only.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import measure
import numpy as np
import numpy.typing as npt
import torch

from segbench.core.config import TrialConfig
from segbench.data import Split
from segbench.data.labels import build_lut
from segbench.data.packed import Recipe, open_packed
from segbench.training.batches import Samples

MIB = 2**20
SIZE = (512, 512)
AUGMENTATION = TrialConfig(batch_size=8, flip=0.5, scale_max=2.0, color=0.4)


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the packed set")
    options = measure.set_up(parser.parse_args())
    num_scenes = 64 if options.quick else options.mib  # 512 x 512 x 4 bytes are a MiB
    bench = measure.Benchmark("memory", options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        open_split(folder, num_scenes)
        with Trial(folder, num_scenes, copies=False) as first:
            first.added()
            work: dict[str, Callable[[], float]] = {
                "ours": lambda: added(folder, num_scenes, copies=False),
                "a copy in each trial": lambda: added(folder, num_scenes, copies=True),
            }
            values = measure.alternate(work, argparse.Namespace(**{**vars(options), "warmup": 0}))
    case = f"set of {num_scenes} MiB"
    values["the set itself"] = [float(num_scenes)] * options.rounds
    bench.add(case, values, "MiB", reference="the set itself")
    bench.target(case, "ours", "the set itself", at_most=0.1)
    bench.finish()


def added(folder: Path, num_scenes: int, copies: bool) -> float:
    """Return the private MiB that a further trial adds for its data."""
    with Trial(folder, num_scenes, copies) as trial:
        return trial.added()


class Trial:
    """A process that goes through the whole set once and then waits with it open."""

    def __init__(self, folder: Path, num_scenes: int, copies: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=trial, args=(theirs, folder, num_scenes, copies))

    def __enter__(self) -> "Trial":
        self._process.start()
        return self

    def added(self) -> float:
        """Wait for the end of the epoch and return the MiB that it and the open set take."""
        return float(self._pipe.recv())

    def __exit__(self, *_: object) -> None:
        self._pipe.send("end")
        self._process.join()


def trial(pipe: Connection, folder: Path, num_scenes: int, copies: bool) -> None:
    """Run in a process of its own."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    few = Split(
        rng.integers(0, 256, (16, *SIZE, 3), np.uint8),
        rng.integers(0, 35, (16, *SIZE), np.uint8),
        np.zeros((16, 35), np.uint32),
        tuple(map(str, range(16))),
    )
    for _ in range(4):  # until the heap holds all that a batch takes
        go_through(few)
    before = private_mib()
    split = open_split(folder, num_scenes)
    if copies:
        split = Split(np.array(split.images), np.array(split.labels), split.label_counts, split.names)
    go_through(split)
    pipe.send(private_mib() - before)
    pipe.recv()


def go_through(split: Split) -> None:
    """Take every augmented batch of an epoch."""
    for _ in Samples((split,), build_lut(None)[2], torch.device("cpu")).epoch(AUGMENTATION, seed=0, epoch=0):
        pass


def open_split(folder: Path, num_scenes: int) -> Split:
    """Return a packed split of noise; packs it on first use."""

    def read(place: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        rng = np.random.default_rng(place)
        return rng.integers(0, 256, (*SIZE, 3), np.uint8), rng.integers(0, 35, SIZE, np.uint8)

    names = tuple(f"{place:06d}" for place in range(num_scenes))
    packed = open_packed(Recipe("noise", SIZE, {"train": names, "val": (), "test": ()}, read), folder)
    return Split(packed.images, packed.labels, packed.label_counts, names)


def private_mib() -> float:
    """Return the memory of this process that no other one shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


if __name__ == "__main__":
    main()
