"""The tables of a sweep's folder: read from its ledgers and model folders, written beside them."""

import json
import math
import shutil
from pathlib import Path

import pandas as pd

from segbench.ledger import read_ledger
from segbench.paths import STAGES, SweepPaths, atomic_path, atomic_write
from segbench.records import Goal
from segbench.report.finalists import Finalist, rank_finalists
from segbench.report.leaderboard import leaderboard_table, trials_table


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
    search, retrain, test = (read_ledger(paths.ledger(stage)) for stage in STAGES)
    num_parameters = {}
    for finalist in rank_finalists(search, retrain, test, goal):
        count = count_parameters(model_folder(paths, finalist, goal))
        if count is not None:
            num_parameters[finalist.name] = count
    return leaderboard_table(
        search, retrain, test, metric, goal, num_parameters=num_parameters, run_ids=read_run_ids(paths)
    )


def model_folder(paths: SweepPaths, finalist: Finalist, goal: Goal) -> Path:
    """Return the folder of a row's best weights: its best seed's, or without retraining the trial's."""
    seed = finalist.best_seed(goal)
    return paths.best("search", finalist.name) if seed is None else paths.best("retrain", seed.assignment.name)


def read_run_ids(paths: SweepPaths) -> dict[str, str]:
    """Return the MLflow run ids that the last delivery left, by ``<stage>/<trial name>``."""
    path = mlflow_state(paths)
    if not path.exists():
        return {}
    runs: dict[str, dict[str, str]] = json.loads(path.read_text())["runs"]
    return {key: run["run_id"] for key, run in runs.items()}


def mlflow_state(paths: SweepPaths) -> Path:
    """Return the file that remembers what MLflow was given; a cache that can be deleted."""
    return paths.root / "state" / "mlflow.json"


def write_tables(paths: SweepPaths, metric: str, goal: Goal) -> None:
    """Write ``trials.csv`` and ``leaderboard.csv`` from the ledgers, each completely or not at all."""
    trials = trials_table(read_ledger(paths.ledger("search")), metric, goal)
    atomic_write(paths.trials, trials.to_csv(index=False))
    atomic_write(paths.leaderboard, read_leaderboard(paths, metric, goal).to_csv(index=False))


def export_models(paths: SweepPaths, goal: Goal) -> None:
    """Copy the best weights of each row of the leaderboard to ``models/<name>/``."""
    search, retrain, test = (read_ledger(paths.ledger(stage)) for stage in STAGES)
    for finalist in rank_finalists(search, retrain, test, goal):
        source = model_folder(paths, finalist, goal)
        if not (source / "model.safetensors").is_file():
            continue
        for name in ("model.safetensors", "config.json"):
            with atomic_path(paths.model(finalist.name) / name) as temporary:
                shutil.copyfile(source / name, temporary)
