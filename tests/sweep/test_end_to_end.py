"""Both families, real training, through every stage: Ray decides like the sequential executor, and the verbs work."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cityscapes_files import write_pair
from PIL import Image
from running import decisions, local, run

from segbench.cli import main
from segbench.core.paths import SweepPaths
from segbench.spec.load import LoadedSpec, load_spec
from segbench.spec.schema import Resources
from segbench.tune.cluster import connect
from segbench.tune.run import run_on_ray

FILE = """
name: families
data: {{size: [32, 64], num_images: [8, 4, 4], cache_dir: {cache}}}
training: {{width: 4, depth: 2, batch_size: 4, precision: bf16}}
parameters:
  model: {{values: [unet, segformer]}}
  norm: {{when: {{model: unet}}, values: [batch, group]}}
  head_lr_multiplier: {{when: {{model: segformer}}, min: 1.0, max: 10.0}}
  lr: {{distribution: log_uniform_values, min: 1e-4, max: 1e-2}}
  ema_decay: {{values: [null, 0.9]}}
  flip: 0.5
baselines:
  - {{name: unet, parameters: {{model: unet, lr: 1e-3, patience: 3}}}}
  - {{name: segformer, parameters: {{model: segformer, lr: 1e-3, patience: 3}}}}
search: {{seed: 2, startup_trials: 3}}
scheduler: {{max_epochs: 2, grace_epochs: 1, reduction_factor: 2}}
budget: {{trials: 4, max_concurrent: 1}}
retrain: {{top_k: 1, seeds: 2}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedSpec:
    path = folder / "families.yaml"
    path.write_text(FILE.format(cache=folder / "cache"))
    return load_spec(path)


@pytest.fixture(scope="module")
def by_command(folder: Path, loaded: LoadedSpec) -> SweepPaths:
    """The sweep by the command line, in one process, with MLflow."""
    main(["sweep", str(loaded.path), "--executor", "local", "--out", str(folder / "local")])
    return SweepPaths(folder / "local")


@pytest.fixture(scope="module")
def on_ray(folder: Path, loaded: LoadedSpec) -> Iterator[SweepPaths]:
    with connect(None, Resources(cpu=1)):
        yield run(
            loaded,
            folder / "ray",
            lambda stages: run_on_ray(stages, folder / "ray/ray", Resources(), loaded.spec.budget),
        )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["search", "retrain", "test"])
def test_ray_and_the_sequential_executor_agree_on_both_families(
    stage: str, by_command: SweepPaths, on_ray: SweepPaths
) -> None:
    expected = decisions(by_command, stage)  # type: ignore[arg-type]
    assert decisions(on_ray, stage) == expected  # type: ignore[arg-type]
    assert {config["model"] for _, _, _, config, *_ in expected} == {"unet", "segformer"}


@pytest.mark.ray
@pytest.mark.slow
def test_ranks_agree(by_command: SweepPaths, on_ray: SweepPaths) -> None:
    columns = ["rank", "name", "val/miou mean", "test/miou mean", "test/miou std", "parameters"]
    expected, actual = (pd.read_csv(paths.leaderboard)[columns] for paths in (by_command, on_ray))
    pd.testing.assert_frame_equal(actual, expected)
    assert len(expected) == 3


def test_the_folder_holds_what_is_promised(by_command: SweepPaths) -> None:
    trials = pd.read_csv(by_command.trials)
    assert len(trials) == 6
    board = pd.read_csv(by_command.leaderboard)
    assert list(board["rank"]) == [1, 2, 3]
    assert board["mlflow_runs"].str.count(";").eq(1).all()
    for name in board["name"]:
        assert (by_command.model(name) / "model.safetensors").is_file()
        assert (by_command.model(name) / "config.json").is_file()
    assert not list(by_command.root.glob("trials/*/*/last")), "a checkpoint of an ended trial is left"
    assert not list(by_command.root.glob("trials/search/*/best")), "weights that nothing will use"


@pytest.mark.parametrize("format_", ["csv", "markdown", "table"])
def test_the_leaderboard_is_printed(format_: str, by_command: SweepPaths, capsys: pytest.CaptureFixture[str]) -> None:
    main(["leaderboard", str(by_command.root), "--format", format_])
    printed = capsys.readouterr().out
    assert "baseline-unet" in printed
    assert "baseline-segformer" in printed


def test_predict_writes_label_ids_and_colours(
    by_command: SweepPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in" / "street.png")
    model = by_command.model("baseline-unet")
    main(["predict", str(model), "--images", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert "1 label maps" in capsys.readouterr().out
    labels = np.asarray(Image.open(tmp_path / "out" / "street_labelIds.png"))
    assert labels.shape == (48, 80)
    assert labels.max() <= 33
    assert Image.open(tmp_path / "out" / "street_color.png").mode == "RGB"


def test_evaluate_prints_the_metrics_of_the_test_stage(
    by_command: SweepPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    best = by_command.best("retrain", "baseline-unet-seed-0")
    main(["evaluate", str(best), "--data", str(by_command.spec)])
    printed = capsys.readouterr().out
    from segbench.core.ledger import read_ledger

    tested = {record.assignment.name: record for record in read_ledger(by_command.ledger("test"))}
    score = tested["baseline-unet-seed-0"].epochs[0].metrics["test/miou"]
    assert f"{score:.4f}" in printed


def test_evaluate_takes_a_folder_in_the_cityscapes_layout(
    by_command: SweepPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    for index in range(4):
        write_pair(tmp_path / "root", "train", "aachen", index)
    write_pair(tmp_path / "root", "val", "bonn", 1)
    main(["evaluate", str(by_command.model("baseline-unet")), "--data", str(tmp_path / "root")])
    assert "test/miou" in capsys.readouterr().out


def test_the_same_command_again_changes_nothing(
    by_command: SweepPaths, loaded: LoadedSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {stage: by_command.ledger(stage).read_bytes() for stage in ("search", "retrain", "test")}
    board = pd.read_csv(by_command.leaderboard)
    main(["sweep", str(loaded.path), "--executor", "local", "--out", str(by_command.root)])
    after = {stage: by_command.ledger(stage).read_bytes() for stage in ("search", "retrain", "test")}
    assert after == before
    pd.testing.assert_frame_equal(pd.read_csv(by_command.leaderboard), board)


def test_the_test_split_is_not_read_without_retraining(folder: Path, loaded: LoadedSpec) -> None:
    spec = load_spec(loaded.path, ["retrain=null", "budget.trials=1", "mlflow.enabled=false"])
    paths = run(spec, folder / "no-retrain", local)
    assert not paths.ledger("test").exists()
    assert len(pd.read_csv(paths.leaderboard)) == 3
    assert (paths.model("baseline-unet") / "model.safetensors").is_file()
