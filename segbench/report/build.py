"""Results -> one HTML file with everything in it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from segbench import __version__
from segbench.core.paths import SweepPaths, atomic_write
from segbench.report import markup
from segbench.report.cost_charts import cost_charts
from segbench.report.front_charts import front_charts, front_sentence
from segbench.report.library import library
from segbench.report.model_charts import model_charts
from segbench.report.pictures import make_gallery
from segbench.report.search_charts import search_charts
from segbench.report.trust import rung_table, trust_facts
from segbench.report.vega import Chart
from segbench.results.conclusion import conclude
from segbench.results.folder import Results, read_results

_WIDTHS = {
    "half": (
        "agreement",
        "winner-scores",
        "winner-losses",
        "confusion-rows",
        "confusion-columns",
        "importance-",
        "intervals",
        "front-",
        "cost-",
    ),
    "third": ("best-by-", "slice-"),
}


def write_report(paths: SweepPaths) -> None:
    """Write ``report.html`` in the sweep's folder, completely or not at all."""
    atomic_write(paths.report, build_page([read_results(paths)]))


def build_page(sweeps: Sequence[Results]) -> str:
    """Return the page on one sweep, or on several below each other."""
    charts: dict[str, Any] = {}
    bodies = []
    for index, results in enumerate(sweeps):
        prefix = f"s{index}-" if len(sweeps) > 1 else ""
        heading = f"<h1>{escape(results.spec.name)}</h1>" if len(sweeps) > 1 else ""
        bodies.append(heading + _sweep_body(results, prefix, charts))
    return Template(_asset("page.html")).substitute(
        title=escape(" and ".join(results.spec.name for results in sweeps)),
        version=escape(__version__),
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        css=_asset("page.css"),
        script=_asset("page.js"),
        library=library(),
        charts=json.dumps(charts, separators=(",", ":"), allow_nan=False).replace("</", "<\\/"),
        body="\n".join(bodies),
    )


def write_figures(results: Results, folder: Path) -> int:
    """Write every chart as SVG and PNG on white and return their number.

    Raises:
        UserError: vl-convert, which draws them, is not installed.
    """
    charts = all_charts(results)
    for chart in charts:
        for suffix in (".png", ".svg"):
            chart.save(folder / f"{chart.name}{suffix}")
    return len(charts)


def all_charts(results: Results) -> list[Chart]:
    """Return every chart of a sweep, in the order of the page."""
    return [*model_charts(results), *front_charts(results), *cost_charts(results), *search_charts(results)]


def _sweep_body(results: Results, prefix: str, charts: dict[str, Any]) -> str:
    found = {chart.name: chart for chart in all_charts(results)}
    charts.update({prefix + name: chart.spec for name, chart in found.items()})

    def grid(*beginnings: str) -> str:
        cards = [_card(chart, prefix) for name, chart in found.items() if name.startswith(beginnings)]
        return f'<div class="grid">{"".join(cards)}</div>' if cards else ""

    sections = [
        ("leaderboard", "Leaderboard", markup.leaderboard(results.board, results.metric)),
        ("front", "Front", _front(results, grid("front-"))),
        ("trust", "How far to trust it", trust_facts(results) + grid("intervals", "agreement")),
        ("pictures", "Pictures", markup.gallery(make_gallery(results)) if results.spec.is_segmentation else ""),
        ("costs", "What they cost", markup.costs(results.board) + grid("cost-")),
        ("classes", "Classes", grid("class-iou", "confusion-")),
        ("retraining", "Retraining", grid("winner-")),
        ("search", "Search", grid("learning-curves") + rung_table(results) + grid("best-by-")),
        ("parameters", "Parameters", grid("parallel-", "importance-") + _slices(grid("slice-"))),
        ("run", "How it was run", markup.run_facts(results, _starts(results.paths))),
    ]
    shown = [(prefix + key, title, content) for key, title, content in sections if content]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in shown)
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in conclude(results))
    head = f'<p class="quiet">{escape(_summary(results))}</p><ol class="conclusion">{sentences}</ol><nav>{links}</nav>'
    return head + "".join(f'<h2 id="{key}">{title}</h2>{content}' for key, title, content in shown)


def _front(results: Results, grid: str) -> str:
    sentence = front_sentence(results)
    return f"<p>{escape(sentence)}</p>{grid}" if sentence else ""


def _slices(grid: str) -> str:
    note = '<p class="quiet">A point per trial: blue ran to its end, orange was stopped early, red failed.</p>'
    return f"<h3>Best score by parameter</h3>{note}{grid}" if grid else ""


def _card(chart: Chart, prefix: str) -> str:
    width = next((width for width, names in _WIDTHS.items() if chart.name.startswith(names)), "")
    note = f"<p>{escape(chart.note)}</p>" if chart.note else ""
    plot = f'<div class="plot"><div class="chart" id="{escape(prefix + chart.name)}"></div></div>'
    return f'<div class="card {width}"><h3>{escape(chart.title)}</h3>{note}{plot}</div>'


def _summary(results: Results) -> str:
    search = results.records.search
    running = sum(not record.state.is_finished for _, record in results.records)
    seconds = sum(record.seconds for _, record in results.records)
    retrain, test = results.records.retrain, results.records.test
    parts = [
        results.spec.description,
        f"{len(search)} search trials, {len(retrain)} retrainings, {len(test)} tests",
        f"{sum(record.epochs_done for record in (*search, *retrain))} epochs",
        f"{seconds / 3600:.2f} hours of training",
        f"{running} unfinished" if running else "",
    ]
    return " · ".join(part for part in parts if part)


def _starts(paths: SweepPaths) -> list[dict[str, Any]]:
    lines = paths.versions.read_text(encoding="utf-8").splitlines() if paths.versions.is_file() else []
    return [json.loads(line) for line in lines]


def _asset(name: str) -> str:
    return (files("segbench.report") / name).read_text(encoding="utf-8")
