"""Test mIoU against what a model costs to run, with the Pareto front."""

from collections.abc import Sequence

import pandas as pd

from segbench.report.vega import SERIES, Chart, chart_spec, field, number, tooltip
from segbench.results.folder import Results

MAX_ROWS = 40
COSTS = (
    ("parameters", "number of weights", "weights (M)", 1e-6),
    ("gmacs", "multiply-adds", "GMACs for one image", 1.0),
    ("latency_ms", "latency", "milliseconds for one image", 1.0),
    ("peak_mib", "peak memory", "MiB for one image", 1.0),
)
"""Column of the leaderboard, what it is, title of the axis, unit."""


def cost_charts(results: Results) -> list[Chart]:
    """Return a chart per kind of cost that was measured of two or more rows."""
    board = results.board
    if "test/miou mean" not in board or "measured_on" not in board:
        return []
    charts = []
    for column, what, title, unit in COSTS:
        shown = board[board[column].notna() & board["test/miou mean"].notna()].head(MAX_ROWS)
        if len(shown) >= 2:
            charts.append(_cost_chart(shown, column, what, title, unit))
    return charts


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[bool]:
    """Return of each model whether no other one is at least as good and as cheap, and better in one of the two."""
    pairs = list(zip(costs, scores, strict=True))

    def is_beaten(cost: float, score: float) -> bool:
        return any(c <= cost and s >= score and (c < cost or s > score) for c, s in pairs)

    return [not is_beaten(cost, score) for cost, score in pairs]


def _cost_chart(shown: pd.DataFrame, column: str, what: str, title: str, unit: float) -> Chart:
    costs = [float(value) * unit for value in shown[column]]
    scores = [float(value) for value in shown["test/miou mean"]]
    is_front = pareto_front(costs, scores)
    names, ranks = shown["name"].tolist(), shown["rank"].tolist()
    values = [
        {"name": name, "rank": str(rank), "cost": number(cost), "miou": number(score),
         "front": "on the Pareto front" if front else "beaten"}
        for name, rank, cost, score, front in zip(names, ranks, costs, scores, is_front, strict=True)
    ]  # fmt: skip
    labels = {
        "tickCount": 4,
        "format": "~s" if max(costs) >= 1000 else "~g",
        "labelOverlap": True,
        "labelSeparation": 8,
    }
    x = field("cost", "quantitative", title, scale={"type": "log", "nice": False, "padding": 24}, axis=labels)
    y = field("miou", "quantitative", "test/miou", scale={"zero": False, "padding": 14}, axis={"tickCount": 5})
    kinds = {"domain": ["on the Pareto front", "beaten"], "range": [SERIES[0], SERIES[7]]}
    color = field("front", "nominal", None, scale=kinds, legend={"orient": "top"})
    layers = [
        {"transform": [{"filter": "datum.front != 'beaten'"}],
         "mark": {"type": "line", "interpolate": "step-after", "color": SERIES[0], "opacity": 0.5},
         "encoding": {"x": x, "y": y}},
        {"mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
         "encoding": {"x": x, "y": y, "color": color,
                      "tooltip": tooltip(name="name", cost=title, miou="test/miou", front="")}},
        {"mark": {"type": "text", "dx": 9, "dy": -8, "fontSize": 11},
         "encoding": {"x": x, "y": y, "text": field("rank", "nominal")}},
    ]  # fmt: skip
    devices = sorted({str(device) for device in shown["measured_on"]})
    note = "Numbers are ranks on the leaderboard."
    if column in ("latency_ms", "peak_mib"):
        note = f"Measured on {', '.join(devices)}, batch 1. {note}"
    spec = chart_spec(values, 220, layer=layers)
    return Chart(f"cost-{column.split('_')[0]}", f"Test mIoU against {what}", spec, note)
