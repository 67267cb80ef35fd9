"""Stages as one queue: what runs ahead of its stage, and that nothing else depends on it. No Ray in here."""

import itertools
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import pytest
from running import decisions, run, synthetic

from segbench.core.errors import DiskFullError
from segbench.core.ledger import Ledger, read_ledger
from segbench.core.records import Decision, EpochReport, StageWork, TrialRecord, TrialState
from segbench.spec.load import LoadedSpec
from segbench.sweep.stages import Executor
from segbench.training.trial import TrialJob, run_trial
from segbench.tune.feed import Feed

RETRAIN = "retrain: {top_k: 1, seeds: 2}"


class Killed(BaseException):
    """The process is gone."""


def lockstep(stages: Iterator[StageWork[TrialJob]], num_workers: int = 2, num_ticks: int | None = None) -> None:
    """Run on workers that each train an epoch a tick; die after ``num_ticks``."""
    feed, names = Feed(stages), map(str, itertools.count())
    busy: dict[int, tuple[str, int, Generator[EpochReport, object]]] = {}
    for tick in itertools.count():
        if tick == num_ticks:
            raise Killed
        for worker in range(num_workers):
            if worker not in busy and (job := feed.next(name := next(names))) is not None:
                busy[worker] = name, job.assignment.number, run_trial(job)
        if not feed.num_running:
            break
        for worker, (name, number, reports) in list(busy.items()):
            report = next(reports, None)
            if report is None or feed.report(name, number, report) is Decision.STOP:
                feed.end(name, number)
                feed.release(name)
                reports.close()
                del busy[worker]
    if feed.error is not None:
        raise feed.error


def small(folder: Path, *overrides: str) -> LoadedSpec:
    """A baseline and two trials of nine epochs: on two workers the last one would run alone."""
    return synthetic(folder, trials=2, retrain=RETRAIN, overrides=["scheduler.type=none", *overrides])


def ran_ahead(folder: Path) -> list[TrialRecord]:
    """Return the retrainings that began before the search's last trial had ended."""
    last_end = max(record.ended_at or float("inf") for record in read_ledger(folder / "state/search.jsonl"))
    return [r for r in read_ledger(folder / "state/retrain.jsonl") if r.started_at < last_end]


def test_a_worker_without_a_trial_retrains_the_baseline(tmp_path: Path) -> None:
    loaded = small(tmp_path)
    expected = run(loaded, tmp_path / "one")
    actual = run(loaded, tmp_path / "two", lockstep)
    assert not ran_ahead(tmp_path / "one")
    assert [record.assignment.name for record in ran_ahead(tmp_path / "two")] == ["baseline-default-seed-0"]
    assert decisions(actual, "retrain") == decisions(expected, "retrain")
    assert decisions(actual) == decisions(expected)


def test_one_worker_never_runs_ahead(tmp_path: Path) -> None:
    run(small(tmp_path), tmp_path / "one", partial(lockstep, num_workers=1))
    assert not ran_ahead(tmp_path / "one")


@pytest.mark.parametrize("override", ["retrain=null", "baselines=[]"])
def test_nothing_runs_ahead_where_nothing_is_known_of_the_next_stage(tmp_path: Path, override: str) -> None:
    paths = run(small(tmp_path, override), tmp_path / "two", lockstep)
    assert not ran_ahead(paths.root)
    assert len(read_ledger(paths.ledger("retrain"))) == (0 if "retrain" in override else 2)


def test_a_baseline_that_still_runs_is_not_retrained(tmp_path: Path) -> None:
    """Four workers: baseline and both trials run at once, and end at once."""
    run(small(tmp_path), tmp_path / "four", partial(lockstep, num_workers=4))
    assert not ran_ahead(tmp_path / "four")


@pytest.mark.parametrize("num_ticks", [8, 10, 14, 18, 20, 28, 30])
def test_a_sweep_that_is_killed_goes_on_with_what_ran_ahead(tmp_path: Path, num_ticks: int) -> None:
    loaded = small(tmp_path)
    calm = run(loaded, tmp_path / "calm", lockstep)
    execute: Executor = partial(lockstep, num_ticks=num_ticks)
    with pytest.raises(Killed):
        run(loaded, tmp_path / "killed", execute)
    paths = run(loaded, tmp_path / "killed", lockstep)
    for stage in ("search", "retrain"):
        assert decisions(paths, stage) == decisions(calm, stage)


def test_what_runs_ahead_is_left_for_the_next_start_when_the_search_has_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, record_epoch = small(tmp_path), Ledger.epoch
    calm = run(loaded, tmp_path / "calm", lockstep)

    def epoch_on_a_full_disk(ledger: Ledger, number: int, epoch: object) -> TrialRecord:
        if ledger.record(number).assignment.name == "trial-0002" and len(ledger.record(number).epochs) == 4:
            raise DiskFullError("the disk is full")
        return record_epoch(ledger, number, epoch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "epoch", epoch_on_a_full_disk)
        with pytest.raises(DiskFullError):
            run(loaded, tmp_path / "full", lockstep)
    (left,) = read_ledger(tmp_path / "full/state/retrain.jsonl")
    assert (left.state, left.epochs_done) == (TrialState.RUNNING, 4)
    paths = run(loaded, tmp_path / "full", lockstep)
    for stage in ("search", "retrain"):
        assert decisions(paths, stage) == decisions(calm, stage)
