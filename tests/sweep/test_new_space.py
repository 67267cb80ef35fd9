"""A sweep that goes on with other ``parameters:``: what its sampler still learns from, and that nothing is lost."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from running import decisions, killed_after, local, run, synthetic

from segbench.cli import main
from segbench.core.config import TrialConfig
from segbench.core.errors import StateError
from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import Assignment, EpochRecord, TrialRecord, TrialState
from segbench.report.build import build_page
from segbench.results.folder import read_results
from segbench.search.observations import FitCounts, Outcome, count_fits, fit, observe
from segbench.spec.load import LoadedSpec, load_spec
from segbench.sweep.folder import open_folder
from segbench.sweep.stages import Sweep

NARROWER = ("parameters.lr.min=1e-4", "parameters.lr.max=1e-2")
WIDER = ("parameters.lr.max=1", "parameters.family.values=[a, b, c]")


def go_on(loaded: LoadedSpec, folder: Path) -> SweepPaths:
    paths = SweepPaths(folder)
    with open_folder(paths, loaded.spec, accept_changes=True):
        Sweep(loaded, paths, local).run()
    return paths


@pytest.mark.parametrize("changes", [NARROWER, WIDER])
def test_it_goes_on_in_the_new_space_when_asked_and_keeps_every_trial(changes: Sequence[str], tmp_path: Path) -> None:
    paths = run(synthetic(tmp_path, trials=15), tmp_path / "a")
    before = decisions(paths)
    changed = synthetic(tmp_path, trials=25, overrides=changes)
    with pytest.raises(StateError, match=r"parameters\.lr\.max: [^|]*\nAdd --resume"), open_folder(paths, changed.spec):
        pass
    go_on(changed, paths.root)
    assert decisions(paths)[:16] == before
    new = read_ledger(paths.ledger("search"))[16:]
    assert len(new) == 10
    for record in new:
        fitted = fit(record.assignment, changed.space)
        assert fitted is not None
        assert not fitted.is_clipped
    assert len(pd.read_csv(paths.trials)) == 26
    last = json.loads(paths.versions.read_text().splitlines()[-1])
    assert any("parameters.lr.max" in line for line in last["changes"])
    assert "<html" in build_page([read_results(paths)])


def test_the_sampler_sees_what_lies_in_the_new_space_alone(tmp_path: Path) -> None:
    paths = run(synthetic(tmp_path, trials=15), tmp_path / "a")
    records = read_ledger(paths.ledger("search"))
    space = synthetic(tmp_path, trials=15, overrides=NARROWER).space
    counts = count_fits(records, space)
    assert counts.kept + counts.clipped + counts.dropped == 15
    assert counts.kept
    assert counts.dropped
    seen = [observe(record, space, "maximize") for record in records[1:]]
    assert sum(each.outcome is Outcome.NONE for each in seen) == counts.dropped
    shown = [each.values["lr"] for each in seen if each.outcome is not Outcome.NONE]
    assert all(1e-4 <= lr <= 1e-2 for lr in shown)  # type: ignore[operator]
    same = synthetic(tmp_path, trials=15).space
    assert count_fits(records, same) == FitCounts(15, 0, 0)
    for record in records[1:]:  # in its own space each is exactly what was drawn
        fitted = fit(record.assignment, same)
        assert fitted is not None
        assert (fitted.params, fitted.draws) == (record.assignment.params, record.assignment.draws)


@pytest.mark.parametrize("kill_after", [0, 1, 5, 12, 20])
def test_a_kill_after_the_change_decides_nothing_otherwise(kill_after: int, tmp_path: Path) -> None:
    first, then = synthetic(tmp_path, trials=9), synthetic(tmp_path, trials=20, overrides=NARROWER)
    for name in ("whole", "killed"):
        with killed_after(40):  # in the middle of a trial
            run(first, tmp_path / name)
    expected = decisions(go_on(then, tmp_path / "whole"))
    with killed_after(kill_after):
        go_on(then, tmp_path / "killed")
    assert decisions(go_on(then, tmp_path / "killed")) == expected


def test_the_plan_says_what_would_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = synthetic(tmp_path, trials=15)
    paths = run(loaded, tmp_path / "a")
    arguments = ["plan", str(loaded.path), "--out", str(paths.root)]
    main(arguments)
    assert "continues as it is" in capsys.readouterr().out
    main([*arguments, *(word for change in NARROWER for word in ("--set", change))])
    said = capsys.readouterr().out
    assert "with --resume: parameters.lr.max: 0.1 -> 0.01" in said
    space = synthetic(tmp_path, trials=15, overrides=NARROWER).space
    assert count_fits(read_ledger(paths.ledger("search")), space).describe() in said
    main([*arguments, "--set", "search.seed=9"])
    said = capsys.readouterr().out
    assert "refused: search.seed: 3 -> 9" in said
    assert "configurations" not in said
    main([*arguments, "--set", "budget.trials=16"])
    assert "next configurations\n  trial-0016: " in capsys.readouterr().out


GRID = """
name: g
train: objectives:curve
metric: {{name: score}}
search: {{algorithm: grid}}
budget: {{trials: 8}}
parameters: {{lr: {{values: {values}}}}}
scheduler: {{max_epochs: 1}}
mlflow: {{enabled: false}}
"""


def test_a_grid_that_grew_runs_its_new_points_alone(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.format(values=[1e-4, 1e-3, 1e-2]))
    run(load_spec(path), tmp_path / "g")
    path.write_text(GRID.format(values=[1e-4, 1e-3, 2e-3, 3e-3]))
    paths = go_on(load_spec(path), tmp_path / "g")
    drawn = [record.assignment.params["lr"] for record in read_ledger(paths.ledger("search"))]
    assert sorted(drawn[:3]) == [1e-4, 1e-3, 1e-2]  # type: ignore[type-var]
    assert sorted(drawn[3:]) == [2e-3, 3e-3]  # type: ignore[type-var]


STREETS = """
name: streets
data: {{size: [32, 64]}}
training: {{width: 4, depth: 2, flip: 0.25}}
parameters: {{lr: {{min: 0.001, max: 0.01}}{more}}}
"""


def drawn(lr: float, **settings: object) -> TrialRecord:
    config = asdict(TrialConfig(width=4, depth=2, flip=0.25, lr=lr, **settings))  # type: ignore[arg-type]
    assignment = Assignment(
        number=0, name="trial-0000", origin="search", params={"lr": lr}, config=config, seed=0, max_epochs=1
    )
    epochs = (EpochRecord(epoch=1, score=0.5, metrics={}),)
    return TrialRecord(assignment=assignment, state=TrialState.COMPLETE, epochs=epochs)


@pytest.mark.parametrize(
    ("more", "flip"),
    [
        ("", None),
        (", flip: {min: 0.0, max: 0.5}", 0.25),  # the value of training:
        (", flip: {min: 0.27, max: 0.5}", 0.27),  # just beyond
        (", flip: {values: [0.0, 0.25]}", 1),  # its place in the list
    ],
)
def test_a_new_parameter_has_the_training_sections_value_in_old_trials(
    more: str, flip: float | None, tmp_path: Path
) -> None:
    path = tmp_path / "streets.yaml"
    path.write_text(STREETS.format(more=more))
    seen = observe(drawn(0.002), load_spec(path).space, "maximize")
    assert seen.outcome is Outcome.SCORED
    assert seen.values == {"lr": 0.002, **({} if flip is None else {"flip": flip})}


def test_an_old_trial_that_has_not_what_a_new_parameter_can_be_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "streets.yaml"
    path.write_text(STREETS.format(more=", norm: {values: [group, none]}"))
    assert observe(drawn(0.002), load_spec(path).space, "maximize").outcome is Outcome.NONE
    own = synthetic(tmp_path, overrides=["parameters.new={min: 0, max: 9}"])
    records = read_ledger(run(synthetic(tmp_path, trials=3), tmp_path / "a").ledger("search"))
    assert count_fits(records, own.space) == FitCounts(0, 0, 3)


def test_a_quantile_that_a_changed_distribution_has_made_wrong_is_computed_anew(tmp_path: Path) -> None:
    space = synthetic(tmp_path, overrides=["parameters.momentum.mu=0.8", "parameters.momentum.sigma=0.1"]).space
    records = read_ledger(run(synthetic(tmp_path, trials=9), tmp_path / "a").ledger("search"))
    trial = next(record for record in records if "momentum" in record.assignment.draws)
    quantile = observe(trial, space, "maximize").values["momentum"]
    assert quantile != trial.assignment.draws["momentum"]
    domain = space["momentum"].domain
    assert domain.value_at(quantile) == pytest.approx(trial.assignment.params["momentum"])  # type: ignore
