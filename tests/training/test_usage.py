"""What a trial takes of its machine, as it is reported."""

import mmap
import time

from segbench.training.usage import Usage


def test_a_busy_process_uses_about_a_core_and_a_sleeping_one_none() -> None:
    usage = Usage()
    time.sleep(0.1)
    asleep = usage.read()["system/cpu_percent"]
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert asleep < usage.read()["system/cpu_percent"]
    assert asleep < 50


def test_memory_is_that_of_this_process() -> None:
    before = Usage().read()["system/memory_mb"]
    block = mmap.mmap(-1, 100_000_000)  # from the system, not from what this process freed before
    block.write(b"x" * 100_000_000)
    after = Usage().read()["system/memory_mb"]
    block.close()
    assert 80 < after - before < 250
