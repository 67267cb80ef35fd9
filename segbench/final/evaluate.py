"""The test stage: the test split is read once, by the model that validation chose."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.errors import DataError, UserError
from segbench.core.paths import atomic_path, atomic_write
from segbench.core.records import EpochResult, TrainContext
from segbench.data import SegmentationData, Split, open_data
from segbench.data.labels import IGNORE_INDEX
from segbench.final.cost import measure_cost
from segbench.final.images import ImageResults, encode_label_map, write_image_results
from segbench.final.model import LoadedModel, Pixels, load_model
from segbench.training.class_tables import class_tables
from segbench.training.confusion import count_pixels
from segbench.training.metrics import (
    NUM_LABELS,
    Counts,
    as_confusion,
    group_rows,
    metrics_from_confusion,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_EXAMPLES = 4

__all__ = ["LoadedModel", "Scores", "evaluate_model", "load_model", "predict_folder", "test"]


@dataclass(frozen=True)
class Scores:
    """What a model scores on one split."""

    metrics: Mapping[str, float]
    """``test/miou``, ``test/iou/<group>``, ..."""
    confusion: Counts
    """K x K pixel counts, row: true class, column: predicted class."""
    images: ImageResults
    """The same, image by image."""


def test(config: TrialConfig | Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """Score the model in ``context.checkpoint`` on the test split of ``context.data``; yields once.

    Beside ``test/...`` it reports ``model/...``, what the model costs to run (:mod:`segbench.final.cost`).

    Writes to ``context.output``, if given: ``confusion.csv``, ``classes.csv``, ``images.parquet`` (counts and label
    map of each image) and ``examples/*.png`` (image, truth, prediction).

    Args:
        config: settings of the training; the model folder has them too, and those count.
        context: names the checkpoint, the data, the device and the folder for results.

    Raises:
        CheckpointError: the model folder is missing or damaged.
        DataError: the data have other classes than the model.
    """
    if context.data is None or context.checkpoint is None:
        raise UserError("testing needs a data set and a model folder (TrainContext.data and .checkpoint)")
    model = load_model(context.checkpoint, context.device)
    data = open_data(context.data)
    scores = evaluate_model(model, data, data.test)
    costs = measure_cost(model, _batch_size(model))
    if context.output is not None:
        output = Path(context.output)
        write_tables(scores.confusion, model.groups, output)
        write_image_results(scores.images, output)
        write_examples(model, data, output / "examples")
    yield EpochResult(metrics={**scores.metrics, **costs}, confusion=as_confusion(scores.confusion))


def evaluate_model(model: LoadedModel, data: SegmentationData, split: Split, prefix: str = "test") -> Scores:
    """Return what ``model`` scores on one split of ``data``, at the size that the data have.

    Raises:
        DataError: the data have other classes than the model.
    """
    if model.groups != data.groups:
        raise DataError(
            f"data.groups: the model's classes are {', '.join(model.groups)}, those of the data "
            f"{', '.join(data.groups)}; use the same data.groups and data.ignore as in training"
        )
    batch_size = _batch_size(model)
    by_label = np.zeros((NUM_LABELS, len(data.groups)), np.int64)
    by_image, label_maps = [], []
    for start in range(0, len(split.names), batch_size):
        images = slice(start, start + batch_size)
        for prediction, labels in zip(
            model.predict(split.images[images], batch_size), split.labels[images], strict=True
        ):
            pixels = torch.from_numpy(prediction), torch.from_numpy(np.array(labels))
            counts = count_pixels(*pixels, len(data.groups)).numpy()
            by_label += counts
            by_image.append(group_rows(counts, data.lut))
            label_maps.append(encode_label_map(prediction))
    results = ImageResults(split.names, data.groups, np.stack(by_image), tuple(label_maps))
    metrics = metrics_from_confusion(by_label, data.lut, data.groups, prefix)
    return Scores(metrics, group_rows(by_label, data.lut), results)


def _batch_size(model: LoadedModel) -> int:
    """Return how many images the training had at a time."""
    return max(1, model.config.batch_size // model.config.accumulation_steps)


def evaluate_folder(folder: str | Path, config: DataConfig, split: str, device: str = "cpu") -> Scores:
    """Return what the model in ``folder`` scores on one split (train, val or test) of any data set.

    Raises:
        UserError: an unknown split, or a model or data set that cannot be used.
    """
    if split not in ("train", "val", "test"):
        raise UserError(f"split {split!r} does not exist; choose train, val or test")
    data = open_data(config)
    return evaluate_model(load_model(folder, device), data, getattr(data, split), prefix=split)


def predict_folder(model_folder: str | Path, images_folder: Path, output: Path, device: str = "cpu") -> list[Path]:
    """Segment all PNG and JPEG pictures in a folder and return the label files written.

    For ``a/b.png`` it writes ``a/b_labelIds.png`` (Cityscapes label ids; a group is written as
    :attr:`LoadedModel.label_ids` says) and ``a/b_color.png``, at the picture's size; computed in float32.

    Raises:
        UserError: no folder, no picture in it, or two pictures that differ only in their suffix.
        DataError: a picture cannot be read.
    """
    sources = find_images(images_folder)
    model = load_model(model_folder, device, precision="fp32")
    label_files = []
    for source in sources:
        classes = model.predict_image(read_image(source))
        target = output / source.relative_to(images_folder).parent
        label_files.append(target / f"{source.stem}_labelIds.png")
        write_png(model.label_ids[classes], label_files[-1])
        write_png(model.colorize(classes), target / f"{source.stem}_color.png")
    return label_files


def find_images(folder: Path) -> list[Path]:
    """Return all PNG and JPEG files under ``folder``, sorted."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with {', '.join(IMAGE_SUFFIXES)} pictures")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f"{folder}: no pictures in it; give a folder with {', '.join(IMAGE_SUFFIXES)} files")
    seen: dict[Path, Path] = {}
    for path in paths:
        other = seen.setdefault(path.with_suffix(""), path)
        if other != path:
            raise UserError(f"{path}: its result would replace that of {other.name}; rename one of them")
    return paths


def read_image(path: Path) -> Pixels:
    """Return a picture as uint8 (H, W, 3) RGB."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for broken PNGs
        raise DataError(f"{path}: cannot be read as a picture ({error}); remove or replace it") from error


def write_png(pixels: Pixels, path: Path) -> None:
    """Write uint8 pixels as PNG, completely or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def write_tables(confusion: Counts, groups: Sequence[str], folder: Path) -> None:
    """Write ``confusion.csv`` (pixels; row: truth, column: prediction) and ``classes.csv`` (a row a class)."""
    for name, text in class_tables(confusion, groups).items():
        atomic_write(folder / name, text)


def write_examples(model: LoadedModel, data: SegmentationData, folder: Path) -> None:
    """Write a panel (image, truth, prediction, side by side) for a few test images, always the same ones."""
    num_images = len(data.test.images)
    for index in np.linspace(0, num_images - 1, min(MAX_EXAMPLES, num_images)).round().astype(int):
        image = data.test.images[index]
        truth = data.lut[data.test.labels[index]]
        prediction = model.predict(image[None])[0]
        hidden = np.where(truth == IGNORE_INDEX, truth, prediction)  # what does not count is black in both
        panel = np.concatenate([image, model.colorize(truth), model.colorize(hidden)], axis=1)
        write_png(panel, folder / f"{data.test.names[index]}.png")
