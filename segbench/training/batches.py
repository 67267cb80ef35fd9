"""From packed uint8 arrays to batches on the device; which samples come when depends on (seed, epoch) alone."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segbench.data import Split
from segbench.data.labels import IGNORE_INDEX
from segbench.seeding import derive_seed

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet: what the pretrained encoders were trained with. The same for every model and data set."""

Indices = npt.NDArray[np.int64]


class Samples:
    """One or more splits as one sequence of samples.

    Args:
        splits: their samples follow each other; a sample's index is its place in that sequence.
        lut: uint8[256], label id -> class, or 255.
        device: where batches go.
    """

    def __init__(self, splits: Sequence[Split], lut: npt.NDArray[np.uint8], device: torch.device) -> None:
        self.splits = splits
        self._starts = np.cumsum([0, *(len(split.images) for split in splits)])
        self._lut = torch.from_numpy(lut.astype(np.int64)).to(device)
        self._device = device

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return images (N, 3, H, W) float32 in 0..1 and masks (N, H, W) int64, ignored pixels 255."""
        images = to_images(to_device(self._gather("images", indices), self._device))
        labels = to_device(self._gather("labels", indices), self._device)
        return images, self._lut[labels.long()]

    def class_frequencies(self, num_classes: int) -> Tensor:
        """Return each class's share of the pixels that are not ignored, float32 (K,), on the device."""
        counts = np.zeros(256, np.int64)
        for split in self.splits:
            for labels in split.labels:
                counts += np.bincount(labels.reshape(-1), minlength=256)
        lut = self._lut.cpu().numpy()
        grouped = np.bincount(lut, weights=counts, minlength=256)[:num_classes]
        return torch.from_numpy(grouped / max(grouped.sum(), 1)).float().to(self._device)

    def _gather(self, field: str, indices: Indices) -> npt.NDArray[np.uint8]:
        if len(self.splits) == 1:
            return np.asarray(getattr(self.splits[0], field)[indices])
        which = np.searchsorted(self._starts, indices, side="right") - 1
        places = zip(which, indices - self._starts[which], strict=True)
        return np.stack([getattr(self.splits[split], field)[place] for split, place in places])


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
    for start in range(0, len(split.images), batch_size):
        images, labels = (np.array(a[start : start + batch_size]) for a in (split.images, split.labels))
        yield to_images(to_device(images, device)), to_device(labels, device)


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
