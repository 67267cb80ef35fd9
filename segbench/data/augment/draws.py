"""What happens to one sample: random draws, and what follows from them in whole pixels and in factors."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segbench.core.config import TrialConfig

COLOR_RANGE = 0.5
"""Brightness, contrast and saturation change by at most this factor at ``color=1``."""
BLUR_MIN_PX, BLUR_MAX_PX = 0.1, 2.0
"""Standard deviation of a Gaussian blur, the range of torchvision's ``GaussianBlur`` and of SimCLR."""
BLUR_RADIUS = math.ceil(3 * BLUR_MAX_PX)
"""Pixels on each side that the widest blur takes in."""
MEAN_GRID = 64
"""A mean colour is taken over a grid of at least so many pixels each way: every eighth pixel of 512."""


class Box(NamedTuple):
    """A rectangle in whole pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Draws:
    """What happens to one sample, in the order of the fields."""

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
    blur_px: float
    """Standard deviation; 0: no blur."""

    def boxes(self, height: int, width: int) -> tuple[Box, Box]:
        """Return the part of a sample that is shown, and the part of the result that it fills.

        One of the two is the whole. A flipped sample is mirrored first: the part shown is given in the sample
        as it is stored, and its columns come from right to left.
        """
        whole = Box(0, 0, height, width)
        scale = self.zoom if self.zoom < 1 else 1 / self.zoom
        size = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = _start(height - size[0], self.top), _start(width - size[1], self.left)
        if self.zoom < 1:
            return whole, Box(top, left, *size)
        return Box(top, width - left - size[1] if self.is_flipped else left, *size), whole

    @property
    def recolors(self) -> bool:
        """Whether any colour changes."""
        return not self.brightness == self.contrast == self.saturation == 1

    @property
    def color_factors(self) -> tuple[float, float, float]:
        """Factors (a, b, c) by which a channel x becomes ``a * x + b * (red + green + blue) + c * mean grey``.

        That is brightness, then contrast around the image's mean grey, then saturation, in one.
        """
        gain = self.brightness * self.contrast
        return gain * self.saturation, gain * (1 - self.saturation) / 3, self.brightness * (1 - self.contrast)

    @property
    def blur_weights(self) -> npt.NDArray[np.float64]:
        """The 2 * BLUR_RADIUS + 1 weights of a row and of a column; 0 beyond three standard deviations."""
        places = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
        if self.blur_px == 0:
            return np.where(places == 0, 1.0, 0.0)
        bell = np.exp(-0.5 * (places / self.blur_px) ** 2)
        weights: npt.NDArray[np.float64] = np.where(abs(places) <= math.ceil(3 * self.blur_px), bell, 0.0)
        weights /= weights.sum()
        return weights


def draw(key: int, index: int, config: TrialConfig) -> Draws:
    """Return the draws of the sample ``index``; ``key`` stands for seed and epoch."""
    # Philox is a hash of its key: no state to carry, no correlation between neighbouring indices
    u = np.random.Generator(np.random.Philox(key=[key, index])).random(8).tolist()
    strength = COLOR_RANGE * config.color
    return Draws(
        is_flipped=u[0] < config.flip,
        zoom=config.scale_min * (config.scale_max / config.scale_min) ** u[1],
        top=u[2],
        left=u[3],
        brightness=1 + strength * (2 * u[4] - 1),
        contrast=1 + strength * (2 * u[5] - 1),
        saturation=1 + strength * (2 * u[6] - 1),
        # below the probability the same draw is even again: it places the blur in its range
        blur_px=BLUR_MIN_PX + (BLUR_MAX_PX - BLUR_MIN_PX) * u[7] / config.blur if u[7] < config.blur else 0.0,
    )


def mean_color(pixels: Tensor) -> Tensor:
    """Return the mean colour float32 (..., 3) of pixels uint8 (..., H, W, 3), 0..255, over an even grid of them."""
    step = max(1, min(pixels.shape[-3:-1]) // MEAN_GRID)
    return pixels[..., ::step, ::step, :].float().mean((-3, -2))


def _start(room: int, share: float) -> int:
    """Return where a box begins that may begin at 0..room."""
    return min(room, int(share * (room + 1)))
