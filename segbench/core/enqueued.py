"""Trials that a person asks for while a sweep runs, or after: lines of a file in its folder, each used once.

Whoever asks appends a line, and the sweep reads the file before each proposal; neither waits for the other. A trial
carries the id of its line from its first event in the ledger on, so a line is used exactly once, whatever is killed.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.core.errors import DiskFullError
from segbench.core.records import Params


@dataclass(frozen=True)
class Enqueued:
    """One trial that was asked for."""

    id: str
    params: Params
    """By dotted name: a value for every parameter that is active."""


Wishes = Callable[[], Sequence[Enqueued]]
"""Returns what was asked for until now, in order."""


def enqueue_params(path: Path, params: Params) -> Enqueued:
    """Append a trial; it is on disk when this returns."""
    entry = Enqueued(uuid.uuid4().hex[:12], dict(params))
    line = json.dumps({"id": entry.id, "params": entry.params, "at": round(time.time(), 3)}) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        # One call appends all of it, whoever else appends. The line before may be torn by a kill: this one begins anew.
        content = b"\n" + line.encode()
        if os.write(handle, content) < len(content):
            raise DiskFullError(f"{path}: no space left; free some, then enqueue the trial again")
        os.fsync(handle)
    finally:
        os.close(handle)
    return entry


def read_enqueued(path: Path) -> list[Enqueued]:
    """Return what was asked for, in order; a torn line, which nobody was told of, is left out."""
    if not path.exists():
        return []
    entries: list[Enqueued] = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            event = json.loads(line)
            entries.append(Enqueued(event["id"], event["params"]))
        except ValueError:
            continue
    return entries
