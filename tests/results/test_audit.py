"""The audit of early stopping: it changes no decision but its own, survives a kill, and its estimate is true."""

from dataclasses import replace
from pathlib import Path

import pytest
from objectives import full_curves
from running import decisions, optuna_states, run, synthetic

from segbench.core.errors import SegbenchError
from segbench.core.ledger import Ledger, Records, read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import TrialRecord, TrialState
from segbench.core.seeding import derive_seed
from segbench.results.audit import measure_audit
from segbench.search.forecast import forecast
from segbench.spec.load import load_spec

RECORDED = """
name: recorded
train: objectives:recorded
metric: {name: score}
parameters: {curve: {min: 0, max: 149}}
search: {algorithm: grid}
scheduler: {max_epochs: 9, grace_epochs: 1, reduction_factor: 3, audit: 1.0}
budget: {trials: 150}
mlflow: {enabled: false}
"""
TOP_K = 3


def searched(paths: SweepPaths) -> list[TrialRecord]:
    return read_ledger(paths.ledger("search"))


def as_records(records: list[TrialRecord]) -> Records:
    return Records("score", "maximize", records)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_audit_changes_nothing_for_the_other_trials(tmp_path: Path, share: float) -> None:
    without = searched(run(synthetic(tmp_path, trials=40), tmp_path / "without"))
    paths = run(synthetic(tmp_path, trials=40, overrides=[f"scheduler.audit={share}"]), tmp_path / "with")
    records = searched(paths)
    audited = [record for record in records if record.audited_rung is not None]
    assert audited
    assert {record.audited_rung for record in audited} <= {1, 2, 3, 5}
    assert all(record.state is TrialState.COMPLETE and record.epochs_done == 9 for record in audited)

    def decided(record: TrialRecord) -> tuple[object, ...]:
        scores = [(epoch.epoch, epoch.score) for epoch in record.epochs]
        return record.assignment, record.state, record.reason, scores

    assert [decided(record.as_stopped()) for record in records] == [decided(record) for record in without]
    # Optuna knows of an audited trial what it knew when it was to be stopped
    assert optuna_states(paths) == [record.state.value for record in without]


def test_all_stops_are_audited_or_none(tmp_path: Path) -> None:
    records = searched(run(synthetic(tmp_path, overrides=["scheduler.audit=1"]), tmp_path / "all"))
    assert {record.state for record in records} == {TrialState.COMPLETE}
    assert not any(record.audited_rung for record in searched(run(synthetic(tmp_path), tmp_path / "none")))


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("kill_after", [14, 16, 17, 18, 19, 25, 40, 71, 90])
def test_a_killed_sweep_goes_on_with_the_same_audit(
    tmp_path: Path, kill_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = synthetic(tmp_path, overrides=["scheduler.audit=0.5"])
    expected = run(loaded, tmp_path / "whole")
    count, append = 0, Ledger._append

    def dying(self: Ledger, event: dict[str, object]) -> object:
        nonlocal count
        count += 1
        if count > kill_after:
            raise Killed
        return append(self, event)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_append", dying)
        with pytest.raises(Killed):
            run(loaded, tmp_path / "killed")
    actual = run(loaded, tmp_path / "killed")
    assert decisions(actual) == decisions(expected)
    assert optuna_states(actual) == optuna_states(expected)
    assert any(record.audited_rung for record in searched(actual))


def test_a_trial_that_breaks_after_its_stop_fails_and_its_stop_was_right(tmp_path: Path) -> None:
    records = searched(run(synthetic(tmp_path, overrides=["scheduler.audit=1"]), tmp_path / "a"))
    audited = next(record for record in records if record.audited_rung)
    broken = replace(audited, state=TrialState.FAIL, reason="nan: score at epoch 7")
    audit = measure_audit(as_records([broken if r is audited else r for r in records]), TOP_K)
    assert audit is not None
    assert audited.assignment.name not in audit.wrong


def test_the_plan_counts_the_epochs_of_audited_trials(tmp_path: Path) -> None:
    plain, all_ = (synthetic(tmp_path, overrides=[f"scheduler.audit={share}"]) for share in (0.0, 1.0))
    told = {share: forecast(loaded.spec, 20).epochs for share, loaded in (("none", plain), ("all", all_))}
    assert told["none"].high < 21 * 9
    assert told["all"].high == 21 * 9
    assert told["all"].median > 2 * told["none"].median


def test_a_share_above_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError, match="audit"):
        synthetic(tmp_path, overrides=["scheduler.audit=5"])


@pytest.fixture(scope="module")
def every_stop(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    """150 real trainings through ASHA, every stop audited: so the truth of each is known."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "recorded.yaml").write_text(RECORDED)
    return searched(run(load_spec(folder / "recorded.yaml"), folder / "sweep"))


def sample(records: list[TrialRecord], seed: int, share: float) -> list[TrialRecord]:
    """The same search with another draw of the audit: it makes the same decisions (see above)."""
    return [r if derive_seed(seed, "audit", r.number) < share * 2**31 else r.as_stopped() for r in records]


def test_the_truth_is_the_rate_over_all_stops(every_stop: list[TrialRecord]) -> None:
    curves = full_curves()
    stopped = [record for record in every_stop if record.audited_rung is not None]
    finals = {record.number: max(curves[record.number]) for record in every_stop}
    full_length = sorted((finals[r.number] for r in every_stop if r.audited_rung is None), reverse=True)
    wrong = [record.assignment.name for record in stopped if finals[record.number] > full_length[TOP_K - 1]]
    truth = measure_audit(as_records(every_stop), TOP_K)
    assert truth is not None
    assert len(stopped) > 100
    assert (truth.num_stops, truth.num_audited) == (len(stopped), len(stopped))
    assert list(truth.wrong) == wrong
    assert wrong, "a set of curves on which ASHA never errs shows nothing"
    best_stopped = max(finals[record.number] for record in stopped)
    assert truth.regret == pytest.approx(max(0.0, best_stopped - full_length[0]))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("top_k", [TOP_K, 10])
def test_the_interval_contains_the_truth(every_stop: list[TrialRecord], share: float, top_k: int) -> None:
    truth = measure_audit(as_records(every_stop), top_k)
    assert truth is not None
    audits = [measure_audit(as_records(sample(every_stop, seed, share)), top_k) for seed in range(400)]
    found = [audit for audit in audits if audit is not None]
    assert len(found) > 390
    contained = [audit.interval.low <= truth.rate <= audit.interval.high for audit in found]
    assert sum(contained) >= 0.95 * len(found)
    assert all(audit.needed == truth.needed and audit.num_stops == truth.num_stops for audit in found)
    assert all(0 <= audit.regret <= truth.regret for audit in found)
    pooled = sum(len(audit.wrong) for audit in found) / sum(audit.num_audited for audit in found)
    assert pooled == pytest.approx(truth.rate, abs=0.15 * truth.rate)
