"""The section ``parameters:`` -> the search space: each entry a domain, spelled as in W&B sweeps."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from segbench.core.config import TrialConfig
from segbench.core.records import Scalar
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
    Structure,
    Transformed,
    is_number,
    is_same,
    multiples_within,
)
from segbench.spec.fields import FIELDS, check_name, check_value, clashes, fit_domain
from segbench.spec.schema import CONFIDENCES
from segbench.spec.source import HOW_TO_DRAW, EntryError, KeyPath, Problem, is_call, listed, show, unknown
from segbench.spec.space import Parameter, Space

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


_NO_NESTING = "the built-in training function has no nested settings; write each setting directly under parameters:"

MAX_LISTED = 12
"""Values that an error names; of more it names the ends."""

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


def _scalar(value: Any) -> Scalar:
    return Structure.of(value) if isinstance(value, list | dict) else value


def _number(body: Mapping[str, Any], key: str, path: KeyPath, default: Number | None = None) -> Number:
    value = body.get(key, default)
    if isinstance(value, int | float) and is_number(value):
        return value
    raise EntryError((*path, key), f"must be a number, got {show(value)}{_unquote(value)}")


def _unquote(value: object) -> str:
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
    return Constant(_scalar(body["value"]))


def _categorical(body: Mapping[str, Any], path: KeyPath) -> Domain:
    values = body["values"]
    if not isinstance(values, list):
        raise EntryError((*path, "values"), f"must be a list, got {show(values)}; for one value write value")
    if not values:
        raise EntryError((*path, "values"), "is empty; give at least one value")
    scalars = [_scalar(value) for value in values]
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


Conditions = Mapping[str, tuple[Scalar, ...]]


@dataclass(frozen=True)
class _Entry:
    """One parameter as it stands in the file, its nesting undone."""

    name: str
    path: KeyPath
    body: Any
    when: Conditions


def parse_space(raw: Mapping[str, Any], training: TrialConfig | None) -> tuple[Space, list[Problem]]:
    """Return the space that ``parameters:`` describes, and all that is wrong with it.

    Args:
        raw: the section as plain mappings, lists and scalars.
        training: the fixed settings of the built-in training function, whose fields the parameters must fit;
            None for a function of the user's, which may name its parameters freely.
    """
    problems: list[Problem] = []
    entries = _entries(raw, ("parameters",), "", {}, training is None, problems)
    parameters = []
    problems += _clashing(entries)
    for entry in entries:
        try:
            parameters.append(_parameter(entry, training is not None))
        except EntryError as error:
            problems.append(error.problem)
    paths = {entry.name: entry.path for entry in entries}
    parameters = [_resolve(p, parameters, paths, training, problems) for p in parameters]
    space = Space(_sorted(parameters, paths, problems))
    if not problems:
        problems += _contradictions(space, paths)
    if not problems and training is not None:
        problems += [Problem(paths[name], message) for name, message in clashes(space, training)]
    return space, problems


def _entries(
    raw: Mapping[str, Any],
    path: KeyPath,
    prefix: str,
    inherited: Conditions,
    may_nest: bool,
    problems: list[Problem],
) -> list[_Entry]:
    """Return the parameters below ``path``, those of nested groups with the group's conditions."""
    entries: list[_Entry] = []
    for key, body in raw.items():
        here = (*path, key)
        try:
            if not all(key.split(".")):
                raise EntryError(here, "a name has a part on each side of a dot; write it as group.name")
            if isinstance(body, list):
                raise EntryError(here, f"is a list; write values: {show(body)}")
            when = dict(inherited)
            if isinstance(body, Mapping) and "when" in body:
                when = _both(inherited, _conditions(body["when"], (*here, "when")), "the group", (*here, "when"))
                body = {name: value for name, value in body.items() if name != "when"}
            if isinstance(body, Mapping) and "parameters" in body:
                nested = _group(body, here, may_nest)
                entries += _entries(nested, (*here, "parameters"), f"{prefix}{key}.", when, may_nest, problems)
            else:
                entries.append(_Entry(prefix + key, here, body, when))
        except EntryError as error:
            problems.append(error.problem)
    return entries


