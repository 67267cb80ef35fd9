"""Augmentation of a batch where it lies: flip, scale-crop, blur, colours.

What happens to a sample is drawn once (:mod:`draws`) from (seed, epoch, sample index) alone, so neither the order of a
batch, nor its size, nor a restart changes what a sample looks like. Two implementations show it: slice-and-resize of
one sample after the other (:mod:`each`), the fastest on a CPU, and tensor code for the whole batch (:mod:`batched`),
for an accelerator.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from segbench.core.config import TrialConfig
from segbench.core.seeding import derive_seed
from segbench.data.augment.batched import augment_batch
from segbench.data.augment.draws import draw
from segbench.data.augment.each import augment_each


def augment(
    pixels: Sequence[Tensor] | Tensor,
    labels: Sequence[Tensor] | Tensor,
    indices: Sequence[int],
    config: TrialConfig,
    seed: int,
    epoch: int,
    *,
    batched: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Return augmented images and label ids.

    Args:
        pixels: N samples (H, W, 3) uint8: a tensor (N, H, W, 3), or N tensors, which are not copied into one first.
        labels: N label maps (H, W) uint8, in the same form.
        indices: N indices of the samples within the training split.
        config: ``flip``, ``scale_min``, ``scale_max``, ``blur`` and ``color``.
        seed: The trial's seed.
        epoch: The epoch.
        batched: Whether the batch is treated as a whole; None: where it lies on an accelerator.

    Returns:
        Images (N, 3, H, W) float32 in 0..1 and label ids (N, H, W) uint8 on the same device, new tensors. Where a
        shrunk image leaves room, the image has its mean colour and the label is 255.
    """
    key = derive_seed(seed, "augment", epoch)
    draws = [draw(key, index, config) for index in indices]
    if batched is None:
        batched = pixels[0].device.type != "cpu"
    if not batched:
        return augment_each(pixels, labels, draws)
    return augment_batch(as_batch(pixels), as_batch(labels), draws)


def as_batch(samples: Sequence[Tensor] | Tensor) -> Tensor:
    """Return N tensors as one."""
    return samples if isinstance(samples, Tensor) else torch.stack(list(samples))
