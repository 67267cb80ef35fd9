"""A ledger in a bucket, where nothing can be appended: numbered objects of whole lines.

    state/search/00002-00000001-00000417.jsonl     generation 2 begins: all lines that there were
    state/search/00002-00000418-00000418.jsonl     then an object per event, durable before it is acted upon
    state/search/00002-00000418-00000617.jsonl     200 of them again as one object; the single ones are deleted

An event costs one small object however long the sweep is. A crash at any instant leaves objects that overlap or are of
an older generation, never a gap: :func:`select` says which ones count. What a driver that was given up writes later
carries an older generation, and does not count.
"""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from segbench.core.errors import StateError, StorageError
from segbench.storage.bucket import Bucket

GROUP = 200
"""So many lines become one object while the sweep runs."""


@dataclass(frozen=True, order=True)
class Segment:
    """Lines ``first`` to ``last`` (from 1) as one object."""

    generation: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """Of the object."""
        return f"{self.generation:05d}-{self.first:08d}-{self.last:08d}.jsonl"


def list_segments(bucket: Bucket, stage: str) -> list[Segment]:
    """Return the objects of a stage."""
    names = (re.fullmatch(r".*/(\d+)-(\d+)-(\d+)\.jsonl", name) for name in bucket.entries(f"state/{stage}"))
    return [Segment(*map(int, match.groups())) for match in names if match]


def select(segments: Iterable[Segment]) -> list[Segment]:
    """Return the objects that together are the ledger: of the newest generation, each line once.

    Raises:
        StateError: a line is missing.
    """
    found = list(segments)
    newest = max((segment.generation for segment in found), default=0)
    own = [segment for segment in found if segment.generation == newest]
    end = max((segment.last for segment in own), default=0)
    chosen: list[Segment] = []
    line = 1
    while line <= end:
        fitting = [segment for segment in own if segment.first == line]
        if not fitting:
            raise StateError(
                f"line {line} of a ledger in the bucket is missing (generation {newest}); bring the object back, or "
                "delete the sweep's prefix and start again"
            )
        chosen.append(max(fitting))
        line = chosen[-1].last + 1
    return chosen


def read_lines(bucket: Bucket, stage: str) -> bytes:
    """Return a stage's whole ledger; also while a driver writes it."""
    while True:
        chosen = select(list_segments(bucket, stage))
        parts: dict[str, bytes] = {}

        def get(name: str, parts: dict[str, bytes] = parts, stage: str = stage) -> None:
            parts[name] = bucket.read(f"state/{stage}/{name}")

        try:
            bucket.each(get, [segment.name for segment in chosen])
        except FileNotFoundError:  # it has become part of a larger one meanwhile
            continue
        return b"".join(parts[segment.name] for segment in chosen)


def join(bucket: Bucket, stage: str, generation: int) -> bytes:
    """Make a stage's ledger one object of ``generation``, the only one that counts from now on, and return it."""
    content = read_lines(bucket, stage)
    old = list_segments(bucket, stage)
    whole = Segment(generation, 1, content.count(b"\n"))
    if content and whole not in old:
        bucket.write(f"state/{stage}/{whole.name}", content)
    bucket.delete(f"state/{stage}/{segment.name}" for segment in old if segment != whole)
    return content


class Publisher:
    """Writes the lines of one ledger; called with each line before it is acted upon.

    Args:
        bucket: the sweep's folder.
        stage: whose ledger.
        generation: of this driver.
        num_lines: that are there already, as one object if any.
        check: raises when this driver may not write any more.
    """

    def __init__(self, bucket: Bucket, stage: str, generation: int, num_lines: int, check: Callable[[], None]) -> None:
        self._bucket = bucket
        self._stage = stage
        self._generation = generation
        self._last = num_lines
        self._check = check
        self._group: list[str] = []
        self._pool = ThreadPoolExecutor(1)

    def __call__(self, line: str) -> None:
        """Make a line durable.

        Raises:
            StorageError: it is not; the sweep has to stop.
        """
        self._check()
        number = self._last + 1
        self._write(number, number, [line])
        self._last = number
        self._group.append(line)
        if len(self._group) >= GROUP:
            self._pool.submit(self._join, number, self._group)
            self._group = []

    def close(self) -> None:
        """Wait for objects that are being joined."""
        self._pool.shutdown()

    def _join(self, last: int, lines: list[str]) -> None:
        """Write lines that stand in single objects as one object, then delete those."""
        first = last - len(lines) + 1
        with suppress(StorageError):  # the single ones remain
            self._write(first, last, lines)
            self._bucket.delete(self._path(number, number) for number in range(first, last + 1))

    def _write(self, first: int, last: int, lines: list[str]) -> None:
        self._bucket.write(self._path(first, last), "".join(lines).encode())

    def _path(self, first: int, last: int) -> str:
        return f"state/{self._stage}/{Segment(self._generation, first, last).name}"
