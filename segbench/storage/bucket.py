"""A folder in an object store: whole objects are put, got, listed and deleted; nothing else is asked of a store.

The only use of pyarrow.fs. An object is there completely or not at all, and is seen by all as soon as it is there (S3,
GCS, Azure and MinIO promise both); on other file systems it is written beside and renamed.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from segbench.core.errors import StorageError
from segbench.core.paths import atomic_path, is_disk_full

T = TypeVar("T")
Item = TypeVar("Item")

PATIENCE_S = 180.0
"""A store that does not answer is asked again for so long."""
THREADS = 16
_BLOCK = 8 << 20
_STORES = ("s3", "gcs", "abfs")
"""File systems of pyarrow without folders, whose objects appear in one step."""


@dataclass(frozen=True)
class Entry:
    """An object."""

    size: int
    modified_s: float
    """Unix time, by the store's clock."""


class Bucket:
    """The objects below an address.

    Args:
        uri: ``s3://bucket/prefix``; credentials come from the environment or an instance profile.
        patience_s: how long to try again before an error is raised.

    Every method raises :class:`StorageError` when the store refuses or does not answer.
    """

    def __init__(self, uri: str, patience_s: float = PATIENCE_S) -> None:
        self.uri = uri.rstrip("/")
        self.patience_s = patience_s
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        self._fs, self._root = self._insist(lambda: _open(self.uri, endpoint))

    def write(self, name: str, content: bytes) -> None:
        """Put an object in place of what was there."""
        self._insist(lambda: self._put(name, lambda sink: sink.write(content)))

    def upload(self, file: Path, name: str, tell: Callable[[int], object] = lambda count: None) -> None:
        """Put a file's content in place of what was there; ``tell`` hears of every block how many bytes it has."""

        def copy(sink: Any) -> None:
            with file.open("rb") as source:
                while block := source.read(_BLOCK):
                    sink.write(block)
                    tell(len(block))

        self._insist(lambda: self._put(name, copy))

    def read(self, name: str) -> bytes:
        """Return an object's content; raises FileNotFoundError when there is none."""

        def get() -> bytes:
            with self._fs.open_input_stream(self._path(name)) as source:
                return bytes(source.read())

        return self._insist(get)

    def download(self, name: str, file: Path) -> None:
        """Write an object's content to ``file`` completely or not at all; raises FileNotFoundError."""

        def get() -> None:
            with (
                self._fs.open_input_stream(self._path(name)) as source,
                atomic_path(file) as temporary,
                temporary.open("wb") as sink,
            ):
                shutil.copyfileobj(source, sink, _BLOCK)

        self._insist(get)

    def download_parts(self, name: str, file: Path, tell: Callable[[int], object]) -> None:
        """Write a large object's content over ``file``, several parts at a time; raises FileNotFoundError.

        ``tell`` hears of every part how many bytes it has. When an error is raised, ``file`` is in pieces.
        """
        source = self._insist(lambda: self._fs.open_input_file(self._path(name)))
        with source, file.open("wb") as sink:
            size = source.size()
            sink.truncate(size)

            def get(start: int) -> None:
                part = self._insist(lambda: _read_part(source, start, min(_BLOCK, size - start)))
                os.pwrite(sink.fileno(), part, start)
                tell(len(part))

            self.each(get, range(0, size, _BLOCK))

    def entries(self, prefix: str = "") -> dict[str, Entry]:
        """Return all objects below ``prefix`` by name, sorted."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._path(prefix), recursive=True, allow_not_found=True)
        found = self._insist(lambda: self._fs.get_file_info(selector))
        files = {info.path: info for info in found if info.type == FileType.File}
        start = len(self._root) + 1
        return {
            path[start:]: Entry(info.size, info.mtime_ns / 1e9)
            for path, info in sorted(files.items())
            if not path.endswith(".tmp")
        }

    def entry(self, name: str) -> Entry | None:
        """Return one object's size and time; None if there is none."""
        from pyarrow.fs import FileType

        info = self._insist(lambda: self._fs.get_file_info(self._path(name)))
        return Entry(info.size, info.mtime_ns / 1e9) if info.type == FileType.File else None

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""

        def remove(name: str) -> None:
            try:
                self._fs.delete_file(self._path(name))
            except FileNotFoundError:
                return

        self.each(lambda name: self._insist(lambda: remove(name)), names)

    def each(self, action: Callable[[Item], object], items: Iterable[Item]) -> None:
        """Call ``action`` for every name or other item, several at a time."""
        listed = list(items)
        if len(listed) < 2:
            for item in listed:
                action(item)
            return
        with ThreadPoolExecutor(min(THREADS, len(listed))) as pool:
            list(pool.map(action, listed))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _put(self, name: str, fill: Callable[[Any], object]) -> None:
        path = self._path(name)
        if self._fs.type_name in _STORES:
            with self._fs.open_output_stream(path) as sink:
                fill(sink)
            return
        self._fs.create_dir(path.rpartition("/")[0], recursive=True)
        with self._fs.open_output_stream(f"{path}.tmp") as sink:
            fill(sink)
        self._fs.move(f"{path}.tmp", path)

    def _insist(self, action: Callable[[], T]) -> T:
        deadline, pause_s = time.monotonic() + self.patience_s, 0.5
        while True:
            try:
                return action()
            except FileNotFoundError:
                raise
            except OSError as error:
                if is_disk_full(error):  # this machine's
                    raise
                if time.monotonic() + pause_s > deadline or any(code in str(error) for code in _FINAL):
                    raise StorageError(f"{self.uri}: {explain(error)}") from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 15.0)


