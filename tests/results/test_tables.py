import io

import pandas as pd
import pytest
from rich.console import Console
from sweep_ledgers import SweepWriter, make_spec, write_demo

from segbench.core.records import TrialState
from segbench.results.folder import read_results
from segbench.results.tables import render
from segbench.terminal.tables import LeaderboardView, render_table


def board(writer: SweepWriter) -> pd.DataFrame:
    return read_results(writer.paths, make_spec()).board


def test_markdown_shows_the_main_columns_with_spread(writer: SweepWriter) -> None:
    write_demo(writer)
    assert render(board(writer), "markdown") == (
        "| rank | name | model | seeds | val/miou | search val/miou "
        "| test/miou | test/miou_official | weights (M) | epochs | seconds |\n"
        "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| 1 | trial-0003 | segformer | 2 | 0.4800 ± 0.0283 | 0.4500 | 0.4300 ± 0.0141 | 0.3300 | 2.00 | 2 | 12 |\n"
        "| 2 | baseline-unet | unet | 2 | 0.3600 ± 0.0283 | 0.3500 | 0.3400 ± 0.0283 | 0.2400 | 1.00 | 2 | 12 |\n"
    )


def test_states_and_reasons_appear_when_something_failed_and_pipes_are_escaped(writer: SweepWriter) -> None:
    writer.trial("search", 0, "trial-0000", [0.5])
    writer.trial("search", 1, "trial-0001", [], TrialState.FAIL, "error: a|b\nc")
    lines = render(board(writer), "markdown").splitlines()
    assert lines[0].startswith("| rank | name | model | state | reason | search val/miou |")
    assert "| trial-0001 | unet | FAIL | error: a\\|b c |" in lines[3]


def test_the_terminal_table_is_aligned_and_takes_brackets_literally(writer: SweepWriter) -> None:
    writer.trial("search", 0, "trial-0000", [0.5])
    writer.trial("search", 1, "trial-0001", [], TrialState.FAIL, "error: [red]x")
    text = render_table(board(writer))
    assert "error: [red]x" in text
    lines = text.splitlines()
    assert lines[0].split() == ["rank", "name", "model", "state", "reason", "search", "val/miou", "epochs", "seconds"]
    assert lines[2].index("trial-0000") == lines[3].index("trial-0001")


def test_csv_has_every_column_of_the_table(writer: SweepWriter) -> None:
    write_demo(writer)
    assert pd.read_csv(io.StringIO(render(board(writer), "csv"))).columns.tolist() == board(writer).columns.tolist()


def test_an_empty_leaderboard_says_so(writer: SweepWriter) -> None:
    assert [render(board(writer), "markdown"), render_table(board(writer))] == ["no trials yet\n"] * 2


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_narrow_terminal_gets_fewer_columns_each_whole(writer: SweepWriter, width: int) -> None:
    write_demo(writer)
    console = Console(file=io.StringIO(), width=width)
    console.print(LeaderboardView(board(writer)))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= width
    winner = next(line for line in lines if "trial-0003" in line)
    assert "0.4800 ± 0.0283" in winner
    assert ("segformer" in winner) == (width > 60)
