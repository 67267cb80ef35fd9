"""Sky, skyline and ground: all that is behind or under the things of a street."""

from dataclasses import dataclass

import numpy as np

from segbench.data.streets.canvas import Canvas, Draws, FloatArray
from segbench.data.streets.light import Light

ROAD, SIDEWALK, PARKING, RAIL_TRACK = 7, 8, 9, 10
BUILDING, VEGETATION, TERRAIN, SKY = 11, 21, 22, 23

SKYLINE_Z = 140.0
NUM_SKY_DRAWS = 12
NUM_GROUND_DRAWS = 24


@dataclass(frozen=True)
class Street:
    """Cross-section of the street, in metres from the camera."""

    middle: float
    """x of the road's middle."""
    half_road: float
    sidewalk: float
    """Width of each sidewalk."""

    @property
    def curb_x(self) -> tuple[float, float]:
        """Left and right edge of the road."""
        return self.middle - self.half_road, self.middle + self.half_road

    @property
    def facade_x(self) -> tuple[float, float]:
        """Left and right line on which houses stand."""
        left, right = self.curb_x
        return left - self.sidewalk, right + self.sidewalk


def paint_sky(canvas: Canvas, light: Light, u: Draws) -> None:
    """Paint the sky with clouds, and a skyline of trees or houses at the horizon."""
    camera = canvas.camera
    columns = np.arange(camera.width, dtype=np.float32)
    horizon = camera.horizon_at(columns)
    # a little below the horizon, where the ground has not begun yet
    end = min(camera.height, int(horizon.max() + camera.eye * camera.focal_y / SKYLINE_Z) + 2)
    rows = np.arange(end, dtype=np.float32)[:, None]
    height = np.clip((horizon - rows) * np.float32(2 / camera.height), 0, 1)
    color = canvas.color[:end]
    np.multiply(height[..., None], light.zenith - light.haze, out=color)
    color += light.haze
    cover = np.clip(canvas.clouds[:end] * np.float32(0.5) + np.float32(u[0] - 0.5), 0, 1) * np.float32(0.7)
    cloud = light.haze * np.float32(0.85 + 0.3 * u[1])
    color += cover[..., None] * (cloud - color)
    canvas.labels[:end] = SKY
    _paint_skyline(canvas, columns, rows, u)


def _paint_skyline(canvas: Canvas, columns: FloatArray, rows: FloatArray, u: Draws) -> None:
    camera = canvas.camera
    is_trees = u[2] < 0.55
    middle = camera.height // 2
    if is_trees:
        top = 6 + 8 * u[3] + 2.5 * canvas.blotches[middle] + canvas.leaves[middle]
        color = np.array([0.22 + 0.15 * u[5], 0.33, 0.18], np.float32)
    else:
        block = (columns / camera.width * (6 + 10 * u[4])).astype(np.intp)
        top = 6 + 14 * u[3] + 4 * canvas.blotches[:, middle][block * 5 % camera.height]
        color = np.array([0.45 + 0.2 * u[5], 0.43 + 0.15 * u[6], 0.40 + 0.15 * u[7]], np.float32)
    crest = camera.row(top.astype(np.float32), SKYLINE_Z, columns)
    part = slice(max(0, int(crest.min())), len(rows))
    mask = rows[part] > crest
    noise = canvas.leaves if is_trees else canvas.blotches
    texture = np.float32(1) + np.float32(0.2 if is_trees else 0.12) * noise[part]
    np.copyto(canvas.color[part], texture[..., None] * color, where=mask[..., None])
    np.copyto(canvas.labels[part], np.uint8(VEGETATION if is_trees else BUILDING), where=mask)
    np.copyto(canvas.depth[part], np.float32(SKYLINE_Z), where=mask)


def paint_ground(canvas: Canvas, street: Street, light: Light, shade: FloatArray, u: Draws) -> None:
    """Paint everything below the horizon: terrain, sidewalks, the road and what is painted on it.

    Args:
        canvas: What is painted on.
        street: The cross-section.
        light: Depth of the shadows.
        shade: (2, Z) reach in metres of the shadows that houses cast from the left and right line at z = 0, 1, 2...
        u: (NUM_GROUND_DRAWS,).
    """
    camera = canvas.camera
    columns = np.arange(camera.width, dtype=np.float32) + np.float32(0.5)
    horizon = camera.horizon_at(columns)
    first = max(0, int(horizon.min()))
    rows = np.arange(first, camera.height, dtype=np.float32)[:, None] + np.float32(0.5)
    below = rows - horizon
    is_ground = below > camera.eye * camera.focal_y / SKYLINE_Z
    z = np.float32(camera.eye * camera.focal_y) / np.maximum(below, np.float32(0.1))
    x = (columns - np.float32(camera.vanish)) * z / np.float32(camera.focal_x)
    labels = _zones(street, x, z, u)
    color = _surface(canvas, first, labels, x, z, u)
    _draw_markings(color, labels, street, x, z, u)
    _draw_house_shadows(color, street, light, shade, x, z)
    np.copyto(canvas.color[first:], color, where=is_ground[..., None])
    np.copyto(canvas.labels[first:], labels, where=is_ground)
    np.copyto(canvas.depth[first:], z, where=is_ground)


