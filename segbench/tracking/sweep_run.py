"""The parent run of a sweep: its settings, its progress over trials, and at the end its leaderboard."""

import json
from collections.abc import Mapping

from segbench.core.ledger import Records
from segbench.core.paths import SweepPaths
from segbench.core.records import TrialState
from segbench.results.leaderboard import leaderboard_table
from segbench.results.tables import render
from segbench.spec.schema import SweepSpec
from segbench.tracking.runs import PARENT_KEY, Point, RunView, Status, flatten, metric_name, milliseconds

_MAX_NOTE = 7500
"""Characters; MLflow cuts a tag at 8,000."""


def sweep_view(paths: SweepPaths, spec: SweepSpec, records: Records, tags: Mapping[str, str], final: bool) -> RunView:
    """Return the parent run.

    Args:
        paths: the sweep's folder.
        spec: its resolved file.
        records: of all stages; at least one search trial.
        tags: common to all runs.
        final: the sweep is not running (any more): the run ends, with leaderboard and tables.
    """
    search = records.search
    settings = spec.model_dump(mode="json", include={"metric", "data", "search", "scheduler", "retrain"})
    if not spec.is_segmentation:
        del settings["data"]
    ends = [record.ended_at for _, record in records if record.ended_at is not None]
    files = [paths.spec, *([paths.trials, paths.leaderboard, paths.versions] if final else [])]
    return RunView(
        key=PARENT_KEY,
        name=spec.name,
        status=_status(records, spec.retrain is not None) if final else "RUNNING",
        start_ms=milliseconds(min(record.started_at for record in search)),
        end_ms=milliseconds(max(ends)) if final and ends else None,
        tags={**tags, "stage": "sweep", **({"mlflow.note.content": _note(spec, records)} if final else {})},
        params=flatten(settings),
        points=_points(records),
        texts={},
        files={path.name: path for path in files if path.is_file()},
    )


def common_tags(paths: SweepPaths, spec: SweepSpec) -> dict[str, str]:
    """Return the tags of every run of a sweep: its name, and the commit of its last start."""
    tags = {"sweep": spec.name, "mlflow.source.name": "segbench"}
    lines = paths.versions.read_text(encoding="utf-8").splitlines() if paths.versions.exists() else []
    commit = json.loads(lines[-1]).get("commit") if lines else None
    return {**tags, "mlflow.source.git.commit": commit} if commit else tags


def _note(spec: SweepSpec, records: Records) -> str:
    """Return the run's description in Markdown: what it was, and the upper end of the leaderboard."""
    search = records.search
    counts = ", ".join(
        f"{sum(record.state is state for record in search)} {state.value}" for state in TrialState if state.is_finished
    )
    head = f"{spec.description}\n\n" if spec.description else ""
    head += f"{len(search)} trials ({counts}), ranked by {spec.metric.name} ({spec.metric.goal}).\n\n"
    table = leaderboard_table(records)
    lines = render(table, "markdown").splitlines(keepends=True)
    note = head[: _MAX_NOTE // 2]
    for line in lines:
        if len(note) + len(line) > _MAX_NOTE:
            return note + "\nThe rest is in leaderboard.csv.\n"
        note += line
    return note


def _points(records: Records) -> tuple[Point, ...]:
    """Return the sweep's progress: a point per ended trial with the best score so far and counts by state."""
    ended = sorted(
        (record for record in records.search if record.state.is_finished and record.ended_at is not None),
        key=lambda record: (record.ended_at, record.number),
    )
    counts = {f"trials/{state.value.lower()}": 0 for state in TrialState if state.is_finished}
    best: float | None = None
    points = []
    for step, record in enumerate(ended, start=1):
        counts[f"trials/{record.state.value.lower()}"] += 1
        epoch = record.best(records.goal)
        if epoch is not None:
            better = max if records.goal == "maximize" else min
            best = epoch.score if best is None else better(best, epoch.score)
        score = {} if best is None else {metric_name(f"best/{records.metric}"): best}
        points.append(Point(step, milliseconds(record.ended_at or 0.0), {**counts, **score}))
    return tuple(points)


def _status(records: Records, has_retraining: bool) -> Status:
    """Return how a sweep ended, of which nothing is running any more.

    FAILED when all search trials failed, KILLED when a trial is unfinished or the retraining was not reached.
    """
    search = records.search
    if search and all(record.state is TrialState.FAIL for record in search):
        return "FAILED"
    unfinished = any(not record.state.is_finished for _, record in records)
    return "KILLED" if unfinished or not search or (has_retraining and not records.retrain) else "FINISHED"
