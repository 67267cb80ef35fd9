"""The layers hold: docs/design.md has the order."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "segbench"
ORDER = (
    "core < spec < search | storage | models < data < training < tune | final < results < tracking | terminal"
    " < report | cluster < sweep < cli"
)
"""A room may import only rooms to its left; those joined by ``|`` do not know each other."""
LAYERS = [layer.split(" | ") for layer in ORDER.split(" < ")]
OUTSIDE = {"__init__", "__main__"}
"""Not rooms, but doors: the package's public names and what ``python -m`` runs. Nothing imports them."""
ONLY_IN = {
    "ray": {"tune"},
    "optuna": {"search/study.py", "search/sampler.py", "search/importance.py"},
    "mlflow": {"tracking"},
    "tensorboardX": {"tracking"},
    "pydantic": {"spec"},
    "pandas": {"results", "terminal", "report", "sweep/result.py"},
    "rich": {"terminal", "sweep/dry_run.py"},
    "click": {"cli", "cluster/verbs.py"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> list[str]:
    """Return every imported module, lazy and type-checking imports included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found += [f"{module}.{alias.name}" for alias in node.names] if module == "segbench" else [module]
    return found


def room(path: Path) -> str:
    """Return the first folder of a module; a door is known by its own name, wherever it stands."""
    return "__main__" if path.stem == "__main__" else path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer(name: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if name in names)


def test_every_room_has_its_place() -> None:
    assert {room(path) for path in modules()} == {name for names in LAYERS for name in names} | OUTSIDE


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_left(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        there = name.split(".")[1] if name.startswith("segbench.") else here
        if there in (here, "__version__"):
            continue
        assert there not in OUTSIDE, f"{path} imports {name}"
        assert here in OUTSIDE or layer(there) < layer(here), f"{here} imports {there}"


def test_no_two_modules_import_each_other() -> None:
    """Within a room as well; what is only there for types counts too."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in modules()}
    arrows = {
        name: {other for other in imports(path) if other in names and other != name} for name, path in names.items()
    }
    while leaves := [name for name, targets in arrows.items() if not targets & arrows.keys()]:
        for name in leaves:
            del arrows[name]
    assert not arrows, f"a circle among {sorted(arrows)}"


@pytest.mark.parametrize("name", [name for names in LAYERS for name in names])
def test_each_room_says_what_it_holds_and_what_it_may_import(name: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text())) or ""
    assert text.split(":")[0].isupper(), "begins with what it holds, in capitals"
    assert "ay import" in text or "no other room" in text


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_framework_is_imported_in_one_place(path: Path) -> None:
    here = path.relative_to(PACKAGE).as_posix()
    for name in imports(path):
        allowed = ONLY_IN.get(name.split(".")[0])
        assert allowed is None or any(here.startswith(place) for place in allowed), f"{here} imports {name}"


BLOCK = """
import sys
class Hide:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        # as on a machine without the package: "not found", for those who ask politely too
        return None if name.partition(".")[0] in {blocked!r} else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
"""

TRAIN = """
from segbench.core.config import DataConfig, TrialConfig
from segbench.core.records import Assignment
from segbench.training.trial import TrialJob, run_trial
from dataclasses import asdict
config = TrialConfig(model={model!r}, width=4, depth=2, batch_size=4, ema_decay=0.9, flip=0.5)
data = DataConfig(size=(32, 64), num_images=(8, 4, 4), cache_dir={folder!r})
assignment = Assignment(number=0, name="t", origin="search", params={{}}, config=asdict(config), seed=1, max_epochs=1)
job = TrialJob(assignment=assignment, train="segbench.training.loop:train", folder={folder!r}, data=data,
               metric="val/miou", keep_best=True)
print([report.metrics["val/miou"] for report in run_trial(job)])
"""


def python(code: str, cwd: Path) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("model", ["unet", "segformer"])
def test_a_trial_trains_with_nothing_but_torch_transformers_pyarrow_numpy_and_pillow(
    model: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="needs torch in a process of its own")
    blocked = {"ray", "optuna", "mlflow", "pandas", "pydantic", "ruamel", "click", "sklearn", "scipy", "torchvision"}
    printed = python(BLOCK.format(blocked=blocked) + TRAIN.format(model=model, folder=str(tmp_path)), tmp_path)
    assert printed.startswith("[0.")


def test_checking_and_planning_a_file_needs_neither_torch_nor_ray_nor_optuna_nor_mlflow(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from segbench.spec.load import load_spec
from segbench.spec.plan import plan_sweep
import segbench.cli
loaded = load_spec(Path({file!r}))
print(plan_sweep(loaded.spec, loaded.space).trials)
"""
    file = PACKAGE.parent / "sweeps" / "quickstart.yaml"
    blocked = {"ray", "optuna", "mlflow", "torch", "transformers", "pandas", "pyarrow"}
    assert int(python(BLOCK.format(blocked=blocked) + code.format(file=str(file)), tmp_path)) >= 8
