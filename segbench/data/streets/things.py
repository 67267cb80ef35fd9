"""What stands and moves in a street: trees, poles with signs and lights, bins. Each paints itself into a window.

Every painter takes (canvas, light, x, z, u): place in metres and NUM_DRAWS uniform draws.
"""

import numpy as np

from segbench.data.streets.backdrop import VEGETATION
from segbench.data.streets.canvas import Canvas, Draws, FloatArray, Window
from segbench.data.streets.light import Light

STATIC, DYNAMIC = 4, 5
POLE, POLE_GROUP, TRAFFIC_LIGHT, TRAFFIC_SIGN = 17, 18, 19, 20
NUM_DRAWS = 12

SIGN_COLORS = ((0.10, 0.22, 0.62), (0.78, 0.10, 0.12), (0.85, 0.72, 0.08), (0.85, 0.85, 0.86), (0.1, 0.42, 0.25))
POLE_COLORS = ((0.42, 0.43, 0.44), (0.22, 0.25, 0.24), (0.62, 0.62, 0.6), (0.36, 0.28, 0.22))


def volume(window: Window, light: Light, roundness: float) -> FloatArray:
    """Return the shading of a round or boxy thing: the side to the sun is brighter."""
    lit = light.face(0) * (1 + np.float32(roundness * (0.25 + light.sun) * light.side) * window.a)
    shade: FloatArray = (lit * (1 + np.float32(0.05) * window.of(window.canvas.grain))).astype(np.float32)
    return shade


def cast_shadow(canvas: Canvas, light: Light, x: float, z: float, width: float, length: float) -> None:
    """Darken the ground below a thing, and beside it on the side away from the sun."""
    reach = length * light.sun * 0.8
    middle = x - light.side * reach / 2
    window = canvas.window(middle, -0.22 * width, width * 1.1 + reach, 0.45 * width, z)
    if window is not None:
        inside = 1 - (window.a**2 + (2 * window.b - 1) ** 2)
        window.darken(np.clip(inside * 2, 0, 1) * np.float32(0.35 + 0.25 * light.sun))


def paint_tree(canvas: Canvas, light: Light, x: float, z: float, u: Draws) -> None:
    """Paint a tree: a trunk and a crown of leaves with holes in it; all of it is vegetation."""
    height, crown = 4 + 8 * u[0], 2.5 + 4.5 * u[1]
    cast_shadow(canvas, light, x, z, crown * 0.6, height * 0.5)
    trunk = canvas.window(x, 0, 0.16 + 0.24 * u[2] ** 2, height * 0.6, z)
    if trunk is not None:
        bark = np.array([0.3, 0.25, 0.2]) * (0.7 + 0.7 * u[3])
        trunk.paint(trunk.box(-1, 1, 0, 1), bark, VEGETATION, volume(trunk, light, 0.5))
    window = canvas.window(x, height * 0.22, crown, height * 0.8, z)
    if window is None:
        return
    leaves, grain = window.of(canvas.leaves), window.of(canvas.grain)
    reach = window.a**2 + ((window.b - 0.52) / (0.46 - 0.1 * u[4])) ** 2 - 0.25 * u[5] * window.a * window.b
    rough = reach + np.float32(0.22) * leaves + np.float32(0.12) * window.of(canvas.blotches)
    is_sparse = u[6] < 0.2
    mask = (rough < 0.85) & (grain * np.float32(0.5) + leaves < (0.6 if is_sparse else 1.9))
    autumn = u[7] ** 3
    green = np.array([0.2 + 0.45 * autumn, 0.36 + 0.06 * u[8], 0.13 + 0.1 * u[9] * (1 - autumn)])
    texture = volume(window, light, 0.35) * (np.float32(0.75) + np.float32(0.4) * window.b)
    texture = texture * (1 + np.float32(0.16) * leaves + np.float32(0.14) * grain)
    window.paint(mask, green * (0.7 + 0.5 * u[10]), VEGETATION, texture)


def paint_pole(canvas: Canvas, light: Light, x: float, z: float, u: Draws) -> None:
    """Paint a pole: a lamp post, or one that carries traffic lights, or signs."""
    role = u[0]
    height = 5 + 4 * u[1] if role < 0.4 else 2.8 + 1.2 * u[1]
    _paint_post(canvas, light, x, z, height, u)
    if role < 0.4:
        _paint_lamp(canvas, light, x, z, height, u)
    elif role < 0.65:
        _paint_signals(canvas, light, x, z, height, u)
    else:
        _paint_sign(canvas, light, x, z, height, u)


