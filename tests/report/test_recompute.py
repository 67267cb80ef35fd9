"""Every number in report.html is made again here from the Parquet files (and the sweep file, for ranges and rungs).

Of segbench only the bootstrap is used (its coverage has a test of its own): the rest is pandas and numpy, written as a
reader of docs/results.md would.
"""

import html
import json
import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pyarrow.parquet as pq
import pytest
from optuna.distributions import FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from scipy.stats import binomtest, spearmanr
from sweep_ledgers import SweepWriter, write_searched, write_tested

from segbench.paths import SweepPaths
from segbench.report.folder import write_tables
from segbench.report.page.build import build_page
from segbench.report.results import read_results
from segbench.report.statistics import Resamples, adjust_p_values, bootstrap_miou, compare, interval
from segbench.seeding import derive_seed

METRIC, LOW, HIGH = "val/miou", 1e-4, 1e-2
RUNGS, FACTOR, TOP_K = (1, 3, 9), 3, 1
Rows = list[dict[str, Any]]


@dataclass
class Frames:
    """The Parquet files of a sweep."""

    trials: pd.DataFrame
    metrics: pd.DataFrame
    groups: list[str]
    images: dict[str, np.ndarray]
    """Test -> (N, K, K) counts."""

    def epochs(self, stage: str, number: int) -> pd.DataFrame:
        return self.metrics[(self.metrics["stage"] == stage) & (self.metrics["number"] == number)]

    def stage(self, stage: str) -> pd.DataFrame:
        return self.trials[self.trials["stage"] == stage]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Frames, str]:
    writer = SweepWriter(SweepPaths(tmp_path_factory.mktemp("sweep") / "demo"))
    write_tested(writer)
    write_searched(writer)
    writer.close()
    write_tables(writer.paths, METRIC, "maximize")
    page = build_page([read_results(writer.paths)])
    return read_frames(writer.paths.root), page


@pytest.fixture(scope="module")
def frames(made: tuple[Frames, str]) -> Frames:
    return made[0]


@pytest.fixture(scope="module")
def page(made: tuple[Frames, str]) -> str:
    return made[1]


def read_frames(root: Path) -> Frames:
    metrics = pq.read_table(root / "metrics.parquet")
    groups = metrics.schema.metadata[b"groups"].decode().split("\n")
    images = {}
    for path in (root / "trials" / "test").glob("*/images.parquet"):
        counts = np.array(pq.read_table(path)["confusion"].to_pylist(), np.int64)
        images[path.parent.name] = counts.reshape(-1, len(groups), len(groups))
    return Frames(pd.read_parquet(root / "trials.parquet"), metrics.to_pandas(), groups, images)


def shown(value: float | None, digits: int = 4) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


# ---- what the leaderboard follows from


@dataclass
class Row:
    name: str
    search: float
    scores: list[float]
    tests: list[str]
    mious: list[float]
    confusion: np.ndarray
    cost: pd.Series
    seconds: float
    epochs: float


def leaderboard(frames: Frames) -> list[Row]:
    search, retrain, test = (frames.stage(stage) for stage in ("search", "retrain", "test"))
    rows = []
    for source in sorted(retrain["source"].unique()):
        seeds = retrain[retrain["source"] == source]
        tests = test[test["source"].isin(seeds["number"])]
        results = frames.metrics[(frames.metrics["stage"] == "test") & frames.metrics["number"].isin(tests["number"])]
        times = frames.metrics[(frames.metrics["stage"] == "retrain") & frames.metrics["number"].isin(seeds["number"])]
        rows.append(
            Row(
                search.set_index("number").loc[source, "name"],
                search.set_index("number").loc[source, "best_score"],
                seeds.loc[seeds["state"] == "COMPLETE", "best_score"].tolist(),
                tests["name"].tolist(),
                results["test/miou"].tolist(),
                np.stack(results["confusion"].tolist()).sum(axis=0).reshape(8, 8),
                results.sort_values("model/latency_ms").iloc[0],
                times["seconds"].sum() + results["seconds"].sum(),
                seeds["epochs"].mean(),
            )
        )
    return sorted(rows, key=lambda row: -np.mean(row.scores))


