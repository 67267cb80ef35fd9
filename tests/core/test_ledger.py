import json
from pathlib import Path

import pytest

from segbench.core.errors import StateError
from segbench.core.ledger import Ledger, read_ledger
from segbench.core.records import Assignment, EpochRecord, TrialState


def assignment(number: int) -> Assignment:
    return Assignment(
        number=number,
        name=f"trial-{number:04d}",
        origin="search",
        params={"lr": 1e-3},
        config={"lr": 1e-3, "nested": {"a": [1, 2]}},
        seed=7,
        max_epochs=3,
    )


def write(path: Path) -> None:
    ledger = Ledger(path, clock=lambda: 100.0)
    for number in range(2):
        ledger.start(assignment(number))
        ledger.epoch(
            number, EpochRecord(epoch=1, score=0.5, metrics={"a": 0.5}, confusion=((1, 2), (3, 4)), seconds=2.0)
        )
    ledger.end(0, TrialState.PRUNED, "rung 1")
    ledger.close()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "l.jsonl")
    first, second = read_ledger(tmp_path / "l.jsonl")
    assert first.state is TrialState.PRUNED
    assert first.reason == "rung 1"
    assert first.epochs[0].confusion == ((1, 2), (3, 4))
    assert first.assignment == assignment(0)
    assert second.state is TrialState.RUNNING
    assert second.seconds == 2.0


def test_a_ledger_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    write(path)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for event in events:
        event.pop("enqueued", None)
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert [record.assignment for record in read_ledger(path)] == [assignment(0), assignment(1)]


def test_a_missing_ledger_is_empty(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "absent.jsonl") == []


def test_a_kill_at_every_byte_leaves_a_readable_ledger(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    write(path)
    whole = path.read_bytes()
    cut = tmp_path / "cut.jsonl"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        events = whole[:length].count(b"\n")
        records = read_ledger(cut)
        assert sum(1 + len(r.epochs) + r.state.is_finished for r in records) == events
    ledger = Ledger(cut)  # the torn last line goes, and the next event follows the last whole one
    ledger.end(1, TrialState.COMPLETE)
    ledger.close()
    assert [json.loads(line)["event"] for line in cut.read_text().splitlines()][-1] == "end"
    assert read_ledger(cut)[1].state is TrialState.COMPLETE


def test_an_epoch_reported_again_replaces_the_later_ones(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.jsonl")
    ledger.start(assignment(0))
    for epoch in (1, 2, 2):
        ledger.epoch(0, EpochRecord(epoch=epoch, score=epoch, metrics={}))
    assert [e.epoch for e in ledger.record(0).epochs] == [1, 2]


def test_a_damaged_line_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    write(path)
    lines = path.read_bytes().split(b"\n")
    lines[1] = b'{"event": "ep'
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(StateError, match=r"l\.jsonl:2: this line is damaged"):
        read_ledger(path)


def test_an_update_costs_the_same_however_long_the_sweep(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    ledger = Ledger(path)
    sizes = []
    for number in range(200):
        before = path.stat().st_size
        ledger.start(assignment(number))
        sizes.append(path.stat().st_size - before)
    assert max(sizes) - min(sizes) <= 10
