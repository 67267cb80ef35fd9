import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from sweep_ledgers import GROUPS, SweepWriter, make_spec, write_demo

from segbench.core.config import TrialConfig
from segbench.core.paths import SweepPaths
from segbench.final.model import load_model
from segbench.models import build_model
from segbench.results.folder import export_models, read_delivered, read_results, write_tables
from segbench.tracking.model import MODEL_TAG
from segbench.tracking.tracker import sync, tracking_uri
from segbench.training.checkpoint import save_model

CONFIG = TrialConfig(model="unet", width=4, depth=1)


def write_model(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    card = {
        "config": asdict(CONFIG),
        "groups": list(GROUPS),
        "colors": [[index, 0, 0] for index in range(8)],
        "lut": [index % 8 for index in range(256)],
        "size": [16, 24],
        "epoch": 1,
        "metric": "val/miou",
        "score": 0.5,
    }
    save_model(folder, build_model(CONFIG, 8).state_dict(), card)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> SweepWriter:
    """The demo sweep with a model for each seed, delivered twice."""
    writer = SweepWriter(SweepPaths(tmp_path_factory.mktemp("models") / "demo"))
    write_demo(writer)
    writer.paths.mlflow_db.write_bytes(empty_database.read_bytes())
    for seed, name in enumerate(["baseline-unet-seed-0", "baseline-unet-seed-1", "trial-0003-seed-0"]):
        write_model(writer.paths.best("retrain", name), seed)
    for _ in range(2):
        assert sync(writer.paths, make_spec(), final=True).error is None
    writer.close()
    return writer


def load(writer: SweepWriter, run: str) -> PyFuncModel:
    mlflow.set_tracking_uri(tracking_uri(writer.paths, make_spec()))
    try:
        return mlflow.pyfunc.load_model(f"runs:/{read_delivered(writer.paths).run_ids[run]}/model")
    finally:
        mlflow.set_tracking_uri(None)


def test_pyfunc_predicts_what_the_model_folder_predicts(logged: SweepWriter) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
    classes = load(logged, "retrain/trial-0003-seed-0").predict(images)
    assert classes.dtype == np.uint8
    assert classes.shape == (3, 16, 24)
    model = load_model(logged.paths.best("retrain", "trial-0003-seed-0"), precision="fp32")
    assert np.array_equal(classes, model.predict(images))


def test_pyfunc_takes_pictures_of_any_size(logged: SweepWriter) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), np.uint8)
    classes = load(logged, "retrain/trial-0003-seed-0").predict(images)
    model = load_model(logged.paths.best("retrain", "trial-0003-seed-0"), precision="fp32")
    assert np.array_equal(classes, np.stack([model.predict_image(image) for image in images]))


def test_the_signature_refuses_pictures_of_another_kind(logged: SweepWriter) -> None:
    model = load(logged, "retrain/trial-0003-seed-0")
    assert model.metadata.signature.inputs.to_dict()[0]["tensor-spec"] == {"dtype": "uint8", "shape": (-1, -1, -1, 3)}
    for wrong in (np.zeros((1, 16, 24, 3), np.float32), np.zeros((1, 16, 24, 4), np.uint8)):
        with pytest.raises(MlflowException, match="Failed to enforce schema"):
            model.predict(wrong)
    example = model.input_example
    assert example.shape == (1, 16, 24, 3)


def test_each_row_has_one_model_that_of_its_best_seed(logged: SweepWriter) -> None:
    client = mlflow.MlflowClient(tracking_uri=tracking_uri(logged.paths, make_spec()))
    experiment = client.get_experiment_by_name("demo")
    models = client.search_logged_models([experiment.experiment_id])
    run_ids = read_delivered(logged.paths).run_ids
    assert {model.source_run_id for model in models} == {
        run_ids["retrain/trial-0003-seed-0"],
        run_ids["retrain/baseline-unet-seed-1"],
    }
    assert len(models) == 2
    for model in models:
        assert str(model.status) == "READY"
        assert client.get_run(model.source_run_id).data.tags[MODEL_TAG] == model.model_id
        assert client.get_run(model.source_run_id).outputs.model_outputs[0].model_id == model.model_id


