"""One trial, whoever runs it: continue from the checkpoint, train, keep what is worth keeping.

The executor records each epoch before it asks for the next one, and only then is the state kept: a trial that is
stopped at a rung writes nothing. The state is copied, and written while the next epoch trains; the write ends before
that epoch is reported. So nobody finds a trial between two reports that still writes, and one that is killed repeats
at most one epoch that was recorded, with the same numbers.
"""

import errno
import logging
import os
import shutil
import sys
import time
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.errors import CheckpointError, TrialError
from segbench.core.paths import is_disk_full
from segbench.core.records import Assignment, EpochReport, EpochResult, Goal, TrainContext, TrainFunction
from segbench.storage.workspace import Workspace, open_workspace
from segbench.training import checkpoint
from segbench.training.function import load_function
from segbench.training.memory import keep_freed_memory
from segbench.training.usage import Usage

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """All that a worker needs to run or continue one trial; plain data."""

    assignment: Assignment
    train: str
    """``package.module:function``."""
    folder: str
    """Where ``last/``, ``best/`` and pictures of the trial go: a folder that all nodes see, or a bucket's address."""
    data: DataConfig | None = None
    """None for a user's own training function, which then gets its configuration as a plain mapping."""
    train_on: Literal["train", "train+val"] = "train"
    metric: str | None = None
    goal: Goal = "maximize"
    keep_best: bool = False
    """Keep the weights of the best epoch (of the last one if there is no metric)."""
    checkpoint: str | None = None
    use_gpu: bool = False
    sharing: str | None = None
    num_threads: int = 1


def run_trial(job: TrialJob, objective: TrainFunction | None = None) -> Generator[EpochReport, Literal["leave"] | None]:
    """Train ``job`` from its last checkpoint, if there is one, and yield after each epoch.

    Closing the generator stops the trial at that epoch. Sending it ``"leave"`` ends it too, once all that continues
    the trial after that epoch is written. When it ends by itself, its ``last/`` checkpoint is removed.

    Args:
        job: the trial.
        objective: trains it, in place of the function that ``job.train`` names.

    Raises:
        Exception: whatever the training function raises.
    """
    function = load_function(job.train) if objective is None else objective
    _set_threads(job.num_threads)
    keep_freed_memory()
    with open_workspace(job.folder) as workspace:
        yield from _train(job, function, workspace)


def _train(
    job: TrialJob, function: TrainFunction, workspace: Workspace
) -> Generator[EpochReport, Literal["leave"] | None]:
    folder = workspace.folder
    last = folder / "last"
    kept = load_newest(last)
    best_score: float | None = kept.get("best_score")
    epoch: int = kept.get("epoch", 0)
    max_epochs = job.assignment.max_epochs
    started = time.perf_counter()
    usage = Usage()
    writing: Future[None] | None = None
    with ThreadPoolExecutor(max_workers=1) as background:
        for raw in function(_config(job), _context(job, workspace, epoch, kept.pop("state", None))):
            result = _as_result(raw)
            epoch += 1
            if writing is not None:
                writing.result()
            seconds = time.perf_counter() - started
            metrics = {**_plain(result.metrics), **usage.read()}
            wish = yield EpochReport(epoch=epoch, metrics=metrics, confusion=result.confusion, seconds=seconds)
            started = time.perf_counter()
            if job.keep_best and result.save_model is not None:
                score = _score(job, result)
                if score is None or best_score is None or _is_better(score, best_score, job.goal):
                    best_score = score
                    result.save_model(folder / "best")
            if epoch >= max_epochs:
                break
            if result.state is not None:
                state = {"epoch": epoch, "best_score": best_score, "state": result.state()}
                # the folder before stays, should this one be damaged
                writing = background.submit(_write, checkpoint.snapshot(state), f"last/{epoch % 2}", workspace)
            if wish == "leave":
                if writing is not None:
                    writing.result()
                return
        if writing is not None:
            writing.result()
    shutil.rmtree(last, ignore_errors=True)


def _write(snapshot: checkpoint.Snapshot, name: str, workspace: Workspace) -> None:
    folder = workspace.folder / name
    try:
        checkpoint.write(snapshot, folder)
    except Exception as error:
        if not is_disk_full(error):
            raise
        free = shutil.disk_usage(folder.parent).free
        needed = f"{folder} needs {snapshot.num_bytes / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed}") from error
    workspace.keep("best")  # the state says how good it is
    workspace.keep(name)


def load_newest(last: Path) -> dict[str, Any]:
    """Return the newest undamaged checkpoint in ``last``; an empty mapping if there is none: start again."""
    found: list[dict[str, Any]] = []
    for folder in sorted(last.glob("[01]")):
        if checkpoint.exists(folder):
            try:
                found.append(checkpoint.load(folder))
            except CheckpointError as error:
                _log.warning("%s; going on from the one before", error)
    return max(found, key=lambda kept: int(kept["epoch"]), default={})


def _config(job: TrialJob) -> TrialConfig | Mapping[str, Any]:
    config = job.assignment.config
    return config if job.data is None else TrialConfig(**config)


def _context(job: TrialJob, workspace: Workspace, epoch: int, state: Mapping[str, Any] | None) -> TrainContext:
    return TrainContext(
        max_epochs=job.assignment.max_epochs,
        epoch=epoch,
        state=state,
        seed=job.assignment.seed,
        device=_device(job),
        trial_number=job.assignment.number,
        data=job.data,
        train_on=job.train_on,
        metric=job.metric or "",
        goal=job.goal,
        checkpoint=workspace.fetch(job.checkpoint),
        sharing=workspace.fetch(job.sharing),
        output=str(workspace.folder),
    )


def _device(job: TrialJob) -> str:
    if not job.use_gpu:
        return "cpu"
    import torch  # a user's own function may not need it, and it takes seconds

    return "cuda" if torch.cuda.is_available() else "cpu"


def _set_threads(num_threads: int) -> None:
    # Two trials with two threads each on two cores run at 0.4x of one thread each.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(num_threads)


def _as_result(raw: object) -> EpochResult:
    if isinstance(raw, EpochResult):
        return raw
    if isinstance(raw, Mapping):
        return EpochResult(metrics=raw)
    raise TrialError(
        f"the training function yielded {type(raw).__name__}; it must yield an EpochResult or a mapping of metrics"
    )


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics as JSON values: numbers of any library become Python numbers, the rest text."""
    plain: dict[str, Any] = {}
    for key, value in metrics.items():
        scalar = value.item() if hasattr(value, "item") and getattr(value, "size", 1) in (1, ()) else value
        if isinstance(scalar, Real) and not isinstance(scalar, bool | int | float):
            scalar = float(scalar)
        plain[str(key)] = scalar if isinstance(scalar, bool | int | float | str | None) else repr(scalar)
    return plain


def _score(job: TrialJob, result: EpochResult) -> float | None:
    return None if job.metric is None else result.metrics.get(job.metric)


def _is_better(score: float, best: float, goal: Goal) -> bool:
    return score > best if goal == "maximize" else score < best
