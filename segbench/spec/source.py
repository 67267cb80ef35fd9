"""The sweep file as text: YAML 1.2 with line numbers, ``--set`` on top of it, and its mistakes, each with its place."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import PlainScalarString

from segbench.core.address import without_secret
from segbench.core.errors import SpecError
from segbench.spec.domains import Structure

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One mistake, at a key of the sweep file."""

    path: KeyPath
    message: str

    @property
    def key(self) -> str:
        """The path as users write it: ``baselines[0].parameters.lr``."""
        return dotted(self.path)


class EntryError(Exception):
    """An entry of ``parameters:`` that has no meaning; carries the problem."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(path, message)


def dotted(path: KeyPath) -> str:
    """Return ``path`` as users write it; empty for the whole file."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def show(value: object) -> str:
    """Return ``value`` as it would stand in the file, shortened."""
    if value is None:
        return "nothing (null)"
    text = (
        str(value)
        if isinstance(value, Structure)
        else f"'{value}'"
        if isinstance(value, str)
        else json.dumps(value, default=str)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def listed(words: Iterable[object]) -> str:
    """Return ``a, b, c``."""
    return ", ".join(str(word) for word in words)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the one of ``words`` that was probably meant, if any is close."""
    pool = list(words)
    folded = {other.lower().replace("-", "_"): other for other in pool}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def unknown(word: str, words: Iterable[str], what: str, hint: str | None = None) -> str:
    """Return the sentence for a name that is not one of ``words``: the nearest, or all of them."""
    pool = list(words)
    if hint is not None:
        return f"unknown {what} '{word}'; {hint}"
    guess = nearest(word, pool)
    if guess is not None:
        return f"unknown {what} '{word}'; did you mean '{guess}'?"
    return f"unknown {what} '{word}'; allowed: {listed(pool)}"


_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
"""Words that YAML 1.1, and so W&B, reads as booleans, and YAML 1.2 as texts."""

_CALL = re.compile(
    r"(\w+\.)*((q?_?(log|inv_log)?_?(uniform|normal|randint))|choices?|categorical|randn|range|interval|grid_search"
    r"|sample_from|suggest_\w+|int|float)\s*\(.*",  # in {...} YAML ends the text at the first comma
    re.DOTALL,
)


def is_call(text: str) -> bool:
    """Whether ``text`` looks like a draw in the spelling of Ray, Optuna or Hydra: ``choice(32, 64)``."""
    return _CALL.fullmatch(text.strip()) is not None


def misread(text: str) -> str | None:
    """Return why a text that stands without quotes under ``parameters:`` is probably none; None if it is one."""
    if text.lower() in _BOOLEANS and text in (text.lower(), text.upper(), text.capitalize()):
        return (
            f"{text} without quotes is a boolean in W&B and a text here; write {_BOOLEANS[text.lower()]}, or '{text}'"
        )
    if is_call(text):
        return f"{show(text)} would be a text, not a draw; {HOW_TO_DRAW}, or put it in quotes if the text is meant"
    return None


HOW_TO_DRAW = "write values: [...], or min and max with a distribution"

_TYPES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a section (key: value lines)",
    "model_attributes_type": "must be a section (key: value lines)",
    "dataclass_type": "must be a section (key: value lines)",
    "finite_number": "must be a finite number",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
# what people write for a value, from W&B, Ray, Optuna and habit
_WORDS = {"max": "maximize", "min": "minimize", "bayes": "tpe"}


def expectation(error: ErrorDetails) -> str:
    """Return what was expected, in words: ``must be above 0``."""
    kind: str = error["type"]
    context: dict[str, Any] = error.get("ctx", {})
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in _BOUNDS:
        word, name = _BOUNDS[kind]
        return f"must be {word} {context[name]:g}"
    if kind == "literal_error":
        allowed = str(context["expected"]).replace(" or ", ", ")
        return f"must be one of {allowed.replace('True', 'true').replace('False', 'false')}"
    if kind in ("too_short", "too_long", "missing") and "actual_length" in context:
        length = context.get("min_length", context.get("max_length"))
        return f"must have {length} entries, not {context['actual_length']}"
    if kind == "value_error":
        return str(context["error"])
    return error["msg"]


def explain(error: ErrorDetails) -> str:
    """Return the sentence for a wrong value: what was expected, what was given, what to write."""
    kind, given = error["type"], error["input"]
    sentence = expectation(error)
    if kind == "value_error":
        return sentence
    if kind in ("too_short", "too_long"):
        return sentence
    if given is None and kind in ("model_type", "dataclass_type", "model_attributes_type"):
        return "is empty; write its keys below it, indented, or remove the line"
    sentence = f"{sentence}, got {show(given)}"
    if kind == "literal_error" and isinstance(given, str):
        allowed = [word.strip(" '") for word in str(error["ctx"]["expected"]).replace(" or ", ",").split(",")]
        guess = _WORDS.get(given, nearest(given, allowed))
        return f"{sentence}; did you mean '{guess}'?" if guess in allowed else sentence
    if kind == "string_type":
        return f"{sentence}; put quotes around it"
    if isinstance(given, str) and kind in ("int_type", "float_type", "bool_type"):
        return f"{sentence} (text); write it without quotes" if _is_numeric(given) else sentence
    return sentence


def _is_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("true", "false")
    return True


@dataclass(frozen=True)
class Source:
    """What the file and the overrides say, as plain mappings, lists and scalars, and where each key stands.

    Args:
        path: the sweep file.
        tree: its content with the overrides applied.
        lines: line of each key and list item, from 1.
        overrides: the ``--set`` arguments by the key that they set, as they may be shown.
    """

    path: Path
    tree: Mapping[str, Any]
    lines: Mapping[KeyPath, int]
    overrides: Mapping[KeyPath, str]

    def where(self, path: KeyPath) -> str:
        """Return ``file:line``, or ``--set a.b=value`` for what was set there; ``sweep`` where there is no file."""
        override = self._override(path)
        if override:
            return f"--set {override}"
        return f"{self.path}:{self._line(path)}" if self.lines else str(self.path)

    def describe(self, problems: Sequence[Problem]) -> str:
        """Return one line per problem, in the order of the file, those of ``--set`` last."""
        problems = sorted(problems, key=lambda p: (self._override(p.path) is not None, self._line(p.path)))
        lines = [f"{self.where(p.path)} {p.key or 'file'}: {p.message}{self._below(p.path)}" for p in problems]
        return "\n".join(dict.fromkeys(lines))

    def find(self, key: str) -> KeyPath:
        """Return the path of a dotted key such as ``baselines[0].parameters.lr``."""
        parts = re.findall(r"[^.\[\]]+", key)
        return tuple(int(part) if part.isdecimal() else part for part in parts)

    def _override(self, path: KeyPath) -> str | None:
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                return self.overrides[path[:length]]
        if path and path not in self.lines:  # a section that exists only because something in it was set
            for key, text in self.overrides.items():
                if key[: len(path)] == path:
                    return text
        return None

    def _below(self, path: KeyPath) -> str:
        """Return the overrides of keys below ``path``, which may be the cause of a mistake there."""
        if self._override(path) is not None:
            return ""
        below = [text for key, text in self.overrides.items() if path and key[: len(path)] == path]
        return f" (with {' '.join(f'--set {text}' for text in below)})" if below else ""

    def _line(self, path: KeyPath) -> int:
        lines = {dotted(key): line for key, line in self.lines.items()}  # a name with dots is one key of the file
        for length in range(len(path), 0, -1):
            if dotted(path[:length]) in lines:
                return lines[dotted(path[:length])]
        return 1


def read_source(path: Path, overrides: Sequence[str] = ()) -> Source:
    """Read the file at ``path`` and apply ``--set`` arguments.

    Raises:
        SpecError: it is no readable YAML mapping, or an override has no meaning.
    """
    content = _parse(path, _read(path))
    lines: dict[KeyPath, int] = {}
    problems: list[Problem] = []
    tree = _plain(content, (), lines, problems)
    return _overridden(path, tree, lines, problems, overrides)


def make_source(content: Mapping[str, Any], overrides: Sequence[str] = ()) -> Source:
    """Return nested mappings as if they had been read from a file, and apply ``--set`` arguments.

    Raises:
        SpecError: a value that a file cannot hold, or an override without meaning.
    """
    path = Path("sweep")
    try:
        text = json.dumps(content)
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"{path}: holds what a sweep file cannot say ({error}); give mappings, lists, texts and numbers"
        ) from error
    problems: list[Problem] = []
    tree = _plain(_parse(path, text), (), {}, problems)
    return _overridden(path, tree, {}, problems, overrides)


def _overridden(
    path: Path, tree: Any, lines: dict[KeyPath, int], problems: list[Problem], overrides: Sequence[str]
) -> Source:
    origins: dict[KeyPath, str] = {}
    for text in overrides:
        key, value = _override(text)
        shown = without_secret(text)
        key = _set(tree, key, _plain(value, key, {}, problems), shown)
        origins[key] = shown
    source = Source(path, tree, lines, origins)
    if problems:
        raise SpecError(source.describe(problems))
    return source


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        folder = path.parent
        others = sorted(p.name for p in folder.glob("*.y*ml")) if folder.is_dir() else []
        near = f"; in {folder}/ there are {', '.join(others[:8])}" if others else ""
        raise SpecError(f"{path}: there is no such sweep file{near}") from None
    except IsADirectoryError:
        raise SpecError(f"{path}: this is a folder; name a sweep file in it") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: this is not UTF-8 text; a sweep file is YAML") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error


def _parse(path: Path, text: str) -> CommentedMap:
    try:
        content = _yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        duplicate = re.match(r'found duplicate key "(.*?)" with', str(error.problem), re.DOTALL)
        if duplicate:
            message = f"{duplicate[1]}: the key is given twice in the same section; remove one"
        elif "\\t" in str(error.problem) or _has_tab(text, line):
            message = "file: a tab is used for indentation; YAML allows only spaces"
        else:
            context = f" ({error.context})" if error.context else ""
            message = f"file: this is no valid YAML: {error.problem}{context}"
        raise SpecError(f"{path}:{line} {message}") from None
    except (YAMLError, ValueError) as error:
        raise SpecError(f"{path}:1 file: this is no valid YAML: {error}") from None
    if content is None:
        raise SpecError(f"{path}:1 file: is empty; a sweep file has at least name and parameters")
    if not isinstance(content, CommentedMap):
        raise SpecError(
            f"{path}:1 file: must be a mapping (key: value lines) with at least name and parameters, "
            f"not a {'list' if isinstance(content, list) else 'single value'}"
        )
    return content


def _yaml() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True  # whether a word stands in quotes says whether a text is meant
    return yaml


def _has_tab(text: str, line: int) -> bool:
    rows = text.split("\n")
    return line <= len(rows) and re.match(r" *\t", rows[line - 1]) is not None


def _plain(value: Any, path: KeyPath, lines: dict[KeyPath, int], problems: list[Problem]) -> Any:
    """Return ``value`` without ruamel's types, filling in ``lines``; numbers must be finite."""
    if isinstance(value, CommentedMap):
        plain: dict[str, Any] = {}
        for key, item in value.items():
            name = str(key)
            here = (*path, name)
            if key in (value.lc.data or {}):  # keys merged in by << have no place of their own
                lines[here] = value.lc.key(key)[0] + 1
            plain[name] = _plain(item, here, lines, problems)
        return plain
    if isinstance(value, CommentedSeq):
        for index in range(len(value)):
            lines[(*path, index)] = value.lc.item(index)[0] + 1
        return [_plain(item, (*path, index), lines, problems) for index, item in enumerate(value)]
    if isinstance(value, TaggedScalar):
        return str(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            problems.append(Problem(path, f"must be a finite number, got {float(value)}"))
        return float(value)
    if isinstance(value, int):
        return int(value)
    is_bare = type(value) in (str, PlainScalarString)
    if is_bare and "parameters" in path[:-1] and (problem := misread(value)) is not None:
        problems.append(Problem(path, problem))
    return value.isoformat() if isinstance(value, date) else str(value)


def _override(text: str) -> tuple[KeyPath, Any]:
    name, equals, value = text.partition("=")
    key = tuple(int(part) if part.isdecimal() else part for part in re.split(r"[.\[\]]+", name.strip().rstrip("]")))
    shown = without_secret(text)
    if not equals or "" in key:
        raise SpecError(f"--set {shown}: write KEY=VALUE, such as --set scheduler.max_epochs=5")
    try:
        return key, _yaml().load(value)
    except YAMLError as error:
        problem = getattr(error, "problem", error)
        raise SpecError(f"--set {shown} {dotted(key)}: the value is no valid YAML: {problem}") from None


def _set(tree: dict[str, Any], key: KeyPath, value: Any, text: str) -> KeyPath:
    """Put ``value`` at ``key`` of ``tree``, making sections on the way; return the path as it is in the tree."""
    level: Any = tree
    path: list[str | int] = []
    key = _with_dots(tree, key)
    for depth, part in enumerate(key):
        is_last = depth == len(key) - 1
        here = dotted(key[:depth])
        if isinstance(level, list):
            if not isinstance(part, int) or part >= len(level):
                raise SpecError(f"--set {text} {here}: has entries 0 to {len(level) - 1}, and no {part}")
        elif isinstance(level, dict):
            part = str(part)
            if not is_last and level.get(part) is None:
                level[part] = {}
        else:
            raise SpecError(f"--set {text} {here}: is {show(level)}, which has no keys; set {here} itself")
        path.append(part)
        if is_last:
            level[part] = value
        level = level[part]
    return tuple(path)


def _with_dots(level: Any, key: KeyPath) -> KeyPath:
    """Return ``key`` with those parts joined that the file has as one name with dots."""
    if not key:
        return key
    for length in range(len(key), 1, -1):
        name = ".".join(map(str, key[:length]))
        if isinstance(level, dict) and name in level:
            return (name, *_with_dots(level[name], key[length:]))
    below = level.get(str(key[0])) if isinstance(level, dict) else None
    return (key[0], *_with_dots(below, key[1:]))
