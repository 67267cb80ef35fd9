"""The folder of a sweep: one process at a time, one sweep for ever."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from segbench.core.address import sweep_paths
from segbench.core.errors import StateError
from segbench.core.ledger import read_ledger
from segbench.core.paths import STAGES, SweepPaths, atomic_write
from segbench.core.versions import describe_start
from segbench.spec.identity import Changes, compare
from segbench.spec.load import LoadedSpec, dump_spec, load_spec
from segbench.spec.schema import SweepSpec
from segbench.storage.bucket import Bucket
from segbench.storage.lease import is_running as lease_is_held
from segbench.storage.mirror import fetch_sweep

_PATIENCE_S = 1.0
"""Whoever asks whether a sweep runs holds its lock for an instant."""


@contextmanager
def open_folder(paths: SweepPaths, spec: SweepSpec, accept_changes: bool = False) -> Iterator[None]:
    """Take the sweep's folder for this process: make it, or check that it holds the same sweep.

    A start that ends before its first trial leaves the folder as it was.

    Args:
        paths: the folder.
        spec: what is asked for.
        accept_changes: continue with a longer ``max_epochs``, other ``parameters`` or another ``retrain`` section.

    Raises:
        StateError: it holds another sweep, or another process runs it.
    """
    before = frozenset(path.name for path in paths.root.iterdir()) if paths.root.is_dir() else None
    paths.lock.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.lock)
    try:
        lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise StateError(
            f"{paths.place} is in use: another process runs this sweep; wait for it, or choose another --out"
        ) from None
    try:
        changes = _accepted(paths, spec, accept_changes) if paths.spec.exists() and has_begun(paths) else ()
        atomic_write(paths.spec, dump_spec(spec))
        start = {"at": round(time.time(), 3), **describe_start(), **({"changes": changes} if changes else {})}
        with paths.versions.open("a", encoding="utf-8") as file:
            file.write(json.dumps(start) + "\n")
        yield
    finally:
        if not has_begun(paths):
            _clear(paths.root, before)
        lock.release()


def has_begun(paths: SweepPaths) -> bool:
    """Whether a trial was ever started: before that a folder holds no sweep, whatever its sweep.yaml says."""
    ledgers = (paths.ledger(stage) for stage in STAGES)
    return any(ledger.exists() and ledger.stat().st_size for ledger in ledgers)


def _clear(root: Path, before: frozenset[str] | None) -> None:
    """Remove what a start has written that was refused, and the folder itself if it was not there before."""
    with suppress(OSError):  # a thread that was not waited for may still write
        for path in root.iterdir():
            if before is None or path.name not in before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if before is None:
            root.rmdir()


def open_sweep(place: str) -> tuple[SweepPaths, LoadedSpec]:
    """Return the paths and the file of an existing sweep; one in a bucket is brought to this machine first.

    Raises:
        StateError: there is no sweep.
    """
    paths = sweep_paths(place, "views")
    if paths.uri is not None:
        fetch_sweep(paths)
    if not paths.spec.is_file():
        raise StateError(f"{place} is not a sweep's folder (no sweep.yaml in it); give one such as runs/quickstart")
    return paths, load_spec(paths.spec, is_remote=True)


def is_running(paths: SweepPaths) -> bool:
    """Whether a process runs the sweep in ``paths`` now."""
    if paths.uri is not None:
        return lease_is_held(Bucket(paths.uri))
    if not paths.lock.exists():
        return False
    lock = FileLock(paths.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # a folder that one may only read, in which nothing of this user's runs
        return False
    lock.release()
    return False


def changes_of(paths: SweepPaths, spec: SweepSpec) -> Changes:
    """Return what a file would change in the sweep that has begun in ``paths``."""
    is_retrained = bool(read_ledger(paths.ledger("retrain")))
    return compare(load_spec(paths.spec, is_remote=True).spec, spec, is_retrained)


def _accepted(paths: SweepPaths, spec: SweepSpec, accept_changes: bool) -> tuple[str, ...]:
    """Return what changes in a sweep that goes on.

    Raises:
        StateError: more than that, or it was not asked for.
    """
    changes = changes_of(paths, spec)
    if changes.refused:
        raise StateError(
            f"{paths.place} holds a sweep with other settings:\n  {_listed(changes.refused)}\n"
            "Change them back to continue it, or give this sweep another name or --out "
            f"(with `search.warm_start: [{paths.place}]` it learns from the old one)"
        )
    if changes.on_request and not accept_changes:
        raise StateError(
            f"{paths.place} was started with other settings:\n  {_listed(changes.on_request)}\n"
            "Add --resume to continue it with the new ones (trials that have begun stay as they are; `segbench plan` "
            "says what the sampler learns from them), or give this sweep another name or --out"
        )
    return changes.on_request


def _listed(lines: Sequence[str]) -> str:
    return "\n  ".join(lines)
