"""What can go wrong with a trial, and what is done about it: docs/faults.md is this module in prose.

Classification and response are pure functions; executors only report what happened.
"""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segbench.core.errors import DiskFullError, NonFiniteError, TrialError
from segbench.core.paths import is_disk_full
from segbench.core.records import Cause, Failure, TrialRecord

MAX_DEATHS_WITHOUT_PROGRESS = 3
"""A dead worker is not the configuration's fault, unless it always dies at the same place."""


@dataclass(frozen=True)
class Retry:
    """Continue the trial from its last checkpoint, with these settings changed."""

    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GiveUp:
    """The trial is FAIL."""

    reason: str


@dataclass(frozen=True)
class StopSweep:
    """No trial can go on: stop, resumable."""

    message: str


def classify(error: BaseException) -> Failure:
    """Return the failure that an exception of a training function means.

    torch is not imported: its out-of-memory errors are known by name and text.
    """
    details = "".join(traceback.format_exception(error))
    line = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    if isinstance(error, NonFiniteError):
        return Failure(Cause.NON_FINITE, str(error), details)
    if is_disk_full(error) or isinstance(error, DiskFullError):
        return Failure(Cause.DISK, line, details)
    if _is_out_of_memory(error):
        return Failure(Cause.MEMORY, line, details)
    if isinstance(error, TrialError):
        return Failure(Cause.ERROR, str(error), details)
    return Failure(Cause.ERROR, f"error: {line}", details)


def respond(record: TrialRecord, failure: Failure, max_failures: int) -> Retry | GiveUp | StopSweep:
    """Return what to do about a trial's failure.

    Args:
        record: the trial as it was before.
        failure: what happened.
        max_failures: how often a trial that raised or hung is tried again.
    """
    match failure.cause:
        case Cause.NON_FINITE:
            return GiveUp(failure.message)
        case Cause.DISK:
            return StopSweep(
                f"{record.assignment.name} could not write its checkpoint ({failure.message}); "
                "free some space or mend the storage, then the same command continues"
            )
        case Cause.DRAIN:
            return Retry()
        case Cause.MEMORY if "accumulation_steps" in record.assignment.config:
            return _smaller_parts(record.assignment.config)
        case Cause.WORKER:
            deaths = sum(a.cause == Cause.WORKER and a.epoch == record.epochs_done for a in record.attempts)
            if deaths + 1 < MAX_DEATHS_WITHOUT_PROGRESS:
                return Retry()
            return GiveUp(f"{Cause.WORKER}: {failure.message} ({deaths + 1} times after epoch {record.epochs_done})")
        case _:
            counted = sum(attempt.cause in (Cause.ERROR, Cause.HANG, Cause.MEMORY) for attempt in record.attempts)
            return Retry() if counted < max_failures else GiveUp(failure.message)


def _smaller_parts(config: Mapping[str, Any]) -> Retry | GiveUp:
    """Split a batch into more parts: the effective batch, and so the result, stays the same."""
    batch_size, parts = config["batch_size"], config["accumulation_steps"]
    larger = [number for number in range(parts + 1, batch_size + 1) if batch_size % number == 0]
    if not larger:
        return GiveUp(f"oom: even with one image at a time (batch_size={batch_size})")
    at_least_double = [number for number in larger if number >= 2 * parts]
    return Retry({"accumulation_steps": (at_least_double or larger)[0]})


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
