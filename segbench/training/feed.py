"""How samples come to the device: they live there, or a thread copies them ahead.

On a CPU the mapped file is the device's memory. On a GPU a split lives in its memory, as bytes, where that leaves the
training most of it; a split that does not fit is gathered into pinned memory and copied while the batches
before are trained on. Order and bytes are the same either way.
"""

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segbench.data import Split

RESERVED_SHARE = 0.75
"""Part of a device's memory that stays free for training when a split is put there."""
NUM_AHEAD = 2
"""Batches that are copied before they are asked for."""

Indices = npt.NDArray[np.int64]
Samples = tuple[Sequence[Tensor] | Tensor, Sequence[Tensor] | Tensor]
"""Pixels (H, W, 3) and label ids (H, W) of N samples, uint8: each N tensors, or one with a first dimension of N."""
T = TypeVar("T")
S = TypeVar("S")


def feed(
    splits: Sequence[Split], order: Iterable[Indices], device: torch.device, *, ahead: bool | None = None
) -> Generator[Samples, None, None]:
    """Yield the samples of each batch of ``order``, on the device.

    Args:
        splits: their samples follow each other; an index is a place in that sequence.
        order: the batches.
        device: where the samples shall be.
        ahead: whether a thread copies them, two batches ahead; None: where they do not fit on the device.
    """
    residents = [] if ahead else [resident(split, device) for split in splits]
    here = [tensors for tensors in residents if tensors is not None]
    starts = np.cumsum([0, *(len(split.images) for split in splits)])
    if len(here) == len(splits):
        for indices in order:
            yield _views(here, starts, indices)
        return

    mapped = [(as_tensor(split.images), as_tensor(split.labels)) for split in splits]
    on_cuda = device.type == "cuda"
    stream = torch.cuda.Stream(device) if on_cuda else None  # type: ignore[no-untyped-call]

    def copy(indices: Indices) -> tuple[Tensor, Tensor, Any]:
        pixels, labels = (_stack(views, pinned=on_cuda) for views in _views(mapped, starts, indices))
        with torch.cuda.stream(stream):  # None: nothing is done
            moved = pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        return *moved, stream.record_event() if stream is not None else None

    for pixels, labels, copied in map_ahead(copy, order, NUM_AHEAD):
        if copied is not None:  # the device waits for the copy, the host does not
            current = torch.cuda.current_stream(device)
            current.wait_event(copied)
            for tensor in (pixels, labels):
                tensor.record_stream(current)
        yield pixels, labels


def map_ahead(function: Callable[[S], T], items: Iterable[S], depth: int) -> Generator[T, None, None]:
    """Yield ``function(item)`` of each item in order, computed by one thread, ``depth`` of them before they are needed.

    What ``function`` raises is raised where its result was due. Closing the iterator ends the thread.
    """
    remaining = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="feed")
    try:
        pending = deque(pool.submit(function, item) for item in islice(remaining, depth))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


@lru_cache(maxsize=3)
def resident(split: Split, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Return a split's pixels and label ids on the device, or None if they do not fit there.

    Copied once per process, whatever the number of trials that it trains; on a CPU nothing is copied.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        if not fits(free, split.images.nbytes + split.labels.nbytes, round(RESERVED_SHARE * total)):
            return None
    elif device.type != "cpu":  # no common way to ask for its memory
        return None
    return as_tensor(split.images).to(device), as_tensor(split.labels).to(device)


def fits(free_bytes: int, set_bytes: int, reserved_bytes: int) -> bool:
    """Whether a set can live on a device and leave ``reserved_bytes`` of what is free now."""
    return set_bytes + reserved_bytes <= free_bytes


def as_tensor(array: npt.NDArray[np.uint8]) -> Tensor:
    """Return a tensor over the memory of ``array``, which may be read-only: then it must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array)


def _views(
    tensors: Sequence[tuple[Tensor, Tensor]], starts: Indices, indices: Indices
) -> tuple[list[Tensor], list[Tensor]]:
    which = np.searchsorted(starts, indices, side="right") - 1
    places = list(zip(which.tolist(), (indices - starts[which]).tolist(), strict=True))
    return [tensors[split][0][place] for split, place in places], [tensors[split][1][place] for split, place in places]


def _stack(views: Sequence[Tensor], pinned: bool) -> Tensor:
    """Copy N tensors into one, straight into page-locked memory where it goes to a GPU."""
    return torch.stack(
        list(views), out=torch.empty((len(views), *views[0].shape), dtype=torch.uint8, pin_memory=pinned)
    )