def paint_clutter(canvas: Canvas, light: Light, x: float, z: float, u: Draws) -> None:
    """Paint what has no class of its own: bins and boxes (static), animals and prams (dynamic)."""
    is_static = u[0] < 0.75
    width, height = 0.5 + 0.9 * u[1], 0.6 + 0.9 * u[2]
    cast_shadow(canvas, light, x, z, width, height)
    window = canvas.window(x, 0, width, height, z)
    if window is None:
        return
    color = u[3:6] * 0.6 + 0.1
    mask = window.trapezoid(0, 1, 0.85, 1.0) if is_static else window.ellipse(0, 0.5, 1, 0.5)
    window.paint(mask, color, STATIC if is_static else DYNAMIC, volume(window, light, 0.3))


def _paint_post(canvas: Canvas, light: Light, x: float, z: float, height: float, u: Draws) -> None:
    thickness = 0.09 + 0.1 * u[2]
    label = POLE_GROUP if u[11] > 0.97 else POLE
    window = canvas.window(x, 0, thickness, height, z)
    if window is not None:
        color = np.array(POLE_COLORS[int(u[3] * 4)]) * (0.75 + 0.5 * u[4])
        window.paint(window.box(-1, 1, 0, 1), color, label, volume(window, light, 0.6))


def _paint_lamp(canvas: Canvas, light: Light, x: float, z: float, height: float, u: Draws) -> None:
    """Paint the arm over the road and the lamp at its end."""
    inward = -1.0 if x > 0 else 1.0
    arm = canvas.window(x + inward * 0.8, height - 0.12, 1.6, 0.12, z)
    if arm is not None:
        arm.paint(arm.box(-1, 1, 0, 1), POLE_COLORS[int(u[3] * 4)], POLE, volume(arm, light, 0.1))
    lamp = canvas.window(x + inward * 1.6, height - 0.3, 0.7, 0.25, z)
    if lamp is not None:
        color = (1.3, 1.15, 0.8) if light.is_dusk else (0.55, 0.55, 0.55)
        lamp.paint(lamp.ellipse(0, 0.5, 1, 0.6), color, POLE)


def _paint_signals(canvas: Canvas, light: Light, x: float, z: float, height: float, u: Draws) -> None:
    window = canvas.window(x, height - 0.3, 0.42, 1.15, z)
    if window is None:
        return
    window.paint(window.box(-1, 1, 0, 1), (0.09, 0.1, 0.1), TRAFFIC_LIGHT, volume(window, light, 0.2))
    place, color = [(0.82, (1.1, 0.1, 0.1)), (0.5, (1.1, 0.7, 0.1)), (0.18, (0.1, 1.0, 0.45))][int(u[5] * 3)]
    window.paint(window.ellipse(0, place, 0.6, 0.14), color, TRAFFIC_LIGHT)


def _paint_sign(canvas: Canvas, light: Light, x: float, z: float, height: float, u: Draws) -> None:
    """Paint a disc, a triangle or a board; some are seen from behind, which is grey."""
    size = 0.55 + 0.4 * u[5]
    window = canvas.window(x, height - size, size * (1 + 0.8 * (u[6] > 0.8)), size, z)
    if window is None:
        return
    shape = (
        window.ellipse(0, 0.5, 1, 0.5)
        if u[6] < 0.45
        else window.trapezoid(0, 1, 1, 0.1)
        if u[6] < 0.6
        else window.box(-1, 1, 0, 1)
    )
    color = (0.5, 0.5, 0.5) if u[7] < 0.15 else SIGN_COLORS[int(u[8] * 5)]
    texture = volume(window, light, 0.05)
    window.paint(shape, color, TRAFFIC_SIGN, texture)
    if u[7] >= 0.15:
        inner = window.ellipse(0, 0.5, 0.55, 0.26) & shape
        window.paint(inner, (0.85, 0.85, 0.85) if u[8] < 0.6 else (0.1, 0.1, 0.1), TRAFFIC_SIGN, texture)
