"""Several metrics: the first steers, all of them decide, and a restart decides the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from segbench.core.errors import SpecError
from segbench.core.ledger import Ledger, Records
from segbench.core.objectives import Objective
from segbench.core.records import Assignment, Decision, EpochRecord, EpochReport, TrialRecord, TrialState
from segbench.final.selection import select_finalists
from segbench.results.finalists import rank_finalists, rows_on_front
from segbench.results.leaderboard import leaderboard_table
from segbench.search.policy import SearchPolicy
from segbench.search.queue import LedgerQueue
from segbench.search.rungs import Rungs
from segbench.search.sampler import rank
from segbench.spec.load import LoadedSpec, dump_spec, load_spec, spec_from

BOTH = (Objective("score", "maximize"), Objective("cost", "minimize"))
METRICS = [{"name": "score", "goal": "maximize"}, {"name": "cost", "goal": "minimize"}]


def sweep(**sections: Any) -> LoadedSpec:
    base = {
        "name": "s",
        "train": "objectives:curve",
        "metric": METRICS,
        "parameters": {"size": {"min": 0.0, "max": 1.0}, "lr": {"min": 0.0, "max": 1.0}},
        "scheduler": {"max_epochs": 9, "grace_epochs": 1},
        "budget": {"trials": 30},
    }
    return spec_from({**base, **sections})


def metrics_of(config: Mapping[str, Any], epoch: int) -> dict[str, float]:
    """A larger model is better and dearer; lr has an optimum, and does not cost."""
    quality = config["size"] ** 0.5 - 4 * (config["lr"] - 0.3) ** 2
    return {"score": quality * (1 - 0.5**epoch), "cost": config["size"]}


def search(loaded: LoadedSpec, folder: Path, kill_after: int | None = None) -> list[TrialRecord]:
    """Run a search with real policy, queue and ledger, or ``kill_after`` epochs of it."""
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder / "search.jsonl")
    policy = SearchPolicy(loaded.spec, loaded.space, folder / "optuna.log", ledger.records)
    queue = LedgerQueue(ledger, policy, "score", "maximize")
    num_epochs = 0
    while (assignment := queue.next()) is not None:
        for epoch in range(ledger.record(assignment.number).epochs_done + 1, assignment.max_epochs + 1):
            report = EpochReport(epoch=epoch, metrics=metrics_of(assignment.config, epoch))
            is_stopped = queue.report(assignment.number, report) is Decision.STOP
            num_epochs += 1
            if num_epochs == kill_after:
                ledger.close()
                return ledger.records
            if is_stopped:
                break
        queue.end(assignment.number)
    ledger.close()
    return ledger.records


def decided(records: list[TrialRecord]) -> list[tuple[object, ...]]:
    return [(dict(r.assignment.params), r.state, r.reason, r.epochs_done) for r in records]


@pytest.mark.parametrize("scheduler", ["asha", "asha-promote", "hyperband"])
@pytest.mark.parametrize("kill_after", [1, 9, 23, 60])
def test_a_search_that_was_killed_goes_on_with_the_same_decisions(
    kill_after: int, scheduler: str, tmp_path: Path
) -> None:
    loaded = sweep(scheduler={"max_epochs": 9, "grace_epochs": 1, "type": scheduler})
    whole = search(loaded, tmp_path / "whole")
    search(loaded, tmp_path / "killed", kill_after)
    assert decided(search(loaded, tmp_path / "killed")) == decided(whole)


def test_the_search_finds_a_front_and_not_one_end_of_it(tmp_path: Path) -> None:
    records = search(sweep(budget={"trials": 80}), tmp_path / "a")
    sizes = [record.assignment.config["size"] for record in records if record.state is TrialState.COMPLETE]
    assert min(sizes) < 0.2
    assert max(sizes) > 0.6
    good = sum(abs(record.assignment.config["lr"] - 0.3) < 0.2 for record in records[40:])
    assert good > 0.55 * 40, "what costs nothing is searched for all the same; 0.4 of random ones, here about 0.7"
    assert any(record.state is TrialState.PRUNED for record in records)


def test_optunas_study_has_both_directions(tmp_path: Path) -> None:
    records = search(sweep(), tmp_path / "a")
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "a" / "optuna.log")))
    study = optuna.load_study(study_name="s", storage=storage)
    assert study.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    assert study.metric_names == ["score", "cost"]
    assert [trial.state.name for trial in study.trials] == [record.state.value for record in records]
    complete = next(record for record in records if record.state is TrialState.COMPLETE)
    best = complete.best("maximize")
    assert best is not None
    assert study.trials[complete.number].values == [best.score, best.metrics["cost"]]
    assert study.best_trials


def trial(
    number: int, score: float, cost: float, state: TrialState = TrialState.COMPLETE, epochs: int = 2
) -> TrialRecord:
    config = {"lr": number}
    assignment = Assignment(
        number=number, name=f"t{number}", origin="search", params=config, config=config, seed=0, max_epochs=9,
        costs={"cost": cost},
    )  # fmt: skip
    done = tuple(EpochRecord(epoch=epoch, score=score, metrics={}) for epoch in range(1, epochs + 1))
    return TrialRecord(assignment=assignment, state=state, epochs=done)


def test_a_rung_passes_the_third_that_is_best_by_front() -> None:
    records = [trial(0, 0.9, 9.0), trial(1, 0.5, 1.0), trial(2, 0.8, 9.5), trial(3, 0.4, 2.0), trial(4, 0.3, 3.0),
               trial(5, 0.1, 9.9)]  # fmt: skip
    rungs = Rungs([2], 3, "maximize", records, BOTH)
    assert [rungs.passes(record) for record in records] == [True, True, False, False, False, False]
    one = Rungs([2], 3, "maximize", records)
    assert [one.passes(record) for record in records] == [True, False, True, False, False, False]


def test_what_a_model_costs_needs_not_be_reported() -> None:
    record = trial(0, 0.9, 7.0)
    assert record.losses_at(record.epochs[0], BOTH) == (-0.9, 7.0)
    missing = (*BOTH, Objective("other", "maximize"))
    assert record.losses_at(record.epochs[0], missing) == (-0.9, 7.0, float("inf"))


def test_finalists_are_of_the_front_the_less_crowded_first() -> None:
    records = [trial(0, 0.9, 9.0), trial(1, 0.89, 8.9), trial(2, 0.5, 1.0), trial(3, 0.7, 4.0), trial(4, 0.6, 5.0),
               trial(5, 0.95, 0.5, TrialState.PRUNED)]  # fmt: skip
    chosen = select_finalists(records, 3, "maximize", objectives=BOTH)
    assert [record.number for record in chosen] == [0, 2, 3], "both ends, then the middle; what was stopped is last"
    assert [record.number for record in select_finalists(records, 3, "maximize")] == [0, 1, 3]


def test_the_leaderboard_is_ranked_by_the_first_metric_and_marks_the_front() -> None:
    search = [trial(0, 0.9, 9.0), trial(1, 0.5, 1.0), trial(2, 0.4, 2.0)]
    records = Records("score", "maximize", search, objectives=BOTH)
    assert rows_on_front(rank_finalists(records), BOTH) == [True, True, False]
    table = leaderboard_table(records)
    assert table["name"].tolist() == ["t0", "t1", "t2"]
    assert table["front"].tolist() == [True, True, False]
    assert table["search cost"].tolist() == [9.0, 1.0, 2.0]
    assert "front" not in leaderboard_table(Records("score", "maximize", search))


def test_our_sampler_ranks_stopped_trials_of_several_metrics_by_how_far_they_came() -> None:
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    stopped = optuna.trial.create_trial(
        state=optuna.trial.TrialState.PRUNED, intermediate_values={1: 0.2, 3: 0.4}, values=None
    )
    assert rank(stopped, directions) == (2.0, 0.0, 0.0, 0.0)
    stopped.values = [0.4, 7.0]
    assert rank(stopped, directions) == (1.0, -3.0, -0.4, 7.0)


def test_a_list_of_metrics_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    loaded = spec_from(
        {"name": "s", "metric": ["val/miou", "model/latency_ms"], "parameters": {"width": {"values": [4, 8]}}}
    )
    assert loaded.spec.metric.several == (Objective("val/miou", "maximize"), Objective("model/latency_ms", "minimize"))
    (tmp_path / "s.yaml").write_text(dump_spec(loaded.spec))
    assert load_spec(tmp_path / "s.yaml").spec == loaded.spec
    alone = spec_from({"name": "s", "metric": ["val/loss"], "parameters": {"width": {"values": [4, 8]}}})
    assert (alone.spec.metric.goal, alone.spec.metric.several) == ("minimize", ())


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"metric": ["score", {"name": "cost", "goal": "minimize"}]}, "'score' in a list needs a goal"),
        ({"metric": [3]}, "a metric in a list is a name, or {name: ..., goal: ...}, got 3"),
        ({"metric": []}, "is an empty list"),
        ({"metric": [METRICS[0], METRICS[0]]}, "'score' is listed twice"),
        ({"metric": {"others": []}}, "several metrics are a list"),
        ({"search": {"algorithm": "cmaes"}}, "cmaes searches for one metric; for several take one of tpe"),
        ({"scheduler": {"type": "median"}}, "median compares one metric"),
    ],
)
def test_what_goes_not_with_several_metrics_is_refused(sections: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence.replace("(", r"\(").replace("{", r"\{").split(":")[0]) as error:
        sweep(**sections)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
