"""Ray's searcher and scheduler interfaces on top of a trial queue: no decision is made here."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from segbench.records import Assignment, Cause, Decision, Failure, TrialQueue
from segbench.training.trial import TrialJob
from segbench.tune.trainable import FAILURE, JOB, REPORT

MakeJob = Callable[[Assignment], TrialJob]


class QueueSearcher(Searcher):
    """Hands the queue's trials to Tune, at most ``max_concurrent`` at a time.

    The limit is kept here, so that a configuration is proposed only when it can start: with Tune's own limiter one
    trial is always proposed ahead, from results that are already old when it runs.
    """

    def __init__(self, queue: TrialQueue, make_job: MakeJob, max_concurrent: int) -> None:
        super().__init__()
        self._queue = queue
        self._make_job = make_job
        self._max_concurrent = max_concurrent
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's job; None when all places are taken; FINISHED at the end."""
        if len(self._running) >= self._max_concurrent:
            return None
        assignment = self._queue.next()
        if assignment is None:
            # A running trial may yet fail and be handed out again: only then is there really nothing left.
            return None if self._running else str(Searcher.FINISHED)
        self._running.add(trial_id)
        return {JOB: self._make_job(assignment)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free the trial's place; the scheduler has recorded its end."""
        self._running.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher into snapshots that we never read


class QueueScheduler(FIFOScheduler):
    """Passes each report to the queue and its decision to Tune."""

    def __init__(self, queue: TrialQueue) -> None:
        super().__init__()
        self._queue = queue
        self._hanging: set[str] = set()

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Record an epoch."""
        decision = self._queue.report(number_of(trial), result[REPORT])
        action: str = TrialScheduler.STOP if decision is Decision.STOP else TrialScheduler.CONTINUE
        return action

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Record the end of a run, by itself or by an exception."""
        self._queue.end(number_of(trial), result.get(FAILURE))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Record the end of a run whose process died, unless we killed it ourselves."""
        if trial.trial_id in self._hanging:
            return
        self._queue.end(number_of(trial), Failure(Cause.WORKER, describe_death(trial)))

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing: a trial that never ran stays unfinished in the ledger and is run by the next start."""

    def end_hanging(self, trial: Trial, timeout_s: float) -> None:
        """Record the end of a run that reports nothing, whose process is killed next."""
        self._hanging.add(trial.trial_id)
        self._queue.end(number_of(trial), Failure(Cause.HANG, f"no report for {timeout_s:g} s"))

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Watchdog(Callback):
    """Kills the process of a trial that reports nothing for too long; Tune calls it several times a second.

    Args:
        scheduler: records the failure.
        timeout_s: longest time between two reports, and from the start to the first.
    """

    def __init__(self, scheduler: QueueScheduler, timeout_s: float) -> None:
        self._scheduler = scheduler
        self._timeout_s = timeout_s
        self._heard: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Begin to wait."""
        self._heard[trial.trial_id] = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Wait anew."""
        self._heard[trial.trial_id] = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look at all running trials."""
        now = time.monotonic()
        for trial in trials:
            heard = self._heard.get(trial.trial_id)
            if heard is None or trial.status != Trial.RUNNING or now - heard <= self._timeout_s:
                continue
            del self._heard[trial.trial_id]
            self._scheduler.end_hanging(trial, self._timeout_s)
            ray.kill(trial.temporary_state.ray_actor)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def describe_death(trial: Trial) -> str:
    """Return one line about a process that is gone."""
    lines = str(trial.get_error() or "").strip().splitlines()
    return f"worker died: {lines[-1].strip()[:300]}" if lines else "worker died"


def number_of(trial: Trial) -> int:
    """Return the number of the trial that Tune calls by an id of its own."""
    job: TrialJob = trial.config[JOB]
    return job.assignment.number
