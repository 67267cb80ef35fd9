"""What is kept, clipped and dropped of an old sweep, and that TPE learns from it."""

from pathlib import Path

import pytest
from running import run, synthetic

from segbench.core.errors import UserError
from segbench.core.ledger import read_ledger
from segbench.core.records import Assignment, EpochRecord, TrialRecord, TrialState
from segbench.search.study import Study
from segbench.search.warm_start import warm_start
from segbench.spec.load import load_spec
from segbench.sweep.folder import read_prior

SPACE = """
name: new
train: objectives:curve
metric: {name: score}
parameters:
  family: {values: [a, b]}
  lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}
  width: {when: {family: a}, min: 0, max: 100}
"""


def old(state: TrialState = TrialState.COMPLETE, **params: object) -> TrialRecord:
    assignment = Assignment(
        number=0,
        name="trial-0000",
        origin="search",
        params=params,  # type: ignore[arg-type]
        config={"width": 7},
        seed=0,
        max_epochs=1,
    )
    return TrialRecord(assignment=assignment, state=state, epochs=(EpochRecord(epoch=1, score=0.5, metrics={}),))


@pytest.mark.parametrize(
    ("record", "becomes"),
    [
        (old(family="a", lr=1e-3, width=50), {"family": "a", "lr": 1e-3, "width": 50}),
        (old(family="b", lr=1e-3, width=50), {"family": "b", "lr": 1e-3}),  # inactive there
        (old(family="a", lr=1e-3), {"family": "a", "lr": 1e-3, "width": 7}),  # was fixed in the old file
        (old(family="a", lr=1.1e-2, width=110), {"family": "a", "lr": 1e-2, "width": 100}),
        (old(family="a", lr=1e-3, width=111), None),  # more than a tenth beyond
        (old(family="b", lr=1e-1), None),
        (old(family="c", lr=1e-3), None),
        (old(family="b"), None),
        (old(TrialState.FAIL, family="b", lr=1e-3), None),
        (old(TrialState.RUNNING, family="b", lr=1e-3), None),
    ],
)
def test_each_old_trial_is_kept_clipped_or_dropped(
    record: TrialRecord, becomes: dict[str, object] | None, tmp_path: Path
) -> None:
    (tmp_path / "new.yaml").write_text(SPACE)
    loaded = load_spec(tmp_path / "new.yaml")
    result = warm_start([record], loaded.space, "maximize")
    assert [dict(r.assignment.params) for r in result.records] == ([] if becomes is None else [becomes])
    assert result.num_dropped == (becomes is None)
    assert result.num_clipped == (becomes is not None and "width" in becomes and becomes["width"] == 100)


def test_a_sweep_learns_from_an_old_one(tmp_path: Path) -> None:
    before = run(synthetic(tmp_path, trials=30), tmp_path / "old")
    loaded = synthetic(tmp_path, trials=8, overrides=[f"search.warm_start=[{tmp_path / 'old'}]", "search.seed=11"])
    prior = read_prior(loaded.spec, loaded.space)
    assert prior.describe() == "30 trials kept, 0 clipped, 1 dropped"  # the baseline lies outside the space
    records = read_ledger(run(loaded, tmp_path / "new").ledger("search"))
    cold = read_ledger(
        run(synthetic(tmp_path, trials=8, overrides=["search.seed=11"]), tmp_path / "cold").ledger("search")
    )
    assert [record.number for record in records] == list(range(9))
    assert records[1].assignment.params != cold[1].assignment.params  # not a random start any more
    again = Study(tmp_path / "again.log", loaded.spec, loaded.space, records[:5], prior.records)
    assert again.suggest(5)[0] == records[5].assignment.params
    assert len(read_ledger(before.ledger("search"))) == 31


def test_a_folder_with_another_metric_or_none_is_refused(tmp_path: Path) -> None:
    run(synthetic(tmp_path, trials=1), tmp_path / "old")
    loaded = synthetic(tmp_path, overrides=["search.warm_start=[nowhere]"])
    with pytest.raises(UserError, match=r"search\.warm_start: nowhere is not a sweep's folder"):
        read_prior(loaded.spec, loaded.space)
    other = synthetic(tmp_path, overrides=[f"search.warm_start=[{tmp_path / 'old'}]", "metric.goal=minimize"])
    with pytest.raises(UserError, match=r"searched for score \(maximize\), this sweep for score \(minimize\)"):
        read_prior(other.spec, other.space)
