"""Every random draw of a sweep comes from (sweep seed, a name, a stable index)."""

import hashlib


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a seed in ``[0, 2**31)`` that depends on nothing but the arguments.

    ``derive_seed(7, "sampler", 12)`` is the same on every machine and in every process, so a restart,
    another number of workers or another order of trials changes no draw.
    """
    text = "/".join([str(seed), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
