"""Addresses of buckets, as text: what is allowed, and which folder of this machine stands for one."""

import os
import re
from pathlib import Path

from segbench.core.errors import UserError
from segbench.core.paths import SweepPaths

SCHEMES = ("s3", "gs", "abfs", "abfss", "hdfs", "file")
"""What pyarrow.fs can open."""
PACKED = "packed"
"""Beside the sweeps of a bucket: the packed data sets."""


def is_bucket(text: str) -> bool:
    """Whether ``text`` is meant as an address such as ``s3://bucket/prefix``, not as a folder."""
    return re.match(r"[a-z][a-z0-9+]+:/", text, re.IGNORECASE) is not None


def what_is_wrong(address: str) -> str | None:
    """Return what is wrong with the address of a bucket, in one sentence that repeats no secret; None if nothing."""
    scheme, slashes, rest = address.partition("://")
    if not slashes:
        scheme = address.partition(":/")[0]
        return f"one slash after '{scheme}:'; write {scheme}://bucket/prefix"
    if scheme not in SCHEMES:
        return f"unknown scheme '{scheme}'; allowed: {', '.join(SCHEMES)}, or a folder"
    if "@" in rest or "?" in rest or "#" in rest:
        return (
            f"an address with a user, a password or options in it; write {scheme}://bucket/prefix and give credentials "
            "by the environment or an instance profile"
        )
    bucket = rest.split("/")[0]
    if not bucket and scheme != "file":
        return f"'{address}' names no bucket; write {scheme}://bucket/prefix"
    if scheme in ("s3", "gs") and not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", bucket):
        return f"'{bucket}' cannot be a bucket: 3 to 63 small letters, digits, '-' and '.'"
    if any(part in ("", ".", "..") for part in rest.strip("/").split("/")):
        return f"'{address}' has an empty part, '.' or '..' in it; write {scheme}://bucket/prefix"
    return None


def without_secret(text: str) -> str:
    """Return ``text`` with user, password and options of the addresses in it replaced by stars."""
    return re.sub(r"(://[^\s?]*)\?\S+", r"\1?***", re.sub(r":(//?)\S*@", r":\1***@", text))


def cache_root() -> Path:
    """Return where this machine keeps what can be made again: $SEGBENCH_CACHE, else ``~/.cache/segbench``."""
    return Path(os.environ.get("SEGBENCH_CACHE") or Path.home() / ".cache" / "segbench").expanduser()


def sweep_paths(place: str, kind: str = "sweeps") -> SweepPaths:
    """Return the paths of the sweep at ``place``: a folder, or a bucket's address with its working copy here.

    Args:
        place: ``runs/name`` or ``s3://bucket/prefix/name``.
        kind: ``sweeps`` for the copy of the driver, ``views`` for the copy of those who only read.

    Raises:
        UserError: the address cannot be one of a bucket.
    """
    if not is_bucket(place):
        return SweepPaths(Path(place))
    if problem := what_is_wrong(place):
        raise UserError(problem)
    address = place.rstrip("/")
    return SweepPaths(cache_root() / kind / address.replace("://", "/"), address)


def join(place: str, name: str) -> str:
    """Return the place ``name`` in a folder or a bucket."""
    return f"{place.rstrip('/')}/{name}" if is_bucket(place) else str(Path(place) / name)
