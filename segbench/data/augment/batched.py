"""Augmentation on an accelerator: the whole batch in a dozen kernels, and nothing that the host waits for."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from segbench.data.augment.draws import BLUR_RADIUS, Draws, mean_color
from segbench.data.labels import IGNORE_INDEX


def augment_batch(pixels: Tensor, labels: Tensor, draws: Sequence[Draws]) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, H, W) float32 in 0..1 and label ids (N, H, W) uint8; see :func:`augment`."""
    size = labels.shape[1], labels.shape[2]
    whole = (0, 0, *size)
    boxes = [what.boxes(*size) for what in draws]
    # which stages there are is known from the draws, which the host made: nothing is asked of the device
    moves = any(what.is_flipped for what in draws) or any(box != (whole, whole) for box in boxes)
    blurs = any(what.blur_px > 0 for what in draws)
    recolors = any(what.recolors for what in draws)

    table = [
        (*source, *target, what.is_flipped, *what.color_factors, *what.blur_weights)
        for what, (source, target) in zip(draws, boxes, strict=True)
    ]
    numbers = torch.tensor(table, dtype=torch.float32, pin_memory=pixels.is_cuda).to(pixels.device, non_blocking=True)
    source, target, is_flipped, factors, weights = torch.split(numbers, [4, 4, 1, 3, 2 * BLUR_RADIUS + 1], dim=1)

    images = pixels.permute(0, 3, 1, 2).float()
    mean = mean_color(pixels)
    if moves:
        images, labels = _move(images, labels, mean, source.long(), target.long(), is_flipped > 0)
    if blurs:
        images = _blur(images, weights)
    if recolors:
        own, all_three, grey = factors[:, :, None, None, None].unbind(1)
        offset = grey * mean.mean(1)[:, None, None, None]
        images = (own * images + (all_three * images.sum(1, keepdim=True) + offset)).div_(255).clamp_(0, 1)
    else:
        images = images.div_(255)
    return images.contiguous(), labels


def _move(
    images: Tensor, labels: Tensor, mean: Tensor, source: Tensor, target: Tensor, is_flipped: Tensor
) -> tuple[Tensor, Tensor]:
    """Flip, crop and resize: one ``grid_sample`` for the images (bilinear), one look-up for the labels (nearest).

    Args:
        images: (N, 3, H, W) float32, 0..255.
        labels: (N, H, W) uint8.
        mean: (N, 3), colour around shrunk images.
        source: (N, 4) int64, boxes of the samples.
        target: (N, 4) int64, boxes of the results.
        is_flipped: (N, 1) bool.
    """
    count, height, width = labels.shape
    y, row, is_row = _axis(source[:, 0], source[:, 2], target[:, 0], target[:, 2], height)
    x, column, is_column = _axis(source[:, 1], source[:, 3], target[:, 1], target[:, 3], width)
    mirror = 2 * source[:, 1:2] + source[:, 3:4] - 1
    x, column = torch.where(is_flipped, mirror - x, x), torch.where(is_flipped, mirror - column, column)
    is_inside = is_row[:, :, None] & is_column[:, None, :]

    # grid_sample counts from -1 to 1, from the outer edge of the first pixel to that of the last
    grid_x, grid_y = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1
    shape = count, height, width
    grid = torch.stack([grid_x[:, None, :].expand(shape), grid_y[:, :, None].expand(shape)], dim=-1)
    moved = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    # whole levels, as the 8-bit kernel of the CPU gives
    moved = torch.where(is_inside[:, None], moved.round_(), mean[:, :, None, None])
    sample = torch.arange(count, device=labels.device)[:, None, None]
    picked = labels[sample, row[:, :, None], column[:, None, :]]
    return moved, picked.masked_fill_(~is_inside, IGNORE_INDEX)


def _axis(start: Tensor, length: Tensor, to: Tensor, to_length: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return where each of ``size`` rows (or columns) of the results comes from, (N, size) each.

    The place in pixels from the first one's middle (float32), the nearest pixel (int64), and whether the row lies
    within the target box; outside of it the other two are some place in the source box.
    """
    start, length, to, to_length = (value[:, None] for value in (start, length, to, to_length))
    place = torch.arange(size, device=start.device) - to
    doubled = (2 * place + 1) * length
    last = length - 1
    exact = (doubled / (2 * to_length) - 0.5).clamp(min=0).minimum(last)
    nearest = torch.div(doubled, 2 * to_length, rounding_mode="floor").clamp(min=0).minimum(last)
    return start + exact, start + nearest, (place >= 0) & (place < to_length)


def _blur(images: Tensor, weights: Tensor) -> Tensor:
    """Blur images (N, 3, H, W), their edges mirrored, each by its own weights (N, 2 * BLUR_RADIUS + 1)."""
    count, channels = images.shape[:2]
    kernel = weights.repeat_interleave(channels, 0)[:, None, None, :]
    padded = functional.pad(images, (BLUR_RADIUS,) * 4, mode="reflect").flatten(0, 1)[None]
    rows = functional.conv2d(padded, kernel, groups=count * channels)
    return functional.conv2d(rows, kernel.transpose(2, 3), groups=count * channels).view_as(images)
