"""The leaderboard on a screen: aligned, as many of the main columns as the width allows."""

import io
from collections.abc import Mapping

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from segbench.results.tables import TEXT_COLUMNS, summarize
from segbench.terminal.console import plain_console

_DROPPED_FIRST = (
    *("reason", "tied with", "search ", "epochs", "test/miou_official", "seeds", "test/miou 95 %"),
    *("seconds", "weights", "model"),
)
"""Beginnings of the columns that a narrow terminal does without, in this order."""


class LeaderboardView:
    """The main columns of a leaderboard for a rich console, the winner in bold; as many as the width allows.

    Args:
        table: from :func:`segbench.results.leaderboard.leaderboard_table`.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._summary = summarize(table)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for num_dropped in range(len(_DROPPED_FIRST) + 1):
            shown = [name for name in self._summary.columns if not name.startswith(_DROPPED_FIRST[:num_dropped])]
            table = self._table(shown)
            if Measurement.get(console, options.update(max_width=10_000), table).maximum <= options.max_width:
                break
        yield table

    def _table(self, columns: list[str]) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        for column in columns:
            is_text = column in TEXT_COLUMNS
            table.add_column(Text(column), justify="left" if is_text else "right", no_wrap=not is_text)
        for index, row in enumerate(self._summary[columns].to_numpy().tolist()):
            table.add_row(*(Text(cell) for cell in row), style="bold" if index == 0 else None)
        return table


def render_table(table: pd.DataFrame) -> str:
    """Return a leaderboard as aligned text with all main columns, which ends with a newline."""
    if table.empty:
        return "no trials yet\n"
    console = plain_console(io.StringIO(), width=1000)
    console.print(LeaderboardView(table))
    assert isinstance(console.file, io.StringIO)
    lines = (line.rstrip() for line in console.file.getvalue().splitlines())
    return "".join(line + "\n" for line in lines if line)


def print_metrics(metrics: Mapping[str, float]) -> None:
    """Print a row per metric."""
    table = Table(show_header=False)
    for name, value in metrics.items():
        table.add_row(Text(name), f"{value:.4f}")
    plain_console().print(table)
