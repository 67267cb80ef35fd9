"""Augmentation on a CPU, sample by sample: bytes are sliced and resized, and become numbers at the end.

The kernel that resizes 8-bit colours side by side is four times as fast as the one for float32, a slice costs next
to nothing, and a sample's arithmetic is the same in any batch (docs/data.md has the figures).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from segbench.data.augment.draws import BLUR_RADIUS, Draws, mean_color
from segbench.data.labels import IGNORE_INDEX


def augment_each(
    pixels: Iterable[Tensor], labels: Sequence[Tensor] | Tensor, draws: Sequence[Draws]
) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, H, W) float32 in 0..1 and label ids (N, H, W) uint8; see :func:`augment`."""
    height, width = labels[0].shape
    images = torch.empty(len(draws), 3, height, width)
    new_labels = torch.empty(len(draws), height, width, dtype=torch.uint8)
    for number, (sample, label, what) in enumerate(zip(pixels, labels, draws, strict=True)):
        colors = _resize(sample, what)
        if what.blur_px > 0:
            colors = _blur(colors, what)
        _recolor(colors, sample, what, out=images[number])
        _pick(label, what, out=new_labels[number])
    return images, new_labels


def _resize(pixels: Tensor, draws: Draws) -> Tensor:
    """Flip, crop and resize (bilinear) pixels (H, W, 3) uint8; returns float32 (3, H, W), 0..255."""
    height, width, _ = pixels.shape
    source, target = draws.boxes(height, width)
    part = pixels[source.slices]
    if draws.is_flipped:
        part = part.flip(1)
    image = part.permute(2, 0, 1)
    if source.size != target.size:
        image = functional.interpolate(image[None], target.size, mode="bilinear", align_corners=False)[0]
    if target.size == (height, width):
        return image.contiguous().float()  # in this order: bytes are cheaper to lay out anew
    padded = mean_color(pixels)[:, None, None].repeat(1, height, width)
    padded[:, *target.slices] = image
    return padded


def _pick(labels: Tensor, draws: Draws, out: Tensor) -> None:
    """Flip, crop and resize (nearest) label ids (H, W) into ``out``."""
    source, target = draws.boxes(*labels.shape)
    part = labels[source.slices]
    if source.size != target.size or draws.is_flipped:
        rows = _below(source.height, target.height)
        columns = _below(source.width, target.width)
        if draws.is_flipped:
            columns = source.width - 1 - columns
        part = part.gather(1, columns.expand(source.height, -1)).index_select(0, rows)
    if target.size != labels.shape:
        out.fill_(IGNORE_INDEX)
    out[target.slices] = part


def _below(old: int, new: int) -> Tensor:
    """Return for each of ``new`` pixels the one of ``old`` below its middle; whole numbers, so it is exact."""
    return (2 * torch.arange(new) + 1) * old // (2 * new)


def _blur(image: Tensor, draws: Draws) -> Tensor:
    """Blur an image (3, H, W), its edges mirrored: shifted copies add up seven times faster than a convolution."""
    height, width = image.shape[1:]
    weights = [weight for weight in draws.blur_weights[BLUR_RADIUS:].tolist() if weight > 0]
    radius = len(weights) - 1
    padded = functional.pad(image, (radius,) * 4, mode="reflect")
    for dim, length in ((2, width), (1, height)):
        total = padded.narrow(dim, radius, length) * weights[0]
        for distance, weight in enumerate(weights[1:], start=1):
            for start in (radius - distance, radius + distance):
                total.add_(padded.narrow(dim, start, length), alpha=weight)
        padded = total
    return padded


def _recolor(image: Tensor, pixels: Tensor, draws: Draws, out: Tensor) -> None:
    """Write ``image`` (3, H, W), 0..255, with changed colours into ``out``, 0..1; its mean is that of ``pixels``."""
    if not draws.recolors:
        torch.div(image, 255, out=out)
        return
    own, all_three, mean = draws.color_factors
    matrix = torch.full((3, 3), all_three).fill_diagonal_(all_three + own) / 255
    offset = mean * mean_color(pixels).mean() / 255
    torch.addmm(offset, matrix, image.view(3, -1), out=out.view(3, -1)).clamp_(0, 1)
