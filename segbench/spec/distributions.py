"""An entry of ``parameters:`` -> its domain, with the distributions spelled as in W&B sweeps."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from segbench.spec.domains import (
    DISTRIBUTIONS,
    Beta,
    Categorical,
    Constant,
    Domain,
    Integer,
    Normal,
    Number,
    Real,
    Transformed,
    as_scalar,
    is_number,
    is_same,
    multiples_within,
)
from segbench.spec.source import EntryError, KeyPath, listed, show, unknown

ENTRY_KEYS = (
    *("value", "values", "probabilities", "min", "max", "distribution", "q", "mu", "sigma", "a", "b"),
    *("prior", "prior_confidence", "when", "parameters"),
)

_KEY_HINTS = {
    **dict.fromkeys(("low", "lower", "start", "from"), "write min"),
    **dict.fromkeys(("high", "upper", "stop", "to"), "write max"),
    **dict.fromkeys(("choices", "categories", "options", "choice", "grid"), "write values"),
    **dict.fromkeys(("type", "dist"), "write distribution"),
    **dict.fromkeys(("step", "quantum"), "write distribution: q_uniform with q"),
    **dict.fromkeys(("mean", "loc"), "write mu"),
    **dict.fromkeys(("std", "scale", "sd"), "write sigma"),
    **dict.fromkeys(("if", "condition", "conditions", "depends_on"), "write when"),
    "log": "write distribution: log_uniform_values",
    **dict.fromkeys(("probability", "probs", "weights", "p"), "write probabilities"),
    "alpha": "write a",
    "beta": "write b",
    "confidence": "write prior_confidence",
    **dict.fromkeys(("default", "guess", "initial"), "write prior for a guess; a configuration to try is a baseline"),
}
_DISTRIBUTION_HINTS = {
    **dict.fromkeys(("loguniform", "log-uniform", "log"), "write log_uniform_values (min and max are values)"),
    **dict.fromkeys(("choice", "choices", "category"), "write categorical with values"),
    **dict.fromkeys(("int", "randint", "integer"), "write int_uniform"),
    **dict.fromkeys(("gaussian", "randn"), "write normal"),
    **dict.fromkeys(("quniform",), "write q_uniform"),
}

MAX_SHAPE = 1e6
"""Of beta: above it a draw takes too long, and all draws are the mean."""


def parse_domain(body: Mapping[str, Any], path: KeyPath) -> Domain:
    """Return the domain that an entry of ``parameters:`` describes.

    Args:
        body: the entry without ``when`` and ``prior``.
        path: where it stands, for errors.

    Raises:
        EntryError: the entry is wrong.
    """
    for key in body:
        if key not in ENTRY_KEYS:
            raise EntryError((*path, key), unknown(str(key), ENTRY_KEYS, "key", _KEY_HINTS.get(str(key))))
    name = _distribution(body, path)
    required, optional = DISTRIBUTIONS[name]
    for key in body:
        if key not in ("distribution", *required, *optional):
            takes = listed((*required, *optional))
            raise EntryError((*path, key), f"does not go with {_said(name, body)}, which takes {takes}")
    missing = [key for key in required if key not in body]
    if missing:
        raise EntryError(path, f"{name} needs {' and '.join(required)}; {' and '.join(missing)} is missing")
    return _BUILDERS[name](body, path)


def _distribution(body: Mapping[str, Any], path: KeyPath) -> str:
    if "distribution" in body:
        name = body["distribution"]
        if name not in DISTRIBUTIONS:
            hint = _DISTRIBUTION_HINTS.get(str(name))
            raise EntryError((*path, "distribution"), unknown(str(name), DISTRIBUTIONS, "distribution", hint))
        return str(name)
    if "value" in body:
        return "constant"
    if "values" in body:
        return "categorical"
    if "min" in body or "max" in body:
        bounds = [body[key] for key in ("min", "max") if key in body]
        return "int_uniform" if all(isinstance(bound, int) for bound in bounds) else "uniform"
    if "mu" in body or "sigma" in body:
        raise EntryError(path, "mu and sigma need distribution: normal, log_normal, q_normal or q_log_normal")
    if "a" in body or "b" in body:
        raise EntryError(path, "a and b need distribution: beta or q_beta")
    raise EntryError(path, "has no values; write value, values, min and max, or a distribution")


def _said(name: str, body: Mapping[str, Any]) -> str:
    return f"distribution {name}" if "distribution" in body else f"'{DISTRIBUTIONS[name][0][0]}'"


def _number(body: Mapping[str, Any], key: str, path: KeyPath, default: Number | None = None) -> Number:
    value = body.get(key, default)
    if isinstance(value, int | float) and is_number(value):
        return value
    raise EntryError((*path, key), f"must be a number, got {show(value)}{unquote_hint(value)}")


def unquote_hint(value: object) -> str:
    """Return what to write for a number that stands in quotes; empty for anything else."""
    try:
        return f" (text); write {float(value):g} without quotes" if isinstance(value, str) else ""
    except ValueError:
        return ""


def _ends(body: Mapping[str, Any], path: KeyPath) -> tuple[Number, Number]:
    low, high = _number(body, "min", path), _number(body, "max", path)
    if low > high:
        raise EntryError(path, f"min={low} is above max={high}; swap them")
    if low == high:
        raise EntryError(path, f"min and max are both {low}; write value: {low}")
    return low, high


def _positive_ends(body: Mapping[str, Any], path: KeyPath, name: str) -> tuple[Number, Number]:
    low, high = _ends(body, path)
    if low <= 0:
        raise EntryError((*path, "min"), f"must be above 0 for {name}, got {low}")
    return low, high


def _positive(body: Mapping[str, Any], key: str, path: KeyPath) -> Number:
    value = _number(body, key, path, 1)
    if value <= 0:
        raise EntryError((*path, key), f"must be above 0, got {value}")
    return value


def _constant(body: Mapping[str, Any], path: KeyPath) -> Domain:
    return Constant(as_scalar(body["value"]))


def _categorical(body: Mapping[str, Any], path: KeyPath) -> Domain:
    values = body["values"]
    if not isinstance(values, list):
        raise EntryError((*path, "values"), f"must be a list, got {show(values)}; for one value write value")
    if not values:
        raise EntryError((*path, "values"), "is empty; give at least one value")
    scalars = [as_scalar(value) for value in values]
    for index, value in enumerate(scalars):
        if any(is_same(value, other) for other in scalars[:index]):
            raise EntryError((*path, "values", index), f"{show(value)} is listed twice; remove one")
    return Categorical(tuple(scalars), _probabilities(body, len(scalars), (*path, "probabilities")))


def _probabilities(body: Mapping[str, Any], num_values: int, path: KeyPath) -> tuple[float, ...] | None:
    if "probabilities" not in body:
        return None
    given = body["probabilities"]
    if not isinstance(given, list) or len(given) != num_values:
        raise EntryError(path, f"must be a list of {num_values} numbers, one for each of the values, got {show(given)}")
    for index, share in enumerate(given):
        if not is_number(share) or share < 0:
            raise EntryError((*path, index), f"must be a number of at least 0, got {show(share)}")
    if abs(math.fsum(given) - 1) > 1e-6:
        raise EntryError(path, f"must sum to 1, and {show(given)} sums to {math.fsum(given):.6g}")
    return tuple(float(share) for share in given)


def _uniform(body: Mapping[str, Any], path: KeyPath) -> Domain:
    low, high = _ends(body, path)
    return Real(float(low), float(high))


def _int_uniform(body: Mapping[str, Any], path: KeyPath) -> Domain:
    low, high = _ends(body, path)
    for key, value in (("min", low), ("max", high)):
        if not isinstance(value, int):
            raise EntryError((*path, key), f"must be a whole number for int_uniform, got {value}")
    return Integer(int(low), int(high))


def _log_uniform_values(body: Mapping[str, Any], path: KeyPath) -> Domain:
    low, high = _positive_ends(body, path, str(body["distribution"]))
    return Real(float(low), float(high), log=True)


def _exponents(body: Mapping[str, Any], path: KeyPath, name: str) -> Real:
    """Return the log-uniform numbers between e to the ``min`` and e to the ``max``."""
    low, high = _ends(body, path)
    if not -700 < low < high < 700:
        raise EntryError(path, f"{name} takes exponents between -700 and 700, got {low} to {high}")
    sign = -1 if name == "inv_log_uniform" else 1
    first, last = sorted((math.exp(sign * low), math.exp(sign * high)))
    if low >= 0 and high <= 1:
        raise EntryError(
            path,
            f"{name} takes exponents: this draws from {first:.6g} to {last:.6g}; "
            f"where min and max are values, write distribution: {name}_values",
        )
    return Real(first, last, log=True)


def _log_uniform(body: Mapping[str, Any], path: KeyPath) -> Domain:
    return _exponents(body, path, "log_uniform")


def _inv_log_uniform(body: Mapping[str, Any], path: KeyPath) -> Domain:
    return _exponents(body, path, "inv_log_uniform")


def _q_uniform(body: Mapping[str, Any], path: KeyPath) -> Domain:
    low, high = _ends(body, path)
    q = _positive(body, "q", path)
    _check_multiples(low, high, q, path)
    return Transformed(Real(float(low), float(high)), q)


def _q_log_uniform_values(body: Mapping[str, Any], path: KeyPath) -> Domain:
    low, high = _positive_ends(body, path, "q_log_uniform_values")
    q = _positive(body, "q", path)
    _check_multiples(low, high, q, path)
    return Transformed(Real(float(low), float(high), log=True), q)


def _q_log_uniform(body: Mapping[str, Any], path: KeyPath) -> Domain:
    base, q = _exponents(body, path, "q_log_uniform"), _positive(body, "q", path)
    _check_multiples(base.low, base.high, q, path)
    return Transformed(base, q)


def _check_multiples(low: Number, high: Number, q: Number, path: KeyPath) -> None:
    first, last = multiples_within(low, high, q)
    if first > last:
        raise EntryError((*path, "q"), f"no multiple of q={q} lies between {low:g} and {high:g}")


def _normal(log: bool, rounded: bool) -> Callable[[Mapping[str, Any], KeyPath], Domain]:
    def build(body: Mapping[str, Any], path: KeyPath) -> Domain:
        mu, sigma = float(_number(body, "mu", path, 0.0)), float(_positive(body, "sigma", path))
        if log and not -700 < mu - 5 * sigma < mu + 5 * sigma < 700:
            raise EntryError(path, f"mu={mu:g} and sigma={sigma:g} are of the logarithm; these overflow")
        return Transformed(Normal(mu, sigma, log), _positive(body, "q", path) if rounded else None)

    return build


def _beta(rounded: bool) -> Callable[[Mapping[str, Any], KeyPath], Domain]:
    def build(body: Mapping[str, Any], path: KeyPath) -> Domain:
        for key in ("a", "b"):
            if _positive(body, key, path) > MAX_SHAPE:
                raise EntryError((*path, key), f"must be at most {MAX_SHAPE:g}, got {body[key]}")
        base = Beta(float(_positive(body, "a", path)), float(_positive(body, "b", path)))
        return Transformed(base, _positive(body, "q", path) if rounded else None)

    return build


_BUILDERS: Mapping[str, Callable[[Mapping[str, Any], KeyPath], Domain]] = {
    "constant": _constant,
    "categorical": _categorical,
    "categorical_w_probabilities": _categorical,
    "uniform": _uniform,
    "int_uniform": _int_uniform,
    "log_uniform_values": _log_uniform_values,
    "log_uniform": _log_uniform,
    "inv_log_uniform_values": _log_uniform_values,  # log(1/x) is uniform where log(x) is
    "inv_log_uniform": _inv_log_uniform,
    "q_uniform": _q_uniform,
    "q_log_uniform_values": _q_log_uniform_values,
    "q_log_uniform": _q_log_uniform,
    "normal": _normal(log=False, rounded=False),
    "log_normal": _normal(log=True, rounded=False),
    "q_normal": _normal(log=False, rounded=True),
    "q_log_normal": _normal(log=True, rounded=True),
    "beta": _beta(rounded=False),
    "q_beta": _beta(rounded=True),
}
