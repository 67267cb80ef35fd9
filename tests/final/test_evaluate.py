"""From a model folder to numbers, tables and pictures."""

import csv
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.errors import CheckpointError, DataError, UserError
from segbench.core.records import TrainContext
from segbench.data import open_data
from segbench.final import evaluate
from segbench.final.cost import _flops, _peak_bytes, measure_cost
from segbench.final.images import read_image_results
from segbench.final.model import LoadedModel, load_model
from segbench.models import build_model
from segbench.training import checkpoint
from segbench.training.loop import train
from segbench.training.metrics import class_iou

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = TrialConfig(model="unet", width=4, depth=2, batch_size=4, lr=1e-2, ema_decay=0.5)


@pytest.fixture(scope="module")
def data_config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    cache = tmp_path_factory.mktemp("cache")
    return DataConfig(size=(32, 64), num_images=(8, 3, 6), cache_dir=str(cache))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data_config: DataConfig) -> Path:
    """Return a model folder of a UNet trained for two epochs."""
    target = tmp_path_factory.mktemp("run") / "best"
    for result in train(TINY, TrainContext(max_epochs=2, data=data_config)):
        assert result.save_model is not None
        result.save_model(target)
    return target


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load_model(folder)


def test_a_loaded_model_scores_what_training_reported(tmp_path: Path, data_config: DataConfig) -> None:
    for family in ("unet", "segformer"):
        (result,) = train(
            replace(TINY, model=family, precision="bf16", channels_last=True),
            TrainContext(max_epochs=1, data=data_config),
        )
        assert result.save_model is not None
        result.save_model(tmp_path / family)
        data = open_data(data_config)
        scores = evaluate.evaluate_model(load_model(tmp_path / family), data, data.val, prefix="val")
        assert tuple(map(tuple, scores.confusion.tolist())) == result.confusion
        assert all(repr(value) == repr(result.metrics[key]) for key, value in scores.metrics.items())


