"""The durable state of a stage: one append-only file of JSON lines, the only source of truth.

Every event is on disk before it is acted upon. A line is a few hundred bytes whatever the length of the sweep,
a kill leaves at most one torn line at the end (which is cut off), and a person can read it. Tables, Optuna's
study, the rungs and MLflow are views that are made from it.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from segbench.core.errors import DiskFullError, StateError
from segbench.core.objectives import Objective, Requirement
from segbench.core.paths import STAGES, Stage, SweepPaths, is_disk_full
from segbench.core.records import Assignment, Attempt, Cause, EpochRecord, Goal, TrialRecord, TrialState

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Records:
    """What the ledgers of a sweep say and what it was searched for, bound together once, where they are read."""

    metric: str
    """The searched metric."""
    goal: Goal
    """Direction of improvement."""
    search: Sequence[TrialRecord] = ()
    retrain: Sequence[TrialRecord] = ()
    """Empty when nothing is retrained."""
    test: Sequence[TrialRecord] = ()
    requirements: Sequence[Requirement] = field(default=(), kw_only=True)
    objectives: Sequence[Objective] = field(default=(), kw_only=True)
    """All metrics that were searched for, the one of the scores first; empty where there is no other."""
    """Bounds that a model must keep."""

    def __getitem__(self, stage: Stage) -> Sequence[TrialRecord]:
        """Return the trials of one stage, by number."""
        return {"search": self.search, "retrain": self.retrain, "test": self.test}[stage]

    def __iter__(self) -> Iterator[tuple[Stage, TrialRecord]]:
        """Yield every trial with its stage, stage by stage."""
        return ((stage, record) for stage in STAGES for record in self[stage])


def read_ledger(path: Path) -> list[TrialRecord]:
    """Return the trials in the ledger at ``path`` by number; empty when there is no such file.

    Safe while another process writes: an unfinished last line is left out.

    Raises:
        StateError: a line that is not the last is damaged.
    """
    reader = LedgerReader(path)
    reader.look()
    return reader.records


def read_records(
    paths: SweepPaths,
    metric: str,
    goal: Goal,
    requirements: Sequence[Requirement] = (),
    objectives: Sequence[Objective] = (),
) -> Records:
    """Return what the ledgers of all stages say, also while the sweep runs."""
    stages = (read_ledger(paths.ledger(stage)) for stage in STAGES)
    return Records(metric, goal, *stages, requirements=requirements, objectives=objectives)


class LedgerReader:
    """Follows a ledger that others append to: looking again costs what is new, not what is there.

    Args:
        path: the ledger file; it may come later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._num_lines = 0
        self._records: dict[int, TrialRecord] = {}
        self.last: Event | None = None
        """The last line as of the last look."""

    @property
    def records(self) -> list[TrialRecord]:
        """All trials as of the last look, by number."""
        return [self._records[number] for number in sorted(self._records)]

    def look(self) -> set[int]:
        """Read what is new and return the numbers of the trials that it speaks of.

        Raises:
            StateError: a line that is not the last is damaged.
        """
        if not self._path.exists():
            return set()
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]  # what follows the last newline is torn, or not there yet
        events = _parse(self._path, whole, self._num_lines)
        for event in events:
            self._records[event["number"]] = _apply(self._records.get(event["number"]), event)
            self.last = event
        self._offset += len(whole)
        self._num_lines += len(events)
        return {event["number"] for event in events}


