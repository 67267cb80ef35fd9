"""Memory of a process that trains: what is freed stays with it, until a trial ends badly."""

import ctypes
import gc
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Of ``mallopt`` in glibc's malloc.h."""


@cache
def keep_freed_memory() -> bool:
    """Let this process use again what it frees; returns whether its C library can (glibc).

    By default glibc takes each large tensor fresh from the system and gives it back, and the system clears every page
    of it: a UNet's training step on a CPU makes 18,000 page faults, a sixth of its time. The process then
    keeps its peak until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 << 20}
    return all(mallopt(key, value) for key, value in settings.items())


def free_memory() -> None:
    """Give back what a failed step held, on the device too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
