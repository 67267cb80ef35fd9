"""One driver at a time on a sweep in a bucket: the counterpart of the lock file of a folder.

Each driver writes a claim of its own and then looks at all claims. Whoever sees another living one withdraws; since a
claim is seen by all as soon as it is written, of two drivers at most one goes on, without any conditional write.
A claim is rewritten every few seconds. One that has not been for ``lease_s`` is dead: its driver, should it only have
slept, finds out before it writes anything more. Ages are differences of the store's own times: clocks of machines do
not matter. Each driver has a higher generation than all before it, and what it writes is named by it (segments.py).
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segbench.core.errors import StateError, StorageError
from segbench.storage.bucket import Bucket

LEASE_S = 30.0
CLAIMS = "state/lease"


@dataclass(frozen=True)
class Claim:
    """A driver's word that it runs the sweep."""

    name: str
    generation: int
    host: str
    pid: int
    machine: str
    """Where ``pid`` means something."""
    modified_s: float

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to be gone: it was one of this machine."""
        if self.machine != machine_id():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


class Lease:
    """Held by the driver of the sweep in ``bucket``; a context manager.

    Args:
        bucket: the sweep's folder.
        last_generation: of what earlier drivers left.
        lease_s: a claim that is older is dead.
        tell: hears why it takes long.

    Raises:
        StateError: another driver runs the sweep.
        StorageError: the store refuses, or does not answer.
    """

    def __init__(
        self, bucket: Bucket, last_generation: int = 0, lease_s: float = LEASE_S, tell: Callable[[str], None] = print
    ) -> None:
        self.generation = last_generation + 1
        self._bucket = bucket
        self._lease_s = lease_s
        self._tell = tell
        self._name = ""
        self._lost: str | None = None
        self._renewed = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="segbench-lease", daemon=True)

    def __enter__(self) -> "Lease":
        while (rival := self._try()) is not None:
            self._watch(rival)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(StorageError):  # it dies of age
            self._bucket.delete([self._name])

    def check(self) -> None:
        """Return if this driver may write; asks the store only when the last sign of life is long ago.

        Raises:
            StorageError: another driver has taken over.
        """
        if time.monotonic() - self._renewed > self._lease_s / 2:
            self._renew()
        if self._lost is not None:
            raise StorageError(self._lost)

    @property
    def is_lost(self) -> bool:
        """Whether another driver has taken over."""
        return self._lost is not None

    def _try(self) -> Claim | None:
        """Claim the sweep; return a claim that stands in the way."""
        generation = max([self.generation - 1, *(claim.generation for claim in read_claims(self._bucket))]) + 1
        self._name = f"{CLAIMS}/{generation:05d}-{uuid.uuid4().hex[:12]}.json"
        started = time.monotonic()
        self._write()
        claims = {claim.name: claim for claim in read_claims(self._bucket)}
        own = claims.pop(self._name, None)
        if own is None:
            raise StorageError(
                f"{self._bucket.uri}: what was just written is not listed; a sweep needs a store that does"
            )
        alive = [claim for claim in claims.values() if not self._is_over(claim, own.modified_s)]
        if alive:
            self._bucket.delete([self._name])
            return alive[0]
        self._bucket.delete(claims)
        self.generation, self._renewed = generation, started
        return None

    def _is_over(self, claim: Claim, now_s: float) -> bool:
        return claim.is_dead or now_s - claim.modified_s > self._lease_s

    def _watch(self, rival: Claim) -> None:
        """Wait until a claim has died of age; raise StateError as soon as it shows life."""
        self._tell(f"{self._bucket.uri}: {rival.host} ran this sweep a moment ago; waiting for a sign of life of it")
        deadline = time.monotonic() + self._lease_s
        while time.monotonic() < deadline:
            time.sleep(self._lease_s / 30 * (1 + uuid.uuid4().int % 100 / 100))  # two at once must not stay in step
            now = {claim.name: claim for claim in read_claims(self._bucket)}.get(rival.name)
            if now is None:
                return
            if now.modified_s > rival.modified_s:
                raise StateError(
                    f"{self._bucket.uri} is in use: process {rival.pid} on {rival.host} runs this sweep; wait for it, "
                    "or choose another --out"
                )

    def _beat(self) -> None:
        while not self._stop.wait(self._lease_s / 6):
            with suppress(StorageError):  # asked again soon; whoever wants to write hears of it
                self._renew()
            if self._lost is not None:
                return

    def _renew(self) -> None:
        with self._lock:
            started = time.monotonic()
            claims = {claim.name: claim for claim in read_claims(self._bucket)}
            newer = [claim for claim in claims.values() if claim.generation > self.generation]
            if newer or self._name not in claims:
                other = f" by process {newer[0].pid} on {newer[0].host}" if newer else ""
                self._lost = (
                    f"{self._bucket.uri}: this process gave no sign of life for {self._lease_s:g} s, and the sweep was "
                    f"taken over{other}; nothing is lost, and this process ends"
                )
                return
            self._write()
            self._renewed = started

    def _write(self) -> None:
        content = {"host": socket.gethostname(), "pid": os.getpid(), "machine": machine_id(), "at": time.time()}
        self._bucket.write(self._name, (json.dumps(content) + "\n").encode())


def read_claims(bucket: Bucket) -> list[Claim]:
    """Return all claims, by generation."""
    claims = []
    for name, entry in bucket.entries(CLAIMS).items():
        with suppress(FileNotFoundError):  # withdrawn meanwhile
            content = json.loads(bucket.read(name))
            generation = int(Path(name).name.partition("-")[0])
            claims.append(
                Claim(name, generation, content["host"], content["pid"], content["machine"], entry.modified_s)
            )
    return claims


def is_running(bucket: Bucket, lease_s: float = LEASE_S) -> bool:
    """Whether a driver runs the sweep; by this machine's clock, so only to be shown."""
    return any(not claim.is_dead and time.time() - claim.modified_s < 2 * lease_s for claim in read_claims(bucket))


def machine_id() -> str:
    """Return what tells this machine's processes from all others': its start, and the namespace of its processes."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text().strip())
    return " ".join(parts)
