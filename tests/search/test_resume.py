"""A search that is killed after any line of its ledger and continued writes the lines that it would have written.

A ledger that ends early and the checkpoints of the trials in it are all that a kill leaves, so the kill is played by
cutting the ledger of a whole run.
"""

import json
import math
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segbench.core.enqueued import Enqueued
from segbench.core.ledger import Ledger, read_ledger
from segbench.core.records import Assignment, Cause, Decision, EpochRecord, EpochReport, Failure, StageWork
from segbench.core.seeding import derive_seed
from segbench.search.policy import SearchPolicy
from segbench.search.queue import LedgerQueue
from segbench.search.sequential import run_sequential
from segbench.spec.load import LoadedSpec, spec_from

SCHEDULERS: list[dict[str, Any]] = [
    {"type": "auto"},
    {"type": "asha", "audit": 0.4},
    {"type": "asha-promote"},
    {"type": "asha-promote", "reduction_factor": 2, "grace_epochs": 2},
    {"type": "pasha", "reduction_factor": 2},
    {"type": "hyperband"},
    {"type": "median", "audit": 0.4},
    {"type": "none"},
]
MAX_EPOCHS = 9
INFEASIBLE = 11
FAULTS = ("nan", "every second", "memory", "exception", "misses 3", "early", "missing", "nan at once", "once")


def fault_of(number: int) -> str | None:
    """Return the fault of a trial: two of three have one, in turn."""
    return FAULTS[(number // 3 * 2 + number % 3) % len(FAULTS)] if number > 2 and number % 3 else None


def reports(assignment: Assignment, done: int, tries: int) -> Generator[EpochReport]:
    """Train from after epoch ``done``, with the trial's fault."""
    fault, config = fault_of(assignment.number), assignment.config
    ceiling = 0.9 - 0.1 * abs(math.log10(config["lr"]) + 3) - 0.2 * abs(config["x"] - 0.6)
    for epoch in range(done + 1, assignment.max_epochs + 1):
        noise = derive_seed(assignment.seed, "noise", epoch) / 2**31 - 0.5
        metrics: dict[str, Any] = {"score": ceiling * (1 - math.exp(-0.4 * epoch)) + 0.05 * noise}
        if fault == "memory" and epoch > 2 * config["accumulation_steps"]:
            raise MemoryError
        if fault == "exception" and epoch == 4:
            raise ValueError("the optimiser exploded")
        if fault == "once" and epoch == 4 and tries == 0:
            raise ConnectionError("the network blinked")
        if fault == "early" and epoch == 6:
            return
        if (fault == "every second" and epoch % 2) or (fault == "misses 3" and epoch == 3):
            continue
        if (fault == "nan" and epoch == 5) or fault == "nan at once":
            metrics = {"score": math.nan}
        if fault == "missing" and epoch == 2:
            metrics = {"loss": 1.0}
        yield EpochReport(epoch=epoch, metrics=metrics)


class SometimesInfeasible(SearchPolicy):
    """One of its trials has values that do not go together."""

    def propose(self, number: int) -> Assignment | None:
        found = super().propose(number)
        return replace(found, problem="too wide") if found is not None and number == INFEASIBLE else found


def sweep(scheduler: Mapping[str, Any], trials: int = 28) -> LoadedSpec:
    return spec_from(
        {
            "name": "s",
            "train": "objectives:curve",
            "metric": {"name": "score"},
            "parameters": {
                "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
                "x": {"min": 0.0, "max": 1.0},
                "batch_size": {"value": 4},
                "accumulation_steps": {"value": 1},
            },
            "baselines": [{"name": "b", "parameters": {"lr": 1e-3, "x": 0.5}}],
            "search": {"startup_trials": 5},
            "scheduler": {"max_epochs": MAX_EPOCHS, **scheduler},
            "budget": {"trials": trials},
            "mlflow": {"enabled": False},
        }
    )


def search(loaded: LoadedSpec, folder: Path, has_checkpoints: bool) -> list[dict[str, Any]]:
    """Run or continue the search in ``folder``, and return its ledger without times."""
    path = folder / "search.jsonl"
    ledger = Ledger(path)
    asked = Enqueued("w", {"lr": 2e-3, "x": 0.6, "batch_size": 4, "accumulation_steps": 1})
    records = ledger.records
    policy = SometimesInfeasible(
        loaded.spec, loaded.space, folder / "optuna.log", records, wishes=lambda: [asked] if len(ledger) > 6 else []
    )
    queue = LedgerQueue(ledger, policy, "score", "maximize", max_failures=1)

    def train(assignment: Assignment) -> Generator[EpochReport]:
        record = ledger.record(assignment.number)
        # the checkpoint of the last epoch may not be whole when the kill comes; a function may keep none
        done = record.epochs[-2].epoch if has_checkpoints and len(record.epochs) > 1 else 0
        return reports(assignment, done, len(record.attempts))

    run_sequential([StageWork(queue=queue, make_job=lambda assignment: assignment)], train)
    ledger.close()
    return events(path)


def events(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: repr(value) for key, value in line.items() if key not in ("at", "seconds")} for line in lines]


def cuts(lines: Sequence[Mapping[str, Any]], seed: str) -> list[int]:
    """Return after which lines to kill: eight that are drawn, and three that say of a trial that it has failed."""
    draw = random.Random(seed)
    fatal = [number for number, line in enumerate(lines) if line.get("state") == "'FAIL'"]
    return sorted({*draw.sample(range(len(lines)), 8), *draw.sample(fatal, 3)})


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_a_search_killed_after_any_line_and_continued_writes_the_same_ledger(
    tmp_path: Path, scheduler: dict[str, Any]
) -> None:
    loaded = sweep(scheduler)
    expected = search(loaded, tmp_path / "whole", has_checkpoints=True)
    lines = (tmp_path / "whole" / "search.jsonl").read_bytes().splitlines(keepends=True)
    for count, cut in enumerate(cuts(expected, str(scheduler))):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "search.jsonl").write_bytes(b"".join(lines[:cut]))
        continued = search(loaded, folder, has_checkpoints=count % 2 == 0)
        assert continued == expected, f"killed after line {cut} of {len(lines)}"


