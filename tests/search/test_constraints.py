"""Requirements: what cannot pass is never trained, what did not pass stands behind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from segbench.core.ledger import Ledger, read_ledger
from segbench.core.objectives import Requirement, parse_requirement, violation
from segbench.core.records import Assignment, Cause, Decision, EpochRecord, EpochReport, TrialRecord, TrialState
from segbench.final.selection import rank_trials, select_finalists
from segbench.search.observations import Outcome, observe
from segbench.search.policy import SearchPolicy
from segbench.search.queue import LedgerQueue
from segbench.search.refused import MAX_REFUSED_SHARE, num_on_top
from segbench.spec.load import LoadedSpec, spec_from

SPEC = {
    "name": "s",
    "train": "objectives:curve",
    "metric": {"name": "score"},
    "parameters": {"width": {"min": 1, "max": 100}, "lr": {"min": 0.0, "max": 1.0}},
    "scheduler": {"max_epochs": 3},
    "budget": {"trials": 20},
    "require": {"model/latency_ms": "< 30"},
}


def sweep(**sections: Any) -> LoadedSpec:
    return spec_from({**SPEC, **sections})


def latency(config: Mapping[str, Any]) -> dict[str, float]:
    return {"model/latency_ms": float(config["width"])}


def search(loaded: LoadedSpec, folder: Path, kill_after: int | None = None) -> tuple[list[TrialRecord], list[int]]:
    """Run a search, or a part of it, with real policy, queue and ledger; return it and which trials were trained."""
    ledger = Ledger(folder / "search.jsonl")
    policy = SearchPolicy(loaded.spec, loaded.space, folder / "optuna.log", ledger.records, costs=latency)
    queue = LedgerQueue(ledger, policy, "score", "maximize")
    trained: list[int] = []
    while (assignment := queue.next()) is not None:
        trained.append(assignment.number)
        done = ledger.record(assignment.number).epochs_done
        for epoch in range(done + 1, assignment.max_epochs + 1):
            score = assignment.config["width"] / 100 + 0.1 * assignment.config["lr"]  # what is slow is better
            metrics = {"score": score, "human": assignment.config["lr"]}
            if queue.report(assignment.number, EpochReport(epoch=epoch, metrics=metrics)) is Decision.STOP:
                break
            if kill_after is not None and len(trained) > kill_after:
                ledger.close()
                return ledger.records, trained
        queue.end(assignment.number)
    ledger.close()
    return ledger.records, trained


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("< 30", Requirement("m", "<", 30.0)),
        ("<=5e6", Requirement("m", "<=", 5e6)),
        (" >= .5 ", Requirement("m", ">=", 0.5)),
        ("> -1", Requirement("m", ">", -1.0)),
    ],
)
def test_a_requirement_is_a_sign_and_a_number(text: str, expected: Requirement) -> None:
    assert parse_requirement("m", text) == expected


@pytest.mark.parametrize("text", ["30", "== 3", "< x", "<", "", 30, None, "< 1 2", "< nan"])
def test_anything_else_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="such as '< 30'"):
        parse_requirement("m", text)


def test_a_bound_is_kept_or_broken_at_its_edge() -> None:
    below, at_most = Requirement("m", "<", 30.0), Requirement("m", "<=", 30.0)
    assert violation([below], {"m": 29.9}) is None
    assert violation([at_most], {"m": 30}) is None
    assert violation([at_most, below], {"m": 30.0}) == "m 30, required < 30"
    assert violation([below], {}) == "m not reported, required < 30"
    assert violation([below], {"m": float("nan")}) == "m nan, required < 30"


def test_what_cannot_pass_is_recorded_and_never_trained(tmp_path: Path) -> None:
    records, trained = search(sweep(), tmp_path)
    refused = [record for record in records if record.cause is Cause.REQUIREMENT]
    assert refused
    assert all(record.assignment.config["width"] >= 30 for record in refused)
    assert all(record.state is TrialState.FAIL and not record.epochs for record in refused)
    width = refused[0].assignment.config["width"]
    assert refused[0].reason == f"infeasible: model/latency_ms {width}, required < 30"
    assert {record.number for record in refused}.isdisjoint(trained)
    assert all(records[number].assignment.config["width"] < 30 for number in trained)
    assert len(trained) == 20, "the whole budget is trained"


def test_the_sampler_learns_to_propose_few_of_them(tmp_path: Path) -> None:
    records, _ = search(sweep(budget={"trials": 60}), tmp_path)
    assert sum(record.assignment.is_refused for record in records[:10]) >= 4, "70 % of the space is too slow"
    late = records[len(records) // 2 :]
    assert sum(record.assignment.is_refused for record in late) <= len(late) / 2, "though the best lies at the bound"


def test_refused_trials_come_on_top_of_the_budget_up_to_a_bound(tmp_path: Path) -> None:
    records, trained = search(sweep(budget={"trials": 3}, require={"model/latency_ms": "< 0"}), tmp_path)
    assert not trained
    assert len(records) == 3 + MAX_REFUSED_SHARE * 3
    assert [num_on_top(number, 2) for number in (0, 1, 20, 21)] == [0, 1, 20, 20]


@pytest.mark.parametrize("kill_after", [0, 3, 11, 17])
def test_a_search_that_was_killed_goes_on_with_the_same_decisions(kill_after: int, tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    search(sweep(), tmp_path / "whole")
    search(sweep(), tmp_path / "killed", kill_after)
    search(sweep(), tmp_path / "killed")

    def decided(name: str) -> list[tuple[object, ...]]:
        records = read_ledger(tmp_path / name / "search.jsonl")
        return [(dict(r.assignment.params), dict(r.assignment.costs), r.state, r.reason) for r in records]

    assert decided("whole") == decided("killed")


def test_a_baseline_that_breaks_a_requirement_is_not_trained_either(tmp_path: Path) -> None:
    baselines = [{"name": "slow", "parameters": {"width": 90, "lr": 0.5}}]
    records, trained = search(sweep(baselines=baselines), tmp_path)
    assert records[0].reason == "infeasible: model/latency_ms 90, required < 30"
    assert 0 not in trained
    assert len(trained) == 20


def test_without_requirements_a_ledger_has_no_word_of_costs(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "search.jsonl")
    loaded = sweep(require={})
    policy = SearchPolicy(loaded.spec, loaded.space, tmp_path / "optuna.log")
    LedgerQueue(ledger, policy, "score", "maximize").next()
    ledger.close()
    assert "costs" not in (tmp_path / "search.jsonl").read_text()


def trial(number: int, score: float, human: float, state: TrialState = TrialState.COMPLETE) -> TrialRecord:
    config = {"lr": number / 10}
    assignment = Assignment(
        number=number, name=f"t{number}", origin="search", params=config, config=config, seed=0, max_epochs=2
    )
    epoch = EpochRecord(epoch=2, score=score, metrics={"score": score, "human": human})
    return TrialRecord(assignment=assignment, state=state, epochs=(epoch,))


HUMAN = (Requirement("human", ">", 0.5),)


def test_a_trial_that_broke_a_requirement_stands_behind_all_that_met_it() -> None:
    records = [trial(0, 0.9, 0.4), trial(1, 0.5, 0.6), trial(2, 0.7, 0.6), trial(3, 0.2, 0.8, TrialState.PRUNED)]
    assert [record.number for record in rank_trials(records, "maximize", HUMAN)] == [2, 1, 3, 0]
    assert [record.number for record in rank_trials(records, "maximize")] == [0, 2, 1, 3]
    assert [record.number for record in select_finalists(records, 2, "maximize", HUMAN)] == [2, 1]


def test_the_sampler_sees_it_as_stopped_at_its_end() -> None:
    space = sweep(parameters={"lr": {"min": 0.0, "max": 1.0}}).space
    assert observe(trial(0, 0.9, 0.6), space, "maximize", HUMAN).outcome is Outcome.SCORED
    seen = observe(trial(0, 0.9, 0.4), space, "maximize", HUMAN)
    assert (seen.outcome, seen.score, seen.epoch) == (Outcome.STOPPED, 0.9, 2)


def test_requirements_on_what_training_reports_steer_the_search(tmp_path: Path) -> None:
    """The score wants a small lr here, the requirement a large one."""
    loaded = sweep(
        parameters={"lr": {"min": 0.0, "max": 1.0}, "width": {"value": 1}},
        require={"human": "> 0.5"},
        budget={"trials": 40},
    )
    records, trained = search(loaded, tmp_path)
    assert len(trained) == len(records) == 40
    best = rank_trials(records, "maximize", loaded.spec.requirements)[0]
    assert best.assignment.config["lr"] > 0.5
