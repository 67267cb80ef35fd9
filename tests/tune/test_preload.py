"""What worker processes import before their first trial."""

import subprocess
import sys

import pytest

CODE = """
import gc, sys
from segbench.tune import preload
assert gc.isenabled()
assert gc.get_freeze_count() > 0
assert "wave" in sys.modules, "modules after one that is missing are imported too"
"""


def test_a_missing_module_is_left_to_the_trial_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGBENCH_PRELOAD", "no_such_module,wave")
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=60)


def test_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGBENCH_PRELOAD", raising=False)
    subprocess.run([sys.executable, "-c", "import segbench.tune.preload"], check=True, timeout=60)
