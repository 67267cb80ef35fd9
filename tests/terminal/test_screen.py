"""What is printed is what was named."""

from pathlib import Path

import pytest
from running import synthetic

from segbench.sweep.run import Run, run_sweep
from segbench.terminal.screen import Screen

ODD = "exp[/old] [red]:fire:"


def test_neither_markup_nor_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.tell(f"at {ODD}")
    screen.warn(f"mind {ODD}")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (f"at {ODD}\n", f"mind {ODD}\n")


def test_a_sweep_in_a_folder_with_an_odd_name_ends_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = synthetic(tmp_path, trials=2)
    assert run_sweep(loaded, f"runs/{ODD}", Run(executor="local")) == f"runs/{ODD}"
    assert f"report       runs/{ODD}/report.html\n" in capsys.readouterr().out
