"""What MLflow should hold: the ledgers' records as run views, pure data that knows nothing of MLflow.

One view per search trial and one per retraining; a test's metrics belong to the run of the retraining that it tested
(names and tags: docs/mlflow.md). The sweep's own run stands in sweep_run.py.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from segbench.core.errors import SegbenchError
from segbench.core.ledger import Records
from segbench.core.paths import Stage, SweepPaths
from segbench.core.records import EpochRecord, Goal, TrialRecord, TrialState
from segbench.results.finalists import rank_finalists
from segbench.results.leaderboard import model_name
from segbench.training.class_tables import class_tables, group_names

PARENT_KEY = "sweep"

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

_SEARCH_STAGES = {"search": "trial", "enqueued": "trial", "baseline": "baseline"}
"""Tag ``stage`` of a search trial, by its origin."""

_STATUS: Mapping[TrialState, Status] = {
    TrialState.RUNNING: "RUNNING",
    TrialState.PAUSED: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",
    TrialState.FAIL: "FAILED",
}


class RefusedError(SegbenchError):
    """MLflow does not take what it was given for one run."""


@dataclass(frozen=True)
class Point:
    """Metrics of one step."""

    step: int
    at_ms: int
    """Unix time in milliseconds, from the ledger: the same point sent twice is stored once."""
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class DatasetView:
    """What a run was trained on."""

    name: str
    digest: str
    """Of all pixels and labels."""
    root: str | None
    """Folder of the data set; None for generated scenes."""
    profile: Mapping[str, Any]
    """Images of each split, size, groups."""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One MLflow run as it should be."""

    key: str
    """``sweep``, or ``<stage>/<trial name>``."""
    name: str
    status: Status
    start_ms: int
    end_ms: int | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Sequence[Point] = ()
    """Steps ascending; new ones are added at the end."""
    summary: Sequence[Point] = ()
    """Once the trial has ended: its best score, at that epoch; test metrics, once the test has ended."""
    dataset: DatasetView | None = None
    texts: Mapping[str, str]
    """Artifact path -> text."""
    files: Mapping[str, Path]
    """Artifact path -> file."""

    @property
    def fingerprint(self) -> str:
        """Differs when something is to be delivered."""
        shown = {**asdict(self), "points": len(self.points), "files": sorted(self.files)}
        return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]


def trial_views(
    paths: SweepPaths,
    records: Records,
    common_tags: Mapping[str, str],
    final: bool,
    dataset: DatasetView | None = None,
    only: Mapping[str, Container[int]] | None = None,
) -> Iterator[RunView]:
    """Yield a view per search trial and per retraining.

    Args:
        paths: the sweep's folder, for pictures and tables.
        records: of the sweep.
        common_tags: set on every run.
        dataset: what they were trained on; None where it is not known.
        final: nothing is running any more: unfinished trials become KILLED, and ranks are known.
        only: numbers of the trials to show, by stage; None for all.
    """
    metric, goal = records.metric, records.goal
    tests = {record.assignment.source: record for record in records.test if record.state.is_finished}
    ranks = _rank_tags(records) if final else {}
    stages: tuple[Stage, ...] = ("search", "retrain")
    for stage in stages:
        for record in records[stage]:
            if only is not None and record.number not in only[stage]:
                continue
            test = tests.get(record.number) if stage == "retrain" else None
            tags = {**common_tags, **ranks.get(f"{stage}/{record.assignment.name}", {})}
            view = _trial_view(paths, stage, record, test, goal, tags, final)
            points = tuple(_point(epoch, metric) for epoch in record.epochs)
            yield replace(view, points=points, summary=_summary(record, test, metric, goal), dataset=dataset)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as MLflow parameters: dotted names, values as JSON but strings bare."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[metric_name(f"{prefix}{key}")] = value if isinstance(value, str) else json.dumps(value)
    return flat


def metric_name(name: str) -> str:
    """Return ``name`` with what MLflow refuses in names replaced by ``_``."""
    name = re.sub(r"[^\w\-. :/]", "_", name)
    is_path = posixpath.normpath(name) == name and not name.startswith(("..", "/")) and name != "."
    return name if is_path else re.sub(r"[/.]", "_", name)


def milliseconds(timestamp: float) -> int:
    """Return Unix seconds as Unix milliseconds."""
    return round(timestamp * 1000)


