"""The Ray executor makes the decisions of the sequential one, and survives what trials do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from objectives import fault_of
from running import decisions, local, on_ray, optuna_states, run, synthetic

from segbench.core.errors import UserError
from segbench.core.ledger import read_ledger
from segbench.core.records import TrialState
from segbench.spec.schema import Budget, Resources
from segbench.tune.adapters import describe_death
from segbench.tune.cluster import check_resources, connect, max_concurrent

RETRAIN = "retrain: {top_k: 2, seeds: 2}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connect(None, Resources(cpu=1)):
        yield


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_one_worker_on_ray_decides_like_the_sequential_executor(tmp_path: Path) -> None:
    loaded = synthetic(tmp_path, trials=60, retrain=RETRAIN, overrides=["scheduler.audit=0.2"])
    expected = run(loaded, tmp_path / "local", local)
    actual = run(loaded, tmp_path / "ray", on_ray(loaded, tmp_path / "ray"))
    assert len(decisions(actual)) == 61
    assert decisions(actual) == decisions(expected)
    assert any(record.audited_rung for record in read_ledger(actual.ledger("search")))
    assert len(decisions(actual, "retrain")) == 6
    assert decisions(actual, "retrain") == decisions(expected, "retrain")


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_one_worker_on_ray_promotes_like_the_sequential_executor(tmp_path: Path) -> None:
    """A trial that waits and goes on is two trials for Tune; its state passes from one to the other."""
    overrides = ["scheduler.type=asha-promote", "scheduler.reduction_factor=2"]
    loaded = synthetic(tmp_path, trials=40, overrides=overrides)
    expected = run(loaded, tmp_path / "local", local)
    actual = run(loaded, tmp_path / "ray", on_ray(loaded, tmp_path / "ray"))
    assert decisions(actual) == decisions(expected)
    records = read_ledger(actual.ledger("search"))
    assert any(record.promoted_at for record in records)
    for record in records:
        assert record.epochs[-1].metrics["sum"] == pytest.approx(sum(epoch.score for epoch in record.epochs))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_sixty_trials_with_every_fault_mixed_in(tmp_path: Path) -> None:
    """NaN, inf, exceptions, missing metrics and dead workers: recorded with a reason, and the sweep goes on."""
    loaded = synthetic(tmp_path, "faulty", trials=60, overrides=["budget.max_concurrent=2", "scheduler.grace_epochs=3"])
    paths = run(loaded, tmp_path / "a", on_ray(loaded, tmp_path / "a"))
    records = read_ledger(paths.ledger("search"))

    assert len(records) == 61
    assert optuna_states(paths) == [record.state.value for record in records]
    assert "RUNNING" not in optuna_states(paths)
    starts = {
        "nan": "nan: score at epoch 2",
        "inf": "inf: score at epoch 2",
        "exception": "error: ValueError: the optimiser exploded",
        "missing": "metric 'score' not reported at epoch 2; reported: loss",
        "text": "metric 'score' is 'good' at epoch 2, not a number",
        "none": "metric 'score' is None at epoch 2, not a number",
        "exit": "worker died: its process ended on ",
        "kill": "worker died: its process ended on ",
    }
    for record in records:
        fault = fault_of(record.number)
        if fault in starts:
            assert record.state is TrialState.FAIL, fault
            assert record.reason.startswith(starts[fault])
        elif fault == "early":
            assert (record.state, record.reason) == (TrialState.COMPLETE, "ended by itself")
        else:
            assert record.state in (TrialState.COMPLETE, TrialState.PRUNED)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_four_trials_at_a_time_lose_nothing(tmp_path: Path) -> None:
    loaded = synthetic(
        tmp_path, trials=24, overrides=["budget.max_concurrent=4", "resources.cpu=0.5", "scheduler.type=none"]
    )
    expected = run(loaded, tmp_path / "local")
    records = read_ledger(run(loaded, tmp_path / "ray", on_ray(loaded, tmp_path / "ray")).ledger("search"))
    assert [record.number for record in records] == list(range(25))
    assert {record.epochs_done for record in records} == {9}
    # the first trials are random and do not depend on results, whatever the order
    firsts = [dict(record.assignment.params) for record in records[:5]]
    assert firsts == [dict(r.assignment.params) for r in read_ledger(expected.ledger("search"))[:5]]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_worker_processes_stay_from_stage_to_stage(tmp_path: Path) -> None:
    overrides = ["budget.max_concurrent=2", "resources.cpu=0.5"]
    loaded = synthetic(tmp_path, "in_process", trials=6, retrain=RETRAIN, overrides=overrides)
    paths = run(loaded, tmp_path / "sweep", on_ray(loaded, tmp_path / "sweep"))
    records = [*read_ledger(paths.ledger("search")), *read_ledger(paths.ledger("retrain"))]
    assert len({epoch.metrics["pid"] for record in records for epoch in record.epochs}) <= 2


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_baselines_are_retrained_beside_the_last_trials_of_the_search(tmp_path: Path) -> None:
    overrides = ["budget.max_concurrent=2", "resources.cpu=0.5", "scheduler.type=none"]
    loaded = synthetic(tmp_path, "overlapping", trials=2, retrain=RETRAIN, overrides=overrides)
    paths = run(loaded, tmp_path / "ray", on_ray(loaded, tmp_path / "ray"))
    last_end = max(record.ended_at or 0.0 for record in read_ledger(paths.ledger("search")))
    retrained = read_ledger(paths.ledger("retrain"))
    assert retrained[0].started_at < last_end
    assert [r.assignment.name for r in retrained[:2]] == ["baseline-default-seed-0", "baseline-default-seed-1"]
    assert {record.state for record in retrained} == {TrialState.COMPLETE}
    assert len(retrained) == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\tip: 10.0.0.7\nThe actor is dead because its worker process has died.", "its process ended on 10.0.0.7"),
        ("\tip: 10.0.0.7\nThe actor died because its node has died. Node Id: 3f", "its node was lost on 10.0.0.7"),
        ("Task was killed due to the node running low on memory.", "its node ran low on memory"),
        ("Failure # 1\nsomething new", "something new"),
        ("", "its process ended"),
    ],
)
def test_a_death_is_told_in_one_line(text: str, expected: str) -> None:
    assert describe_death(text) == expected


def test_what_cannot_fit_is_said_at_once() -> None:
    with pytest.raises(UserError, match=r"resources\.gpu=1, but there are 0 GPUs; .* --set resources\.gpu=0"):
        check_resources([{"CPU": 2.0}], Resources(cpu=1, gpu=1))


@pytest.mark.parametrize(
    ("cpu", "gpu", "limit", "expected"),
    [(1, 0, None, 8), (3, 0, None, 2), (1, 0.5, None, 4), (1, 1, None, 2), (1, 0, 3, 3), (1, 0, 99, 8)],
)
def test_concurrency_is_what_fits(cpu: float, gpu: float, limit: int | None, expected: int) -> None:
    available = {"CPU": 8.0, "GPU": 2.0}
    assert max_concurrent([available], Resources(cpu=cpu, gpu=gpu), Budget(max_concurrent=limit)) == expected
