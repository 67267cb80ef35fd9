"""Generated street scenes with all 8 categories: a data set that needs no files.

Not photographs, but made of what makes street scenes hard: perspective, occlusion, thin and far things, texture,
weather, shadows, haze and sensor noise; colours that say little (houses, clothes, cars and bins share them; trees
turn brown); shop boards that look like signs, trunks like poles, trucks like houses.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from segbench.data.streets import backdrop, facades, things, traffic
from segbench.data.streets.backdrop import Street
from segbench.data.streets.canvas import Camera, Canvas, Draws
from segbench.data.streets.light import NUM_DRAWS as NUM_LIGHT_DRAWS
from segbench.data.streets.light import Light, develop, draw_light

GENERATOR_VERSION = 1
"""Raise it when pixels change: packed streets are made again."""

EGO_VEHICLE, RECTIFICATION_BORDER = 1, 2
NEAREST_Z, FARTHEST_Z = 6.5, 95.0

Painter = Callable[[Canvas, Light, float, float, Draws], None]
Thing = tuple[float, float, Painter, Draws]
"""x, z, painter, draws."""


def make_street(seed: int, index: int, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return scene ``index`` of the series ``seed``, painted at ``size``.

    The same arguments give the same scene; another size shows the same things with other noise.

    Args:
        seed: Not negative.
        index: Not negative.
        size: Height and width in pixels.

    Returns:
        Image (H, W, 3) and Cityscapes label ids (H, W), both uint8.
    """
    rng = np.random.default_rng([seed, index])
    light = draw_light(rng.random(NUM_LIGHT_DRAWS))
    camera, street = _draw_camera(size, rng.random(6)), _draw_street(rng.random(4))
    scene = rng.random(12)
    sides = [
        facades.plan_side(x, 0.25 + 0.65 * scene[0], rng.random((facades.NUM_SEGMENTS, facades.NUM_DRAWS)))
        for x in street.facade_x
    ]
    sky_draws, ground_draws = rng.random(backdrop.NUM_SKY_DRAWS), rng.random(backdrop.NUM_GROUND_DRAWS)
    crowd = _draw_things(street, scene, rng)

    canvas = Canvas(camera, np.random.default_rng([seed, index, 1]))
    backdrop.paint_sky(canvas, light, sky_draws)
    reach = np.stack([facades.shadow_reach(side, light, 256) for side in sides])
    backdrop.paint_ground(canvas, street, light, reach, ground_draws)
    for side in sides:
        facades.paint_side(canvas, side, light)
    for x, z, paint, u in sorted(crowd, key=lambda thing: -thing[1]):
        paint(canvas, light, x, z, u)
    _paint_frame(canvas, light, scene)
    image = develop(canvas, light, np.random.default_rng([seed, index, 2]))
    return image, canvas.labels


def _draw_camera(size: tuple[int, int], u: Draws) -> Camera:
    height, width = size
    focal = 1.5 + 0.6 * u[0]
    return Camera(
        height=height,
        width=width,
        eye=1.2 + 0.5 * u[1],
        focal_x=focal * width / 2,  # scenes are composed for frames of 1:2
        focal_y=focal * height,
        vanish=width * (0.5 + 0.22 * (u[2] - 0.5)),
        horizon=height * (0.36 + 0.14 * u[3]),
        roll=0.03 * (u[4] - 0.5) * 2 * height / width,
    )


def _draw_street(u: Draws) -> Street:
    half_road = 3.2 + 4 * u[0] ** 1.5
    # traffic keeps to the right: the middle of the road is left of the camera
    return Street(middle=-half_road * (0.25 + 0.35 * u[1]), half_road=half_road, sidewalk=1.8 + 3 * u[2])