def _clashing(entries: Sequence[_Entry]) -> list[Problem]:
    """Return a problem for each name that is given twice, or is both a value and a group of values."""
    problems: list[Problem] = []
    seen: dict[str, _Entry] = {}
    for entry in entries:
        if entry.name in seen:
            message = f"'{entry.name}' is given twice, as a name with dots and nested; remove one"
            problems.append(Problem(entry.path, message))
        for other in seen:
            group, member = sorted((entry.name, other), key=len)
            if member.startswith(f"{group}."):
                message = f"'{group}' is a parameter, so it cannot hold '{member}' too; rename one"
                problems.append(Problem(entry.path, message))
        seen.setdefault(entry.name, entry)
    return problems


def _group(body: Mapping[str, Any], path: KeyPath, may_nest: bool) -> Mapping[str, Any]:
    if not may_nest:
        raise EntryError(path, _NO_NESTING)
    if len(body) > 1:
        others = listed(key for key in body if key != "parameters")
        raise EntryError(path, f"a group has only parameters and when; remove {others}")
    nested = body["parameters"]
    if not isinstance(nested, Mapping) or not nested:
        raise EntryError((*path, "parameters"), f"must be a mapping of parameters, got {show(nested)}")
    return nested


def _parameter(entry: _Entry, is_built_in: bool) -> Parameter:
    if is_built_in:
        if "." in entry.name:
            raise EntryError(entry.path, _NO_NESTING)
        check_name(entry.name, entry.path)
    body = entry.body if isinstance(entry.body, Mapping) else _fixed(entry.body, entry.path)
    guess = {key: body[key] for key in ("prior", "prior_confidence") if key in body}
    domain = parse_domain({key: value for key, value in body.items() if key not in guess}, entry.path)
    if is_built_in:
        domain = fit_domain(entry.name, domain, "distribution" in body, entry.path)
    prior = _prior(guess, domain, entry.path)
    return Parameter(entry.name, domain, entry.when, prior, guess.get("prior_confidence", "medium"))


def _fixed(value: Any, path: KeyPath) -> Mapping[str, Any]:
    """Return the entry that a bare value stands for."""
    if value is None:
        raise EntryError(path, f"has nothing below it; {HOW_TO_DRAW}, or value: null if the constant null is meant")
    if isinstance(value, str) and is_call(value):
        raise EntryError(path, f"{show(value)} would be a text, not a draw; {HOW_TO_DRAW}")
    return {"value": value}


def _prior(guess: Mapping[str, Any], domain: Domain, path: KeyPath) -> Scalar:
    """Return the guess at the best value, checked with its confidence; None where there is none."""
    confidence = guess.get("prior_confidence", "medium")
    if confidence not in CONFIDENCES:
        here = (*path, "prior_confidence")
        raise EntryError(here, f"must be one of {listed(CONFIDENCES)}, got {show(confidence)}")
    if "prior" not in guess:
        if guess:
            raise EntryError((*path, "prior_confidence"), "says how sure a prior is; write prior too, or remove it")
        return None
    here = (*path, "prior")
    if isinstance(domain, Constant):
        raise EntryError(here, f"is a guess at the best value, and this is always {show(domain.value)}; remove it")
    prior = _scalar(guess["prior"])
    if prior is None or not domain.contains(prior):
        hint = "" if isinstance(domain, Categorical) else _unquote(prior)
        raise EntryError(here, f"must be a value that can be drawn, {_extent(domain)}, got {show(prior)}{hint}")
    return prior


def _extent(domain: Domain) -> str:
    """Return what can be drawn, in words."""
    choices = domain.choices()
    if choices is not None and len(choices) <= MAX_LISTED:
        return f"one of {listed(map(show, choices))}"
    ends = domain.probes()
    multiple = f" and a multiple of {domain.q}" if isinstance(domain, Transformed) and domain.q is not None else ""
    return f"between {show(ends[0])} and {show(ends[-1])}{multiple}"


def _conditions(raw: object, path: KeyPath) -> Conditions:
    if not isinstance(raw, Mapping) or not raw:
        raise EntryError(path, f"must be a mapping such as {{model: segformer}}, got {show(raw)}")
    conditions: dict[str, tuple[Scalar, ...]] = {}
    for name, allowed in raw.items():
        values = allowed if isinstance(allowed, list) else [allowed]
        if not values or isinstance(allowed, Mapping):
            raise EntryError((*path, name), f"must be a value or a list of values, got {show(allowed)}")
        conditions[name] = tuple(map(_scalar, values))
    return conditions


