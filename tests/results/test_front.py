"""What a search for several metrics has found, and what is said of it."""

from typing import Any

import pytest

from segbench.core.ledger import Records
from segbench.core.objectives import Objective, Requirement
from segbench.core.paths import SweepPaths, atomic_write
from segbench.core.records import Assignment, EpochRecord, TrialRecord, TrialState
from segbench.report.build import build_page
from segbench.report.front_charts import front_charts, front_sentence
from segbench.results.conclusion import conclude
from segbench.results.folder import Results
from segbench.results.front import measure_front
from segbench.results.leaderboard import leaderboard_table
from segbench.results.tables import render
from segbench.spec.load import dump_spec, spec_from

BOTH = (Objective("score", "maximize"), Objective("cost", "minimize"))


def trial(number: int, score: float, cost: float, **fields: Any) -> TrialRecord:
    origin = fields.pop("origin", "search")
    assignment = Assignment(
        number=number, name=f"t{number}", origin=origin, params={"lr": 0.1 * number}, config={"lr": 0.1 * number},
        seed=0, max_epochs=1,
    )  # fmt: skip
    epoch = EpochRecord(epoch=1, score=score, metrics={"score": score, "cost": cost})
    return TrialRecord(assignment=assignment, epochs=(epoch,), **{"state": TrialState.COMPLETE, **fields})


TRIALS = [
    trial(0, 0.5, 4.0, origin="baseline"),
    trial(1, 0.9, 9.0, state=TrialState.PRUNED),
    trial(2, 0.6, 5.0),
    trial(3, 0.3, 1.0),
    trial(4, 0.2, 6.0),
]


def test_the_front_is_of_trials_that_ran_to_their_end() -> None:
    front = measure_front(Records("score", "maximize", TRIALS, objectives=BOTH))
    assert front is not None
    assert [(found.record.number, found.is_on_front) for found in front.found] == [
        (0, True),
        (2, True),
        (3, True),
        (4, False),
    ]
    assert front.reference == (0.2, 6.0)
    first, second, third = 0.3 * 2.0, 0.3 * 2.0 + 0.1 * 1.0, 0.7 + 0.1 * 3.0
    assert [number for number, _ in front.volumes] == [0, 2, 3, 4]
    assert [volume for _, volume in front.volumes] == pytest.approx([first, second, third, third])
    assert front.hypervolume == pytest.approx(1.0)


def test_one_metric_has_no_front() -> None:
    assert measure_front(Records("score", "maximize", TRIALS)) is None
    assert measure_front(Records("score", "maximize", [], objectives=BOTH)) is None


def test_what_breaks_a_requirement_is_not_on_it() -> None:
    bound = (Requirement("cost", "<", 4.5),)
    front = measure_front(Records("score", "maximize", TRIALS, objectives=BOTH, requirements=bound))
    assert front is not None
    assert [found.record.number for found in front.found] == [0, 3]


def results(folder: SweepPaths) -> Results:
    metric = [{"name": "score", "goal": "maximize"}, {"name": "cost", "goal": "minimize"}]
    parameters = {"lr": {"min": 0.0, "max": 1.0}}
    spec = spec_from({"name": "s", "train": "objectives:curve", "metric": metric, "parameters": parameters}).spec
    atomic_write(folder.spec, dump_spec(spec))
    return Results(folder, spec, Records("score", "maximize", TRIALS, objectives=spec.metric.several))


def test_the_report_draws_it_and_says_what_it_covers(tmp_path: Any) -> None:
    found = results(SweepPaths(tmp_path))
    against, growth = front_charts(found)
    kinds = {row["trial"]: row["kind"] for row in against.spec["data"]["values"]}
    assert kinds == {"t0": "baseline", "t2": "on the front", "t3": "on the front", "t4": "dominated"}
    assert [row["volume"] for row in growth.spec["data"]["values"]] == [0.6, 0.7, 1.0, 1.0]
    assert "hypervolume of 1 against the reference point score 0.2, cost 6" in front_sentence(found)
    page = build_page([found])
    assert 'id="front-1"' in page
    assert 'id="front-volume"' in page


def test_the_conclusion_says_that_it_is_about_the_first_metric(tmp_path: Any) -> None:
    first = conclude(results(SweepPaths(tmp_path)))[0]
    assert first.endswith("what follows is about the primary metric, score, alone.")


def test_the_printed_leaderboard_marks_it() -> None:
    table = leaderboard_table(Records("score", "maximize", TRIALS, objectives=BOTH))
    lines = render(table, "markdown").splitlines()
    assert "front" in lines[0]
    assert "search cost" in lines[0]
    assert sum("front" in line for line in lines[2:]) == 3
