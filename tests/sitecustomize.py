"""Lets a test run stand for another processor: SEGBENCH_TEST_PRECISION says what ``precision: auto`` means.

Python imports this module when it starts wherever ``tests`` stands in PYTHONPATH, so that the processes which tests
start, and Ray's workers, decide as the tests do; tests/conftest.py imports it for the tests themselves.
"""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

FORCED = os.environ.get("SEGBENCH_TEST_PRECISION", "")


class _Forced(MetaPathFinder):
    """Finds the module that asks the processor, and replaces its answer after it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "segbench.training.switches":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_replace(module: ModuleType) -> None:
            from dataclasses import replace

            load(module)
            ask = module.read_facts
            module.read_facts = lambda device: replace(ask(device), has_bf16=FORCED == "bf16")  # type: ignore[attr-defined]

        spec.loader.exec_module = load_and_replace  # type: ignore[method-assign]
        return spec


if FORCED:
    if FORCED not in ("bf16", "fp32"):
        raise ValueError(f"SEGBENCH_TEST_PRECISION={FORCED}: choose bf16 or fp32")
    assert "segbench.training.switches" not in sys.modules
    sys.meta_path.insert(0, _Forced())
