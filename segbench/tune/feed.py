"""All stages of a sweep as one long queue: one Tune run, so that worker processes stay for all of them."""

from collections.abc import Iterator

from segbench.core.records import Assignment, Decision, EpochReport, Failure, StageWork, TrialQueue, TrialRecord
from segbench.training.trial import TrialJob


class Feed:
    """Hands out trials and passes on what is said of them, each to the queue of its stage.

    A stage begins when all trials of the one before have ended. A worker that would wait until then is given what is
    known already of the next stage, so at the end of a search the baselines are retrained beside its last trials. With
    one worker nothing ever waits, and one stage follows the other.

    Args:
        stages: gives each stage's work.
    """

    def __init__(self, stages: Iterator[StageWork[TrialJob]]) -> None:
        self._stages = stages
        self._current: StageWork[TrialJob] | None = None
        self._queues: dict[str, TrialQueue] = {}
        """Of the trials that run, by the executor's ids."""
        self.error: Exception | None = None
        """Why the sweep stops before its end."""

    @property
    def num_running(self) -> int:
        """Number of trials that were handed out and not released."""
        return len(self._queues)

    def next(self, trial_id: str) -> TrialJob | None:
        """Return the next trial's job; None when there is none now, and at the end if nothing is running.

        What goes wrong between two stages is kept in ``error``: raised here, it would be lost in Tune.
        """
        try:
            found = self._next()
            if found is None:
                return None
            work, assignment = found
            job = work.make_job(assignment)
        except Exception as error:
            self.error = error
            return None
        self._queues[trial_id] = work.queue
        return job

    def report(self, trial_id: str, number: int, report: EpochReport) -> Decision:
        """Record an epoch of a trial and say whether it goes on."""
        return Decision.STOP if self._is_stopping else self._queues[trial_id].report(number, report)

    def end(self, trial_id: str, number: int, failure: Failure | None = None) -> None:
        """Record the end of a trial's run; while the sweep stops, trials are left for its next start."""
        if not self._is_stopping:
            self._queues[trial_id].end(number, failure)

    def record(self, trial_id: str, number: int) -> TrialRecord:
        """Return what is known of a trial that runs."""
        return self._queues[trial_id].record(number)

    def release(self, trial_id: str) -> None:
        """Forget a trial, whose end is recorded."""
        self._queues.pop(trial_id, None)

    @property
    def _is_stopping(self) -> bool:
        return self.error is not None or (self._current is not None and self._current.queue.stop_error is not None)

    def _next(self) -> tuple[StageWork[TrialJob], Assignment] | None:
        while self.error is None:
            work = self._current
            if work is not None:
                if (assignment := work.queue.next()) is not None:
                    return work, assignment
                self.error = work.queue.stop_error
                if self.error is None and work.queue in self._queues.values():
                    return _take(work.ahead())  # a trial that runs may yet fail and be handed out again
            if self.error is None:
                self._current = next(self._stages, None)
                if self._current is None:
                    return None
        return None


def _take(work: StageWork[TrialJob] | None) -> tuple[StageWork[TrialJob], Assignment] | None:
    assignment = None if work is None else work.queue.next()
    return None if work is None or assignment is None else (work, assignment)
