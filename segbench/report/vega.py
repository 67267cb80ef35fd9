"""Vega-Lite specifications as plain mappings: what all charts of the report share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]
Values = Sequence[Mapping[str, Any]]

STATE_COLORS = {"COMPLETE": "#0072B2", "PRUNED": "#E69F00", "FAIL": "#D55E00", "RUNNING": "#009E73"}
"""Okabe and Ito's colours, which the colour-blind can tell apart."""
AUDITED = "#CC79A7"

SERIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A7B00", "#7F7F7F"]


@dataclass(frozen=True)
class Chart:
    """A chart of the page."""

    name: str
    """Unique on the page; file name of the figure."""
    title: str
    spec: Spec
    note: str = ""
    """How to read it."""


def chart_spec(values: Values, height: int, **parts: Any) -> Spec:
    """Return a specification as wide as its place on the page."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": list(values)},
        **parts,
    }


def field(name: str, kind: str, title: str | None = None, **parts: Any) -> Spec:
    """Return an encoding of one column; ``kind`` is quantitative, nominal or ordinal."""
    return {"field": name, "type": kind, "title": title, **parts}


def number(value: float | None, digits: int = 4) -> float | None:
    """Return a value with so many significant digits, None where JSON has no number for it."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def tooltip(**titles: str) -> list[Spec]:
    """Return a tooltip with a line per column: column=title, ``.`` written as ``__`` in neither."""
    return [{"field": name, "title": title} for name, title in titles.items()]
