"""Test images side by side: image, truth, and of each finalist what it says and where it errs."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from segbench.core.errors import SegbenchError
from segbench.data import SegmentationData, as_recorded, open_data
from segbench.data.labels import IGNORE_INDEX, Color
from segbench.final.images import ImageResults, read_image_results
from segbench.results.folder import Results
from segbench.training.metrics import class_iou, mean_of_present

MAX_MODELS = 6
MAX_WIDTH_PX = 320
WRONG: Color = (213, 94, 0)
RIGHT: Color = (222, 226, 230)
IGNORED: Color = (0, 0, 0)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ModelView:
    """What one model made of one image; both pictures as data URIs."""

    name: str
    miou: float
    prediction: str
    errors: str


@dataclass(frozen=True)
class Scene:
    """One test image and what the models made of it."""

    name: str
    roles: tuple[str, ...]
    """``best of trial-0007`` ..."""
    image: str
    truth: str
    models: tuple[ModelView, ...]


@dataclass(frozen=True)
class Gallery:
    """Pictures of a sweep, or why there are none."""

    scenes: tuple[Scene, ...] = ()
    legend: tuple[tuple[str, Color], ...] = ()
    has_ignored: bool = False
    """Whether there are pixels that do not count."""
    reason: str = ""


def make_gallery(results: Results) -> Gallery:
    """Return the best, median and worst test image of every finalist, seen by all of them (its best seed each)."""
    found: dict[str, ImageResults] = {}
    for finalist in results.finalists[:MAX_MODELS]:
        seed = finalist.best_seed
        folder = None if seed is None else results.paths.trial("test", seed.assignment.name)
        read = None if folder is None else read_image_results(folder)
        if read is not None and any(read.label_maps):
            found[finalist.name] = read
    if not found:
        return Gallery(reason="There are no pictures before the finalists have been tested.")
    try:
        data = open_data(as_recorded(results.paths.data, results.spec.data))
    except SegbenchError as error:
        return Gallery(reason=f"The pictures need the data set: {error}")
    if any(read.names != data.test.names or read.groups != data.groups for read in found.values()):
        return Gallery(reason="The data set has changed since the test, so there are no pictures.")
    scores = {name: [mean_of_present(class_iou(counts)) for counts in read.counts] for name, read in found.items()}
    chosen = choose_scenes(scores)
    scenes = [_scene(index, roles, found, scores, data) for index, roles in chosen.items()]
    ignored = any(bool((data.lut[data.test.labels[index]] == IGNORE_INDEX).any()) for index in chosen)
    return Gallery(tuple(scenes), tuple(zip(data.groups, data.colors, strict=True)), ignored)


def choose_scenes(scores: Mapping[str, Sequence[float]]) -> dict[int, tuple[str, ...]]:
    """Return image index -> roles: the best, median and worst of each model, best first by the mean of all models."""
    roles: dict[int, list[str]] = {}
    for name, values in scores.items():
        order = sorted((index for index, value in enumerate(values) if value == value), key=lambda i: -values[i])
        picks = {"best": order[:1], "median": order[len(order) // 2 :][:1], "worst": order[-1:]}
        for role, indices in picks.items():
            for index in indices:
                roles.setdefault(index, []).append(f"{role} of {name}")
    means = {index: float(np.mean([values[index] for values in scores.values()])) for index in roles}
    return {index: tuple(roles[index]) for index in sorted(roles, key=lambda index: -means[index])}


def _scene(
    index: int,
    roles: tuple[str, ...],
    found: Mapping[str, ImageResults],
    scores: Mapping[str, Sequence[float]],
    data: SegmentationData,
) -> Scene:
    truth = data.lut[data.test.labels[index]]
    models = []
    for name, read in found.items():
        prediction = read.label_map(index)
        errors = np.where(truth == IGNORE_INDEX, 2, prediction != truth).astype(np.uint8)
        shown = np.where(truth == IGNORE_INDEX, IGNORE_INDEX, prediction).astype(np.uint8)
        pictures = (_paletted(shown, data.colors), _paletted(errors, (RIGHT, WRONG, IGNORED)))
        models.append(ModelView(name, scores[name][index], *pictures))
    return Scene(
        data.test.names[index], roles, _photo(data.test.images[index]), _paletted(truth, data.colors), tuple(models)
    )


def _photo(image: Pixels) -> str:
    file = io.BytesIO()
    picture = Image.fromarray(np.asarray(image))
    picture.resize(_shown_size(image), Image.Resampling.LANCZOS).save(file, format="JPEG", quality=82)
    return _data_uri(file, "jpeg")


def _paletted(classes: Pixels, colors: Sequence[Color]) -> str:
    """Return a PNG of class indices with a palette; 255 is black."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = colors
    picture = Image.fromarray(classes, mode="P")
    picture.putpalette(palette.tobytes())
    file = io.BytesIO()
    picture.resize(_shown_size(classes), Image.Resampling.NEAREST).save(file, format="PNG", optimize=True)
    return _data_uri(file, "png")


def _shown_size(pixels: Pixels) -> tuple[int, int]:
    height, width = pixels.shape[:2]
    scale = min(1.0, MAX_WIDTH_PX / width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _data_uri(file: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
