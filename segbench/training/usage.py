"""What a trial takes of its machine: read once an epoch by the trial's own process, reported as ``system/...``.

Standard library and torch alone; MLflow shows names that begin with ``system/`` on a page of their own.
"""

import os
import sys
import time
from pathlib import Path

MB = 1e6


class Usage:
    """Measures from one call of :meth:`read` to the next."""

    def __init__(self) -> None:
        self._wall_s = time.perf_counter()
        self._cpu_s = time.process_time()

    def read(self) -> dict[str, float]:
        """Return what was used since the call before.

        ``system/cpu_percent``: time of this process on all cores, 100 is one core; ``system/memory_mb``: its resident
        memory now (Linux); ``system/gpu_memory_mb``: the most that torch has held on the device so far, where there is
        one in use.
        """
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        used = {"system/cpu_percent": 100 * (cpu_s - self._cpu_s) / max(wall_s - self._wall_s, 1e-9)}
        self._wall_s, self._cpu_s = wall_s, cpu_s
        memory = _resident_bytes()
        if memory is not None:
            used["system/memory_mb"] = memory / MB
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            used["system/gpu_memory_mb"] = torch.cuda.max_memory_allocated() / MB
        return used


def _resident_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
