"""Which trainings and tests confirm a search, also when the search goes on later."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
from running import run, synthetic

from segbench.core.ledger import read_ledger
from segbench.core.records import Assignment, EpochRecord, TrialRecord, TrialState
from segbench.final.retrain import continue_list, longest_first, plan_retraining, plan_tests
from segbench.final.selection import rank_trials, select_finalists

RETRAIN = "retrain: {top_k: 2, seeds: 2}"


def trial(
    number: int, score: float | None, state: TrialState = TrialState.COMPLETE, origin: str = "search", lr: float = 0.0
) -> TrialRecord:
    assignment = Assignment(
        number=number,
        name=f"trial-{number:04d}",
        origin=origin,  # type: ignore[arg-type]
        params={},
        config={"lr": lr or number},
        seed=number,
        max_epochs=5,
    )
    epochs = () if score is None else (EpochRecord(epoch=1, score=score, metrics={}),)
    return TrialRecord(assignment=assignment, state=state, epochs=epochs)


def test_full_length_trials_rank_before_stopped_ones() -> None:
    records = [trial(0, 0.9, TrialState.PRUNED), trial(1, 0.5), trial(2, 0.6), trial(3, None, TrialState.FAIL)]
    assert [record.number for record in rank_trials(records, "maximize")] == [2, 1, 0, 3]
    assert [record.number for record in rank_trials(records, "minimize")] == [1, 2, 0, 3]


def test_baselines_are_always_chosen_and_equal_configurations_once() -> None:
    records = [
        trial(0, 0.1, origin="baseline", lr=1.0),
        trial(1, 0.9, lr=1.0),  # the baseline's settings, found again
        trial(2, 0.8, lr=2.0),
        trial(3, 0.7, lr=2.0),
        trial(4, 0.6),
        trial(5, 0.5),
    ]
    assert [record.number for record in select_finalists(records, 2, "maximize")] == [0, 2, 4]


def test_finalists_are_trained_with_the_same_seeds() -> None:
    planned = plan_retraining([trial(3, 0.5), trial(7, 0.6)], num_seeds=2, epochs=9, sweep_seed=1)
    assert [a.name for a in planned] == [
        *("trial-0003-seed-0", "trial-0003-seed-1", "trial-0007-seed-0", "trial-0007-seed-1")
    ]
    assert [a.seed for a in planned[:2]] == [a.seed for a in planned[2:]]
    assert planned[0].seed != planned[1].seed
    assert {a.max_epochs for a in planned} == {9}
    assert [a.source for a in planned] == [3, 3, 7, 7]


def test_only_finished_trainings_are_tested() -> None:
    tests = plan_tests([trial(0, 0.5), trial(1, None, TrialState.FAIL), trial(2, 0.4)])
    assert [(a.number, a.source, a.max_epochs) for a in tests] == [(0, 0, 1), (1, 2, 1)]


def test_what_has_begun_keeps_its_number_and_the_rest_of_the_plan_too() -> None:
    planned = [trial(number, None).assignment for number in range(5)]
    begun = [TrialRecord(assignment=planned[4]), TrialRecord(assignment=planned[1])]
    continued = continue_list(begun, planned)
    assert sorted(continued, key=lambda assignment: assignment.number) == planned


def test_what_another_choice_adds_gets_numbers_of_its_own() -> None:
    begun = [trial(0, 0.5), trial(1, None, TrialState.RUNNING)]
    planned = [replace(trial(n, None).assignment, number=place) for place, n in enumerate((5, 1, 6))]
    assert [(a.number, a.name) for a in continue_list(begun, planned)] == [
        *((0, "trial-0000"), (1, "trial-0001"), (2, "trial-0005"), (3, "trial-0006"))
    ]


def test_slow_trainings_run_first_and_keep_their_numbers() -> None:
    sources = [
        replace(trial(n, 0.5), epochs=[EpochRecord(epoch=1, score=0.5, metrics={}, seconds=s)])
        for n, s in ((3, 1.0), (7, 9.0), (8, 2.0))
    ]
    planned = plan_retraining(sources, num_seeds=2, epochs=9, sweep_seed=1)
    begun = [TrialRecord(assignment=planned[1])]
    assert [a.number for a in longest_first(begun, planned, sources)] == [1, 2, 3, 4, 5, 0]


def test_a_search_that_goes_on_later_adds_its_new_winners(tmp_path: Path) -> None:
    paths = run(synthetic(tmp_path, trials=6, retrain=RETRAIN), tmp_path / "a")
    before = pd.read_csv(paths.leaderboard)
    run(synthetic(tmp_path, trials=30, retrain=RETRAIN), tmp_path / "a")
    after = pd.read_csv(paths.leaderboard)
    names = [record.assignment.name for record in read_ledger(paths.ledger("retrain"))]
    assert len(names) == len(set(names))
    assert set(before["name"]) <= set(after["name"])
    assert set(after["seeds"]) == {2}
    assert after["score mean"][0] >= before["score mean"][0]
    assert len(after) > len(before)
