"""Vega-Lite specifications as plain mappings: what all charts of the report share."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segbench.core.errors import UserError
from segbench.core.paths import atomic_path

FIGURE_WIDTH_PX = 720

Spec = dict[str, Any]
Values = Sequence[Mapping[str, Any]]

STATE_COLORS = {
    "COMPLETE": "#0072B2",
    "PRUNED": "#E69F00",
    "FAIL": "#D55E00",
    "RUNNING": "#009E73",
    "PAUSED": "#56B4E9",
}
"""Okabe and Ito's colours, which the colour-blind can tell apart."""
AUDITED = "#CC79A7"

SERIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A7B00", "#7F7F7F"]


@dataclass(frozen=True)
class Chart:
    """A chart of the report; a notebook shows it as a picture."""

    name: str
    """Unique on the page; file name of the figure."""
    title: str
    """What it shows."""
    spec: Spec = dataclasses.field(repr=False)
    """Vega-Lite, with its data."""
    note: str = ""
    """How to read it."""

    def draw(self, format: Literal["png", "svg"]) -> bytes:
        """Return the chart as a picture on white, :data:`FIGURE_WIDTH_PX` wide; a PNG has twice the pixels.

        Raises:
            UserError: vl-convert, which draws it, is not installed.
        """
        try:
            import vl_convert
        except ImportError:
            raise UserError(
                "a figure needs vl-convert, which draws charts without a browser: pip install 'segbench[figures]'"
            ) from None
        spec = {**self.spec, "width": FIGURE_WIDTH_PX, "background": "white", "title": self.title}
        if format == "png":
            return bytes(vl_convert.vegalite_to_png(spec, scale=2))
        return str(vl_convert.vegalite_to_svg(spec)).encode()

    def save(self, file: str | Path) -> None:
        """Write the chart as PNG, or as SVG where the name ends so.

        Raises:
            UserError: vl-convert, which draws it, is not installed.
        """
        with atomic_path(Path(file)) as temporary:
            temporary.write_bytes(self.draw("svg" if Path(file).suffix == ".svg" else "png"))

    def _repr_png_(self) -> bytes:
        """Return the picture that a notebook shows."""
        return self.draw("png")


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
