"""The driver's working copy of a sweep in a bucket: made from the bucket at the start, and given to it as it grows.

Everything that reads a sweep's folder reads the copy and knows of no bucket. The copy is a cache: deleted, or on
another machine, it is made again. What is durable before it is acted upon are the ledgers (segments.py); tables, models
and the report follow within seconds, and at the end.
"""

import json
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from segbench.core.errors import SegbenchError, StorageError, UserError
from segbench.core.ledger import read_ledger
from segbench.core.paths import STAGES, Stage, SweepPaths, atomic_write
from segbench.core.records import TrialRecord
from segbench.storage.bucket import Bucket, Entry
from segbench.storage.lease import CLAIMS, LEASE_S, Lease
from segbench.storage.segments import Publisher, join, list_segments, read_lines

_log = logging.getLogger(__name__)
_START_PATIENCE_S = 5.0
"""A mistake in the address should be told soon."""
_TOP = (".yaml", ".jsonl", ".csv", ".md", ".parquet", ".html")
"""Files of the folder itself that are results; databases and journals are views of the ledgers."""


class Mirror:
    """The working copy while a sweep runs; a context manager, and one of the sweep's observers.

    Args:
        paths: the copy and its bucket.
        warn: hears once that results cannot be given to the bucket now, and what takes long.
        interval_s: pause between two looks at what has changed.
        lease_s: a driver that shows no life for so long has lost the sweep.
    """

    def __init__(
        self,
        paths: SweepPaths,
        warn: Callable[[str], None] = _log.warning,
        interval_s: float = 15.0,
        lease_s: float = LEASE_S,
    ) -> None:
        assert paths.uri is not None
        self._paths = paths
        self._uri = paths.uri
        self._warn = warn
        self._interval_s = interval_s
        self._lease_s = lease_s
        self._ended: queue.Queue[str | None] = queue.Queue()
        self._publishers: dict[Stage, Publisher] = {}
        self._stack = ExitStack()
        self._thread = threading.Thread(target=self._run, name="segbench-mirror", daemon=True)
        self._warned = False

    def __enter__(self) -> "Mirror":
        try:
            bucket = Bucket(self._uri, _START_PATIENCE_S)
            last = max((each.generation for stage in STAGES for each in list_segments(bucket, stage)), default=0)
            self._lease = self._stack.enter_context(Lease(bucket, last, self._lease_s, self._warn))
            self._copy = Copy(Bucket(self._uri), self._paths.root)
            self._begin()
        except StorageError as error:
            self._stack.close()
            raise UserError(f"storage: {error}") from error
        except BaseException:
            self._stack.close()
            raise
        self._thread.start()
        return self

    def _begin(self) -> None:
        self._copy.pull()
        for stage in STAGES:
            content = join(self._copy.bucket, stage, self._lease.generation)
            atomic_write(self._paths.ledger(stage), content.decode())
            self._publishers[stage] = Publisher(
                self._copy.bucket, stage, self._lease.generation, content.count(b"\n"), self._lease.check
            )
        if not self._paths.sweep_id.exists():  # MLflow's runs are found by it: never a second one
            atomic_write(self._paths.sweep_id, uuid.uuid4().hex + "\n")
        self._drop_stale()
        self.push()

    def _drop_stale(self) -> None:
        """Delete checkpoints of trials that had ended when the last driver was killed."""
        for stage in STAGES:
            ended = {r.assignment.name for r in read_ledger(self._paths.ledger(stage)) if r.state.is_finished}
            there = (name for name in self._copy.bucket.entries(f"trials/{stage}") if name.split("/")[3] == "last")
            self._copy.bucket.delete([name for name in there if name.split("/")[2] in ended])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.put(None)
        self._thread.join()
        try:
            if not self._lease.is_lost:
                if kind is not None:
                    self._copy.bucket.patience_s = _START_PATIENCE_S
                self._finish()
        except StorageError as problem:
            if kind is None:
                raise
            self._warn(f"results are not all in the bucket ({problem}); the same command completes them")
        finally:
            self._stack.close()

    def publisher(self, stage: Stage) -> Publisher:
        """Return what makes a line of a stage's ledger durable."""
        return self._publishers[stage]

    def on_stage(self, stage: str, num_trials: int, max_epochs: int) -> None:
        """Nothing: each trial says which stage it belongs to."""

    def on_trial(self, record: TrialRecord, stage: str) -> None:
        """Bring the results of a trial that has ended, and delete its checkpoint."""
        if record.state.is_finished:
            self._ended.put(f"trials/{stage}/{record.assignment.name}")

    def fetch(self) -> None:
        """Bring what workers have left in the bucket; what cannot be had now is told."""
        try:
            self._copy.pull("trials")
        except StorageError as error:
            self._warn(f"results of trials could not be fetched ({error}); the same command completes them")

    def push(self) -> None:
        """Give the bucket what has changed in the copy."""
        self._lease.check()
        self._copy.push()

    def _finish(self) -> None:
        self.push()
        for stage, publisher in self._publishers.items():
            publisher.close()
            join(self._copy.bucket, stage, self._lease.generation)
        done = (folder for folder in self._drain() if folder is not None)
        for folder in done:
            self._copy.drop_checkpoint(folder)

    def _drain(self) -> Iterator[str | None]:
        while not self._ended.empty():
            yield self._ended.get()

    def _run(self) -> None:
        pushed = time.monotonic()
        while True:
            wait_s = max(0.1, pushed + self._interval_s - time.monotonic())
            folder: str | None = ""
            try:
                folder = self._ended.get(timeout=wait_s)
                if folder is None:
                    return
                self._copy.pull(folder)
                self._copy.drop_checkpoint(folder)
            except queue.Empty:
                pass
            except SegbenchError as error:
                self._ended.put(folder)
                self._complain(error)
            if time.monotonic() >= pushed + self._interval_s:
                pushed = time.monotonic()
                try:
                    self.push()
                except SegbenchError as error:
                    self._complain(error)

    def _complain(self, error: SegbenchError) -> None:
        if not self._warned:
            self._warn(f"{error}; trying again")
        self._warned = True


