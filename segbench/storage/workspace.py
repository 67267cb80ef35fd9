"""A worker's folder of one trial: the sweep's own where all nodes see it, else a scratch folder and a bucket behind it.

With a bucket, what the trial has there is fetched when it begins, wherever it ran before; a checkpoint is given to the
bucket when it is whole here, its ``state.json`` last; everything else follows when the trial ends or is stopped. The
scratch folder is deleted then, and those of processes that were killed are deleted by the next trial on the node.
"""

import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from segbench.core.address import cache_root, is_bucket
from segbench.core.errors import StorageError
from segbench.storage.bucket import Bucket

MANIFEST = "state.json"
"""Of a checkpoint: names its other file and that file's checksum, so it is written last."""


class Workspace:
    """A folder that all nodes see: there is nothing to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, name: str) -> None:
        """Make a folder of the trial durable as it is now."""

    def fetch(self, address: str | None) -> str | None:
        """Return where a file or folder of the sweep is on this node."""
        return address


class BucketWorkspace(Workspace):
    """A scratch folder, and the trial's prefix in a bucket."""

    def __init__(self, address: str, scratch: Path) -> None:
        super().__init__(scratch / "trial")
        self._inputs = scratch / "inputs"
        self._bucket = Bucket(address)
        self._there = {name for name in self._bucket.entries() if not name.startswith("best/")}
        self._bucket.each(lambda name: self._bucket.download(name, self.folder / name), self._there)
        self._kept = {name: _stat(self.folder / name) for name in self._there}

    def keep(self, name: str) -> None:
        """Upload what has changed in a folder, its manifest last; then delete what is not in it any more."""
        files = [path for path in (self.folder / name).rglob("*") if path.is_file() and path.suffix != ".tmp"]
        for path in sorted(files, key=lambda path: (path.name == MANIFEST, path)):
            self._upload(path)
        here = {path.relative_to(self.folder).as_posix() for path in files}
        gone = {known for known in self._kept if known.startswith(f"{name}/")} - here
        self._bucket.delete(gone)
        for known in gone:
            del self._kept[known]

    def keep_rest(self) -> None:
        """Upload what has changed anywhere but in the checkpoints, which have their own time."""
        for path in sorted(self.folder.rglob("*")):
            parts = path.relative_to(self.folder).parts
            if path.is_file() and path.suffix != ".tmp" and parts[0] != "last":
                self._upload(path)

    def fetch(self, address: str | None) -> str | None:
        """Bring a file or folder of the sweep from the bucket."""
        if address is None or not is_bucket(address):
            return address
        return str(fetch(address, self._inputs))

    def _upload(self, path: Path) -> None:
        name, stat = path.relative_to(self.folder).as_posix(), _stat(path)
        if self._kept.get(name) != stat:
            self._bucket.upload(path, name)
            self._kept[name] = stat


@contextmanager
def open_workspace(folder: str) -> Iterator[Workspace]:
    """Give a trial its folder on this node.

    Args:
        folder: a folder that all nodes see, or a bucket's address.

    Raises:
        StorageError: the store refuses, or does not answer.
    """
    if not is_bucket(folder):
        yield Workspace(Path(folder))
        return
    place = cache_root() / "scratch"
    place.mkdir(parents=True, exist_ok=True)
    _delete_dead(place)
    scratch = place / uuid.uuid4().hex[:12]
    lock = FileLock(scratch.with_suffix(".lock"))
    try:
        with lock:
            scratch.mkdir()
            workspace = BucketWorkspace(folder, scratch)
            try:
                yield workspace
            finally:
                is_failing = isinstance(sys.exc_info()[1], Exception)
                with suppress(*([StorageError] if is_failing else [])):
                    workspace.keep_rest()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)


def fetch(address: str, folder: Path) -> Path:
    """Bring the objects at ``address``, one or many, to ``folder`` and return their place there."""
    parent, _, name = address.rstrip("/").rpartition("/")
    bucket = Bucket(address)
    names = bucket.entries()
    if names:
        bucket.each(lambda each: bucket.download(each, folder / name / each), names)
    else:
        with suppress(FileNotFoundError):  # whoever needs it says so
            Bucket(parent).download(name, folder / name)
    return folder / name


def _delete_dead(place: Path) -> None:
    for path in place.glob("*.lock"):
        with suppress(Timeout, OSError), FileLock(path, timeout=0):
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            os.unlink(path)


def _stat(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
