"""A mistake in the sweep file: where it stands, and the sentence that says what to do."""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

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


def dotted(path: KeyPath) -> str:
    """Return ``path`` as users write it; empty for the whole file."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def show(value: object) -> str:
    """Return ``value`` as it would stand in the file, shortened."""
    if value is None:
        return "nothing (null)"
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
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
_WORDS = {"max": "maximize", "min": "minimize", "bayes": "tpe", "hyperband": "asha", "median": "asha"}


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