@dataclass
class Copy:
    """Files of a bucket and of a folder that are the same, except for what only one of them needs."""

    bucket: Bucket
    root: Path
    _known: dict[str, tuple[Entry, tuple[int, int]]] = field(default_factory=dict)
    """Objects whose content a file has: the object's and the file's size and time."""

    def __post_init__(self) -> None:
        if self._index.exists():
            listed = json.loads(self._index.read_text())
            self._known = {name: (Entry(*entry), (stat[0], stat[1])) for name, (entry, stat) in listed.items()}

    def pull(self, prefix: str = "") -> None:
        """Bring what is new in the bucket; no ledgers, no claims, no checkpoints to continue from."""
        found = {name: entry for name, entry in self.bucket.entries(prefix).items() if _is_shared(name)}
        new = [name for name, entry in found.items() if not self._is_same(name, entry)]

        def get(name: str) -> None:
            self.bucket.download(name, self.root / name)
            self._known[name] = (found[name], _stat(self.root / name))

        with suppress(FileNotFoundError):  # deleted meanwhile; the next time
            self.bucket.each(get, new)
        if new:
            self._remember()

    def push(self) -> None:
        """Give the bucket what is new in the folder; trials are not the driver's."""
        new = [name for name in self._own_files() if not self._is_pushed(name)]

        def put(name: str) -> None:
            stat = _stat(self.root / name)
            self.bucket.upload(self.root / name, name)
            entry = self.bucket.entry(name)
            if entry is not None:
                self._known[name] = (entry, stat)

        self.bucket.each(put, new)
        if new:
            self._remember()

    def drop_checkpoint(self, folder: str) -> None:
        """Delete the checkpoint of a trial that has ended."""
        self.bucket.delete(self.bucket.entries(f"{folder}/last"))

    @property
    def _index(self) -> Path:
        return self.root / "state" / ".mirror.json"

    def _remember(self) -> None:
        listed = {name: ((entry.size, entry.modified_s), stat) for name, (entry, stat) in sorted(self._known.items())}
        atomic_write(self._index, json.dumps(listed) + "\n")

    def _is_same(self, name: str, entry: Entry) -> bool:
        known = self._known.get(name)
        return known is not None and known[0] == entry and (self.root / name).is_file()

    def _is_pushed(self, name: str) -> bool:
        known = self._known.get(name)
        return known is not None and known[1] == _stat(self.root / name)

    def _own_files(self) -> Iterator[str]:
        files = [path for path in self.root.glob("*") if path.suffix in _TOP]
        files += [path for path in (self.root / "state").glob("*.json") if not path.name.startswith(".")]
        files += [SweepPaths(self.root).sweep_id, *(self.root / "models").rglob("*")]
        has_own_mlflow = (self.root / "mlflow.db").exists()  # its memory is of no use without it
        for path in files:
            name = path.relative_to(self.root).as_posix()
            is_temporary = path.name.startswith(".") or path.suffix == ".tmp"
            if path.is_file() and not is_temporary and not (has_own_mlflow and name == "state/mlflow.json"):
                yield name


def fetch_sweep(paths: SweepPaths, with_results: bool = True) -> None:
    """Bring a sweep in a bucket to this machine, as it is now, for those who only read.

    Args:
        paths: the sweep, with a folder that no driver uses.
        with_results: tables, models and pictures too; else the sweep file, which data it has, and the ledgers.

    Raises:
        UserError: the store refuses, or does not answer.
    """
    assert paths.uri is not None
    try:
        bucket = Bucket(paths.uri, _START_PATIENCE_S)
        copy = Copy(bucket, paths.root)
        for prefix in ("",) if with_results else (paths.spec.name, paths.data.relative_to(paths.root).as_posix()):
            copy.pull(prefix)
        for stage in STAGES:
            content = read_lines(bucket, stage)
            if content:
                atomic_write(paths.ledger(stage), content.decode())
    except StorageError as error:
        raise UserError(str(error)) from error


def _is_shared(name: str) -> bool:
    parts = name.split("/")
    is_ledger = parts[0] == "state" and len(parts) > 2
    is_checkpoint = parts[0] == "trials" and len(parts) > 3 and parts[3] == "last"
    return not (is_ledger or is_checkpoint or name.startswith(CLAIMS) or parts[-1].startswith("."))


def _stat(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
