"""Charts of a search for several metrics: the front, and the volume that it covers."""

from segbench.core.objectives import Objective
from segbench.report.vega import SERIES, Chart, chart_spec, field, number, tooltip
from segbench.results.folder import Results
from segbench.results.front import Front

_KINDS = ("on the front", "dominated", "baseline")


def front_charts(results: Results) -> list[Chart]:
    """Return a chart per further metric against the first, and the hypervolume over trials; none for one metric."""
    front = results.front
    if front is None:
        return []
    others = range(1, len(front.objectives))
    return [*(_against(front, index) for index in others), _growth(front)]


def _against(front: Front, index: int) -> Chart:
    """The first metric against another one, with the front as a line."""
    first, other = front.objectives[0], front.objectives[index]
    values = [
        {"trial": found.record.assignment.name, "score": number(found.values[0]), "cost": number(found.values[index]),
         "front": found.is_on_front, "kind": _kind(found.record.assignment.origin, found.is_on_front)}
        for found in front.found
    ]  # fmt: skip
    x = field("cost", "quantitative", other.name, scale={"zero": False, "padding": 14}, axis={"tickCount": 5})
    y = field("score", "quantitative", first.name, scale={"zero": False, "padding": 14}, axis={"tickCount": 5})
    scale = {"domain": list(_KINDS), "range": [SERIES[0], SERIES[7], SERIES[1]]}
    color = field("kind", "nominal", None, scale=scale, legend={"orient": "top"})
    shape = field("kind", "nominal", None, scale={"domain": list(_KINDS), "range": ["circle", "circle", "diamond"]})
    step = "step-after" if other.goal == "minimize" else "step-before"
    line = {"type": "line", "interpolate": step, "color": SERIES[0], "opacity": 0.5}
    layers = [
        {"transform": [{"filter": "datum.front"}], "mark": line, "encoding": {"x": x, "y": y}},
        {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.9},
         "encoding": {"x": x, "y": y, "color": color, "shape": shape,
                      "tooltip": tooltip(trial="trial", cost=other.name, score=first.name, kind="")}},
    ]  # fmt: skip
    note = "A point per search trial that ran to its end. The line joins those that no other trial dominates."
    return Chart(f"front-{index}", f"{first.name} against {other.name}", chart_spec(values, 300, layer=layers), note)


def _growth(front: Front) -> Chart:
    """The hypervolume after each trial."""
    values = [{"trials": trial + 1, "volume": number(volume)} for trial, volume in front.volumes]
    encoding = {
        "x": field("trials", "quantitative", "trials", axis={"tickMinStep": 1, "tickCount": 5}),
        "y": field("volume", "quantitative", "hypervolume", axis={"format": "~g"}),
    }
    mark = {"type": "line", "interpolate": "step-after", "point": {"size": 20}, "color": SERIES[0], "tooltip": True}
    note = f"The volume that the front covers, from the worst values found ({front.describe_reference()})."
    return Chart("front-volume", "Hypervolume over trials", chart_spec(values, 180, mark=mark, encoding=encoding), note)


def _kind(origin: str, is_on_front: bool) -> str:
    return "baseline" if origin == "baseline" else "on the front" if is_on_front else "dominated"


def front_sentence(results: Results) -> str:
    """Return the hypervolume and its reference point as a sentence; nothing for one metric."""
    front = results.front
    if front is None:
        return ""
    on_front = sum(found.is_on_front for found in front.found)
    names = " and ".join(map(_said, front.objectives))
    return (
        f"{on_front} of {len(front.found)} trials that ran to their end are on the front of {names}. It covers a "
        f"hypervolume of {front.hypervolume:.4g} against the reference point {front.describe_reference()}, the worst "
        "value of each that was found."
    )


def _said(objective: Objective) -> str:
    return f"{objective.name} ({objective.goal})"
