"""Whether the values of a parameter fit the field of TrialConfig that it sets."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from functools import lru_cache
from itertools import combinations
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from segbench.core.config import TrialConfig
from segbench.core.records import Scalar
from segbench.spec.domains import Categorical, Constant, Domain, Integer, Real, Structure
from segbench.spec.schema import RENAMED
from segbench.spec.source import EntryError, KeyPath, expectation, explain, show, unknown
from segbench.spec.space import Parameter, Space

FIELDS: tuple[str, ...] = tuple(field.name for field in fields(TrialConfig))

TRAINING_RENAMED: Mapping[str, str] = {
    old: f"write {new.removeprefix('training.')}" for old, new in RENAMED.items() if new.startswith("training.")
}


@lru_cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(TrialConfig, include_extras=True)
    return {name: TypeAdapter(hints[name]) for name in FIELDS}


def field_value(name: str, value: Scalar) -> Scalar:
    """Return ``value`` as the field ``name`` keeps it (an int becomes a float where the field is one).

    Raises:
        ValidationError: the field cannot have this value.
    """
    kept: Scalar = _adapters()[name].validate_python(value, strict=True)
    return kept


def check_name(name: str, path: KeyPath) -> None:
    """Raise EntryError when ``name`` is not a setting of the built-in training function."""
    if name not in FIELDS:
        raise EntryError(path, unknown(name, FIELDS, "setting", TRAINING_RENAMED.get(name)))


def check_value(name: str, value: Scalar, path: KeyPath) -> Scalar:
    """Return ``value`` as the field keeps it; raise EntryError when it cannot have it."""
    if isinstance(value, Structure):
        raise EntryError(
            path,
            f"{name} has one number or word, got {show(value)}; lists and mappings are for a training function of your "
            "own (train:)",
        )
    try:
        return field_value(name, value)
    except ValidationError as error:
        raise EntryError(path, explain(error.errors()[0])) from None


def fit_domain(name: str, domain: Domain, is_named: bool, path: KeyPath) -> Domain:
    """Return ``domain`` with its values as the field keeps them.

    Args:
        name: a field of TrialConfig.
        domain: what the file gives.
        is_named: whether the file names the distribution (else integer bounds of a real field are refused:
            ``dropout: {min: 0, max: 1}`` would draw 0 or 1 and nothing between).
        path: where the entry stands, for errors.

    Raises:
        EntryError: a value that can be drawn does not fit the field.
    """
    if isinstance(domain, Constant):
        return Constant(check_value(name, domain.value, path))
    if isinstance(domain, Categorical):
        places = [(*path, "values", index) for index in range(len(domain.values))]
        values = tuple(check_value(name, v, p) for v, p in zip(domain.values, places, strict=True))
        return replace(domain, values=values)
    if not _fits(name, 1) and not _fits(name, 0.5):
        raise EntryError(path, f"{name} {_expected(name, domain.probes()[0])}; write values with some of them")
    if isinstance(domain, Integer) and not is_named and _fits(name, 0.5):
        raise EntryError(
            path,
            f"min and max are whole numbers, so only whole numbers would be drawn, but {name} is a real number; "
            f"write min: {float(domain.low)}, or distribution: int_uniform if that is meant",
        )
    if isinstance(domain, Real) and not _fits(name, 0.5):  # every real field allows 0.5
        raise EntryError(
            path,
            f"draws real numbers, but {name} is a whole number; write whole bounds"
            + (", and distribution: q_log_uniform_values with q: 1" if domain.log else ""),
        )
    for probe in domain.probes():
        if not _fits(name, probe):
            end = f"{probe:g}" if isinstance(probe, float) else show(probe)
            raise EntryError(path, f"can draw {end}, but {name} {_expected(name, probe)}")
    return domain


def _fits(name: str, value: Scalar) -> bool:
    try:
        field_value(name, value)
    except ValidationError:
        return False
    return True


def _expected(name: str, value: Scalar) -> str:
    try:
        field_value(name, value)
    except ValidationError as error:
        return expectation(error.errors()[0])
    return "may have this value"


def clashes(space: Space, training: TrialConfig) -> Iterator[tuple[str, str]]:
    """Yield (parameter name, sentence) for values that are valid alone but not with another parameter's.

    Every pair of parameters is tried at the ends of their domains, the others at their first values; at most one
    clash is yielded, since each would be found again with many partners.
    """
    probes = {p.name: p.domain.probes() for p in space.parameters}
    base = {p.name: probes[p.name][0] for p in space.parameters if not p.when}
    for first, second in _pairs(space.parameters):
        for a in probes[first.name]:
            for b in probes[second.name]:
                drawn = {**base, first.name: a, second.name: b}
                try:
                    replace(training, **drawn)  # type: ignore[arg-type]
                except ValueError as error:
                    yield _culprit(str(error), drawn, second.name), f"can draw values where {error}"
                    return


def _pairs(parameters: tuple[Parameter, ...]) -> list[tuple[Parameter, Parameter]]:
    if len(parameters) == 1:
        return [(parameters[0], parameters[0])]
    return list(combinations(parameters, 2))


def _culprit(message: str, drawn: Mapping[str, Scalar], otherwise: str) -> str:
    # the sentences of TrialConfig begin with the field's name
    name = message.split("=", 1)[0]
    return name if name in drawn else otherwise


def check_together(training: TrialConfig, values: Mapping[str, Scalar]) -> str | None:
    """Return why ``values`` over ``training`` are no configuration; None when they are one."""
    try:
        TrialConfig(**{**asdict(training), **values})
    except ValueError as error:
        return str(error)
    return None
