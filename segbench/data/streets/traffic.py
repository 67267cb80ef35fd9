"""People and vehicles; painters take (canvas, light, x, z, u) as in ``things``."""

from typing import Any

import numpy as np

from segbench.data.streets.canvas import Canvas, Draws, FloatArray, Window
from segbench.data.streets.light import Light
from segbench.data.streets.things import cast_shadow, volume

PERSON, RIDER, CAR, TRUCK, BUS, TRAM, MOTORCYCLE, BICYCLE = 24, 25, 26, 27, 28, 31, 32, 33

SKIN = ((0.78, 0.60, 0.50), (0.62, 0.45, 0.35), (0.40, 0.28, 0.22))
CAR_COLORS = (
    (0.10, 0.10, 0.11),
    (0.32, 0.33, 0.35),
    (0.62, 0.63, 0.65),
    (0.82, 0.82, 0.82),
    (0.50, 0.10, 0.10),
    (0.12, 0.20, 0.42),
    (0.30, 0.34, 0.28),
    (0.55, 0.47, 0.34),
)


def paint_person(canvas: Canvas, light: Light, x: float, z: float, u: Draws) -> None:
    """Paint a pedestrian, grown-up or child, in clothes of any colour."""
    height = 1.05 + 0.3 * u[1] if u[0] < 0.12 else 1.58 + 0.3 * u[1]
    cast_shadow(canvas, light, x, z, 0.5, height)
    window = canvas.window(x, 0, 0.36 * height, height, z)
    if window is not None:
        _paint_body(window, light, PERSON, u)


def _paint_body(window: Window, light: Light, label: int, u: Draws) -> None:
    shade = volume(window, light, 0.2)
    coat, trousers = _clothes(u[2:6]), _clothes(u[5:9]) * 0.8
    stride = 0.15 + 0.5 * u[9] * np.clip(0.48 - window.b, 0, 1)
    legs = (window.b < 0.5) & (np.abs(np.abs(window.a) - stride * 1.3) < 0.24)
    window.paint(legs, trousers, label, shade)
    hem = 0.28 if u[10] < 0.3 else 0.44
    window.paint(window.trapezoid(hem, 0.84, 0.62, 0.72), coat, label, shade)
    arms = (window.b > 0.42) & (window.b < 0.8) & (np.abs(np.abs(window.a) - 0.8) < 0.16)
    window.paint(arms, coat * 0.9, label, shade)
    if u[10] > 0.7:  # a bag or a rucksack
        window.paint(window.ellipse(0.6 if u[11] < 0.5 else -0.6, 0.6, 0.3, 0.14), trousers, label, shade)
    window.paint(window.ellipse(0, 0.92, 0.3, 0.085), SKIN[int(u[11] * 3)], label, shade)
    window.paint(window.ellipse(0, 0.955, 0.32, 0.055), np.full(3, 0.08 + 0.35 * u[4]), label, shade)


def _clothes(u: Draws) -> FloatArray:
    """Return mostly dull colours, as on a facade, and sometimes vivid ones."""
    grey = 0.12 + 0.55 * u[0]
    spread = 0.9 if u[3] > 0.75 else 0.18
    clothes: FloatArray = np.clip(grey + spread * (u[:3] - 0.5), 0.04, 0.95).astype(np.float32)
    return clothes


def paint_rider(canvas: Canvas, light: Light, x: float, z: float, u: Draws) -> None:
    """Paint a cyclist or a motorcyclist, seen from behind or from the side."""
    is_motor, is_side = u[0] < 0.3, u[1] < 0.4
    length = (1.75 if is_side else 0.55) + 0.25 * is_motor
    cast_shadow(canvas, light, x, z, 0.8, 1.5)
    bike = canvas.window(x, 0, length, 1.05, z)
    if bike is not None:
        _paint_bike(bike, light, is_motor, is_side, u)
    rider = canvas.window(x, 0.55, 0.62, 1.2, z)
    if rider is not None:
        shade = volume(rider, light, 0.2)
        rider.paint(rider.trapezoid(0, 0.25, 0.5, 0.6), _clothes(u[2:6]) * 0.8, RIDER, shade)
        rider.paint(rider.trapezoid(0.2, 0.76, 0.6, 0.7), _clothes(u[6:10]), RIDER, shade)
        helmet = u[3:6] if is_motor or u[10] < 0.5 else np.array(SKIN[int(u[11] * 3)])
        rider.paint(rider.ellipse(0, 0.87, 0.32, 0.13), helmet, RIDER, shade)


def _paint_bike(window: Window, light: Light, is_motor: bool, is_side: bool, u: Draws) -> None:
    label = MOTORCYCLE if is_motor else BICYCLE
    color = np.array([0.12, 0.12, 0.13]) + (0.5 * u[8:11] if u[7] < 0.4 else 0.0)
    shade = volume(window, light, 0.1)
    if not is_side:
        window.paint(window.box(-0.35, 0.35, 0, 0.7), color * 0.6, label, shade)
        window.paint(window.box(-1, 1, 0.75, 0.85), color, label, shade)
        return
    for middle in (-0.6, 0.6):
        wheel = window.ellipse(middle, 0.33, 0.4, 0.33)
        hub = window.ellipse(middle, 0.33, 0.29, 0.24)
        window.paint(wheel if is_motor else wheel & ~hub, (0.07, 0.07, 0.07), label, shade)
    window.paint(window.box(-0.5, 0.5, 0.35, 0.72 if is_motor else 0.45), color, label, shade)
    window.paint(window.box(0.4, 0.55, 0.3, 1), color, label, shade)