def _trial_view(
    paths: SweepPaths,
    stage: Stage,
    record: TrialRecord,
    test: TrialRecord | None,
    goal: Goal,
    tags: Mapping[str, str],
    final: bool,
) -> RunView:
    assignment = record.assignment
    finished = record.state.is_finished
    last_at = record.epochs[-1].at if record.epochs else record.started_at
    end = record.ended_at if finished else last_at if final else None
    best = record.best(goal) or (record.epochs[-1] if record.epochs else None)
    return RunView(
        key=f"{stage}/{assignment.name}",
        name=_run_name(record, tags.get("rank")),
        status="KILLED" if final and not finished else _STATUS[record.state],
        start_ms=milliseconds(record.started_at),
        end_ms=None if end is None else milliseconds(end),
        tags={
            **tags,
            "stage": "retrain" if stage == "retrain" else _SEARCH_STAGES[assignment.origin],
            "trial": assignment.name,
            "state": record.state.value,
            "reason": record.reason,
            "origin": assignment.origin,
            "number": str(record.number),
            "seed": str(assignment.seed),
            "max_epochs": str(assignment.max_epochs),
            **({} if best is None else {"best_epoch": str(best.epoch)}),
            **({} if record.audited_rung is None else {"audited_rung": str(record.audited_rung)}),
        },
        params=flatten(assignment.config),
        texts=_tables(best) if finished else {},
        files={
            **(_files(paths.trial(stage, assignment.name), "") if finished else {}),
            **(_files(paths.trial("test", test.assignment.name), "test/") if test else {}),
        },
    )


def _point(epoch: EpochRecord, metric: str) -> Point:
    """Return the metrics of an epoch, the searched one first: MLflow's comparison draws what it was given first."""
    first = {metric: epoch.metrics[metric]} if metric in epoch.metrics else {}
    return Point(epoch.epoch, milliseconds(epoch.at), _numbers({**first, **epoch.metrics}))


def _run_name(record: TrialRecord, rank: str | None) -> str:
    """Return ``#01 segformer mit-b0 trial-0003-seed-0``: rank, once it is known, model and trial."""
    parts = [None if rank is None else f"#{rank:0>2}", model_name(record), record.assignment.name]
    return " ".join(part for part in parts if part is not None)


def _summary(record: TrialRecord, test: TrialRecord | None, metric: str, goal: Goal) -> tuple[Point, ...]:
    """Return the best score, and the test metrics at the epoch whose weights were tested."""
    best = record.best(goal)
    points = []
    if best is not None and record.state.is_finished:
        points.append(Point(best.epoch, milliseconds(best.at), {metric_name(f"best/{metric}"): best.score}))
    if test is not None and test.epochs:
        result, tested = test.epochs[-1], best or (record.epochs[-1] if record.epochs else None)
        step = 0 if tested is None else tested.epoch
        points.append(Point(step, milliseconds(result.at), _numbers(result.metrics)))
    return tuple(points)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are numbers; NaN and infinity among them, which MLflow stores."""
    return {metric_name(key): float(value) for key, value in metrics.items() if isinstance(value, int | float)}


def _rank_tags(records: Records) -> dict[str, Mapping[str, str]]:
    tags: dict[str, Mapping[str, str]] = {}
    for rank, finalist in enumerate(rank_finalists(records), start=1):
        for key in (f"search/{finalist.name}", *(f"retrain/{seed.assignment.name}" for seed in finalist.retrain)):
            tags[key] = {"rank": str(rank)}
    return tags


def _tables(best: EpochRecord | None) -> dict[str, str]:
    """Return the confusion matrix and the table of classes of the best epoch as CSV texts."""
    if best is None or best.confusion is None:
        return {}
    return {f"val/{name}": text for name, text in class_tables(best.confusion, group_names(best)).items()}


def _files(folder: Path, prefix: str) -> dict[str, Path]:
    """Return a trial's tables and pictures, its checkpoints left out."""
    found = sorted(path for kind in ("*.csv", "*.png") for path in folder.rglob(kind))
    relative = {path.relative_to(folder).as_posix(): path for path in found}
    return {prefix + name: path for name, path in relative.items() if name.split("/")[0] not in ("best", "last")}
