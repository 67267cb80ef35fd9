"""Models in the formats of others give the label maps of ``segbench predict``; curves reach TensorBoard."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from real_scenes import find_camvid
from sweep_ledgers import SweepWriter, make_spec, write_demo
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from segbench.cli import main
from segbench.core.config import DataConfig, TrialConfig
from segbench.core.errors import SegbenchError
from segbench.core.paths import SweepPaths
from segbench.core.records import TrainContext
from segbench.data import open_data
from segbench.final import export
from segbench.final.evaluate import predict_folder
from segbench.final.export import export_model
from segbench.final.model import LoadedModel, load_model
from segbench.results.folder import read_delivered
from segbench.tracking.tracker import sync, tracking_uri
from segbench.training.loop import train

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = {
    "unet": TrialConfig(model="unet", width=8, depth=3, batch_size=4, lr=2e-3),
    "segformer": TrialConfig(model="segformer", variant="mit-b0", batch_size=4, lr=1e-3),
    "upernet": TrialConfig(model="upernet", variant="convnext-atto", batch_size=4, lr=1e-3),
}
Predict = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def data_config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Real scenes where there are some, else generated ones."""
    cache = str(tmp_path_factory.mktemp("cache"))
    camvid = find_camvid()
    if camvid is None:
        return DataConfig(size=(96, 128), num_images=(40, 4, 20), cache_dir=cache)
    return DataConfig(
        dataset="cityscapes", root=str(camvid), size=(96, 128), limit=60, split="official", cache_dir=cache
    )


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, data_config: DataConfig, empty_database: Path) -> SweepPaths:
    """A sweep of three trials, one of each family, each trained for two epochs and logged to MLflow."""
    writer = SweepWriter(SweepPaths(tmp_path_factory.mktemp("export") / "demo"))
    for number, (name, config) in enumerate(FAMILIES.items()):
        writer.trial("search", number, name, [0.3 + number / 10])
        for result in train(config, TrainContext(max_epochs=2, data=data_config)):
            assert result.save_model is not None
            result.save_model(writer.paths.best("search", name))
    writer.close()
    shutil.copy(empty_database, writer.paths.mlflow_db)
    assert sync(writer.paths, make_spec(retrain=None), final=True).error is None
    return writer.paths


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, data_config: DataConfig) -> Path:
    """A folder of twenty pictures: real ones as they are, else generated ones of twice the training's size."""
    folder = tmp_path_factory.mktemp("pictures")
    if data_config.root is not None:
        found = sorted(Path(data_config.root).rglob("leftImg8bit/**/*.png"))
        for index in np.linspace(0, len(found) - 1, 20).round().astype(int):
            shutil.copy(found[index], folder)
    else:
        for name, image in zip(*((split := open_data(data_config).test).names, split.images), strict=True):
            Image.fromarray(image).resize((256, 192)).save(folder / f"{Path(name).name}.png")
    assert len(list(folder.iterdir())) == 20
    return folder


def resized(image: np.ndarray, model: LoadedModel) -> np.ndarray:
    height, width = model.size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def enlarged(classes: np.ndarray, image: np.ndarray) -> np.ndarray:
    shape = (image.shape[1], image.shape[0])
    return np.asarray(Image.fromarray(classes.astype(np.uint8)).resize(shape, Image.Resampling.NEAREST))


def by_onnx(folder: Path, model: LoadedModel) -> Predict:
    session = onnxruntime.InferenceSession(folder / "model.onnx")

    def predict(image: np.ndarray) -> np.ndarray:
        (classes,) = session.run(["classes"], {"images": resized(image, model)[None]})
        return enlarged(classes[0], image)

    return predict


def by_torch_export(folder: Path, model: LoadedModel) -> Predict:
    program = torch.export.load(folder / "model.pt2").module()

    def predict(image: np.ndarray) -> np.ndarray:
        classes, _ = program(torch.from_numpy(resized(image, model)[None]))
        return enlarged(classes[0].numpy(), image)

    return predict