def paint_car(canvas: Canvas, light: Light, x: float, z: float, u: Draws) -> None:
    """Paint a car from behind, from the front or (crossing) from the side."""
    if u[0] < 0.12:
        _paint_car_side(canvas, light, x, z, u)
        return
    width, height = 1.75 + 0.2 * u[1], 1.4 + 0.5 * u[2] ** 2
    cast_shadow(canvas, light, x, z, width * 1.15, 1.6)
    window = canvas.window(x, 0, width, height, z)
    if window is None:
        return
    shade, color = volume(window, light, 0.12), _car_color(u)
    tires = (window.b < 0.25) & (np.abs(np.abs(window.a) - 0.78) < 0.16)
    window.paint(tires, (0.05, 0.05, 0.05), CAR, shade)
    window.paint(window.trapezoid(0.13, 0.6, 0.98, 1.0), color, CAR, shade)
    window.paint(window.trapezoid(0.55, 1, 0.92, 0.62), color * 0.95, CAR, shade)
    glass = light.haze * np.float32(0.25 + 0.4 * u[4])
    window.paint(window.trapezoid(0.6, 0.94, 0.8, 0.56), glass, CAR, shade)
    _paint_lamps(window, light, is_front=x < 0 and u[5] < 0.8)
    window.paint(window.box(-0.28, 0.28, 0.26, 0.35), (0.75, 0.75, 0.72), CAR, shade)
    window.paint(window.box(-0.95, 0.95, 0.13, 0.2), color * 0.5, CAR, shade)


def _paint_lamps(window: Window, light: Light, is_front: bool) -> None:
    glow = 1.5 if light.is_dusk else 0.85
    color = np.array([1.0, 0.97, 0.85]) * glow if is_front else np.array([0.75, 0.08, 0.07]) * glow
    lamps = (np.abs(np.abs(window.a) - 0.8) < 0.15) & ((window.b > 0.4) & (window.b < 0.54))
    window.paint(lamps, color, CAR)


def _paint_car_side(canvas: Canvas, light: Light, x: float, z: float, u: Draws) -> None:
    length, height = 4.1 + 0.7 * u[1], 1.42 + 0.3 * u[2]
    cast_shadow(canvas, light, x, z, length, 0.5)
    window = canvas.window(x, 0, length, height, z)
    if window is None:
        return
    shade, color = volume(window, light, 0.06), _car_color(u)
    window.paint(window.trapezoid(0.16, 0.62, 1.0, 0.96), color, CAR, shade)
    window.paint(window.trapezoid(0.6, 1, 0.68, 0.42), color, CAR, shade)
    glass = window.trapezoid(0.63, 0.93, 0.6, 0.4) & (np.abs(window.a) > 0.03)
    window.paint(glass, light.haze * np.float32(0.3), CAR, shade)
    for middle in (-0.62, 0.62):
        window.paint(window.ellipse(middle, 0.21, 0.155, 0.21), (0.05, 0.05, 0.05), CAR, shade)
        window.paint(window.ellipse(middle, 0.21, 0.08, 0.11), (0.4, 0.4, 0.4), CAR, shade)


def _car_color(u: Draws) -> FloatArray:
    base = np.array(CAR_COLORS[int(u[6] * 8)])
    color: FloatArray = (base * (0.8 + 0.4 * u[7]) + 0.06 * (u[8:11] - 0.5)).astype(np.float32)
    return color


def paint_large(canvas: Canvas, light: Light, x: float, z: float, u: Draws) -> None:
    """Paint a truck, a bus or a tram: boxes in the colours of houses."""
    label = TRUCK if u[0] < 0.5 else BUS if u[0] < 0.9 else TRAM
    width, height = 2.4, 2.9 + 0.7 * u[1]
    cast_shadow(canvas, light, x, z, width * 1.15, 2.5)
    window = canvas.window(x, 0, width, height, z)
    if window is None:
        return
    color: Any = np.clip(0.2 + 0.6 * u[2] + 0.5 * (u[3:6] - 0.5), 0.06, 0.9)
    shade = volume(window, light, 0.08)
    tires = (window.b < 0.16) & (np.abs(np.abs(window.a) - 0.74) < 0.18)
    window.paint(tires, (0.05, 0.05, 0.05), label, shade)
    window.paint(window.box(-1, 1, 0.08, 1), color, label, shade)
    glass = light.haze * np.float32(0.35)
    if label == TRUCK:
        window.paint(window.box(-0.98, 0.98, 0.08, 0.3), (0.14, 0.14, 0.15), label, shade)
        if x < 0:  # from the front: a cab
            window.paint(window.box(-0.85, 0.85, 0.45, 0.72), glass, label, shade)
    else:
        window.paint(window.box(-0.88, 0.88, 0.45, 0.82), glass, label, shade)
        window.paint(window.box(-0.6, 0.6, 0.87, 0.95), (0.9, 0.6, 0.1), label)
    lamps = (np.abs(np.abs(window.a) - 0.82) < 0.1) & ((window.b > 0.2) & (window.b < 0.27))
    window.paint(lamps, (1.0, 0.95, 0.8) if x < 0 else (0.8, 0.08, 0.07), label)