def _zones(street: Street, x: FloatArray, z: FloatArray, u: Draws) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the label ids of the ground."""
    from_middle = np.abs(x - np.float32(street.middle))
    labels = np.full(x.shape, TERRAIN, np.uint8)
    labels[from_middle < street.half_road + street.sidewalk * (1 if u[0] < 0.75 else 0.55)] = SIDEWALK
    labels[from_middle < street.half_road] = ROAD
    if u[1] < 0.15:
        bay = (x > street.curb_x[1] - 2.2) & (x < street.curb_x[1]) & (z > 8) & (z < 60)
        labels[bay] = PARKING
    if u[2] < 0.08:
        labels[np.abs(x - np.float32(street.middle + 1.5)) < 1.3] = RAIL_TRACK
    if u[3] < 0.15:  # a green strip between road and sidewalk
        labels[(from_middle > street.half_road + 0.3) & (from_middle < street.half_road + 1.2)] = TERRAIN
    if u[4] < 0.3:  # a crossing road
        start = 18 + 40 * u[5]
        labels[(z > start) & (z < start + 8) & (labels != RAIL_TRACK)] = ROAD
    return labels


def _surface(
    canvas: Canvas,
    first: int,
    labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    x: FloatArray,
    z: FloatArray,
    u: Draws,
) -> FloatArray:
    """Return the colour of the ground: a colour per label, noise, joints between slabs."""
    grey = 0.26 + 0.24 * u[6]
    slab = grey + 0.18 * u[7] - 0.02
    palette = np.zeros((256, 3), np.float32)
    palette[ROAD] = grey, grey * (0.97 + 0.05 * u[8]), grey * (0.95 + 0.12 * u[8])
    palette[SIDEWALK] = slab * 1.04, slab * (0.92 + 0.1 * u[9]), slab * (0.82 + 0.2 * u[9])
    palette[PARKING] = slab * 0.95, slab * 0.88, slab * 0.85
    palette[RAIL_TRACK] = grey * 1.05, grey * 0.95, grey * 0.88
    palette[TERRAIN] = 0.28 + 0.3 * u[10], 0.38 + 0.08 * u[11], 0.16 + 0.1 * u[11]
    rough = np.zeros(256, np.float32)
    rough[[ROAD, SIDEWALK, PARKING, RAIL_TRACK, TERRAIN]] = 0.07, 0.06, 0.08, 0.16, 0.2
    texture = np.float32(1) + rough[labels] * canvas.grain[first:]
    texture += np.float32(0.03 + 0.08 * u[12]) * canvas.blotches[first:]
    joints = (labels == SIDEWALK) & (z < 16) & (((x + 50) % 0.9 < 0.06) | (z % 0.9 < 0.1))
    texture[joints] *= np.float32(0.8)
    if u[13] < 0.4:  # a patch of newer asphalt
        patch = (labels == ROAD) & (np.abs(z - 9 - 20 * u[14]) < 3) & (np.abs(x - 3 * u[15]) < 1.2)
        texture[patch] *= np.float32(0.72)
    surface: FloatArray = palette[labels] * texture[..., None]
    return surface


def _draw_markings(
    color: FloatArray,
    labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    street: Street,
    x: FloatArray,
    z: FloatArray,
    u: Draws,
) -> None:
    """Draw lane lines, edge lines, a zebra crossing, curbs and rails; labels stay."""
    from_middle = np.abs(x - np.float32(street.middle))
    near_line = np.float32(0.07) + z * np.float32(0.0015)
    dash = (z + 10 * u[16]) % 9 < 4.5
    lines = (from_middle < near_line) & (dash | (u[17] < 0.25))
    if u[18] < 0.6:
        lines |= np.abs(from_middle - np.float32(street.half_road - 0.35)) < near_line
    if u[19] < 0.35:
        start = 9 + 22 * u[20]
        lines |= (np.abs(z - start) < 1.6) & (x % 1.0 < 0.5)
    lines &= labels == ROAD
    color[lines] = np.float32(0.6 + 0.25 * u[21]) + np.float32(0.15) * (color[lines] - np.float32(0.4))
    curb = (np.abs(from_middle - np.float32(street.half_road + 0.1)) < 0.12) & (labels == SIDEWALK)
    color[curb] *= np.float32(1.3)
    rails = np.abs(np.abs(x - np.float32(street.middle + 1.5)) - np.float32(0.72)) < 0.06
    color[rails & (labels == RAIL_TRACK)] *= np.float32(0.5)


def _draw_house_shadows(
    color: FloatArray, street: Street, light: Light, shade: FloatArray, x: FloatArray, z: FloatArray
) -> None:
    if light.sun < 0.2:
        return
    place = np.clip(z, 0, shade.shape[1] - 1).astype(np.intp)
    left, right = street.facade_x
    dark = x < np.float32(left) + shade[0][place] if light.side < 0 else x > np.float32(right) - shade[1][place]
    color[dark] *= np.float32(1 - 0.5 * light.sun) * np.array([0.92, 0.97, 1.08], np.float32)