def by_huggingface(folder: Path, model: LoadedModel) -> Predict:
    processor = AutoImageProcessor.from_pretrained(folder)
    network = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    assert tuple(network.config.id2label.values()) == model.groups

    def predict(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs = network(**processor(Image.fromarray(image), return_tensors="pt"))
        (classes,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[model.size])
        return enlarged(classes.numpy(), image)

    return predict


def agreement(model: Path, pictures: Path, predict: Predict, output: Path) -> float:
    """Return the share of pixels in which ``predict`` gives the label ids that ``segbench predict`` wrote."""
    label_ids = load_model(model).label_ids
    equal = []
    for path, expected in zip(sorted(pictures.iterdir()), predict_folder(model, pictures, output), strict=True):
        classes = predict(np.asarray(Image.open(path).convert("RGB")))
        equal.append(label_ids[classes] == np.asarray(Image.open(expected)))
    share = float(np.concatenate([pixels.ravel() for pixels in equal]).mean())
    print(f"{model.name}: {share:.6%} of {sum(pixels.size for pixels in equal)} pixels are equal")
    return share


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "format_", "read"),
    [
        *((family, "onnx", by_onnx) for family in FAMILIES),
        *((family, "torch-export", by_torch_export) for family in FAMILIES),
        *((family, "huggingface", by_huggingface) for family in ("segformer", "upernet")),
    ],
)
def test_exported_models_give_the_label_maps_of_predict(
    sweep: SweepPaths,
    pictures: Path,
    tmp_path: Path,
    family: str,
    format_: export.ModelFormat,
    read: Callable[[Path, LoadedModel], Predict],
) -> None:
    exported = export_model(sweep.best("search", family), format_, tmp_path / "exported")
    assert exported.difference <= 1e-4
    assert sorted(path.name for path in exported.folder.iterdir()) == list(exported.files)

    model = sweep.best("search", family)
    assert agreement(model, pictures, read(exported.folder, load_model(model)), tmp_path / "labels") >= 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_pyfunc_gives_the_label_maps_of_predict(sweep: SweepPaths, pictures: Path, tmp_path: Path, family: str) -> None:
    mlflow.set_tracking_uri(tracking_uri(sweep, make_spec()))
    try:
        model = mlflow.pyfunc.load_model(f"runs:/{read_delivered(sweep).run_ids[f'search/{family}']}/model")
    finally:
        mlflow.set_tracking_uri(None)

    def predict(image: np.ndarray) -> np.ndarray:
        classes: np.ndarray = model.predict(image[None])[0]
        return classes

    assert agreement(sweep.best("search", family), pictures, predict, tmp_path) >= 0.9999


@pytest.mark.slow
def test_a_batch_of_any_size_goes_through_the_exported_graph(sweep: SweepPaths, tmp_path: Path) -> None:
    export_model(sweep.best("search", "segformer"), "onnx", tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [part.shape for part in session.get_inputs()] == [["batch", 96, 128, 3]]
    model = load_model(sweep.best("search", "segformer"), precision="fp32")
    images = np.random.default_rng(0).integers(0, 256, (5, 96, 128, 3), np.uint8)
    classes, logits = session.run(None, {"images": images})
    assert (classes.dtype, logits.shape) == (np.uint8, (5, 8, 96, 128))
    assert (classes == model.predict(images)).mean() >= 0.9999
    assert json.loads(session.get_modelmeta().custom_metadata_map["groups"]) == list(model.groups)
    assert json.loads((tmp_path / "config.json").read_text())["size"] == [96, 128]


@pytest.mark.slow
def test_an_export_that_computes_something_else_is_not_written(
    sweep: SweepPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MEAN", (0.5, 0.5, 0.5))
    with pytest.raises(SegbenchError, match="nothing was written"):
        export_model(sweep.best("search", "segformer"), "huggingface", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_cannot_be_exported_is_said_in_a_sentence(
    sweep: SweepPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["export", *arguments, "--out", str(tmp_path / "out")])
        assert caught.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    unet = str(sweep.best("search", "unet"))
    assert "use --format onnx or torch-export" in said(unet, "--format", "huggingface")
    assert "no such folder; give a model folder" in said(str(tmp_path / "nowhere"), "--format", "onnx")
    assert "is not a sweep's folder" in said(unet, "--format", "tensorboard")
    monkeypatch.setattr(export, "ONNX_PACKAGES", ("onnx", "no_such_package"))
    assert "needs no_such_package: pip install 'segbench[export]'" in said(unet, "--format", "onnx")
    assert not (tmp_path / "out").exists()


def test_event_files_hold_every_epoch_and_the_hyperparameters(writer: SweepWriter, tmp_path: Path) -> None:
    write_demo(writer)
    for _ in range(2):  # written again, nothing is there twice
        main(["export", str(writer.paths.root), "--format", "tensorboard", "--out", str(tmp_path / "tb")])
    folders = {path.parent.relative_to(tmp_path / "tb").as_posix() for path in tmp_path.rglob("events.*")}
    assert len(folders) == 12
    events = EventAccumulator(str(tmp_path / "tb" / "search" / "trial-0003"))
    events.Reload()
    assert [(event.step, round(event.value, 6)) for event in events.Scalars("val/miou")] == [
        (1, 0.3),
        (2, 0.4),
        (3, 0.45),
    ]
    assert events.Scalars("val/miou")[0].wall_time == pytest.approx(writer_start := 1_700_000_000, abs=100), (
        writer_start
    )
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert plugin.plugin_name == "hparams"
    assert b"segformer" in plugin.content
