"""Charts of the search: who was stopped when, what the parameters did, how fast the best got better."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from segbench.core.records import Scalar, TrialState
from segbench.report.vega import AUDITED, STATE_COLORS, Chart, Spec, chart_spec, field, number, tooltip
from segbench.results.folder import Results
from segbench.spec.space import Constant, Integer, Parameter, Real, Transformed

_STATE_SCALE = {"domain": list(STATE_COLORS), "range": list(STATE_COLORS.values())}
_UNUSED = -0.12
"""Where a line passes below the axis of a parameter that the trial does not have."""


def search_charts(results: Results) -> list[Chart]:
    """Return all charts of the search that have something to show."""
    charts = [learning_curves(results), parallel_coordinates(results), *importance(results), *best_so_far(results)]
    return [chart for chart in [*charts, *slices(results)] if _has_values(chart.spec)]


def learning_curves(results: Results) -> Chart:
    """A line per trial; a cross where ASHA stopped it."""
    values, ends, audited = [], [], []
    for record in results.records.search:
        label = {"trial": record.assignment.name, "state": record.state.value}
        points = [
            {**label, "epoch": epoch.epoch, "score": score}
            for epoch in record.epochs
            if (score := number(epoch.score)) is not None
        ]
        values += points
        stop = record.as_stopped().reason
        audited += [{**point, "stop": stop} for point in points if point["epoch"] == record.audited_rung]
        if points and record.state is not TrialState.COMPLETE:
            ends.append({**points[-1], "reason": record.reason or record.state.value})
    states = [state for state in STATE_COLORS if any(value["state"] == state for value in values)]
    scale = {"domain": states, "range": [STATE_COLORS[state] for state in states]}
    color = field("state", "nominal", None, scale=scale, legend={"orient": "top"})
    x = field("epoch", "quantitative", "epoch", axis={"tickMinStep": 1, "format": "d"}, scale={"nice": False})
    y = field("score", "quantitative", results.metric, scale={"zero": False})
    lines = {
        "mark": {"type": "line", "strokeWidth": 1.2},
        "params": [_hover("trial")],
        "encoding": {
            **{"x": x, "y": y, "color": color, "detail": field("trial", "nominal"), "tooltip": _tips(results.metric)},
            "opacity": {"condition": {"param": "hover", "value": 0.9}, "value": 0.12},
        },
    }
    stops = {
        "data": {"values": ends},
        "mark": {"type": "point", "shape": "cross", "size": 28, "filled": True, "opacity": 0.8},
        "encoding": {"x": x, "y": y, "color": color, "tooltip": [*_tips(results.metric), *tooltip(reason="reason")]},
    }
    marks = {
        "data": {"values": audited},
        "mark": {
            "type": "point",
            "shape": "diamond",
            "size": 130,
            "filled": False,
            "strokeWidth": 2.5,
            "opacity": 1,
            "color": AUDITED,
        },
        "encoding": {"x": x, "y": y, "tooltip": [*_tips(results.metric), *tooltip(stop="would have stopped at")]},
    }
    note = "A line per trial; a cross where it was stopped. Point at a line to follow it."
    if audited:
        note += " A purple diamond: it was to be stopped there, and ran on for the audit."
    layers = [lines, *([stops] if ends else []), *([marks] if audited else [])]
    return Chart("learning-curves", "Learning curves", chart_spec(values, 320, layer=layers), note)


def parallel_coordinates(results: Results) -> Chart:
    """A line per trial through its parameters to its score."""
    axes = [p for p in results.space.parameters if not isinstance(p.domain, Constant)]
    scored = sorted(results.scored(), key=lambda pair: pair[1], reverse=results.goal == "maximize")
    scores = [score for _, score in scored]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    values: list[dict[str, Any]] = []
    for rank, (record, score) in enumerate(scored):
        label = {"trial": record.assignment.name, "score": number(score), "share": number((rank + 1) / len(scored), 3)}
        for index, parameter in enumerate(axes):
            value = record.assignment.params.get(parameter.name)
            place = position(parameter, value)
            shown = "not used" if value is None else str(value if isinstance(value, str) else _text(value))
            values.append({**label, "axis": index, "y": number(_UNUSED if place is None else place), "value": shown})
        place = (score - low) / (high - low) if high > low else 0.5
        values.append({**label, "axis": len(axes), "y": number(place), "value": _text(score)})
    names = [*(parameter.name for parameter in axes), results.metric]
    ticks = [
        {"axis": index, "y": place, "text": text}
        for index, parameter in enumerate(axes)
        for place, text in _axis_ticks(parameter)
    ]
    ticks += [{"axis": len(axes), "y": place, "text": _text(value)} for place, value in ((0, low), (1, high))]
    heads = [{"axis": index, "y": 1.13, "text": name} for index, name in enumerate(names)]
    x = field("axis", "quantitative", None, axis=None, scale={"domain": [-0.35, len(names) - 0.65], "nice": False})
    y = field("y", "quantitative", None, axis=None, scale={"domain": [-0.15, 1.2], "nice": False})
    shown_best = {"name": "best", "value": 100, "bind": {"input": "range", "min": 2, "max": 100, "name": "best % "}}
    lines = {
        "transform": [{"filter": "datum.share * 100 <= best || datum.share * 100 <= 2"}],
        "params": [_hover("trial")],
        "mark": {"type": "line", "strokeWidth": 1.3, "interpolate": "monotone"},
        "encoding": {
            **{"x": x, "y": y, "detail": field("trial", "nominal")},
            "color": field("score", "quantitative", results.metric, scale={"scheme": "viridis"}, legend=_GRADIENT),
            "opacity": {"condition": {"param": "hover", "value": 0.85}, "value": 0.06},
            "tooltip": tooltip(trial="trial", value="value", score=results.metric),
        },
    }
    rules = {
        "data": {"values": [{"axis": index, "low": 0, "high": 1} for index in range(len(names))]},
        "mark": {"type": "rule", "opacity": 0.5},
        "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
    }
    texts = [
        {
            "data": {"values": rows},
            "mark": {"type": "text", "fontSize": 11, "fontWeight": weight, **place},
            "encoding": {"x": x, "y": y, "text": {"field": "text"}},
        }
        for rows, weight, place in (
            (ticks, "normal", {"align": "left", "dx": 4, "dy": -5}),
            (heads, "bold", {"limit": 110}),
        )
    ]
    spec = chart_spec(values, 360, params=[shown_best], layer=[rules, lines, *texts])
    spec["usermeta"] = {"minWidth": 100 * len(names)}
    note = "A line per trial, below the axis where it has no such parameter. Move the slider to keep the best ones."
    return Chart("parallel-coordinates", "Parallel coordinates", spec, note)


def importance(results: Results) -> list[Chart]:
    """A bar per parameter and measure."""
    return [
        Chart(
            f"importance-{measure.lower()}",
            f"Importance by {measure}",
            chart_spec(
                [{"parameter": name, "share": number(share)} for name, share in shares.items()],
                24 * len(shares) + 30,
                mark={"type": "bar", "color": "#0072B2", "tooltip": True},
                encoding={
                    "y": field("parameter", "nominal", None, sort="-x", axis={"labelLimit": 140}),
                    "x": field("share", "quantitative", "share", axis={"format": "%", "tickCount": 5}),
                },
            ),
            _MEASURES[measure],
        )
        for measure, shares in results.importances.items()
    ]


def best_so_far(results: Results) -> list[Chart]:
    """The best score after so many trials, epochs and seconds."""
    events = sorted(
        (epoch.at, epoch.seconds, number_, score)
        for number_, record in enumerate(results.records.search)
        for epoch in record.epochs
        if (score := number(epoch.score)) is not None
    )
    if not events:
        return []
    better = max if results.goal == "maximize" else min
    best = list(accumulate((score for *_, score in events), better))
    started = min(record.started_at for record in results.records.search)
    seen: set[int] = set()
    rows = []
    for index, ((at, _, trial, _), score) in enumerate(zip(events, best, strict=True)):
        seen.add(trial)
        if index == 0 or score != best[index - 1] or index == len(best) - 1:
            row = {"trials": len(seen), "epochs": index + 1, "minutes": number((at - started) / 60), "best": score}
            rows.append(row)
    charts = []
    for unit in ("trials", "epochs", "minutes"):
        encoding = {
            "x": field(unit, "quantitative", unit, axis={"tickCount": 5}),
            "y": field("best", "quantitative", f"best {results.metric}", scale={"zero": False}, axis={"format": "~g"}),
        }
        mark = {"type": "line", "interpolate": "step-after", "point": {"size": 20}, "color": "#0072B2", "tooltip": True}
        spec = chart_spec(rows, 180, mark=mark, encoding=encoding)
        charts.append(Chart(f"best-by-{unit}", f"Best so far by {unit}", spec))
    return charts


def slices(results: Results) -> list[Chart]:
    """The score of each trial against each parameter."""
    scored = results.scored()
    charts = []
    for parameter in results.space.parameters:
        if isinstance(parameter.domain, Constant):
            continue
        values = [
            {"trial": r.assignment.name, "value": value, "score": number(score), "state": r.state.value}
            for r, score in scored
            if (value := r.assignment.params.get(parameter.name)) is not None
        ]
        is_line = _is_continuous(parameter)
        scale = {"type": "log"} if _is_log(parameter) else {"zero": False}
        axis = {"tickCount": 4, "format": "~g", "labelOverlap": True}
        x = field("value", "quantitative", None, scale={**scale, "nice": False, "padding": 8}, axis=axis)
        if not is_line:
            x = field("value", "ordinal", None, axis={"labelAngle": 0, "labelLimit": 90})
        encoding = {
            "x": x,
            "y": field("score", "quantitative", results.metric, scale={"zero": False}, axis={"tickCount": 4}),
            "color": field("state", "nominal", None, scale=_STATE_SCALE, legend=None),
            "tooltip": tooltip(trial="trial", value=parameter.name, score=results.metric, state="state"),
        }
        mark = {"type": "point", "filled": True, "size": 34, "opacity": 0.65}
        charts.append(
            Chart(f"slice-{parameter.name}", parameter.name, chart_spec(values, 170, mark=mark, encoding=encoding))
        )
    return charts


def position(parameter: Parameter, value: Scalar) -> float | None:
    """Return where a value lies on the axis of its parameter, 0 to 1; None for one outside or not drawn."""
    domain = parameter.domain
    if value is None or not domain.contains(value):
        return None
    if isinstance(domain, Real):
        return domain.position(float(value))
    if isinstance(domain, Transformed):
        assert isinstance(value, int | float)
        return domain.base.position(value)
    choices = list(domain.choices())
    return choices.index(value) / (len(choices) - 1) if len(choices) > 1 else 0.5


def _axis_ticks(parameter: Parameter) -> list[tuple[float, str]]:
    choices = parameter.domain.choices()
    shown: Sequence[Scalar] = parameter.domain.probes() if choices is None or len(choices) > 6 else tuple(choices)
    places = ((position(parameter, value), value) for value in shown)
    return [(place, value if isinstance(value, str) else _text(value)) for place, value in places if place is not None]


def _is_continuous(parameter: Parameter) -> bool:
    return isinstance(parameter.domain, Real | Integer | Transformed)


def _is_log(parameter: Parameter) -> bool:
    domain = parameter.domain
    base = domain.base if isinstance(domain, Transformed) else domain
    return bool(getattr(base, "log", False)) and all(_above_zero(value) for value in parameter.domain.probes())


def _above_zero(value: Scalar) -> bool:
    return isinstance(value, int | float) and value > 0


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _hover(column: str) -> Spec:
    return {
        "name": "hover",
        "select": {"type": "point", "on": "pointerover", "clear": "pointerout", "fields": [column]},
    }


def _tips(metric: str) -> list[Spec]:
    return tooltip(trial="trial", epoch="epoch", score=metric, state="state")


def _has_values(spec: Spec) -> bool:
    return bool(spec["data"]["values"])


_GRADIENT = {"orient": "top", "gradientLength": 160, "titleOrient": "left", "gradientThickness": 8}
_MEASURES = {
    "PED-ANOVA": "How much it decides whether a trial is among the best tenth.",
    "fANOVA": "Its share of the variance of the score; only parameters that every trial has.",
}
