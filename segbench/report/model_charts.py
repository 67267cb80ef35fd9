"""Charts of the finalists: how sure, how they learned, which classes they know and which they confuse."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from segbench.report.vega import SERIES, Chart, Spec, Values, chart_spec, field, number, tooltip
from segbench.results.conclusion import test_mious
from segbench.results.finalists import Finalist, mean
from segbench.results.folder import Results
from segbench.training.class_tables import group_names
from segbench.training.metrics import class_iou

MAX_ROWS = 12
"""Finalists that the charts show; without retraining every trial is a row of the leaderboard."""


def model_charts(results: Results) -> list[Chart]:
    """Return all charts of the finalists that have something to show."""
    rows = list(results.finalists[:MAX_ROWS])
    charts = [intervals(rows, results), agreement(rows, results), *winner_curves(rows, results)]
    charts += [class_heat_map(rows), *confusion_matrices(rows)]
    return [chart for chart in charts if chart.spec["data"]["values"]]


def intervals(rows: list[Finalist], results: Results) -> Chart:
    """The test score of each finalist with its 95 % interval, a tick per seed."""
    names = [row.name for row in rows]
    values = [
        {"name": row.name, "mean": number(mean(test_mious(row))), "low": number(found.low), "high": number(found.high)}
        for row in rows
        if (found := results.confidence.intervals.get(row.name)) is not None
    ]
    ticks = [{"name": row.name, "seed": number(miou)} for row in rows for miou in test_mious(row)]
    y = field("name", "nominal", None, sort=names, axis={"labelLimit": 150})
    x = field("mean", "quantitative", "test/miou", scale={"zero": False})
    layers = [
        {"mark": {"type": "rule", "strokeWidth": 3, "color": SERIES[0]},
         "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"},
                      "tooltip": tooltip(name="name", mean="mean", low="low", high="high")}},
        {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 1, "color": SERIES[0]},
         "encoding": {"y": y, "x": x}},
        {"data": {"values": ticks}, "mark": {"type": "tick", "color": SERIES[1], "thickness": 2, "size": 12},
         "encoding": {"y": y, "x": {**x, "field": "seed"}}},
    ]  # fmt: skip
    note = f"95 % bootstrap interval over {results.confidence.num_images} test images; an orange tick per seed."
    return Chart("intervals", "Test mIoU", chart_spec(values, 34 * len(values) + 40, layer=layers), note)


def agreement(rows: list[Finalist], results: Results) -> Chart:
    """The search score beside the mean retrained one, and where they would be equal."""
    pairs = [
        (row.name, search, retrained)
        for row in rows
        if (search := row.search_score) is not None and (retrained := mean(row.scores)) is not None
    ]
    values = [{"name": name, "search": number(a), "retrained": number(b)} for name, a, b in pairs]
    both = [score for _, *scores in pairs for score in scores]
    ends = [min(both, default=0.0), max(both, default=1.0)]
    scale = {"zero": False, "domain": ends, "nice": True}
    x = field("search", "quantitative", f"search {results.metric}", scale=scale)
    y = field("retrained", "quantitative", "retrained, mean", scale=scale)
    layers = [
        {"data": {"values": [{"search": end, "retrained": end} for end in ends]},
         "mark": {"type": "line", "strokeDash": [4, 4], "opacity": 0.6}, "encoding": {"x": x, "y": y}},
        {"mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
         "encoding": {"x": x, "y": y, "color": _series([name for name, *_ in pairs]),
                      "tooltip": tooltip(name="name", search="search", retrained="retrained")}},
    ]  # fmt: skip
    note = "Below the line: the search promised more than retraining kept."
    return Chart("agreement", "Search score and retrained score", chart_spec(values, 240, layer=layers), note)


def winner_curves(rows: list[Finalist], results: Results) -> list[Chart]:
    """Score and losses of every retrained seed."""
    names = [row.name for row in rows]
    scores, losses = [], []
    for row in rows:
        for seed in row.retrain:
            label = {"name": row.name, "seed": seed.assignment.name}
            for epoch in seed.epochs:
                scores.append({**label, "epoch": epoch.epoch, "value": number(epoch.score)})
                for split, kind in (("train", "training"), ("val", "validation")):
                    loss = epoch.metrics.get(f"{split}/loss")
                    if loss is not None and loss > 0:
                        losses.append({**label, "epoch": epoch.epoch, "value": number(loss), "split": kind})
    dash_scale = {"domain": ["training", "validation"], "range": [[4, 3], [1, 0]]}
    dash = field("split", "nominal", None, scale=dash_scale, legend={"orient": "top"})
    log_loss = field("value", "quantitative", "loss (log scale)", scale={"type": "log", "nice": False})
    return [
        Chart("winner-scores", f"Retraining: {results.metric}", _curves(scores, results.metric, names, {})),
        Chart(
            "winner-losses",
            "Retraining: loss",
            _curves(losses, "loss", names, {"strokeDash": dash, "y": log_loss}),
            "Dashed: training (with augmentation and weights as they change); solid: validation. Losses of different "
            "kinds are not comparable.",
        ),
    ]


def class_heat_map(rows: list[Finalist]) -> Chart:
    """IoU of each class by model, on the test split where there is one."""
    values = []
    groups: list[str] = []
    for row in rows:
        confusion, names = _confusion(row)
        if confusion is not None:
            groups = names
            ious = zip(names, class_iou(confusion).tolist(), strict=True)
            values += [{"name": row.name, "group": group, "iou": number(iou)} for group, iou in ious]
    text = {"condition": {"test": "datum.iou > 0.55", "value": "black"}, "value": "white"}
    x = field("group", "nominal", None, sort=groups, axis={"orient": "top", "labelAngle": -35})
    y = field("name", "nominal", None, sort=[row.name for row in rows], axis={"labelLimit": 150})
    heat = field("iou", "quantitative", "IoU", scale={"scheme": "viridis", "domain": [0, 1]}, legend=None)
    layers: list[Spec] = [
        {"mark": {"type": "rect", "tooltip": True}, "encoding": {"x": x, "y": y, "color": heat}},
        {"transform": [{"filter": "isValid(datum.iou)"}], "mark": {"type": "text", "fontSize": 11},
         "encoding": {"x": x, "y": y, "text": field("iou", "quantitative", None, format=".2f"), "color": text}},
    ]  # fmt: skip
    spec = chart_spec(values, 30 * min(len(rows), len(values)) + 70, layer=layers)
    spec["usermeta"] = {"minWidth": 180 + 44 * len(groups)}
    spec["padding"] = {"left": 5, "top": 5, "bottom": 5, "right": 30}  # where the last slanted heading ends
    note = "Over all seeds of a row, from the summed confusion matrix; test split where it was tested."
    return Chart("class-iou", "IoU by class", spec, note)


def confusion_matrices(rows: list[Finalist]) -> list[Chart]:
    """Two matrices, by row (where does a true class go) and by column (what is in a predicted class)."""
    found = [(row.name, *_confusion(row)) for row in rows]
    charts = []
    for way, axis, title in (("rows", 1, "Confusion: each true class"), ("columns", 0, "Confusion: each prediction")):
        values = []
        for name, confusion, groups in found:
            if confusion is None:
                continue
            with np.errstate(invalid="ignore"):
                shares = confusion / confusion.sum(axis=axis, keepdims=True)
            values += [
                {"name": name, "truth": truth, "prediction": prediction, "share": number(shares[i, j], 3)}
                for i, truth in enumerate(groups)
                for j, prediction in enumerate(groups)
            ]
        charts.append(Chart(f"confusion-{way}", title, _matrix(values), _MATRIX_NOTES[way]))
    return charts


def _matrix(values: Values) -> Spec:
    names = list(dict.fromkeys(value["name"] for value in values))
    groups = list(dict.fromkeys(value["truth"] for value in values))
    choice = {"name": "model", "value": names[0] if names else "",
              "bind": {"input": "select", "options": names, "name": "model "}}  # fmt: skip
    x = field("prediction", "nominal", "prediction", sort=groups, axis={"labelAngle": -35})
    y = field("truth", "nominal", "truth", sort=groups)
    heat = field("share", "quantitative", None, scale={"scheme": "viridis", "domain": [0, 1]}, legend=None)
    text = {"condition": {"test": "datum.share > 0.55", "value": "black"}, "value": "white"}
    layers: list[Spec] = [
        {"mark": {"type": "rect", "tooltip": True}, "encoding": {"x": x, "y": y, "color": heat}},
        {"transform": [{"filter": "isValid(datum.share)"}], "mark": {"type": "text", "fontSize": 10},
         "encoding": {"x": x, "y": y, "text": field("share", "quantitative", None, format=".2f"), "color": text}},
    ]  # fmt: skip
    filtered = [{"filter": "datum.name == model"}]
    spec = chart_spec(values, 30 * len(groups) + 80, params=[choice], transform=filtered, layer=layers)
    spec["usermeta"] = {"minWidth": 110 + 34 * len(groups)}
    return spec


def _curves(values: Values, title: str, names: list[str], more: Mapping[str, Spec]) -> Spec:
    encoding = {
        "x": field("epoch", "quantitative", "epoch", axis={"tickMinStep": 1, "format": "d"}),
        "y": field("value", "quantitative", title, scale={"zero": False}),
        "color": _series(names),
        "detail": field("seed", "nominal"),
        "tooltip": tooltip(seed="seed", epoch="epoch", value=title),
        **more,
    }
    has_one_epoch = all(value["epoch"] == 1 for value in values)  # a line needs two points
    mark = {"type": "line", "strokeWidth": 1.6, "point": {"size": 40} if has_one_epoch else False}
    return chart_spec(values, 260, mark=mark, encoding=encoding)


def _series(names: list[str]) -> Spec:
    colors = [SERIES[index % len(SERIES)] for index in range(len(names))]
    legend = {"orient": "bottom", "columns": 2, "labelLimit": 160}
    return field("name", "nominal", None, scale={"domain": names, "range": colors}, legend=legend)


def _confusion(row: Finalist) -> tuple[npt.NDArray[np.int64] | None, list[str]]:
    """Return the summed matrix of a row's tests; of its best epochs on validation where nothing was tested."""
    epochs = [record.epochs[-1] for record in row.test if record.epochs]
    epochs = epochs or [
        epoch for record in row.retrain or (row.search,) if (epoch := record.best(row.goal)) is not None
    ]
    epochs = [epoch for epoch in epochs if epoch.confusion is not None]
    if not epochs:
        return None, []
    return np.sum([np.array(epoch.confusion, np.int64) for epoch in epochs], axis=0), group_names(epochs[0])


_MATRIX_NOTES = {
    "rows": "Rows sum to 1: where the pixels of a true class go. The diagonal is recall.",
    "columns": "Columns sum to 1: what is in a predicted class. The diagonal is precision.",
}
