"""Weather, sun, lens and sensor: what makes the same things look different from scene to scene."""

from dataclasses import dataclass

import numpy as np

from segbench.data.streets.canvas import Canvas, Draws, FloatArray

NUM_DRAWS = 16


@dataclass(frozen=True, eq=False)
class Light:
    """Lighting of one scene."""

    side: float
    """Where the sun stands: -1 left to 1 right."""
    sun: float
    """Strength of direct light, 0 (overcast) to 1: contrast between lit and shaded sides, depth of shadows."""
    is_dusk: bool
    """Windows, head lamps and signals shine."""
    tint: FloatArray
    """(3,) colour of the light."""
    haze: FloatArray
    """(3,) colour of far things and of the sky at the horizon."""
    zenith: FloatArray
    """(3,) colour of the sky above."""
    visibility: float
    """Metres at which haze has taken two thirds of the contrast."""
    exposure: float
    contrast: float
    saturation: float
    noise: float
    blur: float
    vignette: float

    def face(self, direction: float) -> float:
        """Return the brightness of a surface that looks to ``direction`` (-1 left, 0 to the camera, 1 right)."""
        return 0.78 + 0.32 * self.sun * direction * self.side


def draw_light(u: Draws) -> Light:
    """Return one of day, overcast and dusk, with all settings drawn from ``u`` (NUM_DRAWS,)."""
    side = 1.0 if u[0] < 0.5 else -1.0
    if u[1] < 0.5:  # clear day
        sun, tint, is_dusk = 0.5 + 0.5 * u[2], (1.06, 1.0, 0.9 + 0.1 * u[3]), False
        zenith, haze = (0.30 + 0.2 * u[4], 0.5 + 0.15 * u[4], 0.82), (0.80, 0.86, 0.92)
    elif u[1] < 0.82:  # overcast
        sun, tint, is_dusk = 0.1 * u[2], (0.95, 0.98, 1.0 + 0.06 * u[3]), False
        grey = 0.62 + 0.3 * u[4]
        zenith, haze = (grey * 0.95, grey * 0.98, grey), (grey, grey, grey * 0.99)
    else:  # dusk
        sun, tint, is_dusk = 0.25 * u[2], (0.72 + 0.14 * u[3], 0.64, 0.66 + 0.08 * u[2]), True
        zenith, haze = (0.3, 0.34 + 0.1 * u[4], 0.52), (0.8 + 0.15 * u[3], 0.64, 0.56)
    return Light(
        side=side * (0.4 + 0.6 * u[5]),
        sun=sun,
        is_dusk=is_dusk,
        tint=np.array(tint, np.float32),
        haze=np.array(haze, np.float32),
        zenith=np.array(zenith, np.float32),
        visibility=float(60 * 20 ** u[6]),
        exposure=0.8 + 0.5 * u[7],
        contrast=0.85 + 0.4 * u[8],
        saturation=0.45 + 0.75 * u[9],
        noise=0.012 + 0.035 * u[10] ** 2 + 0.015 * is_dusk,
        blur=0.05 + 0.17 * u[11],
        vignette=0.45 * u[12],
    )


def develop(canvas: Canvas, light: Light, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the photograph (H, W, 3) uint8 of a finished canvas: light, haze, lens, sensor."""
    # in place and merged where it can be: this is a good part of the time a scene takes
    clear = np.exp(canvas.depth * np.float32(-1 / light.visibility))[..., None]
    color = canvas.color * clear
    color *= light.tint
    color += (1 - clear) * light.haze
    color *= _vignette(canvas, light)[..., None]
    grey = color @ np.array([0.3, 0.59, 0.11], np.float32)
    color *= np.float32(light.saturation)
    color += (np.float32(1 - light.saturation) * grey)[..., None]
    color = _blur(color, light.blur)
    np.clip(color, 0, None, out=color)
    color -= np.float32(0.45)
    color *= np.float32(light.contrast)
    sigma = np.float32(light.noise) * (np.float32(0.5) + grey)
    noise = rng.standard_normal(color.shape, np.float32)
    noise *= sigma[..., None]
    color += noise
    color += np.float32(0.45)
    np.clip(color, 0, 1, out=color)
    color *= np.float32(255)
    return np.rint(color, out=color).astype(np.uint8)


def _blur(color: FloatArray, weight: float) -> FloatArray:
    """Mix each pixel with its four neighbours, ``weight`` each way along both axes."""
    for axis in (0, 1):
        near = np.swapaxes(color, 0, axis)
        mixed = near * np.float32(1 - 2 * weight)
        mixed[1:] += np.float32(weight) * near[:-1]
        mixed[:-1] += np.float32(weight) * near[1:]
        mixed[0] += np.float32(weight) * near[0]
        mixed[-1] += np.float32(weight) * near[-1]
        color = np.swapaxes(mixed, 0, axis)
    return color


def _vignette(canvas: Canvas, light: Light) -> FloatArray:
    """Return the exposure of each pixel: the corners get less."""
    height, width = canvas.labels.shape
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    falloff: FloatArray = np.float32(light.exposure) * (1 - np.float32(light.vignette / 2) * (down**2 + across**2))
    return falloff
