"""Entries of ``parameters:`` spelled as in W&B sweeps -> domains."""

import math
from typing import Any

import pytest

from segbench.spec.distributions import parse_domain
from segbench.spec.domains import Beta, Categorical, Constant, Domain, Integer, Normal, Real, Structure, Transformed
from segbench.spec.schema import DISTRIBUTIONS
from segbench.spec.source import EntryError

EXAMPLES: list[tuple[dict[str, Any], Domain]] = [
    ({"value": 3}, Constant(3)),
    ({"value": None}, Constant(None)),
    ({"distribution": "constant", "value": "a"}, Constant("a")),
    ({"values": [1, "a", None, True]}, Categorical((1, "a", None, True))),
    ({"distribution": "categorical", "values": [1]}, Categorical((1,))),
    ({"min": 1, "max": 3}, Integer(1, 3)),
    ({"min": 1.0, "max": 3.0}, Real(1.0, 3.0)),
    ({"min": 0, "max": 1.0}, Real(0.0, 1.0)),
    ({"distribution": "int_uniform", "min": 1, "max": 3}, Integer(1, 3)),
    ({"distribution": "uniform", "min": 1, "max": 3}, Real(1.0, 3.0)),
    ({"distribution": "log_uniform_values", "min": 1e-4, "max": 1}, Real(1e-4, 1.0, log=True)),
    ({"distribution": "log_uniform", "min": -2, "max": 0}, Real(math.exp(-2), 1.0, log=True)),
    ({"distribution": "q_uniform", "min": 5, "max": 30, "q": 8}, Transformed(Real(5.0, 30.0), 8)),
    ({"distribution": "q_uniform", "min": 1, "max": 3}, Transformed(Real(1.0, 3.0), 1)),
    ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.1}, Transformed(Real(0.0, 1.0), 0.1)),
    ({"distribution": "q_log_uniform_values", "min": 1, "max": 64}, Transformed(Real(1.0, 64.0, log=True), 1)),
    (
        {"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 8},
        Transformed(Real(8.0, 64.0, log=True), 8),
    ),
    ({"distribution": "normal"}, Transformed(Normal(0.0, 1.0))),
    ({"distribution": "normal", "mu": 2, "sigma": 3}, Transformed(Normal(2.0, 3.0))),
    ({"distribution": "log_normal", "mu": -3}, Transformed(Normal(-3.0, 1.0, log=True))),
    ({"distribution": "q_normal", "mu": 8, "sigma": 2}, Transformed(Normal(8.0, 2.0), 1)),
    ({"values": ["a", "b"], "probabilities": [1, 0]}, Categorical(("a", "b"), (1.0, 0.0))),
    (
        {"distribution": "categorical_w_probabilities", "values": [1, 2], "probabilities": [0.25, 0.75]},
        Categorical((1, 2), (0.25, 0.75)),
    ),
    ({"values": [[3, 3], {"b": 1, "a": [2]}]}, Categorical((Structure("[3, 3]"), Structure('{"a": [2], "b": 1}')))),
    ({"value": {"a": None}}, Constant(Structure('{"a": null}'))),
    ({"distribution": "q_log_uniform", "min": 1, "max": 3, "q": 2}, Transformed(Real(math.e, math.exp(3), True), 2)),
    ({"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 1}, Real(1e-4, 1.0, log=True)),
    ({"distribution": "inv_log_uniform", "min": 0, "max": 2}, Real(math.exp(-2), 1.0, log=True)),
    ({"distribution": "beta"}, Transformed(Beta(1.0, 1.0))),
    ({"distribution": "beta", "a": 2, "b": 0.5}, Transformed(Beta(2.0, 0.5))),
    ({"distribution": "q_beta", "a": 2, "q": 0.25}, Transformed(Beta(2.0, 1.0), 0.25)),
    ({"distribution": "q_log_normal", "mu": 3, "q": 0.5}, Transformed(Normal(3.0, 1.0, log=True), 0.5)),
]


@pytest.mark.parametrize(("body", "domain"), EXAMPLES)
def test_an_entry_is_read_as_in_wandb(body: dict[str, Any], domain: Domain) -> None:
    assert parse_domain(body, ("x",)) == domain


def test_every_distribution_has_an_example() -> None:
    assert {body["distribution"] for body, _ in EXAMPLES if "distribution" in body} == set(DISTRIBUTIONS)


@pytest.mark.parametrize("name", ["loguniform", "gaussian", "randint", "foo", 3])
def test_a_distribution_we_do_not_have_is_refused_with_a_way_out(name: object) -> None:
    with pytest.raises(EntryError, match="unknown distribution"):
        parse_domain({"distribution": name, "min": 0, "max": 1}, ("x",))


def test_bounds_that_overflow_are_refused() -> None:
    with pytest.raises(EntryError, match="between -700 and 700"):
        parse_domain({"distribution": "log_uniform", "min": 1, "max": 1000}, ("x",))
    with pytest.raises(EntryError, match="overflow"):
        parse_domain({"distribution": "log_normal", "mu": 1000}, ("x",))


def test_int_uniform_wants_whole_bounds() -> None:
    with pytest.raises(EntryError, match="must be a whole number for int_uniform"):
        parse_domain({"distribution": "int_uniform", "min": 1, "max": 2.5}, ("x",))
