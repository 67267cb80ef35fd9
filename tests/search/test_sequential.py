"""The whole search in one process: baselines, ASHA, states, resume."""

from pathlib import Path

import pytest
from objectives import FAULTS, fault_of
from running import decisions, killed_after, local, optuna_states, run, synthetic

from segbench.core.ledger import read_ledger
from segbench.core.records import Assignment, TrialState
from segbench.search.policy import SearchPolicy
from segbench.search.study import Study


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code under test catches it."""


def test_the_same_file_gives_the_same_decisions(tmp_path: Path) -> None:
    loaded = synthetic(tmp_path)
    assert decisions(run(loaded, tmp_path / "a")) == decisions(run(loaded, tmp_path / "b"))


def test_another_seed_gives_other_configurations(tmp_path: Path) -> None:
    first = run(synthetic(tmp_path), tmp_path / "a")
    other = run(synthetic(tmp_path, overrides=["search.seed=4"]), tmp_path / "b")
    assert decisions(first)[1] != decisions(other)[1]


def test_baselines_run_first_and_at_full_length(tmp_path: Path) -> None:
    paths = run(synthetic(tmp_path), tmp_path / "a")
    baseline, *searched = read_ledger(paths.ledger("search"))
    assert baseline.assignment.name == "baseline-default"
    assert baseline.epochs_done == 9
    assert len(searched) == 20
    assert all(record.assignment.origin == "search" for record in searched)


def test_asha_stops_trials_at_rungs_only_and_saves_epochs(tmp_path: Path) -> None:
    records = read_ledger(run(synthetic(tmp_path), tmp_path / "a").ledger("search"))
    pruned = [record for record in records if record.state is TrialState.PRUNED]
    assert pruned
    assert {record.epochs_done for record in pruned} <= {1, 2, 3, 5}
    assert all(record.reason == f"rung {record.epochs_done}" for record in pruned)
    assert sum(record.epochs_done for record in records) < 21 * 9 / 2


def test_without_a_scheduler_no_trial_is_stopped(tmp_path: Path) -> None:
    records = read_ledger(run(synthetic(tmp_path, overrides=["scheduler.type=none"]), tmp_path / "a").ledger("search"))
    assert {record.epochs_done for record in records} == {9}


def test_random_and_grid_search_use_the_same_path(tmp_path: Path) -> None:
    run(synthetic(tmp_path, overrides=["search.algorithm=random"]), tmp_path / "random")
    path = tmp_path / "grid.yaml"
    path.write_text(
        "name: g\ntrain: objectives:curve\nmetric: {name: score}\nsearch: {algorithm: grid}\n"
        "parameters: {lr: {values: [1e-4, 1e-3, 1e-2]}, width: {when: {lr: 1e-3}, values: [16, 48]}}\n"
        "scheduler: {max_epochs: 3}\n"
    )
    from segbench.spec.load import load_spec

    records = read_ledger(run(load_spec(path), tmp_path / "grid").ledger("search"))
    points = [dict(record.assignment.params) for record in records]
    assert sorted(points, key=lambda point: (point["lr"], point.get("width", 0))) == [
        {"lr": 1e-4},
        {"lr": 1e-3, "width": 16},
        {"lr": 1e-3, "width": 48},
        {"lr": 1e-2},
    ]


def test_a_users_function_that_yields_mappings_is_enough(tmp_path: Path) -> None:
    records = read_ledger(run(synthetic(tmp_path, "plain"), tmp_path / "a").ledger("search"))
    assert {record.state for record in records} == {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.parametrize("kill_after", [0, 1, 2, 5, 8, 9, 10, 13, 21, 34, 47, 55])
@pytest.mark.parametrize("function", ["curve", "plain"])
def test_a_sweep_killed_at_any_event_and_continued_decides_the_same(
    tmp_path: Path, kill_after: int, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between any two events of the ledger, before the checkpoint of that epoch is written."""
    loaded = synthetic(tmp_path, function)
    expected = run(loaded, tmp_path / "whole")

    from segbench.core.ledger import Ledger

    count = 0
    append = Ledger._append

    def dying(self: Ledger, event: dict[str, object]) -> object:
        nonlocal count
        result = append(self, event)
        count += 1
        if count > kill_after:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_append", dying)
        with pytest.raises(Killed):
            run(loaded, tmp_path / "killed")
    actual = run(loaded, tmp_path / "killed")
    assert decisions(actual) == decisions(expected)