def test_the_first_two_rows_are_registered_once_and_an_alias_follows_the_ranks(logged: SweepWriter) -> None:
    client = mlflow.MlflowClient(tracking_uri=tracking_uri(logged.paths, make_spec()))
    run_ids = read_delivered(logged.paths).run_ids
    versions = client.search_model_versions("name = 'demo'")
    aliases = {alias: client.get_model_version_by_alias("demo", alias).run_id for alias in ("champion", "challenger")}
    assert aliases == {
        "champion": run_ids["retrain/trial-0003-seed-0"],
        "challenger": run_ids["retrain/baseline-unet-seed-1"],
    }
    assert {version.run_id for version in versions} == set(aliases.values())
    client.set_registered_model_alias(
        "demo", "champion", client.get_model_version_by_alias("demo", "challenger").version
    )
    assert sync(logged.paths, make_spec(), final=True).error is None
    assert client.get_model_version_by_alias("demo", "champion").run_id == run_ids["retrain/trial-0003-seed-0"]
    assert len(client.search_model_versions("name = 'demo'")) == 2


def test_a_crash_between_version_and_alias_leaves_one_version_and_the_next_delivery_completes(
    logged: SweepWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: object) -> None:
        raise RuntimeError("killed")

    spec = make_spec(name="renamed", mlflow={"experiment": "demo"})  # another registered model, the same runs
    client = mlflow.MlflowClient(tracking_uri=tracking_uri(logged.paths, spec))
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", crash)
        assert sync(logged.paths, spec, final=True).error == "killed"
    assert len(client.search_model_versions("name = 'renamed'")) == 1
    for _ in range(2):
        assert sync(logged.paths, spec, final=True).error is None
    assert len(client.search_model_versions("name = 'renamed'")) == 2
    assert set(client.get_registered_model("renamed").aliases) == {"champion", "challenger"}


@pytest.mark.slow
def test_mlflow_serves_the_champion(logged: SweepWriter) -> None:
    uri = tracking_uri(logged.paths, make_spec())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/demo@champion",
        "--env-manager",
        "local",
    ]
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        start_new_session=True,
    )
    try:
        image = np.random.default_rng(0).integers(0, 256, (1, 20, 30, 3), np.uint8)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": image.tolist()}).encode(),
            {"Content-Type": "application/json"},
        )
        deadline = time.monotonic() + 240
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                    break
            except OSError:
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < deadline
                time.sleep(0.5)
        with urllib.request.urlopen(request, timeout=60) as reply:
            classes = np.array(json.load(reply)["predictions"], np.uint8)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
    model = load_model(logged.paths.best("retrain", "trial-0003-seed-0"), precision="fp32")
    assert np.array_equal(classes[0], model.predict_image(image[0]))


@pytest.mark.slow
def test_the_model_loads_where_segbench_is_not_installed(logged: SweepWriter) -> None:
    artifacts = next(logged.paths.mlflow_artifacts.rglob("MLmodel")).parent
    assert "torch==2.13.0" in (artifacts / "requirements.txt").read_text().split()
    code = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [path for path in sys.path if path != sys.argv[2]]
import mlflow.pyfunc, numpy
print(mlflow.pyfunc.load_model(sys.argv[1]).predict(numpy.zeros((1, 16, 24, 3), numpy.uint8)).shape)
print(sys.modules["segbench"].__file__)
"""
    checkout = str(Path(__file__).parent.parent.parent)
    command = [sys.executable, "-P", "-c", code, str(artifacts), checkout]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed == ["(1, 16, 24)", str(artifacts / "code" / "segbench" / "__init__.py")]


def test_the_leaderboard_counts_weights_and_exports_each_rows_best_model(logged: SweepWriter) -> None:
    paths = logged.paths
    table = read_results(paths, make_spec()).board
    expected = sum(weight.numel() for weight in build_model(CONFIG, 8).parameters())
    assert table["parameters"].tolist() == [expected, expected]
    export_models(read_results(paths, make_spec()))
    for name, seed in (("trial-0003", "trial-0003-seed-0"), ("baseline-unet", "baseline-unet-seed-1")):
        for file in ("model.safetensors", "config.json"):
            assert (paths.model(name) / file).read_bytes() == (paths.best("retrain", seed) / file).read_bytes()


def test_tables_on_disk_are_read_back_as_numbers(logged: SweepWriter) -> None:
    paths = logged.paths
    write_tables(read_results(paths, make_spec()))
    leaderboard, trials = pd.read_csv(paths.leaderboard), pd.read_csv(paths.trials)
    assert leaderboard["val/miou mean"].tolist() == pytest.approx([0.48, 0.36])
    assert leaderboard["parameters"].dtype == np.int64
    assert trials["params.lr"].isna().tolist() == [True, False, False, False]
    assert len(leaderboard["mlflow_runs"][0].split(";")) == 2
