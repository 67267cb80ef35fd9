"""The search space: parameters, the conditions between them, and drawn values -> configuration."""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from segbench.core.config import TrialConfig
from segbench.core.errors import SpecError
from segbench.core.records import Params, Scalar
from segbench.spec.domains import (
    Categorical,
    Confidence,
    Constant,
    Domain,
    Integer,
    Normal,
    Real,
    Structure,
    Transformed,
    as_scalar,
    is_same,
)
from segbench.spec.schema import Baseline, SweepSpec
from segbench.spec.source import dotted, explain

__all__ = [
    "Categorical",
    "Constant",
    "Domain",
    "Integer",
    "Normal",
    "Parameter",
    "Real",
    "Space",
    "Structure",
    "Transformed",
    "baseline_params",
    "build_config",
    "with_ancestors",
]

MAX_GRID = 1_000_000


@dataclass(frozen=True)
class Parameter:
    """One searched (or constant) setting.

    Args:
        name: dotted where the file nests ``parameters:``.
        domain: what it can be.
        when: it exists only in trials where each named parameter has one of these values.
        prior: somebody's guess at the best value, which lies in the domain; None: nobody guessed.
        prior_confidence: how sure that guess is.
    """

    name: str
    domain: Domain
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    prior: Scalar = None
    prior_confidence: Confidence = "medium"

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` can be drawn."""
        return self.domain.contains(value)


@dataclass(frozen=True)
class Space:
    """Parameters in the order in which they are drawn: parents before the ones that depend on them."""

    parameters: tuple[Parameter, ...]

    def __getitem__(self, name: str) -> Parameter:
        return next(parameter for parameter in self.parameters if parameter.name == name)

    def __contains__(self, name: str) -> bool:
        return any(parameter.name == name for parameter in self.parameters)

    @property
    def families(self) -> tuple[str, ...]:
        """Parameters that choose between alternatives: on two values or more of which other parameters depend.

        A trial of one alternative may learn faster than one of another, and end lower.
        """
        named: dict[str, set[Scalar]] = {}
        for parameter in self.parameters:
            for parent, values in parameter.when.items():
                if len(values) == 1:
                    named.setdefault(parent, set()).add(values[0])
        return tuple(p.name for p in self.parameters if len(named.get(p.name, ())) > 1)

    def family_of(self, config: Params) -> tuple[Scalar, ...]:
        """Return the alternatives that a trial has chosen."""
        return tuple(config.get(name) for name in self.families)

    def is_active(self, parameter: Parameter, drawn: Params) -> bool:
        """Whether ``parameter`` exists in a trial that drew ``drawn`` for the ones before it.

        A parameter whose parent is inactive is inactive, whatever ``drawn`` says of the parent.
        """
        return all(
            name in drawn and any(is_same(drawn[name], value) for value in values) and self.is_active(self[name], drawn)
            for name, values in parameter.when.items()
        )

    def grid(self) -> list[dict[str, Scalar]]:
        """Return every configuration, the first parameter changing slowest.

        Raises:
            SpecError: a parameter is continuous, or there are more than a million configurations.
        """
        points: list[dict[str, Scalar]] = [{}]
        for parameter in self.parameters:
            choices = parameter.domain.choices()
            if choices is None:
                raise SpecError(
                    f"parameters.{parameter.name}: a grid needs a list of values, and this is continuous; "
                    "write values or q_uniform, or search.algorithm: random"
                )
            grown: list[dict[str, Scalar]] = []
            for point in points:
                if not self.is_active(parameter, point):
                    grown.append(point)
                elif len(grown) + len(choices) > MAX_GRID:
                    raise SpecError(f"parameters: the grid has more than {MAX_GRID} points; list fewer values")
                else:
                    grown.extend({**point, parameter.name: value} for value in choices)
            points = grown
        return points


def build_config(spec: SweepSpec, params: Params) -> dict[str, Any]:
    """Return the complete configuration of a trial.

    Args:
        spec: the sweep file.
        params: drawn values by dotted name.

    Returns:
        For the built-in training function a :class:`TrialConfig` as a mapping: ``training:`` overridden by
        ``params``. For a function of the user's, ``params`` as nested mappings.

    Raises:
        SpecError: the values do not go together.
    """
    if not spec.is_segmentation:
        return nest(params)
    try:
        config = trial_config_adapter().validate_python({**asdict(spec.training), **params}, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(f"{dotted(('parameters', *first['loc']))}: {explain(first)}") from error
    return asdict(config)


def baseline_params(spec: SweepSpec, space: Space, baseline: Baseline) -> dict[str, Scalar]:
    """Return a baseline's values by dotted name: its own, and the constants of ``parameters:`` that hold for it.

    What is searched is not taken over: a baseline has the settings of ``training:`` there.
    """
    own = baseline_values(baseline, space)
    known: dict[str, Scalar] = {**asdict(spec.training), **own} if spec.is_segmentation else dict(own)
    params: dict[str, Scalar] = {}
    for parameter in space.parameters:
        name, domain = parameter.name, parameter.domain
        if name in own:
            params[name] = own[name]
        elif isinstance(domain, Constant) and _holds(parameter, known):
            params[name] = known[name] = domain.value
    return {**params, **own}


def baseline_values(baseline: Baseline, space: Space) -> dict[str, Scalar]:
    """Return a baseline's own values by dotted name."""
    names = frozenset(parameter.name for parameter in space.parameters)
    own = flatten(baseline.parameters, whole=names)
    return {name: as_scalar(value) for name, value in own.items()}


def _holds(parameter: Parameter, known: Params) -> bool:
    return all(
        name in known and any(is_same(known[name], value) for value in values)
        for name, values in parameter.when.items()
    )


def nest(params: Params) -> dict[str, Any]:
    """Return ``{"a.b": 1}`` as ``{"a": {"b": 1}}``, with the lists and mappings that are values."""
    nested: dict[str, Any] = {}
    for name, value in params.items():
        *groups, leaf = name.split(".")
        level = nested
        for group in groups:
            level = level.setdefault(group, {})
        level[leaf] = value.content if isinstance(value, Structure) else value
    return nested


def flatten(nested: Mapping[str, Any], prefix: str = "", whole: Container[str] = ()) -> dict[str, Any]:
    """Return ``{"a": {"b": 1}}`` as ``{"a.b": 1}``; a mapping named in ``whole`` stays one value."""
    return dict(leaves(nested, prefix, whole))


def leaves(nested: Mapping[str, Any], prefix: str = "", whole: Container[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yield what :func:`flatten` returns; a name that is given with dots and nested comes twice."""
    for key, value in nested.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" not in whole:
            yield from leaves(value, f"{prefix}{key}.", whole)
        else:
            yield f"{prefix}{key}", value


@lru_cache
def trial_config_adapter() -> TypeAdapter[TrialConfig]:
    """Return pydantic's reader of :class:`TrialConfig`, made once."""
    return TypeAdapter(TrialConfig)


def with_ancestors(space: Space, names: Iterable[str]) -> tuple[Parameter, ...]:
    """Return the parameters of these names, and those that they depend on, in the order of the space."""
    wanted = set(names)
    for parameter in reversed(space.parameters):  # parents stand before their children
        if parameter.name in wanted:
            wanted.update(parameter.when)
    return tuple(parameter for parameter in space.parameters if parameter.name in wanted)
