"""The section ``parameters:`` -> the search space: names, nesting, guesses, and the conditions between parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from segbench.core.config import TrialConfig
from segbench.core.records import Scalar
from segbench.spec.distributions import parse_domain, unquote_hint
from segbench.spec.domains import Categorical, Constant, Domain, Normal, Real, Transformed, as_scalar, is_same
from segbench.spec.fields import FIELDS, check_name, check_value, clashes, fit_domain
from segbench.spec.schema import CONFIDENCES
from segbench.spec.source import HOW_TO_DRAW, EntryError, KeyPath, Problem, is_call, listed, show, unknown
from segbench.spec.space import Parameter, Space

_NO_NESTING = "the built-in training function has no nested settings; write each setting directly under parameters:"

MAX_LISTED = 12
"""Values that an error names; of more it names the ends."""


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
    prior = as_scalar(guess["prior"])
    if prior is None or not domain.contains(prior):
        hint = "" if isinstance(domain, Categorical) else unquote_hint(prior)
        raise EntryError(here, f"must be a value that can be drawn, {_extent(domain)}, got {show(prior)}{hint}")
    return domain.values[domain.index(prior)] if isinstance(domain, Categorical) else prior


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
        conditions[name] = tuple(map(as_scalar, values))
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
