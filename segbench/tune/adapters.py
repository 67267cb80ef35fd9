"""Ray's searcher and scheduler interfaces on top of a trial queue: no decision is made here."""

import logging
import re
import time
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayActorError, RayTaskError
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from segbench.core.records import Cause, Decision, Failure
from segbench.training.trial import TrialJob
from segbench.tune.feed import Feed
from segbench.tune.trainable import FAILURE, JOB, REPORT, NodeDrainedError

_log = logging.getLogger(__name__)


class QueueSearcher(Searcher):
    """Hands trials to Tune, at most ``max_concurrent`` at a time.

    The limit is kept here, so that a configuration is proposed only when it can start: with Tune's own limiter one
    trial is always proposed ahead, from results that are already old when it runs.
    """

    def __init__(self, feed: Feed, max_concurrent: int) -> None:
        super().__init__()
        self._feed = feed
        self._max_concurrent = max_concurrent

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's job; None when all places are taken; FINISHED at the end."""
        if self._feed.num_running >= self._max_concurrent:
            return None
        job = self._feed.next(trial_id)
        if job is None:
            return None if self._feed.num_running else str(Searcher.FINISHED)
        return {JOB: job}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free the trial's place; the scheduler has recorded its end."""
        self._feed.release(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher into snapshots that we never read


class QueueScheduler(FIFOScheduler):
    """Passes each report to its queue and its decision to Tune.

    Args:
        feed: the stages.
        num_waiting: worker processes that wait for the next stage when one ends; Tune itself keeps one.
    """

    def __init__(self, feed: Feed, num_waiting: int = 0) -> None:
        super().__init__()
        self._feed = feed
        self._num_waiting = num_waiting
        self._hanging: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Tell Tune once how many processes to keep; all trials ask for the same resources."""
        if self._num_waiting:
            tune_controller._actor_cache.increase_max(trial.placement_group_factory, self._num_waiting)
            self._num_waiting = 0

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Record an epoch."""
        decision = self._feed.report(trial.trial_id, number_of(trial), result[REPORT])
        action: str = TrialScheduler.STOP if decision is Decision.STOP else TrialScheduler.CONTINUE
        return action

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Record the end of a run, by itself or by an exception."""
        self._feed.end(trial.trial_id, number_of(trial), result.get(FAILURE))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Record the end of a run whose process died, unless we killed it ourselves."""
        if trial.trial_id in self._hanging:
            return
        failure = explain_death(read_death(trial))
        self._feed.end(trial.trial_id, number_of(trial), failure)
        record = self._feed.record(trial.trial_id, number_of(trial))
        if not record.state.is_finished:
            name = record.assignment.name
            _log.warning("%s: %s; it will go on after epoch %d", name, failure.message, record.epochs_done)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing: a trial that never ran stays unfinished in the ledger and is run by the next start."""

    def end_hanging(self, trial: Trial, timeout_s: float) -> None:
        """Record the end of a run that reports nothing, whose process is killed next."""
        self._hanging.add(trial.trial_id)
        failure = Failure(Cause.HANG, f"no report for {timeout_s:g} s")
        self._feed.end(trial.trial_id, number_of(trial), failure)

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
        self._heard: dict[Trial, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Begin to wait."""
        self._heard[trial] = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Wait anew."""
        self._heard[trial] = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look at all running trials."""
        now = time.monotonic()
        for trial, heard in list(self._heard.items()):
            if trial.status != Trial.RUNNING:
                del self._heard[trial]
            elif now - heard > self._timeout_s:
                del self._heard[trial]
                self._scheduler.end_hanging(trial, self._timeout_s)
                ray.kill(trial.temporary_state.ray_actor)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def read_death(trial: Trial) -> Exception | None:
    """Return Ray's error of a process that is gone; from Tune's local file, the one in storage is not there yet."""
    try:
        error: Exception = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except (OSError, TypeError):
        return None
    return error


def explain_death(error: Exception | None) -> Failure:
    """Return the failure that Ray's error of a process that is gone means."""
    text = "" if error is None else str(error)
    if isinstance(error, RayTaskError) and NodeDrainedError.__name__ in text:
        return Failure(Cause.DRAIN, f"its node {text.strip().rpartition(' ')[2]} was drained")
    if isinstance(error, RayActorError) and error.preempted:
        return Failure(Cause.DRAIN, describe_death(text))
    return Failure(Cause.WORKER, describe_death(text))


def describe_death(text: str) -> str:
    """Return in one line what Ray knows of a process that is gone; more than process or node it seldom does."""
    address = re.search(r"\bip: (\S+)", text)
    place = f" on {address[1]}" if address else ""
    if "node has died" in text or "node died" in text:
        return f"its node was lost{place}"
    if "low on memory" in text:
        return f"its node ran low on memory{place}"
    if "worker process has died" in text or not text.strip():
        return f"its process ended{place}"
    return text.strip().splitlines()[-1].strip()[:300]


def number_of(trial: Trial) -> int:
    """Return the number of the trial that Tune calls by an id of its own."""
    job: TrialJob = trial.config[JOB]
    return job.assignment.number
