"""The leaderboard as text: CSV (every column) and Markdown (the main ones); for a screen see terminal/tables.py."""

from typing import Any, Literal

import pandas as pd

Format = Literal["csv", "markdown"]

TEXT_COLUMNS = {"name", "model", "state", "reason", "tied with", "front", "breaks"}
"""Main columns that are no numbers: they stand to the left."""
_NUMBER_FORMATS = {"rank": "d", "seeds": "d", "epochs": ".4g", "seconds": ".0f"}


def render(table: pd.DataFrame, format: Format) -> str:
    """Return a leaderboard as text that ends with a newline.

    Args:
        table: from :func:`segbench.results.leaderboard.leaderboard_table`.
        format: ``csv`` (all columns) or ``markdown`` (GitHub's, the main ones).
    """
    if format == "csv":
        return str(table.to_csv(index=False))
    return "no trials yet\n" if table.empty else markdown(summarize(table))


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Return the main columns of a leaderboard as text: ``x mean`` and ``x std`` become ``0.5120 ± 0.0041``.

    Columns without any value are left out, and those of state and reason when every row is COMPLETE.
    """
    columns = {}
    for column in table.columns:
        cells = _summarize_column(table, column)
        if cells is not None and any(cells[1]):
            columns[cells[0]] = cells[1]
    if all(state == "COMPLETE" for state in columns.get("state", [])):
        columns.pop("state", None)
        columns.pop("reason", None)
    return pd.DataFrame(columns, dtype=object)


def markdown(table: pd.DataFrame) -> str:
    """Return a table of text in GitHub-flavoured Markdown: numbers to the right, pipes escaped."""
    rules = ["---" if column in TEXT_COLUMNS else "---:" for column in table.columns]
    rows = [[_escape(cell) for cell in row] for row in [list(table.columns), *table.to_numpy().tolist()]]
    return "".join("| " + " | ".join(row) + " |\n" for row in [rows[0], rules, *rows[1:]])


def _summarize_column(table: pd.DataFrame, column: str) -> tuple[str, list[str]] | None:
    """Return heading and cells of a column; None for one that only the CSV shows."""
    values = table[column].tolist()
    if column.endswith(" mean"):
        score = column.removesuffix(" mean")
        stds = table[f"{score} std"].tolist() if f"{score} std" in table.columns else [None] * len(values)
        pairs = zip(values, stds, strict=True)
        return score, [" ± ".join(_number(x, ".4f") for x in pair if not pd.isna(x)) for pair in pairs]
    if column.endswith(" low"):
        score = column.removesuffix(" low")
        pairs = zip(values, table[f"{score} high"].tolist(), strict=True)
        return f"{score} 95 %", [" to ".join(_number(x, ".3f") for x in pair if not pd.isna(x)) for pair in pairs]
    if column == "tied_with":
        return "tied with", ["" if pd.isna(value) else value.replace(";", ", ") for value in values]
    if column == "front":
        return column, ["front" if value else "" for value in values]
    if column.startswith("search model/"):
        return column, [_number(value, ".4g") for value in values]
    if column.startswith("search "):
        return column, [_number(value, ".4f") for value in values]
    if column == "parameters":
        return "weights (M)", [_number(value, ".2f", 1e-6) for value in values]
    if column in _NUMBER_FORMATS:
        return column, [_number(value, _NUMBER_FORMATS[column]) for value in values]
    if column in TEXT_COLUMNS:
        return column, ["" if pd.isna(value) else str(value) for value in values]
    return None


def _number(value: Any, spec: str, unit: float | None = None) -> str:
    if pd.isna(value):
        return ""
    return format(value if unit is None else value * unit, spec)


def _escape(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("\r", " ").replace("\n", " ")
