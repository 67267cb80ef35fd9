"""What report.html says, made again from the Parquet files (and the sweep file, for ranges and rungs).

Of segbench only the bootstrap is used (its coverage has a test of its own): the rest is pandas and numpy, written as a
reader of docs/results.md would.
"""

import math
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pyarrow.parquet as pq
from optuna.distributions import FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from segbench.core.seeding import derive_seed
from segbench.results.statistics import Resamples, adjust_p_values, bootstrap_miou, compare, interval

METRIC, LOW, HIGH = "val/miou", 1e-4, 1e-2
RUNGS, FACTOR, TOP_K = (1, 2, 3, 5, 9), 3, 1
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
