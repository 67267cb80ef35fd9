"""The values that a person chooses for one trial, checked against the search space."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from segbench.core.errors import SpecError
from segbench.core.records import Params, Scalar
from segbench.spec.domains import Categorical, Constant, Domain, Real, Transformed
from segbench.spec.schema import SweepSpec
from segbench.spec.source import listed, nearest, show
from segbench.spec.space import Parameter, Space


def read_values(words: Sequence[str]) -> dict[str, Scalar]:
    """Return ``lr=3e-4 model=unet`` as values by name; each is read as YAML.

    Raises:
        SpecError: a word is no ``NAME=VALUE``, or a name comes twice.
    """
    values: dict[str, Scalar] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not name or not equals:
            raise SpecError(f"'{word}': write NAME=VALUE, such as lr=3e-4")
        if name in values:
            raise SpecError(f"'{name}' is given twice; remove one")
        values[name] = _scalar(word, text)
    return values


def _scalar(word: str, text: str) -> Scalar:
    try:
        value: Any = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        value = [text]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise SpecError(f"'{word}': the value must be a number, text, true, false or null")


def complete(spec: SweepSpec, space: Space, chosen: Params) -> dict[str, Scalar]:
    """Return a value for every parameter that is active in a trial of which some were chosen.

    What was not chosen is as in a baseline: a constant of ``parameters:``, else the value of ``training:``. A training
    function of the user's has no such values, so all must be chosen.

    Raises:
        SpecError: a name or a value is not in the space, or one is missing; in one sentence.
    """
    for name in chosen:
        if name not in space:
            raise SpecError(_unknown(name, space, spec))
    fixed: Mapping[str, Scalar] = asdict(spec.training) if spec.is_segmentation else {}
    values: dict[str, Scalar] = {}
    missing: list[Parameter] = []
    for parameter in space.parameters:
        name, domain = parameter.name, parameter.domain
        if not space.is_active(parameter, values):
            if name in chosen:
                raise SpecError(_inactive(parameter, values))
        elif name in chosen:
            values[name] = _checked(parameter, chosen[name])
        elif isinstance(domain, Constant):
            values[name] = domain.value
        elif name in fixed:
            values[name] = fixed[name]
        else:
            missing.append(parameter)
    if missing:
        told = listed(f"{parameter.name} ({allowed(parameter.domain)})" for parameter in missing)
        raise SpecError(f"missing: {told}; {spec.train} has no values of its own for them, so give each")
    return values


def allowed(domain: Domain) -> str:
    """Return what a parameter can be, in words."""
    if isinstance(domain, Constant | Categorical):
        return listed(show(value) for value in domain.choices())
    low, *_, high = domain.probes()
    step = getattr(domain, "step", 1) if not isinstance(domain, Transformed) else domain.q
    return f"{low:g} to {high:g}" + (f" in steps of {step:g}" if step not in (None, 1) else "")


def _checked(parameter: Parameter, value: Scalar) -> Scalar:
    if not parameter.contains(value):
        raise SpecError(
            f"{parameter.name}={show(value)} is outside the space; {parameter.name} is {allowed(parameter.domain)}"
        )
    return float(value) if isinstance(parameter.domain, Real) and isinstance(value, int) else value


def _unknown(name: str, space: Space, spec: SweepSpec) -> str:
    names = [parameter.name for parameter in space.parameters]
    guess = nearest(name, names)
    if spec.is_segmentation and name in asdict(spec.training):
        fixed = show(asdict(spec.training)[name])
        return f"'{name}' is not searched here but fixed to {fixed}; the parameters are {listed(names)}"
    if guess is None:
        return f"unknown parameter '{name}'; the parameters are {listed(names)}"
    return f"unknown parameter '{name}'; did you mean '{guess}', which is {allowed(space[guess].domain)}?"


def _inactive(parameter: Parameter, values: Params) -> str:
    needs = [f"{name} is {' or '.join(map(show, options))}" for name, options in parameter.when.items()]
    have = [f"{name} is {show(values[name])}" for name in parameter.when if name in values]
    but = f", and here {' and '.join(have)}" if have else ""
    return f"{parameter.name} exists only where {' and '.join(needs)}{but}; leave it out, or change that"
