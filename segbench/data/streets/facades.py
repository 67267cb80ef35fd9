"""Both sides of the street: houses with windows and shops, walls, fences, hedges and gaps."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segbench.data.streets.backdrop import BUILDING, VEGETATION
from segbench.data.streets.canvas import BoolArray, Camera, Canvas, Draws, FloatArray, Window
from segbench.data.streets.light import Light

WALL, FENCE, GUARD_RAIL = 12, 13, 14

Kind = Literal["house", "wall", "fence", "rail", "hedge", "gap"]
LABEL_OF: dict[Kind, int] = {
    "house": BUILDING,
    "wall": WALL,
    "fence": FENCE,
    "rail": GUARD_RAIL,
    "hedge": VEGETATION,
}

NUM_SEGMENTS = 11
NUM_DRAWS = 14
NEAREST_Z = 3.0
DEPTH = 12.0
"""Metres that a house reaches back from the street."""


@dataclass(frozen=True, eq=False)
class Segment:
    """A stretch of one side of the street."""

    kind: Kind
    x: float
    near: float
    far: float
    height: float
    color: FloatArray
    u: Draws


def plan_side(x: float, built_up: float, draws: Draws) -> list[Segment]:
    """Return the segments of one side from near to far.

    Args:
        x: Line on which the segments stand, in metres.
        built_up: Share of houses, 0 to 1.
        draws: (NUM_SEGMENTS, NUM_DRAWS).
    """
    segments, near = [], NEAREST_Z
    for u in draws:
        kind = _draw_kind(built_up, u)
        far = near + (8 + 22 * u[1] if kind == "house" else 5 + 14 * u[1])
        height = {
            "house": 6 + 16 * u[2] ** 1.5,
            "wall": 1.5 + 2 * u[2],
            "fence": 1.1 + 1.2 * u[2],
            "rail": 0.8,
            "hedge": 1.2 + 6 * u[2] ** 2,
            "gap": 0.0,
        }[kind]
        segments.append(Segment(kind, x, near, far, height, _draw_color(kind, u), u))
        near = far
    return segments


def shadow_reach(segments: list[Segment], light: Light, length: int) -> FloatArray:
    """Return how far (metres) the shadow of a side reaches into the street at z = 0, 1, ... length - 1."""
    reach = np.zeros(length, np.float32)
    for segment in segments:
        reach[int(segment.near) : int(segment.far)] = segment.height * (1.3 - abs(light.side))
    return reach


def paint_side(canvas: Canvas, segments: list[Segment], light: Light) -> None:
    """Paint one side, far segments first: the face along the street, and the end that faces the camera."""
    hidden_below = [0.0, *(segment.height if segment.kind != "fence" else 0.0 for segment in segments)]
    for segment, hidden in reversed(list(zip(segments, hidden_below, strict=False))):
        if segment.kind == "gap":
            continue
        outward = 1.0 if segment.x > 0 else -1.0
        tallest = segment.height * 1.3
        if segment.kind != "rail" and hidden < tallest:
            end = canvas.window(segment.x + outward * DEPTH / 2, 0, DEPTH, tallest, segment.near)
            if end is not None:
                along, y = end.a * np.float32(DEPTH / 2) + 100, end.b * np.float32(tallest)
                _paint_face(end, segment, along, y, light, light.face(0))
        face = _street_face(canvas, segment)
        if face is not None:
            _paint_face(face, segment, face.a, face.b, light, light.face(-outward))


def _draw_kind(built_up: float, u: Draws) -> Kind:
    if u[0] < built_up:
        return "house"
    rest = (u[0] - built_up) / (1 - built_up)
    for kind, limit in (("hedge", 0.36), ("wall", 0.52), ("fence", 0.72), ("rail", 0.76)):
        if rest < limit:
            return kind  # type: ignore[return-value]
    return "gap"


def _draw_color(kind: Kind, u: Draws) -> FloatArray:
    """Return a base colour; houses have nearly all colours, those of people, cars and trees included."""
    if kind == "hedge":
        autumn = 0.35 * u[4] ** 4
        return np.array([0.2 + 0.12 * u[3] + autumn, 0.32 + 0.12 * u[5], 0.14 + 0.08 * u[6]], np.float32)
    if kind == "rail":
        return np.array([0.6, 0.61, 0.63], np.float32)
    hue = [
        (0.62, 0.58, 0.50),
        (0.50, 0.50, 0.50),
        (0.52, 0.30, 0.24),
        (0.74, 0.72, 0.68),
        (0.64, 0.54, 0.32),
        (0.40, 0.46, 0.54),
        (0.42, 0.47, 0.38),
        (0.33, 0.28, 0.26),
    ][int(u[3] * 8)]
    base = np.array(hue, np.float32) * np.float32(0.75 + 0.5 * u[4])
    return base + (u[5:8].astype(np.float32) - np.float32(0.5)) * np.float32(0.12)


def _street_face(canvas: Canvas, segment: Segment) -> Window | None:
    """Return the part of the canvas that the face along the street covers; a: metres along, b: metres up."""
    camera = canvas.camera
    ends = sorted((float(camera.column(segment.x, segment.near)), float(camera.column(segment.x, segment.far))))
    left, right = max(0, round(ends[0])), min(camera.width, round(ends[1]))
    if left >= right:
        return None
    columns = np.arange(left, right, dtype=np.float32) + np.float32(0.5)
    z = np.float32(segment.x * camera.focal_x) / (columns - np.float32(camera.vanish))
    z = np.clip(z, segment.near, segment.far)
    top = max(0, int(np.min(camera.row(segment.height * 1.3, z, columns))))
    bottom = min(camera.height, int(np.max(camera.row(0, z, columns))) + 1)
    if top >= bottom:
        return None
    rows = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5)
    y = np.float32(camera.eye) + (camera.horizon_at(columns) - rows) * z / np.float32(camera.focal_y)
    return Window(canvas, slice(top, bottom), slice(left, right), z[None, :], y.astype(np.float32), z[None, :])


def _paint_face(
    window: Window, segment: Segment, along: FloatArray, y: FloatArray, light: Light, brightness: float
) -> None:
    mask = _outline(window, segment, along, y)
    texture = np.float32(1) + np.float32(0.05) * window.of(_noise(window, segment))
    texture += np.float32(0.05 + 0.08 * segment.u[8]) * window.of(window.canvas.blotches)
    pixels = texture[..., None] * segment.color
    if segment.kind == "house":
        _draw_windows(pixels, segment, along, y, window, light)
    elif segment.kind == "wall" and segment.u[9] < 0.4:  # graffiti: the colours of clothes and signs
        paint = (window.of(window.canvas.leaves) > 0.9) & (y < 1.6)
        pixels[paint] = segment.u[9:12].astype(np.float32)
    pixels *= np.float32(brightness)
    window.paint_pixels(mask, pixels, LABEL_OF[segment.kind])


def _noise(window: Window, segment: Segment) -> FloatArray:
    # leaves are rough, plaster is not
    return window.canvas.leaves * np.float32(5) if segment.kind == "hedge" else window.canvas.grain


def _outline(window: Window, segment: Segment, along: FloatArray, y: FloatArray) -> BoolArray:
    height = np.float32(segment.height)
    if segment.kind == "hedge":
        return (y >= 0) & (y < height * (1 + np.float32(0.12) * window.of(window.canvas.leaves)))
    mask: BoolArray = (y >= 0) & (y < height) & (along > -1)
    if segment.kind == "house" and segment.u[10] < 0.35:  # gables
        gable = np.abs((along / 9) % 1 - 0.5) * 2
        return (y >= 0) & (y < height * (np.float32(1.25) - np.float32(0.3) * gable))
    if segment.kind == "fence" and segment.u[10] < 0.6:
        near = np.asarray(window.z) < 22  # farther away, bars are finer than pixels
        mask &= ~near | (along % 0.36 < 0.13) | (y > height - 0.12) | (np.abs(y - height * 0.3) < 0.06)
    if segment.kind == "rail":
        mask &= (y > 0.45) | (along % 3 < 0.15)
    return mask


def _draw_windows(
    pixels: FloatArray, segment: Segment, along: FloatArray, y: FloatArray, window: Window, light: Light
) -> None:
    """Draw windows storey by storey, a dark ground floor with shop signs, and a darker roof."""
    u, camera = segment.u, window.canvas.camera
    pitch, storey, ground = 1.8 + 2.4 * u[9], 2.9 + 0.8 * u[11], 3.4 + 0.8 * u[12]
    column = along / np.float32(pitch)
    level = (y - np.float32(ground)) / np.float32(storey)
    glass = (column % 1 > 0.28) & (column % 1 < 0.72) & (level % 1 > 0.25) & (level % 1 < 0.78)
    glass &= (level > 0) & (y < segment.height - 0.6)
    code = (column.astype(np.intp) * 7919 + level.astype(np.intp) * 10473 + int(u[13] * 97)) % 11
    fade = _visible(camera, window.z, storey)
    shine = np.array([0.95, 0.78, 0.45], np.float32) if light.is_dusk else light.haze * np.float32(0.75)
    dark = np.array([0.16, 0.18, 0.22], np.float32) + np.float32(0.12 * u[13])
    color = np.where((code < 3)[..., None], shine, dark)
    pixels += (glass * fade)[..., None] * (color - pixels)
    if u[13] < 0.55:
        _draw_shops(pixels, segment, along, y, ground, fade)
    if segment.height < 12:
        pixels[np.broadcast_to(y > segment.height * 0.93, pixels.shape[:2])] *= np.float32(0.6)


def _draw_shops(
    pixels: FloatArray, segment: Segment, along: FloatArray, y: FloatArray, ground: float, fade: FloatArray
) -> None:
    """Draw shop windows with figures in them, and bright boards that look like traffic signs."""
    shop = (along / 6).astype(np.intp)
    shade = 0.25 + 0.3 * ((shop * 37 + int(segment.u[3] * 50)) % 7) / 7
    front = (y < ground - 1.1) & (y > 0.5) & (along % 6 > 0.7)
    pixels += (front * fade * np.float32(0.8))[..., None] * (shade[..., None].astype(np.float32) - pixels)
    figure = front & (np.abs(along % 2 - 1) < 0.22) & (y < 2.0)
    board = (y > ground - 0.9) & (y < ground - 0.2) & (along % 6 > 1.2) & (along % 6 < 4.8)
    vivid = np.stack([(shop * step + 1) % 5 / 5 + 0.1 for step in (3, 7, 11)], -1).astype(np.float32)
    pixels += (board * fade)[..., None] * (vivid - pixels)
    pixels += (figure * fade * np.float32(0.7))[..., None] * (vivid[..., ::-1] * np.float32(0.7) - pixels)


def _visible(camera: Camera, z: float | FloatArray, length: float) -> FloatArray:
    """Return 0..1: how well a detail of ``length`` metres can be resolved at distance ``z``."""
    pixels = np.float32(length * camera.focal_y) / np.asarray(z, np.float32)
    faded: FloatArray = np.clip(pixels / 5, 0, 1).astype(np.float32)
    return faded
