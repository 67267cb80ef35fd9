"""Domains: what they contain, list and draw."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.core.records import Scalar
from segbench.spec.domains import Categorical, Constant, Domain, Integer, Normal, Real, Transformed

UNIFORM = Transformed(Real(0.0, 1.0), 0.1)
LOG_UNIFORM = Transformed(Real(4.0, 64.0, log=True), 4)
NORMAL = Transformed(Normal(1.0, 2.0))
LOG_NORMAL = Transformed(Normal(-3.0, 0.5, log=True))
Q_NORMAL = Transformed(Normal(10.0, 3.0), 2)
TRANSFORMED = [UNIFORM, LOG_UNIFORM, NORMAL, LOG_NORMAL, Q_NORMAL]


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (Constant(1), [1, 1.0], [True, 2, "1", None]),
        (Categorical((1, "a", None, True)), [1, "a", None, True], [False, "1", 2]),
        (Integer(8, 64, step=8), [8, 16, 64], [0, 12, 72, 8.5, True, "8", None]),
        (Real(0.1, 1.0), [0.1, 0.5, 1, 1.0], [0.0, 1.1, True, "0.5", None]),
        (UNIFORM, [0.0, 0.3, 1.0, 1], [0.35, -0.1, 1.1, "0.3", True]),
        (LOG_UNIFORM, [4, 12, 64], [6, 0, 68]),
        (NORMAL, [1.0, -3], [100.0, "1"]),
        (LOG_NORMAL, [0.05], [0.0, -1.0]),
        (Q_NORMAL, [10, 8], [9, 9.5, 100]),
    ],
)
def test_a_domain_contains_what_it_can_draw(domain: Domain, inside: list[Scalar], outside: list[Scalar]) -> None:
    assert all(domain.contains(value) for value in inside)
    assert not any(domain.contains(value) for value in outside)
    assert all(domain.contains(value) for value in domain.probes())
    assert all(domain.contains(value) for value in domain.choices() or ())


def test_choices_are_all_values_or_none() -> None:
    assert list(Integer(1, 7, step=3).choices()) == [1, 4, 7]
    assert UNIFORM.choices() == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert LOG_UNIFORM.choices() == tuple(range(4, 65, 4))
    assert Real(0.0, 1.0).choices() is None
    assert NORMAL.choices() is None


@pytest.mark.parametrize("domain", TRANSFORMED)
def test_values_rise_with_u_and_stay_inside_at_the_ends(domain: Transformed) -> None:
    values = [domain.value(u / 1000) for u in range(1001)]
    assert values == sorted(values)
    assert all(math.isfinite(value) and domain.contains(value) for value in values)


@pytest.mark.parametrize("domain", TRANSFORMED)
@given(u=st.floats(1e-4, 1 - 1e-4))
def test_position_is_the_inverse_of_value(domain: Transformed, u: float) -> None:
    value = domain.value(u)
    assert domain.value(domain.position(value)) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_medians_are_those_of_the_distributions() -> None:
    assert NORMAL.value(0.5) == 1.0
    assert LOG_NORMAL.value(0.5) == pytest.approx(math.exp(-3))
    assert Q_NORMAL.value(0.5) == 10
    assert Transformed(Real(1e-4, 1.0, log=True)).value(0.5) == pytest.approx(1e-2)


def test_rounding_draws_all_multiples_equally_and_without_binary_dust() -> None:
    values = [UNIFORM.value((k + 0.5) / 1100) for k in range(1100)]
    assert {value: values.count(value) for value in values} == {k / 10: 100 for k in range(11)}


def test_a_whole_q_gives_whole_numbers() -> None:
    assert all(isinstance(LOG_UNIFORM.value(u / 10), int) for u in range(11))
    assert isinstance(Q_NORMAL.value(0.3), int)