def test_the_test_stage_yields_once_and_writes_tables_and_pictures(
    folder: Path, data_config: DataConfig, model: LoadedModel, tmp_path: Path
) -> None:
    context = TrainContext(max_epochs=1, data=data_config, checkpoint=str(folder), output=str(tmp_path))
    (result,) = evaluate.test(TINY, context)
    data = open_data(data_config)
    confusion = np.array(result.confusion)
    assert confusion.sum() == data.test.labels.size
    prediction = model.predict(data.test.images)
    expected = np.bincount((data.lut[data.test.labels].astype(int) * 8 + prediction).ravel(), minlength=64)
    assert np.array_equal(confusion.ravel(), expected)
    assert set(result.metrics) >= {"test/miou", "test/miou_official", "test/iou/sky", "test/f1"}
    images = read_image_results(tmp_path)
    assert images is not None
    assert (images.names, images.groups) == (data.test.names, data.groups)
    assert np.array_equal(images.counts.sum(axis=0), confusion)
    assert all(np.array_equal(images.label_map(index), prediction[index]) for index in range(len(images.names)))

    with (tmp_path / "confusion.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["truth", *data.groups]
    assert [row[0] for row in rows] == list(data.groups)
    assert np.array_equal(np.array([row[1:] for row in rows], int), confusion)

    with (tmp_path / "classes.csv").open() as file:
        classes = {row["group"]: row for row in csv.DictReader(file)}
    for group, iou, pixels in zip(data.groups, class_iou(confusion), confusion.sum(1), strict=True):
        assert int(classes[group]["pixels"]) == pixels
        assert (float(classes[group]["iou"]) == iou) if not np.isnan(iou) else (classes[group]["iou"] == "")

    pictures = sorted((tmp_path / "examples").iterdir())
    assert [path.stem for path in pictures] == [data.test.names[i] for i in (0, 2, 3, 5)]
    panel = read_png(pictures[0])
    assert panel.shape == (32, 3 * 64, 3)
    assert np.array_equal(panel[:, :64], data.test.images[0])
    palette = np.array(data.colors, np.uint8)
    assert np.array_equal(panel[:, 64:128], palette[data.lut[data.test.labels[0]]])
    assert np.array_equal(panel[:, 128:], palette[prediction[0]])


def test_testing_twice_gives_the_same(folder: Path, data_config: DataConfig) -> None:
    context = TrainContext(max_epochs=1, data=data_config, checkpoint=str(folder))
    first, second = (next(evaluate.test(asdict(TINY), context)) for _ in range(2))
    assert first.confusion == second.confusion
    assert repr(without_latency(first.metrics)) == repr(without_latency(second.metrics))


def without_latency(metrics: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in metrics.items() if not key.startswith("model/latency")}


@pytest.mark.parametrize(("family", "size", "gmacs"), [("unet", 64, 193.0), ("segformer", None, 4.13)])
def test_multiply_adds_are_those_of_the_architecture(family: str, size: int | None, gmacs: float) -> None:
    """The UNet's by hand: 192.97 for 19 classes. SegFormer-B0's: 8.4 as published, half with the composed head."""
    config = TrialConfig(model=family, width=size or 4, depth=4, precision="fp32")
    module = build_model(config, 19 if family == "unet" else 150).eval()
    with torch.inference_mode():
        flops = _flops(lambda: module(torch.zeros(1, 3, 512, 512)))
    assert flops / 2e9 == pytest.approx(gmacs, rel=0.01)


def test_what_a_model_costs_is_measured(model: LoadedModel) -> None:
    costs = measure_cost(model, 4)
    assert costs["model/parameters"] == model.num_parameters
    assert costs["model/batch_size"] == 4
    assert 0 < costs["model/latency_ms"] < 10_000
    assert costs["model/latency_batch_ms"] > 0
    assert "1 thread" in costs["model/device"]
    by_hand = 0  # first convolution of the UNet: 3x3 from 3 to 4 channels at 32x64
    by_hand += 9 * 3 * 4 * 32 * 64 / 1e9
    assert costs["model/gmacs"] > by_hand
    logits, weights = 8 * 32 * 64 * 4, model.num_parameters * 4
    assert (weights + logits) / 2**20 < costs["model/peak_mib"] < most_bytes(model) / 2**20
    again = measure_cost(model, 4)
    assert without_latency(again) == without_latency(costs)


def most_bytes(model: LoadedModel) -> int:
    """Return what a pass holds if nothing is freed and its largest convolution unfolds its input.

    How much of it a convolution really takes is the processor's choice: of an algorithm, and of a layout.
    """
    outputs, unfolded = [], [0]

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        outputs.append(output.numel() * 4)
        if isinstance(module, nn.Conv2d):
            unfolded.append(math.prod(module.kernel_size) * inputs[0].numel() * 4)

    leaves = [module for module in model.module.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(note) for module in leaves]
    model.predict(np.zeros((1, *model.size, 3), np.uint8))
    for hook in hooks:
        hook.remove()
    return 2 * model.num_parameters * 4 + sum(outputs) + max(unfolded)


def test_the_peak_is_what_is_held_at_once() -> None:
    def run() -> None:
        first = torch.zeros(1000)
        second = torch.ones(3000)
        del first
        third = torch.zeros(500)
        del second, third

    assert _peak_bytes(run, torch.device("cpu")) == 4 * 4000


def test_testing_needs_a_data_set_and_a_model(folder: Path, data_config: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a data set and a model folder"):
        next(evaluate.test(TINY, TrainContext(max_epochs=1, data=data_config)))
    missing = str(tmp_path / "none")
    with pytest.raises(CheckpointError, match="none: no such folder"):
        next(evaluate.test(TINY, TrainContext(max_epochs=1, data=data_config, checkpoint=missing)))


def test_data_of_other_classes_are_refused(folder: Path, data_config: DataConfig) -> None:
    other = replace(data_config, ignore=("void",))
    with pytest.raises(DataError, match="the model's classes are void, flat"):
        evaluate.evaluate_folder(folder, other, "val")


def test_a_model_can_be_scored_at_another_size_and_on_any_split(folder: Path, data_config: DataConfig) -> None:
    other = replace(data_config, size=(48, 80))
    scores = evaluate.evaluate_folder(folder, other, "train")
    assert scores.confusion.sum() == 8 * 48 * 80
    assert "train/miou" in scores.metrics
    with pytest.raises(UserError, match="choose train, val or test"):
        evaluate.evaluate_folder(folder, other, "dev")


def test_prediction_does_not_depend_on_the_batch_size(model: LoadedModel, data_config: DataConfig) -> None:
    images = open_data(data_config).test.images
    expected = model.predict(images, batch_size=6)
    assert expected.dtype == np.uint8
    assert expected.shape == (6, 32, 64)
    assert expected.max() < 8
    assert np.array_equal(model.predict(images, batch_size=4), expected)
    assert model.predict(images[:0]).shape == (0, 32, 64)


@pytest.mark.parametrize("images", [np.zeros((32, 64, 3), np.uint8), np.zeros((1, 3, 32, 64), np.float32)])
def test_prediction_refuses_other_arrays(model: LoadedModel, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"give uint8 \(N, H, W, 3\)"):
        model.predict(images)


def test_a_picture_of_any_size_is_segmented_at_its_own_size(model: LoadedModel, data_config: DataConfig) -> None:
    image = open_data(data_config).test.images[0]
    assert np.array_equal(model.predict_image(image), model.predict(image[None])[0])
    large = np.asarray(Image.fromarray(image).resize((130, 75)))
    assert model.predict_image(large).shape == (75, 130)


def test_a_folder_of_pictures_becomes_label_ids_and_colours(
    folder: Path, data_config: DataConfig, tmp_path: Path
) -> None:
    images = open_data(data_config).test.images
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    Image.fromarray(images[0]).save(source / "a.png")
    Image.fromarray(images[1]).resize((90, 40)).save(source / "sub" / "b.JPG", format="JPEG")
    Image.fromarray(images[2]).convert("L").save(source / "grey.png")
    (source / "notes.txt").write_text("no picture")
    files = evaluate.predict_folder(folder, source, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == [
        "a_labelIds.png", "grey_labelIds.png", "sub/b_labelIds.png",
    ]  # fmt: skip
    model = load_model(folder, precision="fp32")  # what leaves segbench is computed in it on every processor
    classes = model.predict(images[:1])[0]
    labels = read_png(files[0])
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, np.array([0, 7, 11, 17, 21, 23, 24, 26])[classes])
    assert np.array_equal(model.lut[labels], classes)
    colors = read_png(tmp_path / "out" / "a_color.png")
    assert np.array_equal(colors, np.array(model.colors, np.uint8)[classes])
    with Image.open(files[2]) as picture:
        assert picture.size == (90, 40)
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_bad_folders_of_pictures_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in: no such folder"):
        evaluate.predict_folder(folder, tmp_path / "in", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="in: no pictures in it"):
        evaluate.predict_folder(folder, tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "a.png").write_bytes(b"garbage")
    with pytest.raises(DataError, match=r"a\.png: cannot be read as a picture"):
        evaluate.predict_folder(folder, tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "a.jpg").write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"a\.png: its result would replace that of a\.jpg"):
        evaluate.predict_folder(folder, tmp_path / "in", tmp_path / "out")


def test_the_label_id_of_a_group_is_one_that_the_official_evaluation_counts(model: LoadedModel) -> None:
    lut = np.full(256, 255, np.uint8)
    lut[[9, 10]], lut[[14, 15, 12]] = 0, 1
    custom = replace(model, groups=("parked", "walls"), lut=lut)
    assert custom.label_ids.tolist() == [9, 12]


def test_a_loaded_model_knows_its_size_and_its_parameters(folder: Path, model: LoadedModel) -> None:
    weights, card = checkpoint.load_model_files(folder)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    expected = sum(value.numel() for name, value in weights.items() if not name.endswith(statistics))
    assert model.num_parameters == expected
    assert model.size == (32, 64)
    assert model.config == TINY
    assert card["epoch"] == 2
    assert not model.module.training


def test_loading_leaves_the_global_generator_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    load_model(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_started_from_pretrained_weights_loads_without_them(folder: Path, tmp_path: Path) -> None:
    weights, card = checkpoint.load_model_files(folder)
    card["config"]["pretrained"] = "/gone/weights"
    checkpoint.save_model(tmp_path, weights, card)
    assert load_model(tmp_path).config.pretrained == "/gone/weights"


def test_a_model_folder_of_another_version_is_refused(folder: Path, tmp_path: Path) -> None:
    weights, card = checkpoint.load_model_files(folder)
    cards = [
        {**card, "config": {**card["config"], "new_setting": 1}},
        {**card, "config": {**card["config"], "width": 8}},
        {**card, "config": {**card["config"], "model": "nonsense"}},
        {key: value for key, value in card.items() if key != "size"},
    ]
    for other in cards:
        checkpoint.save_model(tmp_path, weights, other)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: does not fit"):
            load_model(tmp_path)
