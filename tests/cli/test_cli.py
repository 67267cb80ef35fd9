"""The command line: messages, exit codes, and what each verb prints."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cityscapes_files import write_pair
from running import SYNTHETIC

from segbench.cli import main
from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import TrialState

REPOSITORY = Path(__file__).parents[2]
TINY = """
name: tiny
data: {size: [32, 64], num_images: [6, 2, 2]}
training: {width: 4, depth: 2, batch_size: 2}
parameters: {lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}}
scheduler: {max_epochs: 1}
budget: {trials: 1}
mlflow: {enabled: false}
"""


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return exit code and what was said on stderr."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    code = caught.value.code
    assert isinstance(code, int)
    return code, capsys.readouterr().err


def sweep_file(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TINY + "modl: unet\n", "sweep.yaml:9 modl: "),
        (
            TINY.replace("parameters: {", "parameters: {model: {values: [unet, segfromer]}, "),
            "sweep.yaml:5 parameters.model: ",
        ),
        (TINY.replace("width: 4", "model: segformer, variant: mit-b9"), "sweep.yaml:4 training.model: "),
        (TINY.replace("data: {", "data: {dataset: cityscapes, root: nowhere, "), "sweep.yaml:3 data.root: "),
    ],
)
def test_a_bad_file_ends_with_code_2_and_one_sentence_with_file_and_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = fails(["sweep", str(sweep_file(tmp_path, text))], capsys)
    assert code == 2
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_an_empty_split_is_found_before_the_first_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pair(tmp_path / "root", "train", "aachen", 1)
    text = TINY.replace("data: {size: [32, 64], num_images: [6, 2, 2]}", "data: {dataset: cityscapes, root: root}")
    code, said = fails(["sweep", str(sweep_file(tmp_path, text))], capsys)
    assert code == 2
    assert "sweep.yaml:3 data: " in said
    assert "empty" in said or "at least" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("no_such_module:f", "cannot import 'no_such_module'"),
        ("objectives:kurve", "'objectives' has no function 'kurve'; it has: "),
    ],
)
def test_a_training_function_that_cannot_be_found_is_named(
    train: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SYNTHETIC.format(function="curve", trials=2, retrain="").replace("objectives:curve", train)
    code, said = fails(["sweep", str(sweep_file(tmp_path, text))], capsys)
    assert code == 2
    assert message in said


def test_a_dry_run_prints_file_plan_and_configurations_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SYNTHETIC.format(function="curve", trials=20, retrain="retrain: {top_k: 2}")
    main(["sweep", str(sweep_file(tmp_path, text)), "--dry-run", "--set", "scheduler.max_epochs=5"])
    printed = capsys.readouterr().out
    assert "max_epochs: 5" in printed
    assert "trials reaching epoch 3" in printed
    assert "baseline-default: family=a, lr=0.001" in printed
    assert printed.count("trial-0") == 3
    assert not (tmp_path / "runs").exists()


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema"])
    assert json.loads(capsys.readouterr().out)["title"] == "SweepSpec"


def test_a_folder_of_another_sweep_is_refused_and_says_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(sweep_file(tmp_path, SYNTHETIC.format(function="curve", trials=3, retrain="")))
    main(["sweep", file, "--executor", "local"])
    main(["sweep", file, "--executor", "local", "--set", "budget.trials=4"])  # more of the same is fine
    assert len(read_ledger(SweepPaths(tmp_path / "runs" / "synthetic").ledger("search"))) == 5
    capsys.readouterr()
    code, said = fails(["sweep", file, "--executor", "local", "--set", "search.seed=9"], capsys)
    assert code == 2
    assert "search.seed: 3 -> 9" in said


def test_a_sweep_that_runs_already_is_not_started_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from segbench.spec.load import load_spec
    from segbench.sweep.folder import is_running, open_folder

    file = sweep_file(tmp_path, SYNTHETIC.format(function="curve", trials=1, retrain=""))
    paths = SweepPaths(tmp_path / "runs" / "synthetic")
    with open_folder(paths, load_spec(file).spec):
        assert is_running(paths)
        code, said = fails(["sweep", str(file), "--executor", "local"], capsys)
    assert code == 2
    assert "another process runs this sweep" in said
    assert not is_running(paths)


def test_a_folder_that_is_no_sweep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["leaderboard"], ["status"], ["mlflow", "sync"]):
        code, said = fails([*verb, str(tmp_path)], capsys)
        assert code == 2
        assert "is not a sweep's folder" in said


def test_a_sweep_in_which_all_trials_fail_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SYNTHETIC.format(function="curve", trials=2, retrain="").replace("name: score", "name: acuracy")
    code, said = fails(["sweep", str(sweep_file(tmp_path, text)), "--executor", "local"], capsys)
    assert code == 1
    assert "none of the 3 trials has a score (metric 'acuracy' not reported at epoch 1; reported: score, sum)" in said
    assert (tmp_path / "runs" / "synthetic" / "trials.csv").exists()


def test_status_counts_what_has_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SYNTHETIC.format(function="curve", trials=4, retrain="retrain: {top_k: 1, seeds: 1}")
    main(["sweep", str(sweep_file(tmp_path, text)), "--executor", "local"])
    capsys.readouterr()
    main(["status", "runs/synthetic"])
    printed = capsys.readouterr().out
    assert "search" in printed
    assert "retrain" in printed


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("executor", "number"),
    [
        ("local", signal.SIGINT),
        ("ray", signal.SIGINT),
        ("ray", signal.SIGTERM),
    ],
)
def test_ctrl_c_and_sigterm_lose_nothing_and_the_same_command_continues(
    executor: str, number: int, tmp_path: Path
) -> None:
    text = SYNTHETIC.format(function="slow", trials=6, retrain="")
    file = sweep_file(tmp_path, text)
    command = [sys.executable, "-m", "segbench.sweep", str(file), "--executor", executor]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    ledger = SweepPaths(tmp_path / "runs" / "synthetic").ledger("search")
    deadline = time.monotonic() + 120
    while sum(record.epochs_done for record in read_ledger(ledger)) < 4:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "The same command continues" in said
    before = read_ledger(ledger)
    assert not all(record.state.is_finished for record in before)

    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120, capture_output=True)
    after = read_ledger(ledger)
    assert len(after) == 7
    assert all(record.state in (TrialState.COMPLETE, TrialState.PRUNED) for record in after)
    assert [epoch.score for epoch in after[0].epochs][: before[0].epochs_done] == [e.score for e in before[0].epochs]
