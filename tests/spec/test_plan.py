"""The plan: rungs and epochs before anything runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.spec.parse import parse_space
from segbench.spec.plan import SweepPlan, plan_sweep
from segbench.spec.schema import SweepSpec, rung_epochs


def plan_of(parameters: dict[str, object] | None = None, **sections: object) -> SweepPlan:
    parameters = parameters or {"lr": {"min": 0.1, "max": 1.0}}
    spec = SweepSpec.model_validate({"name": "x", "parameters": parameters, **sections})
    space, problems = parse_space(parameters, spec.training)
    assert problems == []
    return plan_sweep(spec, space)


@pytest.mark.parametrize(
    ("first", "longest", "spacing", "expected"),
    [
        (1, 20, 3, (1, 3, 9)),
        (2, 6, 2, (2, 4)),
        (1, 9, 3, (1, 3)),
        (5, 5, 2, ()),
        (1, 1, 4, ()),
        (4, 17, 4, (4, 16)),
        (1, 20, 3**0.5, (1, 2, 3, 5, 9, 16)),
    ],
)
def test_rungs_are_powers_of_the_factor_below_max_epochs(
    first: int, longest: int, spacing: float, expected: tuple[int, ...]
) -> None:
    assert rung_epochs(first, longest, spacing) == expected


@given(st.integers(1, 50), st.integers(1, 500), st.integers(2, 6))
def test_rungs_rise_and_never_include_max_epochs(grace: int, longest: int, factor: int) -> None:
    epochs = rung_epochs(grace, longest, factor)
    assert list(epochs) == sorted(set(epochs))
    assert all(grace <= epoch < longest for epoch in epochs)


def test_baselines_run_at_full_length_and_are_retrained_too() -> None:
    plan = plan_of(
        budget={"trials": 4},
        scheduler={"max_epochs": 8, "grace_epochs": 2, "reduction_factor": 2, "rung_spacing": 2},
        retrain={"top_k": 2, "seeds": 3, "epochs": 10},
        baselines=[{"name": "a", "parameters": {}}],
    )
    assert plan.search_epochs_worst == 5 * 8
    assert plan.finalists == 3
    assert (plan.retrain_trainings, plan.retrain_epochs) == (9, 90)
    assert plan.epochs_worst == 40 + 90
    assert plan.checkpoints == 5 + 9 + 3


def test_a_small_grid_ends_the_search_early() -> None:
    parameters: dict[str, object] = {"width": {"values": [8, 16, 32]}}
    assert plan_of(parameters, search={"algorithm": "grid"}, budget={"trials": 20}).trials == 3
    assert plan_of(parameters, search={"algorithm": "grid"}, budget={"trials": 2}).trials == 2


def test_rows_are_text_for_a_table() -> None:
    rows = dict(plan_of(budget={"trials": 10}).rows())
    assert rows["search trials"] == "10"
    assert rows["search epochs, at worst"] == "200"
