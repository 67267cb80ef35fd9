"""From packed uint8 arrays to batches on the device; which samples come when depends on (seed, epoch) alone."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segbench.core.config import TrialConfig
from segbench.core.seeding import derive_seed
from segbench.data import Split
from segbench.data.augment import as_batch, augment
from segbench.data.labels import IGNORE_INDEX, LABELS
from segbench.training.feed import Indices, feed

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet: what the pretrained encoders were trained with. The same for every model and data set."""


class Samples:
    """One or more splits as one sequence of samples, to train on.

    Args:
        splits: their samples follow each other; a sample's index is its place in that sequence.
        lut: uint8[256], label id -> class, or 255.
        device: where batches go.
    """

    def __init__(self, splits: Sequence[Split], lut: npt.NDArray[np.uint8], device: torch.device) -> None:
        self.splits = splits
        self._lut = lut
        self._classes = torch.from_numpy(lut.astype(np.int64)).to(device)
        self._device = device

    def __len__(self) -> int:
        return sum(len(split.images) for split in self.splits)

    def epoch(
        self, config: TrialConfig, seed: int, epoch: int, *, batched: bool | None = None
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield the augmented batches of an epoch, in the order of :func:`epoch_batches`.

        Images are (N, 3, H, W) float32 in 0..1, masks (N, H, W) int64, ignored pixels 255. Close the iterator if you
        leave it early. ``batched`` is that of :func:`augment`.
        """
        order = epoch_batches(len(self), config.batch_size, seed, epoch)
        with closing(feed(self.splits, order, self._device)) as batches:
            for indices, (pixels, labels) in zip(order, batches, strict=True):
                images, new_labels = augment(pixels, labels, indices.tolist(), config, seed, epoch, batched=batched)
                yield images, look_up(self._classes, new_labels)

    def class_frequencies(self, num_classes: int) -> Tensor:
        """Return each class's share of the pixels that are not ignored, float32 (K,), on the device."""
        by_label = sum(split.label_counts.sum(0, dtype=np.int64) for split in self.splits)
        counts = np.bincount(self._lut[: len(LABELS)], weights=by_label, minlength=256)[:num_classes]
        return torch.from_numpy(counts / max(counts.sum(), 1)).float().to(self._device)


def look_up(classes: Tensor, labels: Tensor) -> Tensor:
    """Return ``classes[labels]`` for classes int64 (256,) and labels uint8; four times as fast as by an int64 index."""
    return classes.index_select(0, labels.reshape(-1).int()).view_as(labels)


def epoch_batches(num_samples: int, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Return the batches of one epoch as sample indices, in the order of training.

    All samples come once, in an order drawn from (seed, epoch). The last batch is smaller where ``batch_size``
    does not divide ``num_samples``; a single sample left over is not used in this epoch, since batch
    norm needs two (unless ``batch_size`` is 1).
    """
    order = np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(num_samples)
    batches = [order[start : start + batch_size] for start in range(0, num_samples, batch_size)]
    if len(batches) > 1 and batch_size > 1 and len(batches[-1]) == 1:
        batches.pop()
    return batches


def split_batches(split: Split, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a split in order: images (N, 3, H, W) float32 in 0..1 and label ids (N, H, W) uint8."""
    places = np.arange(len(split.images))
    order = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
    with closing(feed((split,), order, device)) as batches:
        for pixels, labels in batches:
            yield to_images(as_batch(pixels)), as_batch(labels)


def to_device(array: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return ``array`` on the device; the copy to an accelerator runs beside its work."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_images(pixels: Tensor) -> Tensor:
    """Return images (N, 3, H, W) float32 in 0..1 from pixels (N, H, W, 3) uint8."""
    return pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)


def normalise(images: Tensor) -> Tensor:
    """Return what models take in, from images (N, 3, H, W) in 0..1."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def count_valid(masks: Tensor) -> Tensor:
    """Return the number of pixels that are not ignored, a scalar on the device."""
    return (masks != IGNORE_INDEX).sum()
