"""Records -> rows -> tables: what ``trials.csv`` and ``leaderboard.csv`` say (columns: docs/results.md).

Pure functions of the ledgers' records; segbench/results/folder.py reads and writes the files.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from segbench.core.ledger import Records
from segbench.core.objectives import Objective
from segbench.core.paths import Stage
from segbench.core.records import TrialRecord, TrialState
from segbench.results.confidence import Confidence
from segbench.results.finalists import Finalist, mean, rank_finalists, rows_on_front, sample_std

Row = dict[str, Any]

COSTS = {
    "gmacs": "model/gmacs",
    "latency_ms": "model/latency_ms",
    "latency_batch_ms": "model/latency_batch_ms",
    "peak_mib": "model/peak_mib",
    "measured_batch": "model/batch_size",
    "measured_on": "model/device",
}
"""Columns of what the test stage measures of each model, and the metrics that they show."""


def trials_table(records: Records) -> pd.DataFrame:
    """Return a row per search trial, by number, with a column ``params.<name>`` per parameter."""
    metric, params = records.metric, _param_names(records.search)
    rows = []
    for record in records.search:
        best = record.best(records.goal)
        rows.append(
            {
                "number": record.number,
                "name": record.assignment.name,
                "origin": record.assignment.origin,
                "state": record.state.value,
                "reason": record.reason,
                "epochs": record.epochs_done,
                "attempts": "; ".join(f"{a.reason} (after epoch {a.epoch})" for a in record.attempts) or None,
                "audited_rung": record.audited_rung,
                **_param_cells(record, params),
                f"best {metric}": best.score if best else None,
                f"last {metric}": record.last_score,
                "best_epoch": best.epoch if best else None,
                "seconds": round(record.seconds, 3),
                "started_at": _iso(record.started_at),
                "ended_at": _iso(record.ended_at),
            }
        )
    head = ["number", "name", "origin", "state", "reason", "epochs", "attempts", "audited_rung"]
    tail = [f"best {metric}", f"last {metric}", "best_epoch", "seconds", "started_at", "ended_at"]
    return _frame(rows, [*head, *(f"params.{name}" for name in params), *tail])


def leaderboard_table(
    records: Records,
    *,
    num_parameters: Mapping[str, int] | None = None,
    run_ids: Mapping[str, str] | None = None,
    confidence: Confidence | None = None,
) -> pd.DataFrame:
    """Return a row per retrained configuration, ranked; a row per search trial when nothing was retrained.

    Args:
        records: of the sweep; without tests the test columns are left out.
        num_parameters: weights of the model, by name of the search trial; left empty where unknown.
        run_ids: MLflow run ids by ``<stage>/<trial name>``; left empty where unknown.
        confidence: intervals and comparisons of the test scores; left empty where unknown.
    """
    metric, retrain, test = records.metric, records.retrain, records.test
    finalists = rank_finalists(records)
    params = _param_names(row.search for row in finalists)
    groups = _test_groups(test)
    ranks = {finalist.name: rank for rank, finalist in enumerate(finalists, start=1)}
    rows = []
    fronts = rows_on_front(finalists, records.objectives)
    for rank, (finalist, is_on_front) in enumerate(zip(finalists, fronts, strict=True), start=1):
        row: Row = {
            "rank": rank,
            "name": finalist.name,
            "origin": finalist.search.assignment.origin,
            "model": model_name(finalist.search),
            f"search {metric}": finalist.search_score,
            **_param_cells(finalist.search, params),
            "config_hash": config_hash(finalist.search.assignment.config),
            "mlflow_runs": _join_run_ids(finalist, run_ids or {}),
            **(_seed_cells(finalist, metric) if retrain else _trial_cells(finalist.search)),
            **_test_cells(finalist, groups),
            **_cost_cells(finalist, (num_parameters or {}).get(finalist.name)),
            "breaks": finalist.broken_requirement,
            "front": is_on_front,
            **_objective_cells(finalist, records.objectives),
            **_confidence_cells(finalist.name, ranks, confidence or Confidence()),
        }
        rows.append(row)
    columns = _leaderboard_columns(metric, bool(retrain), bool(test), groups, params)
    own = ["breaks"] if records.requirements else []
    own += ["front", *(_column(objective) for objective in records.objectives[1:])] if records.objectives else []
    place = columns.index("reason") + 1
    return _frame(rows, [*columns[:place], *own, *columns[place:]])


def _column(objective: Objective) -> str:
    """Return the column of a metric that is searched for beside the first: of a cost not that of the test stage."""
    return f"search {objective.name}"


def _objective_cells(finalist: Finalist, objectives: Sequence[Objective]) -> Row:
    if not objectives or finalist.score is None:
        return {}
    pairs = zip(objectives[1:], finalist.losses(objectives)[1:], strict=True)
    return {_column(objective): objective.value(loss) if math.isfinite(loss) else None for objective, loss in pairs}


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 12 hex digits that two configurations share exactly when they are equal."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def _leaderboard_columns(
    metric: str, is_retrained: bool, is_tested: bool, groups: Sequence[str], params: Sequence[str]
) -> list[str]:
    seeds = ["seeds", "seeds_failed", f"{metric} mean", f"{metric} std"] if is_retrained else []
    test = [
        *("test/miou mean", "test/miou std", "test/miou low", "test/miou high", "tied_with"),
        *("test/miou_official mean", *(f"test/iou/{group}" for group in groups)),
    ]
    return [
        *("rank", "name", "origin", "model", "state", "reason"),
        *seeds,
        f"search {metric}",
        *(test if is_tested else []),
        "parameters",
        *(COSTS if is_tested else []),
        *("epochs", "seconds"),
        *(["search_seconds"] if is_retrained else []),
        *(f"params.{name}" for name in params),
        *("config_hash", "mlflow_runs"),
    ]


def _seed_cells(finalist: Finalist, metric: str) -> Row:
    scores = finalist.scores
    failed = [record for record in finalist.retrain if record.state is TrialState.FAIL]
    running = any(record.state is TrialState.RUNNING for record in finalist.retrain)
    state = TrialState.RUNNING if running else TrialState.FAIL if failed else TrialState.COMPLETE
    return {
        "state": state.value,
        "reason": "; ".join(f"{record.assignment.name}: {record.reason}" for record in failed),
        "seeds": len(finalist.finished),
        "seeds_failed": len(failed),
        f"{metric} mean": mean(scores),
        f"{metric} std": sample_std(scores),
        "epochs": mean([record.epochs_done for record in finalist.finished]),
        "seconds": round(sum(record.seconds for record in (*finalist.retrain, *finalist.test)), 3),
        "search_seconds": round(finalist.search.seconds, 3),
    }


def _trial_cells(record: TrialRecord) -> Row:
    return {
        "state": record.state.value,
        "reason": record.reason,
        "epochs": record.epochs_done,
        "seconds": round(record.seconds, 3),
    }


def _test_cells(finalist: Finalist, groups: Sequence[str]) -> Row:
    results = [record.epochs[-1].metrics for record in finalist.test if record.epochs]

    def values(key: str) -> list[float]:
        return [result[key] for result in results if math.isfinite(result.get(key, math.nan))]

    return {
        "test/miou mean": mean(values("test/miou")),
        "test/miou std": sample_std(values("test/miou")),
        "test/miou_official mean": mean(values("test/miou_official")),
        **{f"test/iou/{group}": mean(values(f"test/iou/{group}")) for group in groups},
    }


def _cost_cells(finalist: Finalist, num_parameters: int | None) -> Row:
    """Return what the model costs to run, of the fastest seed, because whatever else ran only made it slower."""
    results = [record.epochs[-1].metrics for record in finalist.test if record.epochs]
    measured = [result for result in results if "model/latency_ms" in result]
    fastest = min(measured, key=lambda result: float(result["model/latency_ms"]), default={})
    counted = fastest.get("model/parameters") if num_parameters is None else num_parameters
    return {"parameters": counted, **{column: fastest.get(metric) for column, metric in COSTS.items()}}


def _confidence_cells(name: str, ranks: Mapping[str, int], confidence: Confidence) -> Row:
    interval = confidence.intervals.get(name)
    return {
        "test/miou low": interval.low if interval else None,
        "test/miou high": interval.high if interval else None,
        "tied_with": ";".join(str(rank) for rank in sorted(ranks[other] for other in confidence.tied_with(name))),
    }


def _join_run_ids(finalist: Finalist, run_ids: Mapping[str, str]) -> str:
    stage: Stage = "retrain" if finalist.retrain else "search"
    records = finalist.retrain or (finalist.search,)
    keys = [f"{stage}/{record.assignment.name}" for record in records]
    return ";".join(run_ids[key] for key in keys if key in run_ids)


def model_name(record: TrialRecord) -> str | None:
    """Return the family, with its variant where one is set; None when a user's function has no ``model``."""
    model, variant = record.assignment.config.get("model"), record.assignment.config.get("variant")
    if not isinstance(model, str):
        return None
    return f"{model} {variant}" if isinstance(variant, str) else model


def _param_names(records: Iterable[TrialRecord]) -> list[str]:
    """Return the union of parameter names in the order of the sweep file."""
    return list(dict.fromkeys(name for record in records for name in record.assignment.params))


def _param_cells(record: TrialRecord, names: Sequence[str]) -> Row:
    return {f"params.{name}": record.assignment.params.get(name) for name in names}


def _test_groups(test: Sequence[TrialRecord]) -> list[str]:
    keys = (key for record in test for epoch in record.epochs for key in epoch.metrics)
    return list(dict.fromkeys(key.removeprefix("test/iou/") for key in keys if key.startswith("test/iou/")))


def _frame(rows: Sequence[Row], columns: Sequence[str]) -> pd.DataFrame:
    """Return a table that keeps each cell as it is: an integer beside a missing value stays an integer."""
    cells = [[row.get(column) for column in columns] for row in rows]
    return pd.DataFrame(cells, columns=list(columns), dtype=object)


def _iso(timestamp: float | None) -> str | None:
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="seconds")
