"""What is brought to a cluster, and what comes back."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from segbench.cluster.archive import list_code, pack_code
from segbench.cluster.check import check_cluster
from segbench.cluster.commands import remote_sweep, run_ray, sweep_arguments
from segbench.cluster.head import pack
from segbench.core.errors import StateError, UserError
from segbench.core.paths import SweepPaths


@pytest.fixture(params=["git", "no git"])
def checkout(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small checkout, with and without git, holding what does not belong to the code."""
    for name in ("segbench/sweep/stages.py", "mine.py", "sweeps/a sweep.yaml", ".venv/lib/big.py", "runs/x/sweep.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x: 1\n")
    if request.param == "git":
        (tmp_path / ".gitignore").write_text(".venv/\nruns/\n")
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        subprocess.run(["git", "-C", str(tmp_path), "add", "mine.py"], check=True)
    return tmp_path


def test_code_is_what_git_does_not_ignore(checkout: Path) -> None:
    code = {name.as_posix() for name in list_code(checkout)} - {".gitignore"}
    assert code == {"mine.py", "segbench/sweep/stages.py", "sweeps/a sweep.yaml"}
    pack_code(checkout, checkout / "runs/code.zip")
    assert set(zipfile.ZipFile(checkout / "runs/code.zip").namelist()) - {".gitignore"} == code


def test_code_with_data_in_it_is_refused_by_name(checkout: Path) -> None:
    with (checkout / "images.bin").open("wb") as file:
        file.truncate(120_000_000)
    with pytest.raises(UserError, match=r"has 120 MB, and Ray takes 100 MB \(images\.bin 120 MB"):
        pack_code(checkout, checkout / "runs/code.zip")


def test_the_installed_segbench_goes_along_from_a_folder_that_has_none(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    pack_code(tmp_path, tmp_path.parent / "code.zip")
    with zipfile.ZipFile(tmp_path.parent / "code.zip") as archive:
        assert {"mine.py", "segbench/cluster/head.py", "segbench/report/page.js"} <= set(archive.namelist())
        archive.extractall(tmp_path / "head")
    command = [sys.executable, "-m", "segbench.cluster.head", "pack", "nowhere", "x.tar.gz"]
    result = subprocess.run(command, cwd=tmp_path / "head", capture_output=True, text=True, check=False)
    assert "nowhere" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("missing", [("colorful",), ("aiohttp_cors", "virtualenv")])
def test_a_ray_without_its_launcher_is_told_in_one_sentence(
    missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("segbench.cluster.commands.find_spec", lambda name: None if name in missing else True)
    with pytest.raises(UserError, match=rf"{', '.join(missing)} .*pip install 'segbench\[cluster\]'$"):
        run_ray("exec", "cluster/local.yaml", "true")


def test_results_are_packed_without_checkpoints_and_databases(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "sweep")
    wanted = ["sweep.yaml", "trials.csv", "optuna.log", "state/search.jsonl", "models/a/model.safetensors"]
    for name in [*wanted, "state/lock", "trials/search/a/last/0/state.json", "mlflow.db", "ray/x.json"]:
        (paths.root / name).parent.mkdir(parents=True, exist_ok=True)
        (paths.root / name).write_text(name)
    pack(str(paths.root), tmp_path / "out.tar.gz")
    with tarfile.open(tmp_path / "out.tar.gz") as archive:
        assert sorted(archive.getnames()) == sorted(wanted)


def test_a_sweep_that_has_not_begun_has_no_results(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"holds no sweep yet \(no sweep\.yaml in it\)"):
        pack(str(tmp_path), tmp_path / "out.tar.gz")


@pytest.mark.parametrize(
    ("cluster", "overrides", "options", "settings"),
    [
        ("local.yaml", [], ["--min-nodes", "3"], {"storage=/shared/segbench"}),
        ("local.yaml", ["storage=s3://mine/x"], ["--min-nodes", "3"], {"storage=s3://mine/x"}),
        ("local.yaml", ["storage=/scratch"], ["--min-nodes", "3"], {"storage=/scratch"}),
        (
            "gpu.yaml",
            ["storage=/mnt/efs", "budget.max_concurrent=null"],
            ["--min-nodes", "0", "--growing"],
            {"storage=/mnt/efs", "budget.max_concurrent=null", "budget.max_concurrent=120"},
        ),
    ],
)
def test_the_sweep_on_the_head_gets_storage_and_size_from_the_cluster(
    cluster: str, overrides: list[str], options: list[str], settings: set[str], own_machine: Path
) -> None:
    checked = check_cluster(Path("cluster") / cluster, Path("sweeps/quickstart.yaml"), overrides)
    arguments = sweep_arguments(checked, overrides, resume=False)
    first = arguments.index("--set")
    assert arguments[:first] == ["sweeps/quickstart.yaml", "--address", "auto", *options]
    assert set(arguments[first:]) - {"--set"} == settings


def test_kubernetes_starts_its_sweep_itself(own_machine: Path) -> None:
    checked = check_cluster(Path("cluster/kuberay.yaml"), Path("sweeps/quickstart.yaml"))
    with pytest.raises(UserError, match=r"kubectl apply -f cluster/kuberay\.yaml"):
        remote_sweep(checked)
