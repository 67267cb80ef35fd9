"""Ray's searcher and scheduler interfaces on top of a trial queue: no decision is made here."""

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from segbench.records import Assignment, Decision, TrialQueue
from segbench.training.trial import TrialJob
from segbench.tune.trainable import ERROR, JOB, REPORT

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
            finished: str = Searcher.FINISHED
            return finished
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

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Record an epoch."""
        decision = self._queue.report(_number(trial), result[REPORT])
        action: str = TrialScheduler.STOP if decision is Decision.STOP else TrialScheduler.CONTINUE
        return action

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Record the end of a trial that ended by itself or by an exception."""
        self._queue.end(_number(trial), result.get(ERROR))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Record the end of a trial whose process died."""
        self._queue.end(_number(trial), f"worker died: {trial.get_error() or 'no reason known'}")

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing: a trial that never ran stays unfinished in the ledger and is run by the next start."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _number(trial: Trial) -> int:
    job: TrialJob = trial.config[JOB]
    return job.assignment.number
