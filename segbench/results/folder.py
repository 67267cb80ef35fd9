"""A sweep's folder: all that its ledgers and model folders say, read once, and the tables written beside them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from segbench.core.ledger import Records, read_records
from segbench.core.paths import SweepPaths, atomic_path, atomic_write, link_or_copy
from segbench.core.records import Goal, TrialRecord
from segbench.results.audit import Audit, measure_audit
from segbench.results.confidence import Confidence, measure_confidence
from segbench.results.finalists import Finalist, rank_finalists
from segbench.results.front import Front, measure_front
from segbench.results.leaderboard import leaderboard_table, trials_table
from segbench.results.parquet import metrics_parquet, trials_parquet
from segbench.results.tables import render
from segbench.spec.load import load_spec, space_of
from segbench.spec.schema import SweepSpec
from segbench.spec.space import Space


@dataclass(frozen=True)
class Results:
    """A sweep's folder as it is now: what its tables, its report and its conclusion are made of."""

    paths: SweepPaths
    spec: SweepSpec
    """The sweep file."""
    records: Records

    @property
    def metric(self) -> str:
        """The searched metric."""
        return self.records.metric

    @property
    def goal(self) -> Goal:
        """Direction of improvement."""
        return self.records.goal

    @cached_property
    def space(self) -> Space:
        """What was searched."""
        return space_of(self.spec)

    @cached_property
    def finalists(self) -> list[Finalist]:
        """Rows of the leaderboard, best first."""
        return rank_finalists(self.records)

    @cached_property
    def confidence(self) -> Confidence:
        """How sure the test scores of the rows are."""
        return measure_confidence(self.paths, self.finalists)

    @cached_property
    def board(self) -> pd.DataFrame:
        """The leaderboard with every column."""
        counts = {row.name: count_parameters(self.model_folder(row)) for row in self.finalists}
        return leaderboard_table(
            self.records,
            num_parameters={name: count for name, count in counts.items() if count is not None},
            run_ids=read_delivered(self.paths).run_ids,
            confidence=self.confidence,
        )

    @cached_property
    def importances(self) -> dict[str, Mapping[str, float]]:
        """Importance of each parameter by measure."""
        from segbench.search.importance import importances  # optuna: half a second, for a sentence

        return importances(self.space, self.records.search, self.goal, self.spec.search.seed)

    @cached_property
    def front(self) -> Front | None:
        """What a search for several metrics has found; None for one metric."""
        return measure_front(self.records)

    @cached_property
    def audit(self) -> Audit | None:
        """How often it was wrong to stop a trial, as far as was audited."""
        retrain = self.spec.retrain
        return measure_audit(self.records, retrain.top_k if retrain else 1)

    def scored(self) -> list[tuple[TrialRecord, float]]:
        """Return the search trials that have a score, with the best one of each."""
        pairs = ((record, record.best(self.goal)) for record in self.records.search)
        return [(record, best.score) for record, best in pairs if best is not None]

    def model_folder(self, row: Finalist) -> Path:
        """Return the folder of a row's best weights: its best seed's, or without retraining the trial's."""
        seed = row.best_seed
        return self.paths.best("search", row.name) if seed is None else self.paths.best("retrain", seed.assignment.name)


def read_results(paths: SweepPaths, spec: SweepSpec | None = None) -> Results:
    """Return what the folder of a sweep says, also while it runs.

    Args:
        paths: the folder.
        spec: its sweep file, if it has been read already.
    """
    spec = spec or load_spec(paths.spec, is_remote=True).spec
    metric = spec.metric
    records = read_records(paths, metric.name, metric.goal, spec.requirements, metric.several)
    return Results(paths, spec, records)


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


def read_delivered(paths: SweepPaths) -> Delivered:
    """Return what the last delivery to MLflow left; empty before any."""
    path = paths.mlflow_state
    if not path.exists():
        return Delivered("", "", {})
    document = json.loads(path.read_text())
    run_ids = {key: run["run_id"] for key, run in document["runs"].items()}
    return Delivered(document["tracking_uri"], str(document["experiment_id"]), run_ids)


def write_tables(results: Results) -> None:
    """Write ``trials`` and ``leaderboard`` tables and ``metrics.parquet``, each completely or not at all."""
    paths, records = results.paths, results.records
    atomic_write(paths.trials, trials_table(records).to_csv(index=False))
    atomic_write(paths.leaderboard, render(results.board, "csv"))
    atomic_write(paths.leaderboard.with_suffix(".md"), render(results.board, "markdown"))
    _write_parquet(paths.trials.with_suffix(".parquet"), trials_parquet(records))
    _write_parquet(paths.metrics, metrics_parquet(records))


def _write_parquet(path: Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def export_models(results: Results) -> None:
    """Give the best weights of each row of the leaderboard a second name in ``models/<name>/``."""
    for row in results.finalists:
        source = results.model_folder(row)
        if not (source / "model.safetensors").is_file():
            continue
        for name in ("model.safetensors", "config.json"):
            link_or_copy(source / name, results.paths.model(row.name) / name)
