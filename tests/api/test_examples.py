"""The examples in the docstrings of the public names are true."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import segbench

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
EXAMPLES = [name for name in segbench.__all__ if ">>>" in (getattr(segbench, name).__doc__ or "")]


def test_what_people_call_has_examples() -> None:
    assert {"run", "load", "SweepResult", "Best"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.usefixtures("at_home", "one_thread")
def test_examples(name: str) -> None:
    thing = getattr(segbench, name)
    tests = [test for test in doctest.DocTestFinder().find(thing, name) if test.examples]
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_the_package_begins_with_an_example(at_home: Path) -> None:
    text = inspect.getdoc(importlib.import_module("segbench")) or ""
    assert "segbench.run(" in text
    assert "result.leaderboard" in text
    assert (at_home / "runs/quickstart").is_dir()
