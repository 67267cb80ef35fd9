"""`make package`: what is built carries what it should, and works outside the checkout, beside what a user has."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.package, pytest.mark.timeout(900)]
if find_spec("uv") is None:
    pytest.skip("uv is not installed: `make setup` brings it", allow_module_level=True)

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "torch", "transformers", "mlflow")
USERS = ("ray[tune]==2.60.0", "torch==2.13.0", "numpy==2.3.4", "pandas==3.0.1", "pyarrow==24.0.0", "rich==14.1.0")
"""What somebody may have already: within the ranges, and not what the lock has."""
SMALL = (
    *("budget.trials=2", "scheduler.max_epochs=2", "retrain.top_k=1", "retrain.seeds=1", "data.num_images=[8,4,4]"),
)


def said(*command: str | Path, cwd: Path | None = None, code: int = 0) -> str:
    """Return what a command prints; it ends with ``code``, and finds nothing of the checkout."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SEGBENCH"))}
    result = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def uv(*words: str | Path) -> str:
    return said(sys.executable, "-m", "uv", *words)


def torch_from() -> list[str]:
    """Return uv's options for a torch without CUDA: from where pip's configuration has it, else from torch's index."""
    found = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True, check=False
    )
    links = os.environ.get("PIP_FIND_LINKS") or found.stdout.strip()
    return ["--find-links", links] if links else ["--torch-backend", "cpu"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--python", sys.executable, "--out-dir", folder, ROOT)
    return folder


def wheel_of(folder: Path) -> Path:
    (wheel,) = folder.glob("segbench-*.whl")
    return wheel


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def requirements(wheel: Path) -> list[str]:
    """Return what is needed without extras."""
    return [text for text in metadata(wheel).get_all("Requires-Dist", []) if "extra ==" not in text]


def test_the_wheel_from_the_checkout_is_the_wheel_from_the_sdist(dist: Path, tmp_path: Path) -> None:
    uv("build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", tmp_path, ROOT)
    assert wheel_of(tmp_path).read_bytes() == wheel_of(dist).read_bytes()


def test_what_is_built_carries_every_file_of_the_package_and_the_ready_ones(dist: Path) -> None:
    listed = said("git", "-C", ROOT, "ls-files", "segbench", "sweeps", "cluster", "requirements.lock").split()
    ready = {name: name if name.startswith("segbench/") else f"segbench/ready/{name}" for name in listed}
    names = set(zipfile.ZipFile(wheel_of(dist)).namelist())
    assert set(ready.values()) <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]
    (sdist,) = dist.glob("segbench-*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {*listed, "LICENSE", "README.md", "pyproject.toml"} <= packed


def test_the_metadata_say_whose_it_is_and_for_whom(dist: Path) -> None:
    told = metadata(wheel_of(dist))
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Author"] == "the segbench authors"
    assert set(told.get_all("License-File", [])) == {"LICENSE", "segbench/report/vega_license.txt"}
    extras = set(told.get_all("Provides-Extra", []))
    assert {"cluster", "aws", "gcp", "export", "figures", "postgres"} <= extras
    pythons = {text.rpartition(" ")[2] for text in told.get_all("Classifier", []) if "Python :: 3." in text}
    assert pythons == {"3.11", "3.12", "3.13"}


def test_it_works_beside_what_a_user_has_and_replaces_none_of_it(dist: Path, tmp_path: Path) -> None:
    folder, home = tmp_path / "environment", tmp_path / "empty"
    home.mkdir()
    uv("venv", "--quiet", "--seed", "--python", sys.executable, folder)
    python, segbench = folder / "bin/python", folder / "bin/segbench"
    uv("pip", "install", "--quiet", "--python", python, *torch_from(), *USERS, "python-dateutil<3")
    before = set(uv("pip", "freeze", "--quiet", "--python", python).split("\n"))
    uv("pip", "install", "--quiet", "--python", python, wheel_of(dist))
    after = set(uv("pip", "freeze", "--quiet", "--python", python).split("\n"))
    assert before <= after
    assert "No broken requirements" in said(python, "-m", "pip", "check")
    assert re.search(r"^quickstart  ", said(segbench, "sweeps", cwd=home), re.MULTILINE)
    said(segbench, "sweep", "quickstart", *(word for text in SMALL for word in ("--set", text)), cwd=home)
    assert sorted(path.name for path in home.iterdir()) == ["runs"]
    assert (home / "runs/quickstart/report.html").is_file()
    check_missing_extras(segbench, home)


def check_missing_extras(segbench: Path, home: Path) -> None:
    """What an extra brings is asked for in one sentence, where it is needed."""
    said(segbench, "cluster", "init", cwd=home)
    said(segbench, "sweeps", "--copy", "quickstart", cwd=home)
    model = next((home / "runs/quickstart/models").iterdir())
    for extra, words in {
        "cluster": ("cluster", "status", "cluster/local.yaml", "quickstart.yaml"),
        "aws": ("cluster", "check", "cluster/gpu.yaml"),
        "figures": ("report", "runs/quickstart", "--figures", "figures"),
        "export": ("export", str(model), "--format", "onnx", "--out", "onnx"),
    }.items():
        told = said(segbench, *words, cwd=home, code=2)
        assert told.strip().endswith(f"pip install 'segbench[{extra}]'"), told
        assert "Traceback" not in told


def test_the_oldest_allowed_versions_of_what_is_light_import_everything(dist: Path, tmp_path: Path) -> None:
    oldest = [text for text in requirements(wheel_of(dist)) if re.split(r"[\[<>=~! ]", text)[0] not in HEAVY]
    assert len(oldest) >= 15
    python = tmp_path / "environment/bin/python"
    uv("venv", "--quiet", "--python", sys.executable, tmp_path / "environment")
    uv("pip", "install", "--quiet", "--python", python, "--resolution", "lowest-direct", *oldest)
    uv("pip", "install", "--quiet", "--python", python, "--no-deps", wheel_of(dist))
    bounds = dict(re.findall(r"^([\w-]+)>=([\d.]+)$", "\n".join(oldest), re.MULTILINE))
    have = dict(re.findall(r"^([\w-]+)==(\S+)$", uv("pip", "freeze", "--quiet", "--python", python), re.MULTILINE))
    newer = {name: have[name] for name, bound in bounds.items() if not f"{have[name]}.".startswith(f"{bound}.")}
    assert not newer, "the bound itself cannot be installed"
    assert re.match(r"1\d\d modules imported, ", said(python, "-P", ROOT / "tools/import_all.py", *HEAVY))