def bootstraps(frames: Frames) -> tuple[list[Any], Any]:
    rows = leaderboard(frames)
    resamples = Resamples.draw(len(frames.images[rows[0].tests[0]]), derive_seed(0, "bootstrap"))
    return [bootstrap_miou([frames.images[name] for name in row.tests], resamples) for row in rows], resamples


def intervals(frames: Frames) -> list[Any]:
    rows, resamples = bootstraps(frames)
    return [interval(row, resamples) for row in rows]


def comparisons(frames: Frames) -> dict[tuple[int, int], tuple[Any, float]]:
    rows, resamples = bootstraps(frames)
    found = {(i, j): compare(rows[i], rows[j], resamples) for i, j in combinations(range(len(rows)), 2)}
    adjusted = adjust_p_values([difference.p_value for difference in found.values()])
    return {pair: (found[pair], p) for pair, p in zip(found, adjusted, strict=True)}


# ---- every chart


def expected_charts(frames: Frames) -> dict[str, list[Rows]]:
    """Return chart -> its sets of rows, in the order of the specification."""
    rows, search = leaderboard(frames), frames.stage("search")
    charts: dict[str, list[Rows]] = {}
    charts["intervals"] = [
        [
            {"name": row.name, "mean": shown(np.mean(row.mious)), "low": shown(found.low), "high": shown(found.high)}
            for row, found in zip(rows, intervals(frames), strict=True)
        ],
        [{"name": row.name, "seed": shown(miou)} for row in rows for miou in row.mious],
    ]
    pairs = [(row.name, row.search, float(np.mean(row.scores))) for row in rows]
    ends = [min(min(a, b) for _, a, b in pairs), max(max(a, b) for _, a, b in pairs)]
    charts["agreement"] = [
        [{"name": name, "search": shown(a), "retrained": shown(b)} for name, a, b in pairs],
        [{"search": end, "retrained": end} for end in ends],
    ]
    charts.update(retraining_charts(frames, rows))
    charts["class-iou"] = [
        [{"name": row.name, "group": group, "iou": shown(iou)}
         for row in rows for group, iou in zip(frames.groups, class_iou(row.confusion), strict=True)]
    ]  # fmt: skip
    for name, axis in (("rows", 1), ("columns", 0)):
        charts[f"confusion-{name}"] = [
            [{"name": row.name, "truth": truth, "prediction": prediction,
              "share": shown(row.confusion[i, j] / row.confusion.sum(axis=axis)[i if axis else j], 3)}
             for row in rows for i, truth in enumerate(frames.groups) for j, prediction in enumerate(frames.groups)]
        ]  # fmt: skip
    for name, key, unit in (("parameters", "parameters", 1e-6), ("gmacs", "gmacs", 1.0),
                            ("latency", "latency_ms", 1.0), ("peak", "peak_mib", 1.0)):  # fmt: skip
        charts[f"cost-{name}"] = [
            pareto([(row.name, row.cost[f"model/{key}"] * unit, np.mean(row.mious)) for row in rows])
        ]
    charts["learning-curves"] = learning_curves(frames, search)
    charts.update(parameter_charts(frames, search))
    best = best_so_far(frames, search)
    return {**charts, **{f"best-by-{unit}": [best] for unit in ("trials", "epochs", "minutes")}}


def class_iou(confusion: np.ndarray) -> list[float]:
    return [confusion[k, k] / (confusion[k].sum() + confusion[:, k].sum() - confusion[k, k]) for k in range(8)]


def retraining_charts(frames: Frames, rows: list[Row]) -> dict[str, list[Rows]]:
    scores, losses = [], []
    numbers = frames.stage("search").set_index("name")["number"]
    for row in rows:
        seeds = frames.stage("retrain")
        for _, seed in seeds[seeds["source"] == numbers[row.name]].iterrows():
            for _, epoch in frames.epochs("retrain", seed["number"]).iterrows():
                label = {"name": row.name, "seed": seed["name"], "epoch": epoch["epoch"]}
                scores.append({**label, "value": shown(epoch["score"])})
                losses.append({**label, "value": shown(epoch["val/loss"]), "split": "validation"})
    return {"winner-scores": [scores], "winner-losses": [losses]}


