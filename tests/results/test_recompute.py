"""Every number in report.html is the one that recomputed.py makes from the Parquet files."""

import html
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from recomputed import (
    FACTOR,
    METRIC,
    RUNGS,
    TOP_K,
    Frames,
    Rows,
    comparisons,
    expected_charts,
    intervals,
    leaderboard,
    read_frames,
)
from scipy.stats import binomtest, spearmanr
from sweep_ledgers import SweepWriter, write_searched, write_tested

from segbench.core.paths import SweepPaths
from segbench.report.build import build_page
from segbench.results.folder import read_results, write_tables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Frames, str]:
    writer = SweepWriter(SweepPaths(tmp_path_factory.mktemp("sweep") / "demo"))
    write_tested(writer)
    write_searched(writer)
    writer.close()
    write_tables(read_results(writer.paths))
    page = build_page([read_results(writer.paths)])
    return read_frames(writer.paths.root), page


@pytest.fixture(scope="module")
def frames(made: tuple[Frames, str]) -> Frames:
    return made[0]


@pytest.fixture(scope="module")
def page(made: tuple[Frames, str]) -> str:
    return made[1]


def test_every_value_of_every_chart(frames: Frames, page: str) -> None:
    found = json.loads(re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    expected = expected_charts(frames)
    assert set(found) == set(expected)
    for name, chart in found.items():
        sets = [source["data"]["values"] for source in (chart, *chart.get("layer", ())) if "data" in source]
        actual, wanted = (sorted((sorted_rows(rows) for rows in all_), key=str) for all_ in (sets, expected[name]))
        assert len(actual) == len(wanted), name
        for rows, wanted_rows in zip(actual, wanted, strict=True):
            assert len(rows) == len(wanted_rows), name
            for row, wanted_row in zip(rows, wanted_rows, strict=True):
                assert row.keys() == wanted_row.keys(), name
                assert all(is_same(row[key], wanted_row[key]) for key in row), (name, row, wanted_row)


def is_same(value: Any, wanted: Any) -> bool:
    is_number = isinstance(value, float | int) and isinstance(wanted, float | int)
    return bool(math.isclose(value, wanted, rel_tol=5e-4, abs_tol=1e-9) if is_number else value == wanted)


def sorted_rows(rows: Rows) -> Rows:
    """Texts first, then numbers roughly: the last digits of two ways to compute must not decide the order."""

    def key(row: dict[str, Any]) -> tuple[str, ...]:
        texts = [f"{key}={value}" for key, value in sorted(row.items()) if isinstance(value, str)]
        numbers = [f"{key}={value:012.6f}" for key, value in sorted(row.items()) if isinstance(value, int | float)]
        return (*texts, *numbers)

    return sorted(rows, key=key)


# ---- every table, and the five sentences


class Tables(HTMLParser):
    """Reads all tables of a page as rows of texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._is_cell = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._is_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._is_cell = self._is_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._is_cell:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def tables(page: str) -> list[list[list[str]]]:
    reader = Tables()
    reader.feed(page.split("<script", 1)[0])
    return reader.tables


def test_every_cell_of_the_leaderboard(frames: Frames, tables: list[list[list[str]]]) -> None:
    rows, found, pairs = leaderboard(frames), intervals(frames), comparisons(frames)
    heads, *cells = tables[0]
    assert len(cells) == len(rows)
    for index, row in enumerate(rows):
        tied = [
            str(b + 1 if a == index else a + 1) for (a, b), (_, p) in pairs.items() if index in (a, b) and p >= 0.05
        ]
        tests = frames.metrics[frames.metrics["name"].isin(row.tests) & (frames.metrics["stage"] == "test")]
        low, high = found[index].low, found[index].high
        expected = {
            "rank": str(index + 1),
            "name": row.name,
            "model": "unet",
            METRIC: f"{np.mean(row.scores):.4f} ± {np.std(row.scores, ddof=1):.4f}",
            "seeds": str(len(row.scores)),
            "search": f"{row.search:.4f}",
            "test/miou": f"{np.mean(row.mious):.4f} ± {np.std(row.mious, ddof=1):.4f}",
            "95 % interval": f"{low:.3f} to {high:.3f}",
            "tied with": ", ".join(sorted(tied)),
            "official": f"{tests['test/miou_official'].mean():.4f}",
            "weights (M)": f"{row.cost['model/parameters'] / 1e6:.2f}",
            "epochs": f"{row.epochs:.1f}",
            "minutes": f"{row.seconds / 60:.1f}",
        }
        assert dict(zip(heads, cells[index], strict=True)) == expected


def test_every_fact_on_trust(frames: Frames, tables: list[list[list[str]]]) -> None:
    rows, search = leaderboard(frames), frames.stage("search")
    winner = rows[0]
    correlation = spearmanr([row.search for row in rows], [np.mean(row.scores) for row in rows]).statistic
    spread = np.mean([np.std(row.scores, ddof=1) for row in rows])
    expected = [
        f"{correlation:.2f} over {len(rows)} rows",
        f"{winner.search:.4f} in the search, {np.mean(winner.scores):.4f} retrained, {np.mean(winner.mious):.4f} "
        f"on the test split: {winner.search - np.mean(winner.mious):+.4f}",
        f"{spread:.4f}, and {np.mean(winner.scores) - np.mean(rows[1].scores):.4f}",
        f"{len(frames.stage('test'))}, one per retraining",
    ]
    for (first, _), (difference, p) in comparisons(frames).items():
        if first == 0:
            bounds = f"{difference.value:+.4f} ({difference.interval.low:+.4f} to {difference.interval.high:+.4f})"
            verdict = "different" if p < 0.05 else "cannot be told apart"
            expected.append(f"{bounds}, p = {p:.3g} after Holm: {verdict}")
    audited = search[search["audited_rung"].notna()]
    full = search[search["audited_rung"].isna() & (search["state"] == "COMPLETE")]["best_score"]
    needed = full.nlargest(TOP_K).min()
    wrong = audited[audited["best_score"] > needed]["name"].tolist()
    exact = binomtest(len(wrong), len(audited)).proportion_ci(0.95, method="exact")
    stops = len(audited) + (search["state"] == "PRUNED").sum()
    expected.append(
        f"{len(wrong)} of {len(audited)} audited: {100 * len(wrong) / len(audited):.1f} % "
        f"(95 % interval, for all {stops} stops: {100 * exact.low:.1f} % to {100 * exact.high:.1f} %)"
    )
    names = f": {', '.join(wrong)}" if wrong else ""
    expected.append(f"scored above {needed:.4f}, which is what the last searched finalist without the audit had{names}")
    regret = max(0.0, audited["best_score"].max() - full.max())
    expected.append(f"{regret:.4f} {METRIC} at least: from the best trial that was not stopped to the best audited")
    assert [value for _, value in tables[1]] == expected


def test_every_cell_of_the_costs(frames: Frames, tables: list[list[list[str]]]) -> None:
    expected = []
    for rank, row in enumerate(leaderboard(frames), start=1):
        cost = {name.removeprefix("model/"): value for name, value in row.cost.items() if name.startswith("model/")}
        numbers = (f"{cost['parameters'] / 1e6:.2f}", f"{cost['gmacs']:.2f}", f"{cost['latency_ms']:.1f}")
        batch = f"{cost['latency_batch_ms']:.1f} for {cost['batch_size']:.0f}"
        expected.append([str(rank), row.name, *numbers, f"{cost['peak_mib']:.1f}", batch, cost["device"]])
    assert tables[2][1:] == expected


def test_every_number_of_the_rung_table(frames: Frames, tables: list[list[list[str]]]) -> None:
    search, expected = frames.stage("search"), []
    for rung in RUNGS:
        scores = []
        stopped = 0
        for _, trial in search.iterrows():
            epochs = frames.epochs("search", trial["number"])
            seen = trial["audited_rung"] if trial["audited_rung"] > 0 else trial["epochs"]
            reached = epochs[epochs["epoch"] <= rung]["score"].max() if seen >= rung else math.nan
            scores += [] if math.isnan(reached) else [reached]
            stopped += trial["audited_rung"] == rung or trial["reason"] == f"rung {rung}"
        scores.sort(reverse=True)
        cut = scores[max(1, len(scores) // FACTOR) - 1]
        numbers = (rung, len(scores), stopped, len(scores) - stopped)
        expected.append([*map(str, numbers), f"{scores[0]:.4f}", f"{cut:.4f}"])
    assert tables[3][1:] == expected


def test_every_number_of_the_sentences(frames: Frames, page: str) -> None:
    rows, bounds = leaderboard(frames), intervals(frames)[0]
    sentences = re.findall(r"<li>(.*?)</li>", page.split('class="conclusion">')[1].split("</ol>")[0])
    winner = rows[0]
    assert len(sentences) == 5
    sentences = [html.unescape(sentence) for sentence in sentences]
    numbers = [re.findall(r"(?<![\w-])\d+(?:\.\d+)?", re.sub(r"trial-\d+", "", sentence)) for sentence in sentences]
    assert numbers[0] == [f"{np.mean(winner.scores):.3f}", f"{np.std(winner.scores, ddof=1):.3f}", "2",
                          f"{np.mean(winner.mious):.3f}"]  # fmt: skip
    assert numbers[1] == [f"{np.mean(winner.scores) - np.mean(rows[1].scores):.3f}"]
    assert numbers[2] == [str(len(frames.images[winner.tests[0]])), f"{bounds.low:.3f}", f"{bounds.high:.3f}", "95"]
    share = expected_charts(frames)["importance-ped-anova"][0][0]["share"]
    assert numbers[3] == [f"{100 * share:.0f}"]
    search = frames.stage("search")
    audited = search[search["audited_rung"].notna()]
    full = search[search["audited_rung"].isna() & (search["state"] == "COMPLETE")]["best_score"]
    wrong = int((audited["best_score"] > full.nlargest(TOP_K).min()).sum())
    assert numbers[4] == (["1"] if "last of 1" in sentences[4] else []) + (
        [str(wrong), str(len(audited))] if wrong else []
    )
