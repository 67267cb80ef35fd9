"""Each benchmark runs in its smallest form; peers that are not installed are left out by the benchmark itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CASES = {"train_step": 2, "epoch": 2, "metric": 2, "pair": 1}
"""Cases that the quick form has."""


@pytest.mark.parametrize("name", CASES)
def test_quick_form_measures_ours_in_every_case(name: str, tmp_path: Path) -> None:
    command = [sys.executable, f"benchmarks/{name}.py", "--quick", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**_environment(), "TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert len({row["case"] for row in rows if row["variant"] == "ours" and row["value"]["median"] > 0}) == CASES[name]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