def pareto(models: list[tuple[str, float, float]]) -> Rows:
    rows = []
    for rank, (name, cost, miou) in enumerate(models, start=1):
        rivals = [(c, m) for other, c, m in models if other != name]
        beaten = any(c <= cost and m >= miou and (c, m) != (cost, miou) for c, m in rivals)
        front = "beaten" if beaten else "on the Pareto front"
        rows.append({"name": name, "rank": str(rank), "cost": shown(cost), "miou": shown(miou), "front": front})
    return rows


def learning_curves(frames: Frames, search: pd.DataFrame) -> list[Rows]:
    lines, ends, audited = [], [], []
    for _, trial in search.iterrows():
        points = [
            {"trial": trial["name"], "state": trial["state"], "epoch": epoch, "score": shown(score)}
            for epoch, score in frames.epochs("search", trial["number"])[["epoch", "score"]].to_numpy().tolist()
            if math.isfinite(score)
        ]
        lines += points
        if trial["state"] != "COMPLETE":
            ends.append({**points[-1], "reason": trial["reason"]})
        rung = trial["audited_rung"]
        audited += [{**point, "stop": f"rung {rung:.0f}"} for point in points if point["epoch"] == rung]
    return [lines, ends, audited]


def parameter_charts(frames: Frames, search: pd.DataFrame) -> dict[str, list[Rows]]:
    scored = search[search["best_score"].notna()].sort_values("best_score", ascending=False, kind="stable")
    low, high = scored["best_score"].min(), scored["best_score"].max()
    lines: Rows = []
    for rank, (_, trial) in enumerate(scored.iterrows(), start=1):
        label = {"trial": trial["name"], "score": shown(trial["best_score"]), "share": shown(rank / len(scored), 3)}
        lr, place = trial["params.lr"], (trial["best_score"] - low) / (high - low)
        has = not math.isnan(lr)
        y = (lr - LOW) / (HIGH - LOW) if has else -0.12
        lines.append({**label, "axis": 0, "y": shown(y), "value": f"{lr:.3g}" if has else "not used"})
        lines.append({**label, "axis": 1, "y": shown(place), "value": f"{trial['best_score']:.3g}"})
    ticks = [(0, 0, LOW), (0, 1, HIGH), (1, 0, low), (1, 1, high)]
    charts = {
        "parallel-coordinates": [
            [{"axis": axis, "low": 0, "high": 1} for axis in (0, 1)],
            lines,
            [{"axis": axis, "y": y, "text": f"{value:.3g}"} for axis, y, value in ticks],
            [{"axis": axis, "y": 1.13, "text": text} for axis, text in enumerate(("lr", METRIC))],
        ],
        "slice-lr": [
            [{"trial": t["name"], "value": t["params.lr"], "score": shown(t["best_score"]), "state": t["state"]}
             for _, t in search.iterrows() if not math.isnan(t["params.lr"])]
        ],
    }  # fmt: skip
    study = optuna.create_study(direction="maximize")
    for _, trial in search[search["best_score"].notna()].iterrows():
        has = not math.isnan(trial["params.lr"])
        params = {"lr": trial["params.lr"]} if has else {}
        space = {"lr": FloatDistribution(LOW, HIGH)} if has else {}
        study.add_trial(optuna.trial.create_trial(value=trial["best_score"], params=params, distributions=space))
    for evaluator in (PedAnovaImportanceEvaluator(), FanovaImportanceEvaluator(n_trees=32, max_depth=6, seed=0)):
        name = "ped-anova" if isinstance(evaluator, PedAnovaImportanceEvaluator) else "fanova"
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        if any(shares.values()):
            charts[f"importance-{name}"] = [
                [{"parameter": key, "share": shown(value)} for key, value in shares.items()]
            ]
    return charts


def best_so_far(frames: Frames, search: pd.DataFrame) -> Rows:
    events = frames.metrics[(frames.metrics["stage"] == "search") & frames.metrics["score"].notna()]
    events = events.sort_values(["at", "number"])
    start, best, seen, rows = search["started_at"].min(), -math.inf, set(), []
    for index, (_, event) in enumerate(events.iterrows(), start=1):
        seen.add(event["number"])
        is_better, best = event["score"] > best, max(best, event["score"])
        if is_better or index == len(events):
            minutes = (event["at"] - start).total_seconds() / 60
            rows.append({"trials": len(seen), "epochs": index, "minutes": shown(minutes), "best": shown(best)})
    return rows


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
