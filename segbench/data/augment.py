"""Augmentation of a batch where it lies (CPU or GPU): colours, flip, scale-crop.

Each sample's draws come from (seed, epoch, sample index) alone, so neither the order of a batch, nor its size, nor
a restart changes what a sample looks like; and they are made on the CPU, so a GPU shows the same crops.
Samples are cropped and resized one by one: on CPU that is faster than one ``grid_sample`` for the batch, and every
sample's arithmetic is the same in a batch of any size (docs/data.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segbench.config import TrialConfig
from segbench.data.labels import IGNORE_INDEX
from segbench.seeding import derive_seed

COLOR_RANGE = 0.5
"""Brightness, contrast and saturation change by at most this factor at ``color=1``."""


@dataclass(frozen=True)
class _Draws:
    """What happens to one sample."""

    is_flipped: bool
    zoom: float
    """Above 1: a part is enlarged; below 1: the whole is shrunk and padded."""
    top: float
    left: float
    """Place of the crop, or of the shrunk image, 0..1 of the room there is."""
    brightness: float
    contrast: float
    saturation: float
    """Factors around 1."""


def augment(
    images: Tensor, masks: Tensor, indices: Sequence[int], config: TrialConfig, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Return augmented images and masks; the arguments themselves if the settings ask for nothing.

    Args:
        images: (N, 3, H, W) float32, 0..1, not yet normalised.
        masks: (N, H, W) int64; 255 = ignored.
        indices: N indices of the samples within the training split.
        config: ``flip``, ``scale_min``, ``scale_max`` and ``color``.
        seed: The trial's seed.
        epoch: The epoch.

    Returns:
        Tensors of the same shapes, types, ranges and device. Where a shrunk image leaves room, the image has its
        mean colour and the mask 255.
    """
    if config.flip == 0 and config.color == 0 and config.scale_min == config.scale_max == 1:
        return images, masks
    key = derive_seed(seed, "augment", epoch)
    samples = [
        _augment_sample(image, mask, _draw(key, index, config))
        for image, mask, index in zip(images, masks, indices, strict=True)
    ]
    return torch.stack([image for image, _ in samples]), torch.stack([mask for _, mask in samples])


def _draw(key: int, index: int, config: TrialConfig) -> _Draws:
    # Philox is a hash of its key: no state to carry, no correlation between neighbouring indices
    u = np.random.Generator(np.random.Philox(key=[key, index])).random(7).tolist()
    strength = COLOR_RANGE * config.color
    return _Draws(
        is_flipped=u[0] < config.flip,
        zoom=config.scale_min * (config.scale_max / config.scale_min) ** u[1],
        top=u[2],
        left=u[3],
        brightness=1 + strength * (2 * u[4] - 1),
        contrast=1 + strength * (2 * u[5] - 1),
        saturation=1 + strength * (2 * u[6] - 1),
    )


def _augment_sample(image: Tensor, mask: Tensor, draws: _Draws) -> tuple[Tensor, Tensor]:
    """Augment one image (3, H, W) and mask (H, W)."""
    image = _recolor(image, draws)
    if draws.is_flipped:
        image, mask = image.flip(-1), mask.flip(-1)
    height, width = mask.shape
    if draws.zoom >= 1:
        size = max(1, round(height / draws.zoom)), max(1, round(width / draws.zoom))
        rows, columns = _place(height - size[0], size[0], draws.top), _place(width - size[1], size[1], draws.left)
        return _resize(image[:, rows, columns], mask[rows, columns], (height, width))
    size = max(1, round(height * draws.zoom)), max(1, round(width * draws.zoom))
    rows, columns = _place(height - size[0], size[0], draws.top), _place(width - size[1], size[1], draws.left)
    small_image, small_mask = _resize(image, mask, size)
    padded_image = image.mean((1, 2), keepdim=True).expand_as(image).clone()
    padded_mask = torch.full_like(mask, IGNORE_INDEX)
    padded_image[:, rows, columns] = small_image
    padded_mask[rows, columns] = small_mask
    return padded_image, padded_mask


def _recolor(image: Tensor, draws: _Draws) -> Tensor:
    """Change brightness, then contrast around the mean grey, then saturation; clipped to 0..1 at the end."""
    if draws.brightness == draws.contrast == draws.saturation == 1:
        return image
    image = image * draws.brightness
    image = torch.lerp(image.mean(), image, draws.contrast)
    grey = image.mean(0, keepdim=True).expand_as(image)
    return torch.lerp(grey, image, draws.saturation).clamp(0, 1)


def _place(room: int, length: int, share: float) -> slice:
    """Return the slice of ``length`` that begins at ``share`` (0..1) of ``room``."""
    start = min(room, int(share * (room + 1)))
    return slice(start, start + length)


def _resize(image: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize an image (antialiased bilinear) and its mask (nearest)."""
    if mask.shape == size:
        return image, mask
    shrinks = size[0] < mask.shape[0]
    # on CPU the plain kernel is faster with a pixel's colours side by side, the antialiased one is not
    layout = torch.contiguous_format if shrinks else torch.channels_last
    part = image[None].contiguous(memory_format=layout)
    resized = functional.interpolate(part, size, mode="bilinear", align_corners=False, antialias=shrinks)
    # by index: interpolate has no int64 kernel, and both devices pick the same pixels this way
    rows = _nearest(mask.shape[0], size[0], mask)
    columns = _nearest(mask.shape[1], size[1], mask)
    return resized[0], mask.index_select(0, rows).index_select(1, columns)


def _nearest(old: int, new: int, like: Tensor) -> Tensor:
    """Return for each of ``new`` pixels the one of ``old`` below its middle; whole numbers, so it is exact."""
    places = torch.arange(new, device=like.device)
    return torch.div((2 * places + 1) * old, 2 * new, rounding_mode="floor")
