"""A pinhole camera and the canvas it paints on: colour, label ids and depth, back to front.

Lengths are in metres, x to the right of the camera, y up from the ground, z ahead. Scenes are composed for
frames twice as wide as high, as those of Cityscapes; other sizes stretch them, as resizing would.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Draws = npt.NDArray[np.float64]
"""Uniform draws in [0, 1), all that is random in a part; drawn ahead, so visibility changes no other part."""


@dataclass(frozen=True)
class Camera:
    """Projection of metres to pixels."""

    height: int
    width: int
    eye: float
    """Height of the camera above the ground in metres."""
    focal_x: float
    focal_y: float
    """Pixels per metre at one metre's distance."""
    vanish: float
    """Column of the vanishing point in pixels."""
    horizon: float
    """Row of the horizon at the middle column, in pixels."""
    roll: float
    """Rows by which the horizon falls per column."""

    def column(self, x: Any, z: Any) -> Any:
        """Return the column at which (x, z) is seen."""
        return self.vanish + x * self.focal_x / z

    def horizon_at(self, column: Any) -> Any:
        """Return the row of the horizon at ``column``."""
        return self.horizon + self.roll * (column - self.width / 2)

    def row(self, y: Any, z: Any, column: Any) -> Any:
        """Return the row at which height ``y`` is seen at distance ``z``."""
        return self.horizon_at(column) - (y - self.eye) * self.focal_y / z


class Canvas:
    """The picture while it is being painted, with the noise fields that all textures share."""

    def __init__(self, camera: Camera, rng: np.random.Generator) -> None:
        shape = (camera.height, camera.width)
        self.camera = camera
        self.color: FloatArray = np.zeros((*shape, 3), np.float32)
        self.labels = np.zeros(shape, np.uint8)
        self.depth: FloatArray = np.full(shape, 1e-3, np.float32)
        self.grain: FloatArray = rng.standard_normal(shape, np.float32)
        """White noise, sigma 1."""
        self.leaves = smooth_noise(rng, shape, 48)
        self.blotches = smooth_noise(rng, shape, 14)
        self.clouds = smooth_noise(rng, shape, 5) + 0.5 * self.blotches
        """Ever coarser noise, sigma about 1."""

    def window(self, x: float, y: float, width: float, height: float, z: float) -> "Window | None":
        """Return the part that an upright rectangle covers, or None where it is not to be seen.

        Args:
            x: Middle of the rectangle in metres.
            y: Lower edge in metres.
            width: In metres; at least one pixel is covered.
            height: In metres.
            z: Distance in metres.
        """
        camera = self.camera
        middle = float(camera.column(x, z))
        half = max(0.5, width * camera.focal_x / z / 2)
        bottom = float(camera.row(y, z, middle))
        extent = max(1.0, height * camera.focal_y / z)
        left, right = max(0, round(middle - half)), min(camera.width, round(middle + half))
        top, end = max(0, round(bottom - extent)), min(camera.height, round(bottom))
        if left >= right or top >= end:
            return None
        a = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - middle)) / np.float32(half)
        b = (np.float32(bottom - 0.5) - np.arange(top, end, dtype=np.float32)) / np.float32(extent)
        return Window(self, slice(top, end), slice(left, right), a[None, :], b[:, None], z)


@dataclass(frozen=True, eq=False)
class Window:
    """A part of the canvas with coordinates of its own: a from -1 (left) to 1, b from 0 (bottom) to 1."""

    canvas: Canvas
    rows: slice
    columns: slice
    a: FloatArray
    """(1, w)."""
    b: FloatArray
    """(h, 1)."""
    z: float | FloatArray
    """Distance in metres, of all pixels or of each."""

    def of(self, field: FloatArray) -> FloatArray:
        """Return this part of a field of the canvas."""
        return field[self.rows, self.columns]

    def paint(self, mask: BoolArray, color: Any, label: int, texture: Any = 1.0) -> None:
        """Paint ``mask`` with ``color`` (3,) times ``texture`` (h, w), and set labels and depth."""
        shade = np.asarray(texture, np.float32)
        self.paint_pixels(mask, shade[..., None] * np.asarray(color, np.float32), label)

    def paint_pixels(self, mask: BoolArray, pixels: FloatArray, label: int) -> None:
        """Paint ``mask`` with ``pixels`` (h, w, 3), and set labels and depth."""
        canvas, part = self.canvas, (self.rows, self.columns)
        np.copyto(canvas.color[part], pixels, where=mask[..., None])
        np.copyto(canvas.labels[part], np.uint8(label), where=mask)
        np.copyto(canvas.depth[part], np.float32(self.z), where=mask)

    def darken(self, amount: FloatArray) -> None:
        """Multiply the colour by 1 - amount: shadows change no label."""
        self.canvas.color[self.rows, self.columns] *= (1 - amount)[..., None]

    def ellipse(self, a: float, b: float, half_width: float, half_height: float) -> BoolArray:
        """Return the mask of an ellipse around (a, b)."""
        inside: BoolArray = ((self.a - a) / half_width) ** 2 + ((self.b - b) / half_height) ** 2 < 1
        return inside

    def box(self, left: float, right: float, bottom: float, top: float) -> BoolArray:
        """Return the mask of a rectangle."""
        inside: BoolArray = ((self.a >= left) & (self.a <= right)) & ((self.b >= bottom) & (self.b <= top))
        return inside

    def trapezoid(self, bottom: float, top: float, half_bottom: float, half_top: float) -> BoolArray:
        """Return the mask of a trapezoid around the middle."""
        half = half_bottom + (half_top - half_bottom) * (self.b - bottom) / (top - bottom)
        inside: BoolArray = (np.abs(self.a) < half) & ((self.b >= bottom) & (self.b <= top))
        return inside


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> FloatArray:
    """Return noise of sigma about 1 that varies over 1/``cells`` of the height, interpolated linearly."""
    coarse = rng.standard_normal((cells + 2, 2 * cells + 2), np.float32) * np.float32(1.4)
    tall = _interpolate(coarse, shape[0], cells)
    return np.ascontiguousarray(_interpolate(tall.T, shape[1], 2 * cells).T)


def _interpolate(values: FloatArray, length: int, cells: int) -> FloatArray:
    """Stretch the first axis to ``length`` by linear interpolation."""
    position = np.arange(length, dtype=np.float32) * np.float32(cells / length)
    low = position.astype(np.intp)
    weight = (position - low)[:, None]
    mixed: FloatArray = values[low] * (1 - weight) + values[low + 1] * weight
    return mixed