def _draw_things(street: Street, scene: Draws, rng: np.random.Generator) -> list[Thing]:
    """Return everything that stands and moves, with numbers that differ much from scene to scene."""
    left, right = street.curb_x

    def beside(u: Draws, share: float) -> float:
        """Return x on a sidewalk: 0 at the curb, 1 at the houses."""
        offset = 0.2 + share * (street.sidewalk - 0.4)
        return float(left - offset if u[-1] < 0.5 else right + offset)

    def on_lane(u: Draws) -> float:
        return float(street.middle + street.half_road * (0.5 if u[-1] < 0.4 else -0.5) + u[-2] - 0.5)

    def parked(u: Draws) -> float:
        return float(left + 1.1 if u[-1] < 0.5 else right - 1.1)

    plans: list[tuple[Painter, float, Callable[[Draws], float]]] = [
        (things.paint_tree, 1 + 11 * scene[1] ** 1.5, lambda u: beside(u, 0.25 + 0.6 * u[-3])),
        (things.paint_pole, 3 + 9 * scene[2], lambda u: beside(u, 0.15 + 0.1 * u[-3])),
        (things.paint_clutter, 3 * scene[3], lambda u: beside(u, u[-3])),
        (traffic.paint_person, 1 + 12 * scene[4] ** 2, lambda u: beside(u, u[-3])),
        (traffic.paint_person, 2.2 * scene[5] ** 2, lambda u: left + (right - left) * u[-3]),
        (traffic.paint_rider, 3.2 * scene[6] ** 1.5, on_lane),
        (traffic.paint_car, 1 + 5 * scene[7], on_lane),
        (traffic.paint_car, 9 * scene[8] ** 1.3, parked),
        (traffic.paint_large, 1.6 * scene[9] ** 1.3, on_lane),
    ]
    crowd: list[Thing] = []
    for paint, number, place in plans:
        for u in rng.random((round(number), things.NUM_DRAWS + 4)):
            nearest = NEAREST_Z if paint is not traffic.paint_large else 2 * NEAREST_Z
            z = float(nearest * (FARTHEST_Z / nearest) ** u[-4])
            crowd.append((place(u), z, paint, u[: things.NUM_DRAWS]))
    return _without_collisions(crowd)


def _without_collisions(crowd: list[Thing]) -> list[Thing]:
    """Leave out vehicles that would stand in one that comes before them in the list."""
    kept: list[Thing] = []
    vehicles: list[tuple[float, float]] = []
    for thing in crowd:
        x, z, paint, _ = thing
        if paint in (traffic.paint_car, traffic.paint_large, traffic.paint_rider):
            if any(abs(x - other_x) < 2.6 and abs(z - other_z) < 5.5 for other_x, other_z in vehicles):
                continue
            vehicles.append((x, z))
        kept.append(thing)
    return kept


def _paint_frame(canvas: Canvas, light: Light, scene: Draws) -> None:
    """Paint what belongs to the camera's car: its bonnet, and sometimes a black edge of the picture."""
    height, width = canvas.labels.shape
    if scene[10] < 0.65:
        rise = 0.05 + 0.09 * scene[10]
        part = slice(int(height * (1 - rise)), height)
        rows = (np.arange(part.start, height, dtype=np.float32)[:, None] + np.float32(0.5)) / height
        across = (np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5)) / width * 2 - 1
        bonnet = rows > 1 - rise * (1 - np.float32(0.55) * across**2)
        gloss = np.float32(0.75) + np.float32(0.1) * canvas.blotches[part] - np.float32(0.3) * across**2
        color = light.haze * np.float32(0.2 + 0.5 * (scene[10] * 7 % 1))
        np.copyto(canvas.color[part], gloss[..., None] * color, where=bonnet[..., None])
        np.copyto(canvas.labels[part], np.uint8(EGO_VEHICLE), where=bonnet)
        np.copyto(canvas.depth[part], np.float32(0), where=bonnet)
    if scene[11] < 0.2:
        edge = max(1, width // 100)
        canvas.color[:, :edge] = 0
        canvas.labels[:, :edge] = RECTIFICATION_BORDER
