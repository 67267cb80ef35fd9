"""Text -> spec: reads, overrides, checks; every mistake of the file in one error, with its line."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from segbench.core.address import PACKED, is_bucket, join
from segbench.core.config import TrialConfig
from segbench.core.errors import SpecError
from segbench.spec.checks import check_spec
from segbench.spec.fields import FIELDS, field_value
from segbench.spec.parse import parse_space
from segbench.spec.schema import BUILT_IN_TRAIN, RENAMED, SweepSpec, section_keys, sections
from segbench.spec.source import (
    KeyPath,
    Problem,
    Source,
    explain,
    make_source,
    misread,
    nearest,
    read_source,
    show,
    unknown,
)
from segbench.spec.space import Space


@dataclass(frozen=True)
class LoadedSpec:
    """A sweep file that is right: what it asks for, and where each key stands for later errors."""

    spec: SweepSpec
    """As resolved: overrides applied, defaults filled in."""
    space: Space
    source: Source

    @property
    def path(self) -> Path:
        """The sweep file."""
        return self.source.path

    def error(self, key: str, message: str) -> SpecError:
        """Return an error at a dotted key: ``sweeps/x.yaml:14 training.model: <message>``."""
        return SpecError(self.source.describe([Problem(self.source.find(key), message)]))


def load_spec(path: Path, overrides: Sequence[str] = (), is_remote: bool = False) -> LoadedSpec:
    """Read and check a sweep file.

    Args:
        path: the file.
        overrides: ``--set`` arguments, ``scheduler.max_epochs=5``; values are YAML, later ones win.
        is_remote: the sweep runs elsewhere, so its data is not looked for on this machine.

    Raises:
        SpecError: a line for each mistake, ``file:line key: what was given, what is allowed``.
    """
    return _load(read_source(path, overrides), is_remote)


def spec_from(content: Mapping[str, Any] | SweepSpec, overrides: Sequence[str] = ()) -> LoadedSpec:
    """Return a sweep that was not written to a file; it is checked like one.

    Args:
        content: what the file would say, as nested mappings; or a spec.
        overrides: as of :func:`load_spec`.

    Raises:
        SpecError: a line for each mistake, ``sweep key: what was given, what is allowed``.
    """
    tree = spec_content(content) if isinstance(content, SweepSpec) else content
    return _load(make_source(tree, overrides), is_remote=False)


def override(key: str, value: Any) -> str:
    """Return the ``--set`` argument that gives ``key`` a value: ``scheduler.max_epochs=5``."""
    return f"{key}={json.dumps(value)}"


def _load(source: Source, is_remote: bool) -> LoadedSpec:
    tree = _normalised(source.tree)
    spec, problems = _validate(tree)
    is_built_in = tree.get("train", BUILT_IN_TRAIN) == BUILT_IN_TRAIN
    training = spec.training if spec else _training(tree)
    space = Space(())
    raw = tree.get("parameters")
    if raw == {}:
        problems.append(Problem(("parameters",), "is empty; name at least one parameter to search"))
    elif isinstance(raw, dict):
        space, found = parse_space(raw, training if is_built_in else None)
        problems += found
    if spec is not None:
        spec = _with_packed(spec)
        problems += check_spec(spec, space, tree, is_remote)
    if problems or spec is None:
        raise SpecError(source.describe(problems))
    return LoadedSpec(spec, space, source)


def space_of(spec: SweepSpec) -> Space:
    """Return the search space of a spec that is right."""
    return parse_space(spec.parameters, spec.training if spec.is_segmentation else None)[0]


def packed_place(spec: SweepSpec, storage: str) -> str | None:
    """Return where the packed sets of a sweep are shared if its folder is made in ``storage``; None: nowhere."""
    return spec.data.packed or (join(storage, PACKED) if is_bucket(storage) else None)


def _with_packed(spec: SweepSpec) -> SweepSpec:
    place = packed_place(spec, spec.storage) if spec.is_segmentation else None
    return spec.model_copy(update={"data": replace(spec.data, packed=place)})


def dump_spec(spec: SweepSpec) -> str:
    """Return ``spec`` as YAML with every key written out; reading it again gives an equal spec."""
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 110
    stream = io.StringIO()
    yaml.dump(_quoted(spec_content(spec)), stream)
    return stream.getvalue()


def spec_content(spec: SweepSpec) -> dict[str, Any]:
    """Return what a file of ``spec`` says, every key written out."""
    # `data` and `training` would be refused beside a training function of the user's
    return spec.model_dump(mode="json", exclude=None if spec.is_segmentation else {"data", "training"})


def _quoted(value: Any) -> Any:
    """Return ``value`` with texts quoted that YAML would fold (line ends of any alphabet) or the reader refuse."""
    if isinstance(value, dict):
        return {_quoted(key): _quoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    if isinstance(value, str) and (not value.isprintable() or misread(value) is not None):
        return DoubleQuotedScalarString(value)
    return value


def _normalised(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``tree`` with short forms written out: ``size: 512`` is ``[512, 512]``."""
    result = dict(tree)
    data = result.get("data")
    if isinstance(data, dict) and isinstance(data.get("size"), int) and not isinstance(data["size"], bool):
        result["data"] = {**data, "size": [data["size"]] * 2}
    return result


def _validate(tree: Mapping[str, Any]) -> tuple[SweepSpec | None, list[Problem]]:
    try:
        # through JSON, where pydantic can be strict ("8" is no number) and still reads lists as tuples
        return SweepSpec.model_validate_json(json.dumps(tree), strict=True), []
    except ValidationError as error:
        return None, [_problem(details) for details in error.errors()]


def _problem(details: ErrorDetails) -> Problem:
    path: KeyPath = details["loc"]
    kind, given = details["type"], details["input"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return Problem(path, _unknown_key(path))
    if kind == "missing" and isinstance(given, list):  # of a tuple
        return Problem(path[:-1], f"has too few entries: {show(given)}")
    if kind == "missing":
        return Problem(path, f"is missing; add {path[-1]}: ...")
    return Problem(path, explain(details))


def _unknown_key(path: KeyPath) -> str:
    """Return the sentence for a key that its section does not have."""
    section, key = str(path[0]) if len(path) > 1 else "", str(path[-1])
    known = sections()
    keys = section_keys(known.get(section, SweepSpec))
    if not section and key in FIELDS:
        return unknown(key, keys, "key", "it is a setting: write it under training: (fixed) or parameters: (searched)")
    new = RENAMED.get(key)
    if new is None:
        homes = [name for name, kind in known.items() if name not in ("", section) and key in section_keys(kind)]
        new = f"{homes[0]}.{key}" if len(homes) == 1 else None
    if new is not None and new != section:
        own = new.removeprefix(f"{section}.") if section else new
        if own != key:
            return unknown(key, keys, "key", f"write {own}")
    if nearest(key, keys) is None and (old := nearest(key, RENAMED)) is not None:
        return unknown(key, keys, "key", f"write {RENAMED[old].removeprefix(f'{section}.')}")
    return unknown(key, keys, "key")


def _training(tree: Mapping[str, Any]) -> TrialConfig:
    """Return the settings of ``training:`` that are right, for checking the space of a file that has mistakes."""
    section = tree.get("training")
    given: dict[str, Any] = section if isinstance(section, dict) else {}
    kept: dict[str, Any] = {}
    for name in given.keys() & set(FIELDS):
        try:
            kept[name] = field_value(name, given[name])
        except ValidationError:
            continue
    try:
        return TypeAdapter(TrialConfig).validate_python(kept)
    except ValidationError:
        return TrialConfig()