class Ledger:
    """Appends events of one stage and keeps the records that follow from them.

    Args:
        path: the ledger file, made when absent; an unfinished last line is removed.
        clock: gives the Unix time in seconds.
        publish: makes a line durable where others see it, before it is written here.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, publish: Callable[[str], None] | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        reader = LedgerReader(path)
        reader.look()
        self._records = {record.number: record for record in reader.records}
        self._last = reader.last
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._clock = clock
        self._publish = publish

    @property
    def records(self) -> list[TrialRecord]:
        """All trials, by number."""
        return [self._records[number] for number in sorted(self._records)]

    def record(self, number: int) -> TrialRecord:
        """Return one trial."""
        return self._records[number]

    @property
    def unanswered(self) -> int | None:
        """The trial whose report is the last line, so that a kill may have come before it was answered.

        Every other trial that runs was told to go on: what else can be answered is a line.
        """
        if self._last is None or self._last["event"] != "epoch":
            return None
        return int(self._last["number"])

    def __contains__(self, number: int) -> bool:
        return number in self._records

    def __len__(self) -> int:
        return len(self._records)

    def start(self, assignment: Assignment) -> TrialRecord:
        """Record that a trial starts."""
        fields = asdict(assignment)
        if not fields["costs"]:  # of most sweeps: their ledgers need not know the word
            del fields["costs"]
        return self._append({"event": "start", **fields})

    def epoch(self, number: int, epoch: EpochRecord) -> TrialRecord:
        """Record an epoch; one that is already there is replaced (a trial repeats epochs after a crash)."""
        fields = {key: value for key, value in asdict(epoch).items() if key != "at"}
        return self._append({"event": "epoch", "number": number, **fields})

    def attempt(self, number: int, cause: Cause, reason: str, changes: Mapping[str, Any]) -> TrialRecord:
        """Record a failure that the trial survives, and what is changed in its settings when it goes on."""
        return self._append(
            {"event": "attempt", "number": number, "cause": cause.value, "reason": reason, "changes": dict(changes)}
        )

    def audit(self, number: int, rung: int) -> TrialRecord:
        """Record that a trial would have been stopped after epoch ``rung``, and runs on to show whether rightly."""
        return self._append({"event": "audit", "number": number, "rung": rung})

    def pause(self, number: int) -> TrialRecord:
        """Record that a trial waits after its last epoch."""
        return self._append({"event": "pause", "number": number})

    def promote(self, number: int) -> TrialRecord:
        """Record that a trial that waits goes on."""
        return self._append({"event": "promote", "number": number})

    def end(self, number: int, state: TrialState, reason: str = "", cause: Cause | None = None) -> TrialRecord:
        """Record that a trial ended; ``cause`` is that of a FAIL."""
        event = {"event": "end", "number": number, "state": state.value, "reason": reason}
        return self._append(event if cause is None else {**event, "cause": cause.value})

    def close(self) -> None:
        """Release the file."""
        with suppress(OSError):  # what a full disk did not take is not in the records either
            self._file.close()

    def _append(self, event: dict[str, Any]) -> TrialRecord:
        event["at"] = round(self._clock(), 3)
        line = json.dumps(event, separators=(",", ":")) + "\n"
        if self._publish is not None:
            self._publish(line)
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise DiskFullError(
                f"{self._file.name}: {error.strerror}; free a few megabytes, then the same command continues"
            ) from error
        number = event["number"]
        self._last = event
        self._records[number] = _apply(self._records.get(number), event)
        return self._records[number]


def _apply(record: TrialRecord | None, event: Event) -> TrialRecord:
    """Return the record after ``event``: the whole meaning of the ledger."""
    if event["event"] == "start":
        fields = {key: event[key] for key in Assignment.__dataclass_fields__ if key in event}  # of any version
        return TrialRecord(assignment=Assignment(**fields), started_at=event["at"])
    assert record is not None, "an event before its trial's start"
    if event["event"] == "epoch":
        confusion = event["confusion"]
        epoch = EpochRecord(
            epoch=event["epoch"],
            score=event["score"],
            metrics=event["metrics"],
            confusion=None if confusion is None else tuple(map(tuple, confusion)),
            at=event["at"],
            seconds=event["seconds"],
        )
        kept = [old for old in record.epochs if old.epoch < epoch.epoch]
        return replace(record, epochs=(*kept, epoch))
    if event["event"] == "attempt":
        assignment = record.assignment
        attempt = Attempt(epoch=record.epochs_done, cause=Cause(event["cause"]), reason=event["reason"])
        return replace(
            record,
            assignment=replace(assignment, config={**assignment.config, **event["changes"]}),
            attempts=(*record.attempts, attempt),
        )
    if event["event"] == "pause":
        return replace(record, state=TrialState.PAUSED)
    if event["event"] == "promote":
        return replace(record, state=TrialState.RUNNING, promoted_at=record.epochs_done)
    if event["event"] == "audit":
        return replace(record, audited_rung=event["rung"])
    cause = Cause(event["cause"]) if "cause" in event else None
    state = TrialState(event["state"])
    return replace(record, state=state, reason=event["reason"], cause=cause, ended_at=event["at"])


def _parse(path: Path, lines: bytes, num_before: int) -> list[Event]:
    events = []
    for number, line in enumerate(lines.split(b"\n")[:-1], start=num_before + 1):
        try:
            events.append(json.loads(line))
        except ValueError as error:
            raise StateError(
                f"{path}:{number}: this line is damaged ({error}); restore the file from a copy, "
                "or delete the sweep's folder and start again"
            ) from error
    return events


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
