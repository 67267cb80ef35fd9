"""The tour as a notebook runs with both executors; a kernel that is interrupted leaves a sweep that goes on."""

import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import segbench

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

DOCS = Path(__file__).parents[2] / "docs"
STEP = """
import time
from pathlib import Path

def train(config, context):
    for epoch in range(context.epoch, context.max_epochs):
        time.sleep(0.1)
        yield {"score": config["x"] + epoch}
"""
SWEEP: dict[str, Any] = {
    "name": "slow",
    "metric": {"name": "score", "goal": "maximize"},
    "parameters": {"x": {"min": 0.0, "max": 1.0}},
    "scheduler": {"max_epochs": 3, "grace_epochs": 1},
    "budget": {"trials": 12, "max_concurrent": 1},
    "resources": {"cpu": 1, "gpu": 0},
    "mlflow": {"enabled": False},
}
CALL = {
    "local": "import segbench; r = segbench.run(SWEEP, executor='local', objective=train); print(repr(r))",
    "ray": "import segbench; r = segbench.run({**SWEEP, 'train': 'step:train'}); print(repr(r))",
}


def script() -> ModuleType:
    found = importlib.util.spec_from_file_location("docs_notebook", DOCS / "notebook.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def text_of(notebook: Any) -> str:
    """Return all that the cells have printed or returned, as text."""
    parts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            parts.append(output.get("text", "") + output.get("data", {}).get("text/plain", ""))
    return "\n".join(parts)


def kinds_of(notebook: Any) -> set[str]:
    return {kind for cell in notebook.cells for o in cell.get("outputs", []) for kind in o.get("data", {})}


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_the_tour_runs(executor: str, tmp_path: Path) -> None:
    notebook = script().make()
    script().execute(notebook, tmp_path, executor)
    text, committed = text_of(notebook), text_of(nbformat.read(DOCS / "notebook.ipynb", as_version=4))
    assert "search 5/5: trial-0004" in text
    assert "interrupted\n" in text
    assert "'unfinished'" in text
    assert "<SweepResult 'own': running, 4 search trials" in text
    assert "<SweepResult 'own': finished, 6 search trials" in text
    assert "\x1b" not in text, "lines, no live view"
    assert {"text/html", "image/png"} <= kinds_of(notebook)
    frames = [o for cell in notebook.cells for o in cell.get("outputs", []) if "<iframe" in str(o.get("data"))]
    assert len(frames) == 1, "result.show()"
    assert segbench.load(tmp_path / "runs" / "tour").status == "finished"
    assert "<SweepResult 'own': finished, 6 search trials" in committed


def test_the_committed_notebook_is_what_the_script_makes() -> None:
    path = DOCS / "notebook.ipynb"
    committed, made = nbformat.read(path, as_version=4), script().make()
    script().slim(made)
    assert [cell.source for cell in committed.cells] == [cell.source for cell in made.cells]
    assert all(cell.execution_count for cell in committed.cells if cell.cell_type == "code")
    assert path.stat().st_size < 700_000
    assert kinds_of(committed) == {"text/plain", "text/html", "image/png"}
    text = path.read_text()
    assert sys.prefix not in text
    assert "/tmp/" not in text
    assert "Traceback" not in text


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a kernel in ``tmp_path``, which holds a module with the same objective."""
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "step.py").write_text(STEP)
    manager, client = start_new_kernel(cwd=str(tmp_path))
    client.manager = manager
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run_cell(client: Any, code: str) -> tuple[dict[str, Any], str]:
    """Return the reply to a cell, and what it printed."""
    printed: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        printed.append(message["content"].get("text", ""))

    reply = client.execute_interactive(code, timeout=120, output_hook=hear)
    return reply["content"], "".join(printed)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_interrupting_a_kernel_leaves_a_sweep_that_the_same_cell_continues(
    executor: str, kernel: Any, tmp_path: Path
) -> None:
    run_cell(kernel, f"{STEP}\nSWEEP = {SWEEP!r}")
    message = kernel.execute(CALL[executor])
    ledger = tmp_path / "runs" / "slow" / "state" / "search.jsonl"
    deadline = time.monotonic() + 100
    while not (ledger.is_file() and ledger.read_text().count('"end"') >= 2):
        assert time.monotonic() < deadline, "no trial has ended"
        time.sleep(0.05)
    kernel.manager.interrupt_kernel()
    reply = kernel.get_shell_msg(timeout=60)
    while reply["parent_header"].get("msg_id") != message:
        reply = kernel.get_shell_msg(timeout=60)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    broken = segbench.load(tmp_path / "runs" / "slow")
    assert broken.status == "unfinished"
    assert 2 <= len(broken.trials) < 12

    content, printed = run_cell(kernel, CALL[executor])
    assert content["status"] == "ok", content
    assert "<SweepResult 'slow': finished, 12 search trials" in printed
    result = segbench.load(tmp_path / "runs" / "slow")
    assert (result.trials["epochs"] == result.epochs.groupby("name").size().to_numpy()).all()
