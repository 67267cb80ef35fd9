"""10,000 draws of every distribution against what it is documented to be, in closed form.

Continuous ones by the Kolmogorov-Smirnov distance, lists of values by their frequencies, each within 4 standard errors.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

import pytest
from scipy import stats

from segbench.core.records import Scalar
from segbench.spec.distributions import parse_domain
from segbench.spec.domains import Domain
from segbench.spec.schema import DISTRIBUTIONS

NUM_DRAWS = 10_000
KS_BOUND = 2.0 / math.sqrt(NUM_DRAWS)
"""A fair sample is further away once in 1,500 times; the seed is fixed."""

Cdf = Callable[[float], float]


def draws_of(domain: Domain) -> list[Any]:
    generator = random.Random(5)
    return [domain.value_at(generator.random()) for _ in range(NUM_DRAWS)]


def uniform(low: float, high: float) -> Cdf:
    return lambda x: min(max((x - low) / (high - low), 0.0), 1.0)


def log_uniform(low: float, high: float) -> Cdf:
    return lambda x: 0.0 if x <= 0 else uniform(math.log(low), math.log(high))(math.log(x))


def inverse(cdf: Cdf) -> Cdf:
    """Of x, where ``cdf`` is that of log(1/x)."""
    return lambda x: 1 - cdf(math.log(1 / x))


def normal(mu: float, sigma: float) -> Cdf:
    return NormalDist(mu, sigma).cdf


def log_normal(mu: float, sigma: float) -> Cdf:
    return lambda x: 0.0 if x <= 0 else NormalDist(mu, sigma).cdf(math.log(x))


def beta(a: float, b: float) -> Cdf:
    return lambda x: float(stats.beta.cdf(x, a, b))


CONTINUOUS: list[tuple[dict[str, Any], Cdf]] = [
    ({"min": 1.0, "max": 3.0}, uniform(1, 3)),
    ({"distribution": "uniform", "min": -1, "max": 3}, uniform(-1, 3)),
    ({"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1}, log_uniform(1e-5, 0.1)),
    ({"distribution": "log_uniform", "min": -9, "max": -2}, log_uniform(math.exp(-9), math.exp(-2))),
    ({"distribution": "inv_log_uniform", "min": 2, "max": 9}, inverse(uniform(2, 9))),
    (
        {"distribution": "inv_log_uniform_values", "min": 1e-5, "max": 0.1},
        inverse(uniform(math.log(1 / 0.1), math.log(1 / 1e-5))),
    ),
    ({"distribution": "normal", "mu": 2, "sigma": 3}, normal(2, 3)),
    ({"distribution": "log_normal", "mu": -3, "sigma": 0.5}, log_normal(-3, 0.5)),
    ({"distribution": "beta"}, uniform(0, 1)),
    ({"distribution": "beta", "a": 2, "b": 5}, beta(2, 5)),
    ({"distribution": "beta", "a": 0.5, "b": 0.3}, beta(0.5, 0.3)),
]

ROUNDED: list[tuple[dict[str, Any], Cdf, float]] = [
    ({"distribution": "q_uniform", "min": 1, "max": 5}, uniform(1, 5), 1),
    ({"distribution": "q_uniform", "min": 0.0, "max": 0.5, "q": 0.1}, uniform(0, 0.5), 0.1),
    ({"distribution": "q_uniform", "min": 5, "max": 30, "q": 8}, uniform(5, 30), 8),
    ({"distribution": "q_log_uniform_values", "min": 1, "max": 4}, log_uniform(1, 4), 1),
    ({"distribution": "q_log_uniform_values", "min": 8, "max": 128, "q": 8}, log_uniform(8, 128), 8),
    ({"distribution": "q_log_uniform", "min": 0.5, "max": 3, "q": 0.5}, log_uniform(math.exp(0.5), math.exp(3)), 0.5),
    ({"distribution": "q_normal", "mu": 10, "sigma": 3, "q": 2}, normal(10, 3), 2),
    ({"distribution": "q_log_normal", "mu": 3, "sigma": 0.5, "q": 4}, log_normal(3, 0.5), 4),
    ({"distribution": "q_beta", "a": 2, "b": 5, "q": 0.1}, beta(2, 5), 0.1),
]

LISTED: list[tuple[dict[str, Any], Mapping[Scalar, float]]] = [
    ({"distribution": "constant", "value": 3}, {3: 1.0}),
    ({"min": 1, "max": 4}, dict.fromkeys((1, 2, 3, 4), 0.25)),
    ({"distribution": "int_uniform", "min": -1, "max": 1}, dict.fromkeys((-1, 0, 1), 1 / 3)),
    ({"distribution": "categorical", "values": ["a", None, 0.5]}, dict.fromkeys(("a", None, 0.5), 1 / 3)),
    ({"values": ["a", "b", "c"], "probabilities": [0.7, 0, 0.3]}, {"a": 0.7, "c": 0.3}),
    (
        {"distribution": "categorical_w_probabilities", "values": [1, 2, 3], "probabilities": [0.5, 0.3, 0.2]},
        {1: 0.5, 2: 0.3, 3: 0.2},
    ),
]


@pytest.mark.parametrize(("body", "cdf"), CONTINUOUS)
def test_real_numbers_are_drawn_from_the_distribution(body: dict[str, Any], cdf: Cdf) -> None:
    draws = sorted(draws_of(parse_domain(body, ("x",))))
    shares = [cdf(value) for value in draws]
    distance = max(max(abs(share - k / NUM_DRAWS), abs(share - (k + 1) / NUM_DRAWS)) for k, share in enumerate(shares))
    assert distance < KS_BOUND


def check_frequencies(draws: list[Any], wanted: Mapping[Any, float]) -> None:
    counts = Counter(draws)
    for value in counts.keys() | wanted.keys():
        share = wanted.get(value, 0.0)
        error = math.sqrt(share * (1 - share) / NUM_DRAWS)
        assert abs(counts[value] / NUM_DRAWS - share) <= 4 * error + 1e-9, (value, counts[value], share)


@pytest.mark.parametrize(("body", "cdf", "q"), ROUNDED)
def test_rounded_numbers_are_the_nearest_multiples_within_the_ends(body: dict[str, Any], cdf: Cdf, q: float) -> None:
    domain = parse_domain(body, ("x",))
    first, last = (round(float(str(end)) / q) for end in (domain.probes()[0], domain.probes()[-1]))
    bounds = [-math.inf, *((k + 0.5) * q for k in range(first, last)), math.inf]
    below = [0.0, *(cdf(bound) for bound in bounds[1:-1]), 1.0]
    wanted = {first + k: below[k + 1] - below[k] for k in range(last - first + 1)}
    check_frequencies([round(value / q) for value in draws_of(domain)], wanted)


@pytest.mark.parametrize(("body", "wanted"), LISTED)
def test_listed_values_have_their_probabilities(body: dict[str, Any], wanted: Mapping[Scalar, float]) -> None:
    check_frequencies(draws_of(parse_domain(body, ("x",))), wanted)


def test_every_distribution_is_drawn_here() -> None:
    bodies = [body for body, *_ in (*CONTINUOUS, *ROUNDED, *LISTED)]
    assert {body["distribution"] for body in bodies if "distribution" in body} == set(DISTRIBUTIONS)


def test_the_smallest_of_a_logarithmic_whole_number_is_drawn_as_often_as_its_logarithm_says() -> None:
    draws = draws_of(parse_domain({"distribution": "q_log_uniform_values", "min": 1, "max": 4}, ("x",)))
    assert Counter(draws)[1] / NUM_DRAWS == pytest.approx(math.log(1.5) / math.log(4), abs=0.02)  # 0.29
