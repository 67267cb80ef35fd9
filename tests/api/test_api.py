"""The public Python API: sweeps from Python, and their results as tables, models and pictures."""

import ast
import asyncio
import csv
import inspect
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from objectives import curve, score_at
from PIL import Image
from ruamel.yaml import YAML
from running import SYNTHETIC, decisions

import segbench
from segbench.core.records import TrialRecord
from segbench.spec.load import load_spec
from segbench.sweep.result import SweepResult

ROOT = Path(__file__).parents[2]
OWN: dict[str, Any] = {
    "name": "own",
    "metric": {"name": "score", "goal": "maximize"},
    "parameters": {"lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1}},
    "search": {"seed": 3},
    "scheduler": {"max_epochs": 3, "grace_epochs": 1},
    "budget": {"trials": 4, "max_concurrent": 1},
    "resources": {"cpu": 1, "gpu": 0},
    "mlflow": {"enabled": False},
}


class Heard:
    """An observer that remembers, and interrupts when it has heard so many trials end."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.stages: list[tuple[str, int, int]] = []
        self.ended: list[tuple[str, str]] = []
        self.statuses: set[str] = set()
        self._interrupt_after = interrupt_after

    def on_stage(self, stage: str, num_trials: int, max_epochs: int) -> None:
        self.stages.append((stage, num_trials, max_epochs))

    def on_trial(self, record: TrialRecord, stage: str) -> None:
        if record.state.is_finished:
            self.ended.append((stage, record.assignment.name))
        if self._interrupt_after is not None and len(self.ended) >= self._interrupt_after:
            raise KeyboardInterrupt


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="package")
def streets(home: Path) -> SweepResult:
    return segbench.load(home / "runs" / "quickstart")


def python(code: str, cwd: Path) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True).stdout


# names


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(segbench.__all__) == segbench.__all__
    for name in segbench.__all__:
        assert name in dir(segbench)
        assert name in (ROOT / "docs" / "api.md").read_text(), f"docs/api.md does not name {name}"
        thing = getattr(segbench, name)
        assert thing.__doc__ or name == "TrainFunction", name  # a type; its text stands below it
    for name, member in vars(SweepResult).items():
        if not name.startswith("_") and name not in SweepResult.__dataclass_fields__:
            assert member.__doc__, name


def test_every_field_of_a_public_class_is_documented() -> None:
    for name in segbench.__all__:
        thing = getattr(segbench, name)
        if not (isinstance(thing, type) and is_dataclass(thing)):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
        assert isinstance(definition, ast.ClassDef)
        for field, following in pairwise(definition.body):
            is_field = isinstance(field, ast.AnnAssign) and not ast.unparse(field.target).startswith("_")
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            assert is_text or not is_field, f"{name}: {ast.unparse(field)}"


def test_a_wrong_name_says_which_there_are() -> None:
    with pytest.raises(AttributeError, match="'segbench' has no attribute 'sweep_it'; it has: Assignment, Best"):
        segbench.sweep_it  # noqa: B018


HEAVY = "[name for name in ('torch', 'ray', 'optuna', 'mlflow', 'transformers') if name in sys.modules]"


def test_importing_segbench_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, segbench; print([n for n in sys.modules if n.split('.')[0] in ('numpy', 'pandas', 'pydantic')]"
    assert python(f"{code} + {HEAVY}, [n for n in sys.modules if n.startswith('segbench.')])", tmp_path) == "[] []\n"


def test_reading_results_imports_neither_torch_nor_ray(home: Path) -> None:
    code = (
        "import sys, segbench; r = segbench.load('runs/quickstart'); r.leaderboard, r.trials, r.epochs, r.best;"
        f"print({HEAVY}); repr(r), r._repr_html_(), r.chart('learning-curves'), r.report(); print({HEAVY})"
    )
    assert python(code, home) == "[]\n['optuna']\n", "a report says what mattered"


# tables


def test_columns_are_typed_whatever_is_in_them(streets: SweepResult) -> None:
    for table in (streets.leaderboard, streets.trials, streets.epochs.drop(columns="confusion")):
        kinds = {str(kind) for kind in table.dtypes}
        assert kinds <= {"string", "Int64", "Float64", "boolean", "datetime64[ms, UTC]"}
    board = streets.leaderboard.dtypes.astype(str)
    assert board[["rank", "name", "val/miou std", "test/miou low", "test/iou/sky"]].tolist() == [
        *("Int64", "string", "Float64", "Float64", "Float64")
    ]
    assert board["params.lr"] == "Float64"
    assert board["params.width"] == "Int64"
    assert len(streets.epochs.attrs["groups"]) ** 2 == len(streets.epochs["confusion"].dropna().iloc[0])


def test_every_column_is_documented(streets: SweepResult) -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    for table in (streets.leaderboard, streets.trials, streets.epochs):
        for column in table.columns:
            name = column
            for beginning, pattern in {
                "params.": "params.<name>",
                "test/iou/": "test/iou/<group>",
                "val/iou/": "val/iou/<group>",
            }.items():
                name = pattern if column.startswith(beginning) else name
            for ending in (" mean", " std"):
                name = f"<metric>{ending}" if column == f"val/miou{ending}" else name
            name = "search <metric>" if column == "search val/miou" else name
            assert f"`{name}`" in text, column


def test_a_result_says_in_short_what_it_is(streets: SweepResult) -> None:
    assert repr(streets).startswith("<SweepResult 'quickstart': finished, 2 search trials, best val/miou 0.")
    page = streets._repr_html_()
    assert "<th>val/miou</th>" in page
    assert "finished" in page


def test_html_is_escaped(folder: Path) -> None:
    parameters = {**OWN["parameters"], "model": {"values": ["<b>&"]}}
    result = segbench.run({**OWN, "parameters": parameters}, executor="local", objective=curve)
    assert "<td>&lt;b&gt;&amp;</td>" in result._repr_html_()


def test_lists_and_mappings_reach_the_function_and_stand_in_tables_as_json(folder: Path) -> None:
    parameters = {
        "kernels": {"values": [[3, 3, 3], [5, 5]]},
        "optimizer": {"values": [{"name": "adamw", "lr": 0.1}]},
        "head.width": {"values": [8, True], "probabilities": [0.5, 0.5]},
    }
    baselines = [{"name": "plain", "parameters": {"kernels": [7], "head": {"width": 16}}}]
    seen: list[Any] = []

    def objective(config: Any, context: Any) -> Any:
        seen.append(config)
        for _ in range(context.epoch, context.max_epochs):
            yield {"score": len(config["kernels"])}

    content = {**OWN, "parameters": parameters, "baselines": baselines}
    result = segbench.run(content, {"budget.trials": 6}, executor="local", objective=objective)
    assert seen[0] == {"kernels": [7], "head": {"width": 16}}
    assert all(config["kernels"] in ([3, 3, 3], [5, 5]) for config in seen[1:])
    assert all(config["optimizer"] == {"name": "adamw", "lr": 0.1} for config in seen[1:])
    trials = result.trials
    assert trials["params.kernels"].tolist() == [json.dumps(config["kernels"]) for config in seen[: len(trials)]]
    assert trials["params.optimizer"].dropna().unique().tolist() == ['{"lr": 0.1, "name": "adamw"}']
    with (result.paths.root / "trials.csv").open() as file:
        assert [row["params.kernels"] for row in csv.DictReader(file)] == trials["params.kernels"].tolist()
    num_trained = len(seen)
    segbench.run(content, {"budget.trials": 8}, executor="local", objective=objective)
    assert len(seen) == num_trained + 2, "what is known is not trained again"


# ways to give a sweep


def test_a_path_a_mapping_and_a_spec_are_the_same_sweep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "own.yaml"
    path.write_text(SYNTHETIC.format(function="curve", trials=3, retrain=""))
    texts = ["budget.trials=2", "scheduler.max_epochs=3"]
    spec = load_spec(path).spec
    ways: dict[str, Any] = {"path": path, "text": str(path), "spec": spec, "mapping": YAML(typ="safe").load(path)}
    for name, way in ways.items():
        changes: Any = texts if name == "text" else {"budget.trials": 2, "scheduler.max_epochs": 3}
        result = segbench.run(way, changes, out=folder / name, executor="local")
        assert result.spec.budget.trials == 2
        assert decisions(result.paths) == decisions(segbench.load(folder / "path").paths)
        assert len(result.trials) == 3


def test_later_overrides_win(folder: Path) -> None:
    result = segbench.run(OWN, ["budget.trials=9", "budget.trials=1"], out="one", executor="local", objective=curve)
    assert len(result.trials) == 1


def test_the_folder_is_named_by_the_sweep(folder: Path) -> None:
    result = segbench.run(OWN, {"budget.trials": 1}, executor="local", objective=curve)
    assert result.paths.root == Path("runs/own")
    assert result.spec.train == "objectives:curve"


def test_an_objective_may_be_any_callable(folder: Path) -> None:
    bonus = 0.25

    class Objective:
        def __call__(self, config: Mapping[str, Any], context: segbench.TrainContext) -> Iterator[dict[str, float]]:
            for epoch in range(context.epoch + 1, context.max_epochs + 1):
                yield {"score": score_at(config, context.seed, epoch) + bonus}

    for number, objective in enumerate((Objective(), lambda config, context: Objective()(config, context))):
        result = segbench.run(OWN, {"budget.trials": 1}, out=f"o{number}", executor="local", objective=objective)
        assert result.status == "finished"


# errors


def test_ray_cannot_take_a_function_object(folder: Path) -> None:
    with pytest.raises(segbench.UserError, match='add executor="local", or put the function in a module') as caught:
        segbench.run(OWN, objective=curve)
    assert "\n" not in str(caught.value)
    assert not (folder / "runs").exists()


def test_mistakes_name_the_key(folder: Path) -> None:
    with pytest.raises(segbench.UserError, match=r"sweep budget\.trials: .*0"):
        segbench.run({**OWN, "budget": {"trials": 0}}, executor="local", objective=curve)
    with pytest.raises(segbench.UserError, match="budgets"):
        segbench.run({**OWN, "budgets": {}}, executor="local", objective=curve)
    with pytest.raises(segbench.UserError, match="quickstart"):
        segbench.run("no-such-sweep", executor="local")
    with pytest.raises(segbench.UserError, match="is not a sweep's folder"):
        segbench.load(folder)


def diverging(config: Mapping[str, Any], context: segbench.TrainContext) -> Iterator[dict[str, float]]:
    yield {"score": float("nan")}


def test_without_a_score_there_is_no_best(folder: Path) -> None:
    with pytest.raises(segbench.SegbenchError, match="none of the 4 trials has a score"):
        segbench.run(OWN, executor="local", objective=diverging)
    result = segbench.load("runs/own")
    assert "no score yet" in repr(result)
    with pytest.raises(segbench.UserError, match=r"no trial has a score yet; look at result\.trials"):
        result.best  # noqa: B018
    assert result.trials["reason"].str.startswith("nan").all()


def test_an_objective_without_a_model_has_none(folder: Path) -> None:
    best = segbench.run(OWN, executor="local", objective=curve).best
    assert best.folder is None
    with pytest.raises(segbench.UserError, match="has no model: its training function gave none"):
        best.model()


def test_a_chart_that_there_is_not(streets: SweepResult) -> None:
    with pytest.raises(segbench.UserError, match=r"'curves': no such chart; of this sweep there are .*learning-curves"):
        streets.chart("curves")


# models and pictures


@pytest.mark.usefixtures("one_thread")
def test_predict_takes_arrays_pil_images_and_paths(streets: SweepResult, home: Path) -> None:
    image = Image.open(home / "street.png")
    classes = streets.best.predict(home / "street.png")
    assert classes.shape == (48, 96)
    assert classes.max() < len(streets.best.model().groups)
    for same in (str(home / "street.png"), image, image.convert("RGBA"), np.asarray(image)):
        assert np.array_equal(streets.best.predict(same), classes)
    with pytest.raises(ValueError, match=r"image is float64 \(48, 96, 3\); give uint8 \(H, W, 3\), RGB"):
        streets.best.predict(np.asarray(image) / 255.0)  # type: ignore[arg-type]
    assert streets.best.model() is streets.best.model()


def test_charts_are_pictures(streets: SweepResult, tmp_path: Path) -> None:
    chart = streets.chart("learning-curves")
    assert chart._repr_png_().startswith(b"\x89PNG")
    chart.save(tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().startswith("<svg")


def test_show_opens_the_browser_outside_a_notebook(streets: SweepResult, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or len(opened) == 1)
    streets.show()
    assert opened[0].startswith("file:///")
    assert opened[0].endswith("report.html")
    streets.show()  # where no browser is found
    assert "report.html" in capsys.readouterr().out


# observers, interruptions, statuses


def test_observers_hear_of_stages_and_trials(folder: Path) -> None:
    heard, second = Heard(), Heard()
    segbench.run(OWN, {"retrain": {"top_k": 1, "seeds": 2}}, executor="local", objective=curve,
                 observers=[heard, second])  # fmt: skip
    assert heard.stages == [("search", 4, 3), ("retrain", 2, 3)]
    assert {name for stage, name in heard.ended if stage == "search"} == {f"trial-{number:04d}" for number in range(4)}
    assert sum(stage == "retrain" for stage, _ in heard.ended) == 2
    assert second.ended == heard.ended


@pytest.mark.parametrize("ended", [1, 2, 4, 5])
def test_a_sweep_that_was_broken_off_loads_and_the_same_call_continues_it(folder: Path, ended: int) -> None:
    changes = {"retrain": {"top_k": 1, "seeds": 2}}

    def sweep(out: str, *observers: segbench.SweepObserver) -> SweepResult:
        return segbench.run(OWN, changes, out=out, executor="local", objective=curve, observers=observers)

    with pytest.raises(KeyboardInterrupt):
        sweep("broken", Heard(interrupt_after=ended))
    broken = segbench.load("broken")
    assert broken.status == "unfinished"
    assert "unfinished" in repr(broken)
    assert len(broken.trials) == len(broken.trials["name"].unique()) >= ended
    assert broken.leaderboard["rank"].tolist()

    whole, continued = sweep("whole"), sweep("broken")
    assert continued.status == "finished"
    for stage in ("search", "retrain"):
        assert decisions(continued.paths, stage) == decisions(whole.paths, stage)  # type: ignore[arg-type]
    assert sweep("broken").status == "finished"


def test_between_two_trials_a_sweep_without_retraining_is_not_finished(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        segbench.run(OWN, executor="local", objective=curve, observers=[Heard(interrupt_after=2)])
    assert set(segbench.load("runs/own").trials["state"]) <= {"COMPLETE", "PRUNED"}
    assert segbench.load("runs/own").status == "unfinished"


def test_a_running_sweep_can_be_loaded(folder: Path) -> None:
    seen: list[tuple[str, int]] = []

    class Looking(Heard):
        def on_trial(self, record: TrialRecord, stage: str) -> None:
            result = segbench.load("runs/own")
            seen.append((result.status, len(result.epochs)))

    result = segbench.run(OWN, executor="local", objective=curve, observers=[Looking()])
    assert {status for status, _ in seen} == {"running"}
    assert [count for _, count in seen] == sorted(count for _, count in seen)
    assert result.status == "finished"


def test_a_finished_sweep_is_finished(streets: SweepResult) -> None:
    assert streets.status == "finished"
    assert isinstance(streets.leaderboard, pd.DataFrame)


# event loops and Ray


def process_state() -> tuple[Any, ...]:
    """What a caller would miss: SIGTERM, import path, variables but those of other libraries, which stay."""
    theirs = ("MLFLOW_", "KMP_", "PYTEST_")
    variables = {key: value for key, value in os.environ.items() if not key.startswith(theirs)}
    return signal.getsignal(signal.SIGTERM), list(sys.path), variables


async def in_a_loop(executor: Any, out: str) -> SweepResult:
    file = Path("own.yaml")
    file.write_text(SYNTHETIC.format(function="curve", trials=3, retrain=""))
    await asyncio.sleep(0)
    return segbench.run(file, {"scheduler.max_epochs": 3}, out=out, executor=executor)


def test_it_works_inside_a_running_event_loop(folder: Path) -> None:
    assert asyncio.run(in_a_loop("local", "local")).status == "finished"


@pytest.mark.ray
@pytest.mark.slow
def test_it_works_inside_a_running_event_loop_with_ray(folder: Path) -> None:
    """And leaves the caller's process as it was: Ray takes SIGTERM for itself, and reads variables."""
    before = process_state()
    result, expected = asyncio.run(in_a_loop("ray", "ray")), asyncio.run(in_a_loop("local", "local"))
    assert result.status == "finished"
    assert decisions(result.paths) == decisions(expected.paths)
    assert asyncio.run(asyncio.to_thread(segbench.load, "ray")).best == result.best
    assert process_state() == before
