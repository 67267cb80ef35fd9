"""What a trial takes of its machine, as it is reported."""

import mmap
import time

import pytest

from segbench.training.usage import Usage


def test_a_busy_process_uses_a_core_and_a_sleeping_one_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of clocks that were told what to say: how much of a core a process gets depends on who else is busy."""
    wall_s, cpu_s = iter([100.0, 102.0, 104.0, 108.0]), iter([7.0, 7.0, 9.0, 17.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(wall_s))
    monkeypatch.setattr(time, "process_time", lambda: next(cpu_s))
    usage = Usage()
    percents = [usage.read()["system/cpu_percent"] for _ in range(3)]
    assert percents == [0, 100, 200]


def test_the_clocks_are_those_of_this_process() -> None:
    """However long two tenths of a second of the processor's time take."""
    began_s, usage = time.perf_counter(), Usage()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    percent, took_s = usage.read()["system/cpu_percent"], time.perf_counter() - began_s
    assert percent >= 100 * 0.2 / took_s


def test_memory_is_that_of_this_process() -> None:
    before = Usage().read()["system/memory_mb"]
    block = mmap.mmap(-1, 100_000_000)  # from the system, not from what this process freed before
    block.write(b"x" * 100_000_000)
    after = Usage().read()["system/memory_mb"]
    block.close()
    assert 80 < after - before < 250
