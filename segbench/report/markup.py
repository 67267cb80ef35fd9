"""Parts of the page that are not charts: the leaderboard, tables and pictures as HTML."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import pandas as pd

from segbench.report.pictures import Gallery, Scene
from segbench.results.folder import Results


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """Return a table, without a head if there are no headings.

    Numbers are set to the right, and a cell ``(shown, sorted by)`` sorts by the second.
    """
    listed = list(rows)
    first = listed[0] if listed else [""] * len(headings)
    cells = [
        f'<th scope="col"{_number_class(cell)}>{escape(heading)}</th>'
        for heading, cell in zip(headings, first, strict=False)
    ]
    head = f"<thead><tr>{''.join(cells)}</tr></thead>" if headings else ""
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in listed)
    return f'<div class="scroll"><table class="{kind}">{head}<tbody>{body}</tbody></table></div>'


def leaderboard(board: pd.DataFrame, metric: str) -> str:
    """Return the leaderboard, whose columns sort by a click on their heading."""
    columns: dict[str, list[Any]] = {"rank": [int(rank) for rank in board["rank"]], "name": board["name"].tolist()}
    for name in ("model", "state"):
        if board[name].notna().any() and board[name].nunique() > (name == "state"):
            columns[name] = board[name].fillna("").tolist()
    if "front" in board:
        columns["front"] = ["front" if is_on_front else "" for is_on_front in board["front"]]
        others = [name for name in map(str, board) if name.startswith("search ") and name != f"search {metric}"]
        columns |= {name.removeprefix("search "): [_number(value) for value in board[name]] for name in others}
    if "breaks" in board:
        columns["breaks"] = board["breaks"].fillna("").tolist()
    if f"{metric} mean" in board:
        columns[metric] = _with_std(board, metric)
        columns["seeds"] = board["seeds"].tolist()
    columns["search"] = [_number(value) for value in board[f"search {metric}"]]
    if "test/miou mean" in board:
        columns["test/miou"] = _with_std(board, "test/miou")
        bounds = zip(board["test/miou low"], board["test/miou high"], strict=True)
        columns["95 % interval"] = [("", -1.0) if pd.isna(a) else (f"{a:.3f} to {b:.3f}", a) for a, b in bounds]
        columns["tied with"] = [str(ranks or "").replace(";", ", ") for ranks in board["tied_with"]]
        columns["official"] = [_number(value) for value in board["test/miou_official mean"]]
    columns["weights (M)"] = [_number(value, 2, 1e-6) for value in board["parameters"]]
    columns["epochs"] = [_number(value, 1) for value in board["epochs"]]
    columns["minutes"] = [_number(value, 1, 1 / 60) for value in board["seconds"]]
    shown = {name: cells for name, cells in columns.items() if any(not _is_empty(cell) for cell in cells)}
    return table(list(shown), zip(*shown.values(), strict=True), "sortable")


def costs(board: pd.DataFrame) -> str:
    """Return what each model costs to run, a row each; nothing where it was not measured."""
    if "measured_on" not in board or board["measured_on"].isna().all():
        return ""
    measured = board[board["measured_on"].notna()]
    kinds = (("parameters", 2, 1e-6), ("gmacs", 2, 1.0), ("latency_ms", 1, 1.0), ("peak_mib", 1, 1.0))
    cells = [[_number(value, digits, unit) for value in measured[name]] for name, digits, unit in kinds]
    batches = zip(measured["latency_batch_ms"], measured["measured_batch"], strict=True)
    batched = [(f"{latency:.1f} for {batch}", float(latency)) for latency, batch in batches]
    headings = ["rank", "name", "weights (M)", "GMACs", "ms, one image", "peak MiB", "ms, a batch", "measured on"]
    ranks = [int(rank) for rank in measured["rank"]]
    rows = zip(ranks, measured["name"], *cells, batched, measured["measured_on"], strict=True)
    return table(headings, rows, "sortable")


def gallery(pictures: Gallery) -> str:
    """Return legend and scenes; a sentence where there are no pictures."""
    if not pictures.scenes:
        return f"<p>{escape(pictures.reason)}</p>"
    legend = "".join(
        f'<li><button type="button" data-color="{",".join(map(str, color))}" aria-pressed="false">'
        f'<span style="background:rgb{color}"></span>{escape(name)}</button></li>'
        for name, color in pictures.legend
    )
    keys = '<li><span class="wrong"></span>wrong pixel</li>'
    keys += '<li><span class="ignored"></span>does not count</li>' if pictures.has_ignored else ""
    note = '<p class="quiet">Click a class to see it alone, in blue, whatever colours you can tell apart.</p>'
    return f'{note}<ul class="legend">{legend}{keys}</ul>' + "".join(map(_scene, pictures.scenes))


def run_facts(results: Results, starts: Sequence[dict[str, Any]]) -> str:
    """Return how it was run: commands, versions, machine, and the resolved file."""
    rows = []
    for start in starts:
        versions = ", ".join(f"{name} {version}" for name, version in start.get("versions", {}).items())
        machine = ", ".join(f"{name} {value}" for name, value in start.get("machine", {}).items())
        command = " ".join(map(str, start.get("command", [])))
        rows += [["command", command], ["commit", start.get("commit") or "unknown"]]
        rows += [["versions", versions], ["machine", machine]]
    file = escape(results.paths.spec.read_text(encoding="utf-8"))
    runs = table([], rows, "facts")
    return f"{runs}<details><summary>The sweep file as resolved</summary><pre>{file}</pre></details>"


def _scene(scene: Scene) -> str:
    figures = [_figure(scene.image, "image"), _figure(scene.truth, "truth", "labels")]
    for model in scene.models:
        label = f"{model.name}, mIoU {model.miou:.3f}"
        figures += [_figure(model.prediction, label, "labels"), _figure(model.errors, "its errors")]
    pairs = "".join(f'<div class="pair">{figures[i]}{figures[i + 1]}</div>' for i in range(0, len(figures), 2))
    return f'<div class="scene"><h3>{escape(scene.name)}</h3><p>{escape(", ".join(scene.roles))}</p>{pairs}</div>'


def _figure(uri: str, label: str, kind: str = "") -> str:
    text, class_ = escape(label), f' class="{kind}"' if kind else ""
    return f'<figure><img{class_} src="{uri}" alt="{text}" loading="lazy"><figcaption>{text}</figcaption></figure>'


def _with_std(board: pd.DataFrame, score: str) -> list[Any]:
    pairs = zip(board[f"{score} mean"], board[f"{score} std"], strict=True)
    return [
        ("", -1.0) if pd.isna(mean) else (f"{mean:.4f}" + ("" if pd.isna(std) else f" ± {std:.4f}"), mean)
        for mean, std in pairs
    ]


def _number(value: Any, digits: int = 4, unit: float = 1.0) -> tuple[str, float]:
    return ("", -1.0) if pd.isna(value) else (f"{value * unit:.{digits}f}", float(value))


def _is_empty(cell: Any) -> bool:
    return str(cell[0] if isinstance(cell, tuple) else cell) == ""


def _cell(value: Any) -> str:
    shown, key = value if isinstance(value, tuple) else (value, value)
    key_ = f' data-key="{key}"' if isinstance(key, int | float) else ""
    return f"<td{_number_class(value)}{key_}>{escape(str(shown))}</td>"


def _number_class(cell: Any) -> str:
    key = cell[1] if isinstance(cell, tuple) else cell
    return ' class="number"' if isinstance(key, int | float) else ""
