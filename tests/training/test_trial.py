"""A trial's checkpoints: written while the next epoch trains, whole before that epoch is reported."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from segbench.core.records import Assignment, EpochResult, TrainContext
from segbench.training import checkpoint
from segbench.training.trial import TrialJob, load_newest, run_trial


def counting(config: Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """Count epochs in a large tensor, in place as an optimiser does."""
    weights = torch.zeros(1_000_000) if context.state is None else context.state["weights"]
    for _ in range(context.epoch, context.max_epochs):
        weights += 1
        yield EpochResult(metrics={"score": weights[0].item()}, state=lambda: {"weights": weights})  # noqa: B023


def failing(config: Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """Fail in the second epoch."""
    yield from counting(config, TrainContext(max_epochs=1))
    raise RuntimeError("broken")


def job(folder: Path, function: str = "counting", max_epochs: int = 4) -> TrialJob:
    assignment = Assignment(
        number=0, name="trial-0000", origin="search", params={}, config={}, seed=0, max_epochs=max_epochs
    )
    return TrialJob(assignment=assignment, train=f"{__name__}:{function}", folder=str(folder))


def test_at_each_report_the_epoch_before_is_on_disk_as_it_was(tmp_path: Path) -> None:
    for report in run_trial(job(tmp_path)):
        kept = load_newest(tmp_path / "last")
        assert kept.get("epoch", 0) == report.epoch - 1
        if kept:
            assert (kept["state"]["weights"] == report.epoch - 1).all()
    assert not (tmp_path / "last").exists()


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_stopped_trial_writes_nothing_more_and_goes_on_where_it_was(tmp_path: Path, stop: int) -> None:
    reports = run_trial(job(tmp_path))
    scores = [next(reports).metrics["score"] for _ in range(stop)]
    reports.close()
    assert load_newest(tmp_path / "last").get("epoch", 0) == stop - 1
    again = [(report.epoch, report.metrics["score"]) for report in run_trial(job(tmp_path))]
    assert again == [(epoch, float(epoch)) for epoch in range(stop, 5)]
    assert scores == [float(epoch) for epoch in range(1, stop + 1)]


def test_an_error_in_the_training_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        list(run_trial(job(tmp_path, "failing")))
    assert load_newest(tmp_path / "last")["epoch"] == 1


def test_an_error_of_the_write_is_raised_before_the_next_report(tmp_path: Path) -> None:
    reports = run_trial(job(tmp_path))
    next(reports)
    (tmp_path / "last").write_text("a file where a folder has to be")
    with pytest.raises(NotADirectoryError):
        next(reports)


def test_a_snapshot_does_not_change_with_the_training(tmp_path: Path) -> None:
    image_like = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)
    shared = torch.arange(6.0)
    taken = checkpoint.snapshot({"a": image_like, "b": shared[:3], "c": shared[2:]})
    image_like += 1
    shared += 1
    assert taken.num_bytes == (120 + 3 + 4) * 4
    checkpoint.write(taken, tmp_path)
    state = checkpoint.load(tmp_path)
    assert torch.equal(state["a"], torch.ones(2, 3, 4, 5))
    assert state["b"].tolist() == [0, 1, 2]
    assert state["c"].tolist() == [2, 3, 4, 5]
