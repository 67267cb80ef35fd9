"""Each benchmark runs in its smallest form; peers that are not installed are left out by the benchmark itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
CASES = {"train_step": 2, "epoch": 2, "metric": 2, "pair": 1}
"""Cases that the quick form has."""


@pytest.mark.parametrize("name", CASES)
def test_quick_form_measures_ours_in_every_case(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs torch in a process of its own")
    rows = _quick_rows(name, tmp_path)
    assert len({row["case"] for row in rows if row["variant"] == "ours" and row["value"]["median"] > 0}) == CASES[name]


def test_the_simulated_cluster_measures_every_part_of_a_sweep(tmp_path: Path) -> None:
    rows = _quick_rows("scale", tmp_path)
    assert [row["unit"] for row in rows] == ["decisions/s"] * 5
    assert all(row["value"]["median"] > 0 for row in rows)


def test_several_metrics_are_compared_and_nothing_that_cannot_pass_is_trained(tmp_path: Path) -> None:
    *methods, constraint = _quick_rows("pareto", tmp_path)
    assert all(0 < value <= 1 for row in methods for value in row["values"])
    assert constraint["broken"] > 0
    assert constraint["trained"] == 0


def _quick_rows(name: str, folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, f"benchmarks/{name}.py", "--quick", "--json", str(folder / "out.json")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**_environment(), "TMPDIR": str(folder)}, check=False
    )
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads((folder / "out.json").read_text())["rows"]
    return rows


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
