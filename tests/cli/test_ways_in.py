"""`segbench sweep`, `python -m segbench sweep`, `python -m segbench.sweep` and `segbench.run` are the same call."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from segbench.core.errors import UserError
from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths

OBJECTIVE = """
import os


def train(config, context):
    target = float(open("target.txt").read())
    for epoch in range(context.epoch, context.max_epochs):
        yield {"score": -abs(config["lr"] - target), "folder": os.getcwd()}
"""
SWEEP = """
name: field
train: {train}
metric: {{name: score, goal: maximize}}
parameters:
  lr: {{distribution: log_uniform_values, min: 1e-4, max: 1e-1}}
scheduler: {{max_epochs: 2, grace_epochs: 1}}
budget: {{trials: 2}}
resources: {{cpu: 1, gpu: 0}}
mlflow: {{enabled: false}}
"""
CALL = """
import sys, segbench
try:
    segbench.run(sys.argv[1], out=sys.argv[2], executor=sys.argv[3])
except segbench.SegbenchError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def command(way: str) -> list[str]:
    """Return what is written before the sweep file."""
    script = str(Path(sys.executable).with_name("segbench"))
    return {
        "segbench sweep": [script, "sweep"],
        "python -m segbench sweep": [sys.executable, "-m", "segbench", "sweep"],
        "python -m segbench.sweep": [sys.executable, "-m", "segbench.sweep"],
        "segbench.run": [sys.executable, "-P", "-c", CALL],
    }[way]


WAYS = ("segbench sweep", "python -m segbench sweep", "python -m segbench.sweep", "segbench.run")


def start(way: str, file: str, out: str, executor: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    options: Sequence[str] = ["--out", out, "--executor", executor] if way != "segbench.run" else [out, executor]
    return subprocess.run([*command(way), file, *options], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: a package with the objective, a file that it reads, and a sweep file in a folder below."""
    (tmp_path / "myproject").mkdir()
    (tmp_path / "myproject" / "objective.py").write_text(OBJECTIVE)
    (tmp_path / "target.txt").write_text("0.01")
    (tmp_path / "sweep.yaml").write_text(SWEEP.format(train="myproject.objective:train"))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "beside.py").write_text(OBJECTIVE)
    (tmp_path / "below" / "sweep.yaml").write_text(SWEEP.format(train="beside:train"))
    return tmp_path


def check_sweep(root: Path, cwd: Path) -> None:
    records = read_ledger(SweepPaths(root).ledger("search"))
    assert len(records) == 2
    for record in records:
        assert record.state.is_finished
        assert record.reason in ("", "rung 1"), record.reason
        assert record.epochs[0].metrics["folder"] == str(cwd)


@pytest.mark.parametrize("way", WAYS)
def test_an_objective_in_the_current_folder_is_found(way: str, folder: Path) -> None:
    done = start(way, "sweep.yaml", "here", "local", folder)
    assert done.returncode == 0, done.stderr
    check_sweep(folder / "here", folder)


def test_an_objective_beside_the_sweep_file_is_found(folder: Path) -> None:
    """From each way on Ray below, which has it from the same import path."""
    done = start("segbench sweep", "below/sweep.yaml", "beside", "local", folder)
    assert done.returncode == 0, done.stderr
    check_sweep(folder / "beside", folder)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_ray_finds_them_too(way: str, folder: Path) -> None:
    (folder / "below" / "sweep.yaml").write_text(SWEEP.format(train="beside:train"))
    done = start(way, "below/sweep.yaml", "out", "ray", folder)
    assert done.returncode == 0, done.stderr
    check_sweep(folder / "out", folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nme: x\n", "bad.yaml:1 nme: unknown key 'nme'; did you mean 'name'?"),
        (SWEEP.format(train="nowhere.at_all:train"), "cannot import 'nowhere.at_all'"),
    ],
)
def test_a_mistake_is_told_in_the_same_words_and_leaves_nothing(text: str, message: str, folder: Path) -> None:
    (folder / "bad.yaml").write_text(text)
    told = [start(way, "bad.yaml", "out", "local", folder) for way in WAYS]
    assert {done.returncode for done in told} == {2}
    assert len({done.stderr for done in told}) == 1
    assert message in told[0].stderr
    assert "Traceback" not in told[0].stderr
    assert not (folder / "out").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_a_start_that_is_refused_leaves_nothing_and_the_mended_command_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused for too many CPUs, which is known once Ray runs: the folder must not remember the refused settings."""
    import segbench

    monkeypatch.chdir(folder)
    spec = {"train": "myproject.objective:train", "name": "field", "metric": {"name": "score", "goal": "maximize"}}
    spec |= {"parameters": {"lr": {"min": 1e-4, "max": 1e-1}}, "budget": {"trials": 2}, "mlflow": {"enabled": False}}
    with pytest.raises(UserError, match=r"resources\.cpu=4096, but there are"):
        segbench.run({**spec, "scheduler": {"max_epochs": 9}}, {"resources.cpu": 4096}, out="out")
    assert not Path("out").exists()
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"resources\.cpu=4096, but there are"):
        segbench.run({**spec, "scheduler": {"max_epochs": 9}}, {"resources.cpu": 4096}, out="out")
    assert [path.name for path in Path("out").iterdir()] == ["notes.txt"]
    result = segbench.run({**spec, "scheduler": {"max_epochs": 2, "grace_epochs": 1}}, out="out", executor="local")
    assert result.status == "finished"


def test_what_was_refused_by_a_kill_before_the_first_trial_does_not_bind_the_next_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL leaves the file as resolved; without a trial it is no sweep yet."""
    import segbench

    monkeypatch.chdir(folder)
    segbench.run("sweep.yaml", out="out", executor="local")
    for ledger in Path("out/state").glob("*.jsonl"):
        ledger.unlink()
    assert segbench.run("sweep.yaml", {"search.seed": 5}, out="out", executor="local").spec.search.seed == 5
