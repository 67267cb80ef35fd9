"""Packed sets that all nodes of a cluster share: put in a bucket once, fetched once by each node.

    <place>/<key>.arrow     a packed file; its key is a hash of what it depends on, its digest proves its content
    <place>/<name>.json     which key the settings of a sweep file stand for, for those who do not have the raw files

The index is written after the file that it names, and is the only object that is ever replaced.
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from segbench.core.address import is_bucket
from segbench.core.errors import DataError
from segbench.core.paths import atomic_path
from segbench.data.packed import SUFFIX, PackedSet, check_space, map_packed, open_made, packed_path
from segbench.storage.bucket import Bucket

_ASK_S = 5.0
"""Whether a set is there should be known soon, or why not."""


@dataclass(frozen=True)
class Card:
    """What the index says of a packed set."""

    key: str
    digest: str
    size_bytes: int
    num_images: dict[str, int]


class Shelf:
    """Packed sets at an address.

    Args:
        place: a bucket's address, or a folder that all nodes see.

    Every method raises :class:`StorageError` when the store refuses or does not answer.
    """

    def __init__(self, place: str) -> None:
        self.uri = place.rstrip("/") if is_bucket(place) else f"file://{Path(place).expanduser().absolute()}"

    @cached_property
    def _asked(self) -> Bucket:
        return Bucket(self.uri, _ASK_S)

    @cached_property
    def _bucket(self) -> Bucket:
        return Bucket(self.uri)

    def address(self, key: str) -> str:
        """Return the address of one set, by which :func:`at` finds it without the index."""
        return f"{self.uri}/{key}{SUFFIX}"

    def has(self, key: str) -> bool:
        """Whether a set is there."""
        return self._asked.entry(key + SUFFIX) is not None

    def find(self, name: str) -> Card | None:
        """Return what the index says of the set ``name``; None if nothing, or if its file is not there, whole."""
        try:
            card = Card(**json.loads(self._asked.read(f"{name}.json")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise DataError(f"{self.uri}/{name}.json: damaged ({error}); delete it and pack again") from error
        entry = self._asked.entry(card.key + SUFFIX)
        return card if entry is not None and entry.size == card.size_bytes else None

    def put(self, name: str, key: str, packed: PackedSet, folder: Path) -> bool:
        """Put the packed set in ``folder`` here under its key, then its name; return whether it was uploaded."""
        path = packed_path(key, folder)
        size_bytes = path.stat().st_size
        num_images = {str(split): len(names) for split, names in packed.names.items()}
        card = Card(key, packed.digest, size_bytes, num_images)
        entry = self._asked.entry(key + SUFFIX)
        is_there = entry is not None and entry.size == size_bytes
        if not is_there:
            with _bar(f"uploading {key}", size_bytes) as bar:
                self._bucket.upload(path, key + SUFFIX, bar.update)
        if self.find(name) != card:
            self._bucket.write(f"{name}.json", (json.dumps(asdict(card)) + "\n").encode())
        return not is_there

    def fetch(self, key: str, folder: Path) -> PackedSet:
        """Map a set's copy on this node; bring it to ``folder`` first where it is not there.

        Of several processes of a node that ask at once, one fetches and the others wait. What comes has its digest
        recomputed before it gets its name.

        Raises:
            DataError: there is no such set, it is damaged, or ``folder`` cannot be written or is too full.
        """
        return open_made(key, folder, lambda path: self._bring(key, path))

    def _bring(self, key: str, path: Path) -> None:
        entry = self._bucket.entry(key + SUFFIX)
        if entry is None:
            raise DataError(f"{self.address(key)}: there is no such packed set; {advice(self.uri)}")
        check_space(entry.size, path.parent, "fetching")
        with atomic_path(path) as temporary:
            with _bar(f"fetching {key}", entry.size) as bar:
                self._bucket.download_parts(key + SUFFIX, temporary, bar.update)
            packed = map_packed(temporary, key)
            if packed is None or not packed.is_whole():
                raise DataError(
                    f"{self.address(key)}: damaged (its content does not fit its checksum); delete it, then "
                    f"{advice(self.uri)}"
                )


def at(address: str) -> tuple[Shelf, str] | None:
    """Return shelf and key of the address of one packed set; None for one of a place with many."""
    place, _, name = address.rstrip("/").rpartition("/")
    return (Shelf(place), name.removesuffix(SUFFIX)) if name.endswith(SUFFIX) else None


def advice(place: str) -> str:
    """Return how to put a set there."""
    return f"where the pictures are, run: segbench data pack FILE --to {place}"


def _bar(title: str, size_bytes: int) -> "tqdm[None]":
    # disable=None: a bar on a terminal, silence in logs
    return tqdm(total=size_bytes, desc=title, unit="B", unit_scale=True, disable=None)