def _both(outer: Conditions, inner: Conditions, whose: str, path: KeyPath) -> dict[str, tuple[Scalar, ...]]:
    """Return the conditions under which both hold; ``whose`` says where the outer ones come from."""
    both = {**outer, **inner}
    for name in outer.keys() & inner.keys():
        both[name] = tuple(v for v in inner[name] if any(is_same(v, other) for other in outer[name]))
        if not both[name]:
            raise EntryError(
                path,
                f"never holds: it asks for {name}={_any_of(inner[name])}, and {whose} for "
                f"{name}={_any_of(outer[name])}",
            )
    return both


def _resolve(
    parameter: Parameter,
    parameters: Sequence[Parameter],
    paths: Mapping[str, KeyPath],
    training: TrialConfig | None,
    problems: list[Problem],
) -> Parameter:
    """Return ``parameter`` with its conditions checked; those on fixed settings hold always and are dropped."""
    kept: dict[str, tuple[Scalar, ...]] = {}
    parents = {other.name: other.domain for other in parameters}
    for name, values in parameter.when.items():
        path = (*paths[parameter.name], "when", name)
        try:
            if name in parents:
                _check_possible(name, parents[name], values, path)
                kept[name] = values
            elif training is not None and name in FIELDS and name not in paths:
                fixed = Constant(getattr(training, name))
                _check_possible(name, fixed, tuple(check_value(name, value, path) for value in values), path)
            elif name not in paths:  # else the parent is in the file but wrong, and reported there
                names = [*paths, *(FIELDS if training is not None else ())]
                raise EntryError(path, unknown(name, names, "parameter"))
        except EntryError as error:
            problems.append(error.problem)
    return replace(parameter, when=kept)


def _check_possible(name: str, domain: Domain, values: tuple[Scalar, ...], path: KeyPath) -> None:
    if isinstance(domain, Real | Normal | Transformed) and domain.choices() is None:
        given = listed(map(show, values))
        raise EntryError(path, f"{name} is continuous, and never exactly {given}; name one with a list of values")
    impossible = [value for value in values if not domain.contains(value)]
    if isinstance(domain, Constant):
        # one match is enough, so that a file for two families can be narrowed to one
        if len(impossible) == len(values):
            raise EntryError(
                path, f"never holds: {name} is always {show(domain.value)}, and this asks for {_any_of(values)}"
            )
    elif impossible:
        raise EntryError(path, f"{name} is never {_any_of(impossible)}; it is {_extent(domain)}")


def _sorted(
    parameters: Sequence[Parameter], paths: Mapping[str, KeyPath], problems: list[Problem]
) -> tuple[Parameter, ...]:
    """Return parents before children, otherwise in the order of the file; a cycle is a problem."""
    waiting = list(parameters)
    names = {parameter.name for parameter in parameters}
    done: dict[str, Parameter] = {}
    while waiting:
        ready = next((p for p in waiting if all(n in done or n not in names for n in p.when)), None)
        if ready is None:
            problems.append(_cycle(waiting, paths))
            break
        waiting.remove(ready)
        done[ready.name] = ready
    return tuple(done.values())


def _cycle(waiting: Sequence[Parameter], paths: Mapping[str, KeyPath]) -> Problem:
    by_name = {parameter.name: parameter for parameter in waiting}
    walk = [waiting[0].name]
    while True:
        parent = next(name for name in by_name[walk[-1]].when if name in by_name)
        if parent in walk:
            circle = [*walk[walk.index(parent) :], parent]
            message = f"the conditions go in a circle: {' -> '.join(circle)}; remove one of them"
            return Problem((*paths[circle[0]], "when"), message)
        walk.append(parent)


def _contradictions(space: Space, paths: Mapping[str, KeyPath]) -> list[Problem]:
    """Return a problem for each parameter whose conditions and its parents' exclude each other."""
    problems: list[Problem] = []
    needs: dict[str, dict[str, tuple[Scalar, ...]]] = {}
    for parameter in space.parameters:
        path = (*paths[parameter.name], "when")
        needed: dict[str, tuple[Scalar, ...]] = dict(parameter.when)
        try:
            for parent in parameter.when:
                needed = _both(needs[parent], needed, parent, path)
        except EntryError as error:
            problems.append(error.problem)
        needs[parameter.name] = needed
    return problems


def _any_of(values: Sequence[Scalar]) -> str:
    return " or ".join(show(value) for value in values)
