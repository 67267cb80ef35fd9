"""A sweep's folder: all that its ledgers and model folders say, read once, and the tables written beside them."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from segbench.core.ledger import Records, read_records
from segbench.core.paths import STAGES, SweepPaths, atomic_path, atomic_write
from segbench.core.records import Goal, TrialRecord
from segbench.results.audit import Audit, measure_audit
from segbench.results.confidence import Confidence, measure_confidence
from segbench.results.finalists import Finalist, rank_finalists
from segbench.results.leaderboard import leaderboard_table, trials_table
from segbench.results.parquet import metrics_parquet, trials_parquet
from segbench.results.tables import render
from segbench.spec.load import LoadedSpec, load_spec
from segbench.spec.schema import SweepSpec
from segbench.spec.space import Space


@dataclass(frozen=True)
class Results:
    """A sweep's folder as it is now."""

    paths: SweepPaths
    loaded: LoadedSpec
    records: Records
    finalists: tuple[Finalist, ...]
    """Rows of the leaderboard, best first."""
    confidence: Confidence
    board: pd.DataFrame

    @property
    def spec(self) -> SweepSpec:
        """The sweep file."""
        return self.loaded.spec

    @property
    def space(self) -> Space:
        """What was searched."""
        return self.loaded.space

    @property
    def metric(self) -> str:
        """The searched metric."""
        return self.spec.metric.name

    @property
    def goal(self) -> Goal:
        """Direction of improvement."""
        return self.spec.metric.goal

    @cached_property
    def importances(self) -> dict[str, Mapping[str, float]]:
        """Importance of each parameter by measure."""
        from segbench.search.importance import importances  # optuna: half a second, for a sentence

        return importances(self.space, self.records["search"], self.goal, self.spec.search.seed)

    @cached_property
    def audit(self) -> Audit | None:
        """How often it was wrong to stop a trial, as far as was audited."""
        retrain = self.spec.retrain
        return measure_audit(self.records["search"], retrain.top_k if retrain else 1, self.goal)

    def scored(self) -> list[tuple[TrialRecord, float]]:
        """Return the search trials that have a score, with the best one of each."""
        pairs = ((record, record.best(self.goal)) for record in self.records["search"])
        return [(record, best.score) for record, best in pairs if best is not None]


def read_results(paths: SweepPaths) -> Results:
    """Return what the folder of a sweep says, also while it runs."""
    loaded = load_spec(paths.spec, is_remote=True)
    records, metric = read_records(paths), loaded.spec.metric
    search, retrain, test = (records[stage] for stage in STAGES)
    finalists = rank_finalists(search, retrain, test, metric.goal)
    return Results(
        paths=paths,
        loaded=loaded,
        records=records,
        finalists=tuple(finalists),
        confidence=measure_confidence(paths, finalists),
        board=read_leaderboard(paths, metric.name, metric.goal),
    )


class Delivered(NamedTuple):
    """Where the runs of a sweep are in MLflow."""

    tracking_uri: str
    experiment_id: str
    run_ids: dict[str, str]
    """By ``<stage>/<trial name>``."""


def count_parameters(folder: Path) -> int | None:
    """Return the number of weights in a model folder, batch norm statistics left out; None without a model.

    Reads only the header of ``model.safetensors``.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    statistics_of_norms = ("running_mean", "running_var", "num_batches_tracked")
    return sum(
        int(math.prod(tensor["shape"]))
        for name, tensor in header.items()
        if name != "__metadata__" and not name.endswith(statistics_of_norms)
    )


def read_leaderboard(paths: SweepPaths, metric: str, goal: Goal) -> pd.DataFrame:
    """Return the leaderboard of the sweep in ``paths``, made from its ledgers and model folders."""
    return _leaderboard(paths, read_records(paths), metric, goal)


def _leaderboard(paths: SweepPaths, records: Records, metric: str, goal: Goal) -> pd.DataFrame:
    search, retrain, test = (records[stage] for stage in STAGES)
    finalists = rank_finalists(search, retrain, test, goal)
    counts = {row.name: count_parameters(model_folder(paths, row, goal)) for row in finalists}
    return leaderboard_table(
        search,
        retrain,
        test,
        metric,
        goal,
        num_parameters={name: count for name, count in counts.items() if count is not None},
        run_ids=read_run_ids(paths),
        confidence=measure_confidence(paths, finalists),
    )


def model_folder(paths: SweepPaths, finalist: Finalist, goal: Goal) -> Path:
    """Return the folder of a row's best weights: its best seed's, or without retraining the trial's."""
    seed = finalist.best_seed(goal)
    return paths.best("search", finalist.name) if seed is None else paths.best("retrain", seed.assignment.name)


def read_run_ids(paths: SweepPaths) -> dict[str, str]:
    """Return the MLflow run ids that the last delivery left, by ``<stage>/<trial name>``."""
    return read_delivered(paths).run_ids


def read_delivered(paths: SweepPaths) -> Delivered:
    """Return what the last delivery to MLflow left; empty before any."""
    path = paths.mlflow_state
    if not path.exists():
        return Delivered("", "", {})
    document = json.loads(path.read_text())
    run_ids = {key: run["run_id"] for key, run in document["runs"].items()}
    return Delivered(document["tracking_uri"], str(document["experiment_id"]), run_ids)


def write_tables(paths: SweepPaths, metric: str, goal: Goal) -> None:
    """Write ``trials`` and ``leaderboard`` tables and ``metrics.parquet``, each completely or not at all."""
    records = read_records(paths)
    atomic_write(paths.trials, trials_table(records["search"], metric, goal).to_csv(index=False))
    table = _leaderboard(paths, records, metric, goal)
    atomic_write(paths.leaderboard, render(table, "csv"))
    atomic_write(paths.leaderboard.with_suffix(".md"), render(table, "markdown"))
    _write_parquet(paths.trials.with_suffix(".parquet"), trials_parquet(records, goal))
    _write_parquet(paths.metrics, metrics_parquet(records))


def _write_parquet(path: Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def export_models(paths: SweepPaths, goal: Goal) -> None:
    """Copy the best weights of each row of the leaderboard to ``models/<name>/``."""
    records = read_records(paths)
    for finalist in rank_finalists(records["search"], records["retrain"], records["test"], goal):
        source = model_folder(paths, finalist, goal)
        if not (source / "model.safetensors").is_file():
            continue
        for name in ("model.safetensors", "config.json"):
            with atomic_path(paths.model(finalist.name) / name) as temporary:
                shutil.copyfile(source / name, temporary)
