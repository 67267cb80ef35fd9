"""Which changes continue a sweep."""

from pathlib import Path

import pytest
from running import local, run, synthetic

from segbench.core.errors import StateError
from segbench.core.ledger import read_ledger
from segbench.core.records import TrialState
from segbench.spec.identity import IDENTITY, RUNTIME, compare
from segbench.spec.schema import SweepSpec
from segbench.sweep.folder import open_folder
from segbench.sweep.stages import Sweep


def test_each_section_is_classified() -> None:
    """A new section must be named in segbench/spec/identity.py: does it change results, or only how they come?"""
    assert set(SweepSpec.model_fields) == IDENTITY | RUNTIME
    assert not IDENTITY & RUNTIME


@pytest.mark.parametrize(
    ("override", "refused", "on_request"),
    [
        ("budget.trials=99", (), ()),
        ("resources.cpu=2", (), ()),
        ("search.seed=4", ("search.seed: 3 -> 4",), ()),
        ("scheduler.max_epochs=27", (), ("scheduler.max_epochs: 9 -> 27",)),
        ("scheduler.max_epochs=5", ("scheduler.max_epochs: 9 -> 5",), ()),
        ("parameters.lr.max=1", (), ("parameters.lr.max: 0.1 -> 1",)),
        ("parameters.family.values=[a, b, c]", (), ("parameters.family.values: ['a', 'b'] -> ['a', 'b', 'c']",)),
        ("retrain={top_k: 1}", (), None),
    ],
)
def test_changes_are_sorted(
    override: str, refused: tuple[str, ...], on_request: tuple[str, ...] | None, tmp_path: Path
) -> None:
    changes = compare(synthetic(tmp_path).spec, synthetic(tmp_path, overrides=[override]).spec, is_retrained=False)
    assert changes.refused == refused
    assert bool(changes.on_request) if on_request is None else changes.on_request == on_request


def test_longer_trials_continue_when_asked_for(tmp_path: Path) -> None:
    paths = run(synthetic(tmp_path, trials=6), tmp_path / "a")
    longer = synthetic(tmp_path, trials=12, overrides=["scheduler.max_epochs=27"])
    with (
        pytest.raises(StateError, match=r"scheduler\.max_epochs: 9 -> 27\nAdd --resume to continue"),
        open_folder(paths, longer.spec),
    ):
        pass
    with open_folder(paths, longer.spec, accept_changes=True):
        Sweep(longer, paths, local).run()
    records = read_ledger(paths.ledger("search"))
    assert [record.assignment.max_epochs for record in records] == [9] * 7 + [27] * 6
    assert all(record.state in (TrialState.COMPLETE, TrialState.PRUNED) for record in records)
