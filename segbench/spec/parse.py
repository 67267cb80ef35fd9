"""The ``parameters:`` section -> a Space: nesting, conditions and their order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from segbench.core.config import TrialConfig
from segbench.core.records import Scalar
from segbench.spec.distributions import EntryError, parse_domain
from segbench.spec.domains import Constant, Domain, is_same
from segbench.spec.fields import FIELDS, check_name, check_value, clashes, fit_domain
from segbench.spec.problems import KeyPath, Problem, listed, show, unknown
from segbench.spec.space import Parameter, Space

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
    for entry in entries:
        try:
            parameters.append(Parameter(entry.name, _domain(entry, training is not None), entry.when))
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
            if "." in key or not key:
                raise EntryError(here, "a name has no dots; nest: write the part after the dot under parameters:")
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


def _group(body: Mapping[str, Any], path: KeyPath, may_nest: bool) -> Mapping[str, Any]:
    if not may_nest:
        raise EntryError(
            path,
            "the built-in training function has no nested settings; write each setting directly under parameters:",
        )
    if len(body) > 1:
        others = listed(key for key in body if key != "parameters")
        raise EntryError(path, f"a group has only parameters and when; remove {others}")
    nested = body["parameters"]
    if not isinstance(nested, Mapping) or not nested:
        raise EntryError((*path, "parameters"), f"must be a mapping of parameters, got {show(nested)}")
    return nested


def _domain(entry: _Entry, is_built_in: bool) -> Domain:
    if is_built_in:
        check_name(entry.name, entry.path)
    if not isinstance(entry.body, Mapping):
        domain: Domain = Constant(entry.body)
        is_named = False
    else:
        domain = parse_domain(entry.body, entry.path)
        is_named = "distribution" in entry.body
    return fit_domain(entry.name, domain, is_named, entry.path) if is_built_in else domain


def _conditions(raw: object, path: KeyPath) -> Conditions:
    if not isinstance(raw, Mapping) or not raw:
        raise EntryError(path, f"must be a mapping such as {{model: segformer}}, got {show(raw)}")
    conditions: dict[str, tuple[Scalar, ...]] = {}
    for name, allowed in raw.items():
        values = allowed if isinstance(allowed, list) else [allowed]
        if not values or any(not isinstance(v, bool | int | float | str | None) for v in values):
            raise EntryError((*path, name), f"must be a value or a list of values, got {show(allowed)}")
        conditions[name] = tuple(values)
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
    impossible = [value for value in values if not domain.contains(value)]
    if isinstance(domain, Constant):
        # one match is enough, so that a file for two families can be narrowed to one
        if len(impossible) == len(values):
            raise EntryError(
                path, f"never holds: {name} is always {show(domain.value)}, and this asks for {_any_of(values)}"
            )
    elif impossible:
        choices = domain.choices()
        ends = domain.probes()
        can = f"one of {listed(choices)}" if choices else f"between {ends[0]} and {ends[-1]}"
        raise EntryError(path, f"{name} is never {_any_of(impossible)}; it is {can}")


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