def test_the_kills_come_among_all_that_can_happen(tmp_path: Path) -> None:
    """Every fault, and every kind of line that a search can write."""
    seen: set[str] = set()
    for number, scheduler in enumerate(SCHEDULERS):
        lines = search(sweep(scheduler), tmp_path / str(number), has_checkpoints=True)
        records = read_ledger(tmp_path / str(number) / "search.jsonl")
        seen |= {record.reason.split(" at epoch")[0] for record in records} | {line["event"] for line in lines}
        seen |= {record.assignment.origin for record in records}
        seen |= {f"after {attempt.cause}" for record in records for attempt in record.attempts}
        is_skipping = any([e.epoch for e in record.epochs] == list(range(2, 9, 2)) for record in records)
        seen |= {"skips"} if is_skipping else set()
    assert seen >= {
        *("'start'", "'epoch'", "'attempt'", "'audit'", "'pause'", "'promote'", "'end'"),
        *("", "nan: score", "metric 'score' not reported", "error: ValueError: the optimiser exploded"),
        *("infeasible: too wide", "ended by itself", "rung 1", "after oom", "after error", "skips"),
        *("search", "baseline", "enqueued"),
    }


SMALL: dict[str, Any] = {
    "name": "s",
    "train": "objectives:curve",
    "metric": {"name": "score"},
    "parameters": {"lr": {"min": 0.1, "max": 1.0}},
    "scheduler": {"max_epochs": MAX_EPOCHS},
}


@pytest.fixture
def interleaved(tmp_path: Path) -> Callable[[], tuple[Ledger, LedgerQueue]]:
    """Open, each time anew, the search of two workers: trials 0 and 1 have reported 0.1 and 0.9 at the first rung."""
    loaded = spec_from(SMALL)

    def opened() -> tuple[Ledger, LedgerQueue]:
        ledger = Ledger(tmp_path / "search.jsonl")
        policy = SearchPolicy(loaded.spec, loaded.space, tmp_path / "optuna.log", ledger.records)
        return ledger, LedgerQueue(ledger, policy, "score", "maximize", max_failures=1)

    _, queue = opened()
    assert (queue.next(), queue.next()) != (None, None)
    assert [queue.report(number, scored(score)) for number, score in ((0, 0.1), (1, 0.9))] == [Decision.CONTINUE] * 2
    return opened


def scored(score: float) -> EpochReport:
    return EpochReport(epoch=1, metrics={"score": score})


def test_a_trial_that_was_told_to_go_on_goes_on_whatever_others_report_before_the_kill(
    interleaved: Callable[[], tuple[Ledger, LedgerQueue]],
) -> None:
    """Its checkpoint was not whole, so it reports the rung again, and now another one is better there."""
    _, queue = interleaved()
    assert [queue.next() is not None for _ in range(2)] == [True, True]
    assert queue.report(0, scored(0.1)) is Decision.CONTINUE
    assert queue.report(1, scored(0.9)) is Decision.CONTINUE


def test_a_report_that_the_kill_left_without_an_answer_is_answered(
    interleaved: Callable[[], tuple[Ledger, LedgerQueue]],
) -> None:
    ledger, queue = interleaved()
    assert [queue.next() is not None for _ in range(3)] == [True] * 3
    ledger.epoch(2, EpochRecord(epoch=1, score=0.05, metrics={"score": 0.05}))
    ledger.close()
    ledger, queue = interleaved()
    assert ledger.unanswered == 2
    assert [queue.report(number, scored(0.05)) for number in range(3)] == [
        Decision.CONTINUE,
        Decision.CONTINUE,
        Decision.STOP,
    ]
    assert ledger.record(2).reason == "rung 1"


def test_a_trial_that_is_tried_again_is_not_asked_again(
    interleaved: Callable[[], tuple[Ledger, LedgerQueue]],
) -> None:
    _, queue = interleaved()
    queue.end(0, Failure(Cause.WORKER, "gone"))
    assert queue.report(0, scored(0.1)) is Decision.CONTINUE


@pytest.mark.parametrize("is_restarted", [False, True])
def test_trials_that_wait_are_no_failures(tmp_path: Path, is_restarted: bool) -> None:
    """The first of the searched trials waits, the next six diverge: not all have failed in the same way."""
    loaded = spec_from({**SMALL, "scheduler": {"type": "asha-promote", "max_epochs": MAX_EPOCHS}})

    def opened() -> LedgerQueue:
        ledger = Ledger(tmp_path / "search.jsonl")
        policy = SearchPolicy(loaded.spec, loaded.space, tmp_path / "optuna.log", ledger.records)
        return LedgerQueue(ledger, policy, "score", "maximize")

    queue = opened()
    for score in (0.5, *[math.nan] * 6):
        queue = opened() if is_restarted else queue
        assignment = queue.next()
        assert assignment is not None
        assert queue.report(assignment.number, scored(score)) is Decision.STOP
    assert queue.stop_error is None
