"""What a process frees stays with it."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0  # PR_SET_THP_DISABLE: pages of one size on every machine
import torch
from segbench.training.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(10):  # 40 MB each, more than glibc ever keeps by itself; aligned blocks need some rounds to find a place
    torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_large_tensors_take_the_memory_of_those_before() -> None:
    pytest.importorskip("torch", reason="needs torch in a process of its own")

    def page_faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert page_faults("keep") < 1000 < page_faults("leave")
