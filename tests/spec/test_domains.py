"""Domains: what they contain, list and draw."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segbench.core.records import Scalar
from segbench.spec.beta import beta_cdf, beta_quantile
from segbench.spec.domains import Beta, Categorical, Constant, Domain, Integer, Normal, Real, Transformed, is_same

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
        (Integer(8, 64), [8, 16, 64], [7, 65, 8.5, True, "8", None]),
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
    assert list(Integer(1, 4).choices()) == [1, 2, 3, 4]
    assert UNIFORM.choices() == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert LOG_UNIFORM.choices() == tuple(range(4, 65, 4))
    assert Real(0.0, 1.0).choices() is None
    assert NORMAL.choices() is None


@pytest.mark.parametrize("domain", TRANSFORMED)
def test_values_rise_with_u_and_stay_inside_at_the_ends(domain: Transformed) -> None:
    values = [domain.value_at(u / 1000) for u in range(1001)]
    assert values == sorted(values)
    assert all(math.isfinite(value) and domain.contains(value) for value in values)


@pytest.mark.parametrize("domain", TRANSFORMED)
@given(u=st.floats(1e-4, 1 - 1e-4))
def test_position_is_the_inverse_of_value(domain: Transformed, u: float) -> None:
    value = domain.value_at(u)
    assert domain.value_at(domain.position(value)) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_medians_are_those_of_the_distributions() -> None:
    assert NORMAL.value_at(0.5) == 1.0
    assert LOG_NORMAL.value_at(0.5) == pytest.approx(math.exp(-3))
    assert Q_NORMAL.value_at(0.5) == 10
    assert Transformed(Real(1e-4, 1.0, log=True)).value_at(0.5) == pytest.approx(1e-2)


def test_rounding_goes_to_the_nearest_multiple_and_leaves_no_binary_dust() -> None:
    values = [UNIFORM.value_at((k + 0.5) / 1000) for k in range(1000)]
    wanted = {k / 10: 100 for k in range(11)} | {0.0: 50, 1.0: 50}  # half as many numbers are nearest to an end
    assert {value: values.count(value) for value in values} == wanted


def test_a_whole_q_gives_whole_numbers() -> None:
    assert all(isinstance(LOG_UNIFORM.value_at(u / 10), int) for u in range(11))
    assert isinstance(Q_NORMAL.value_at(0.3), int)


EVERY_KIND: list[Domain] = [
    Constant("a"),
    Categorical((1, True, "a", None)),
    Categorical((1, 2, 3), (0.2, 0.0, 0.8)),
    Integer(8, 64),
    Real(0.1, 1.0),
    Real(1e-4, 1.0, log=True),
    Transformed(Real(1.0, 64.0, log=True), 1),
    Transformed(Beta(2.0, 5.0)),
    Transformed(Beta(0.5, 0.5), 0.1),
    *TRANSFORMED,
]


@pytest.mark.parametrize("domain", EVERY_KIND, ids=repr)
def test_position_gives_a_quantile_of_every_value_that_can_be_drawn(domain: Domain) -> None:
    for k in range(500):
        value = domain.value_at((k + 0.5) / 500)
        at = domain.position(value)
        assert 0 < at < 1
        assert domain.contains(value)
        again = domain.value_at(at)
        assert again == (pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value)
        assert type(again) is type(value)


@pytest.mark.parametrize(
    "domain", [domain for domain in EVERY_KIND if domain.choices() and len(domain.choices() or ()) > 1], ids=repr
)
def test_the_position_of_a_value_is_the_middle_of_its_draws(domain: Domain) -> None:
    draws = [(u, domain.value_at(u)) for u in ((k + 0.5) / 4000 for k in range(4000))]
    for value in {value for _, value in draws}:
        own = [u for u, other in draws if is_same(other, value)]
        assert domain.position(value) == pytest.approx((own[0] + own[-1]) / 2, abs=1 / 4000)


def test_the_ends_of_a_domain_have_positions_too() -> None:
    for domain in (Real(0.1, 1.0), Real(1e-4, 1.0, log=True), Integer(1, 5), Transformed(Beta(2.0, 5.0))):
        for value in domain.probes():
            assert isinstance(value, int | float)
            assert 0 < domain.position(value) < 1
            assert domain.value_at(domain.position(value)) == pytest.approx(value, abs=1e-3)


def test_a_value_of_probability_zero_belongs_to_the_domain_and_is_never_drawn() -> None:
    domain = Categorical(("a", "b", "c"), (0.0, 1.0, 0.0))
    assert domain.contains("a")
    assert {domain.value_at(u) for u in (0.0, 1e-9, 0.5, 1 - 1e-9, 1.0)} == {"b"}
    assert all(0 < domain.position(value) < 1 for value in domain.values)


@pytest.mark.parametrize("shapes", [(0.05, 3.0), (0.5, 0.5), (1.0, 1.0), (2.0, 5.0), (30.0, 0.2), (1e4, 2e4)])
def test_beta_is_that_of_scipy(shapes: tuple[float, float]) -> None:
    xs = [k / 50 for k in range(51)]
    us = [k / 50 for k in range(1, 50)]
    quantiles = [beta_quantile(u, *shapes) for u in us]
    assert [beta_cdf(x, *shapes) for x in xs] == pytest.approx(list(stats.beta.cdf(xs, *shapes)), rel=1e-9, abs=1e-12)
    assert quantiles == pytest.approx(list(stats.beta.ppf(us, *shapes)), rel=1e-9)