def _read_part(source: Any, start: int, count: int) -> bytes:
    part = bytes(source.read_at(count, start))
    if len(part) != count:
        raise OSError(f"the store gave {len(part)} of {count} bytes from {start}")
    return part


_REASONS: Mapping[str, str] = {
    "NO_SUCH_BUCKET": "there is no such bucket; make it, or name another in storage",
    "NETWORK_CONNECTION": "the store cannot be reached{at}; check the network and AWS_ENDPOINT_URL",
    "ACCESS_DENIED": "permission denied; allow this machine to list, get, put and delete objects there",
    "INVALID_ACCESS_KEY_ID": "the store does not know these credentials; check the environment or instance profile",
    "SIGNATURE_DOES_NOT_MATCH": "the store refuses these credentials; check the environment or instance profile",
    "NO_RESPONSE": "the store does not answer{at}; check the network and AWS_ENDPOINT_URL",
}
_FINAL = ("NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")
"""What no waiting mends."""


def explain(error: OSError) -> str:
    """Return in one sentence what a store's error means and what to do."""
    text = str(error)
    code = re.search(r"AWS Error (\w+)", text)
    name = code[1] if code else "ACCESS_DENIED" if isinstance(error, PermissionError) else ""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    at = f" at {urlsplit(endpoint).netloc.rpartition('@')[2]}" if endpoint else ""
    if "HTTP status 403" in text or "HTTP response code: 403" in text:
        name = "ACCESS_DENIED"
    if name in _REASONS:
        return _REASONS[name].format(at=at)
    return " ".join(re.sub(r"\(Request ID: [^)]*\)", "", text).split())[:300]


@lru_cache
def _open(uri: str, endpoint: str) -> tuple[Any, str]:
    """Return pyarrow's file system for an address, and the path in it."""
    import pyarrow
    from pyarrow import fs

    scheme, _, path = uri.partition("://")
    if scheme == "file":
        return fs.LocalFileSystem(), path
    if scheme != "s3":
        try:
            found: tuple[Any, str] = fs.FileSystem.from_uri(uri)
        except (ValueError, ImportError, NotImplementedError) as error:
            raise StorageError(f"{uri}: pyarrow {pyarrow.__version__} cannot open it ({error})") from error
        return found
    options: dict[str, Any] = {"allow_delayed_open": True, "connect_timeout": 5}  # one request for a small object
    if endpoint:
        address = urlsplit(endpoint)
        options |= {"endpoint_override": address.netloc, "scheme": address.scheme}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options["region"] = region or ("us-east-1" if endpoint else fs.resolve_s3_region(path.split("/")[0]))
    return fs.S3FileSystem(**options), path