def test_a_rebuilt_study_proposes_what_the_living_one_does(tmp_path: Path) -> None:
    loaded = synthetic(tmp_path, trials=30)
    records = read_ledger(run(loaded, tmp_path / "a").ledger("search"))
    for count in (1, 4, 9, 17, 30):
        study = Study(tmp_path / "again.log", loaded.spec, loaded.space, records[:count])
        params, draws = study.suggest(count)
        assert params == records[count].assignment.params
        assert draws == records[count].assignment.draws


def test_optuna_and_the_ledger_agree_on_every_state_with_faults_mixed_in(tmp_path: Path) -> None:
    loaded = synthetic(tmp_path, "faulty", trials=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("objectives.FAULTS", tuple(f for f in FAULTS if f not in ("exit", "kill")))
        paths = run(loaded, tmp_path / "a")
    records = read_ledger(paths.ledger("search"))
    assert optuna_states(paths) == [record.state.value for record in records]
    assert {record.state for record in records} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


def test_an_infeasible_draw_is_recorded_and_the_sweep_goes_on(tmp_path: Path) -> None:
    loaded = synthetic(tmp_path, trials=3)
    propose = SearchPolicy.propose

    def sometimes(self: SearchPolicy, number: int) -> Assignment | None:
        from dataclasses import replace

        assignment = propose(self, number)
        return (
            replace(assignment, problem="width and depth do not go together")
            if assignment and number == 2
            else assignment
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SearchPolicy, "propose", sometimes)
        records = read_ledger(run(loaded, tmp_path / "a", local).ledger("search"))
    assert records[2].state is TrialState.FAIL
    assert records[2].reason == "infeasible: width and depth do not go together"
    assert len(records) == 4


def test_every_fault_has_its_reason(tmp_path: Path) -> None:
    assert [fault_of(number) for number in range(6)] == [None, None, "nan", None, None, "exception"]


PROMOTING = ["scheduler.type=asha-promote", "scheduler.reduction_factor=2"]


def test_a_trial_that_waited_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """The sum of all its scores is in the state, so it would be seen if the trial began again or lost an epoch."""
    paths = run(synthetic(tmp_path, trials=40, overrides=PROMOTING), tmp_path / "a")
    records = read_ledger(paths.ledger("search"))
    promoted = [record for record in records if record.promoted_at is not None]
    assert promoted
    for record in records:
        assert [epoch.epoch for epoch in record.epochs] == list(range(1, record.epochs_done + 1))
        assert record.epochs[-1].metrics["sum"] == pytest.approx(sum(epoch.score for epoch in record.epochs))
        assert not paths.last("search", record.assignment.name).exists(), "no checkpoint stays of what has ended"
    assert {record.state for record in records} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert optuna_states(paths) == [record.state.value for record in records]


@pytest.mark.parametrize("kill_after", [12, 40, 71, 88])
@pytest.mark.parametrize("kind", ["asha-promote", "pasha"])
def test_a_sweep_of_promotions_killed_and_continued_decides_the_same(
    kind: str, kill_after: int, tmp_path: Path
) -> None:
    loaded = synthetic(tmp_path, overrides=[*PROMOTING, f"scheduler.type={kind}"])
    expected = run(loaded, tmp_path / "whole")
    with killed_after(kill_after):
        run(loaded, tmp_path / "killed")
    assert decisions(run(loaded, tmp_path / "killed")) == decisions(expected)
