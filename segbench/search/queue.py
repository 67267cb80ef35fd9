"""The trials of one stage: hands them out, records what they report, ends them; executors know nothing else.

Each answer is in the ledger before it is given, so the process may die at any moment: a new queue on the same
ledger hands out the unfinished trials again and goes on.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from segbench.core.errors import DiskFullError, SegbenchError
from segbench.core.failures import GiveUp, StopSweep, respond
from segbench.core.ledger import Ledger
from segbench.core.records import (
    Assignment,
    Cause,
    Decision,
    EpochRecord,
    EpochReport,
    Failure,
    Goal,
    TrialRecord,
    TrialState,
    rung_reason,
)

MAX_SAME_FAILURES = 5
"""So many equal failures, and no success, stop the sweep."""


class Policy(Protocol):
    """What a stage decides: which trial is next and which one stops."""

    def propose(self, number: int) -> Assignment | None:
        """Return the trial with this number; None when the stage has no more."""
        ...

    def on_epoch(self, record: TrialRecord) -> None:
        """A trial has reported an epoch for the first time."""
        ...

    def stop_reason(self, record: TrialRecord) -> str | None:
        """Return why a trial stops after its last epoch; None to go on."""
        ...

    @property
    def pauses(self) -> bool:
        """Whether a trial that is to stop waits instead, and may be promoted."""
        ...

    def on_pause(self, record: TrialRecord) -> None:
        """A trial waits from now on."""
        ...

    def promoted(self, waiting: Sequence[TrialRecord]) -> int | None:
        """Return the number of the waiting trial that goes on now; None when none does."""
        ...

    def audits(self, number: int) -> bool:
        """Whether the trial runs on if it is to be stopped, so that one can see whether that would have been right."""
        ...

    def on_end(self, record: TrialRecord) -> None:
        """A trial has ended, or would have if it were not audited; said once of each."""
        ...


class FixedList:
    """Policy of retraining and testing: a list of trials in the order to run them, none of which is stopped.

    Args:
        assignments: the list; those that have begun come first. It may be replaced by a longer one.
    """

    def __init__(self, assignments: Sequence[Assignment]) -> None:
        self.assignments = assignments

    def propose(self, number: int) -> Assignment | None:
        """Return entry ``number`` of the list."""
        return self.assignments[number] if number < len(self.assignments) else None

    def on_epoch(self, record: TrialRecord) -> None:
        """Nothing depends on it."""

    def stop_reason(self, record: TrialRecord) -> str | None:
        """Never stop."""
        return None

    @property
    def pauses(self) -> bool:
        """Nothing is stopped."""
        return False

    def on_pause(self, record: TrialRecord) -> None:
        """Nothing waits."""

    def promoted(self, waiting: Sequence[TrialRecord]) -> int | None:
        """Nothing waits."""
        return None

    def audits(self, number: int) -> bool:
        """Nothing is stopped."""
        return False

    def on_end(self, record: TrialRecord) -> None:
        """Nothing depends on it."""


class LedgerQueue:
    """The :class:`segbench.core.records.TrialQueue` of every stage.

    Args:
        ledger: durable state of the stage.
        policy: decides.
        metric: the metric that becomes the score, which must be reported and finite; None if the stage has
            none (testing, or retraining without a validation set), then scores are NaN.
        goal: direction of improvement.
        tell: is told of every change.
        max_failures: how often a trial that raised or hung is tried again.
    """

    def __init__(
        self,
        ledger: Ledger,
        policy: Policy,
        metric: str | None,
        goal: Goal,
        tell: Callable[[TrialRecord], None] | None = None,
        max_failures: int = 0,
    ) -> None:
        self._ledger = ledger
        self._policy = policy
        self._metric = metric
        self._goal: Goal = goal
        self._tell_others = tell
        self._max_failures = max_failures
        self._stop_error: SegbenchError | None = None
        records = ledger.records
        self._unfinished = [r.number for r in records if r.state is TrialState.RUNNING]
        self._running = set(self._unfinished)
        self._waiting = {r.number for r in records if r.state is TrialState.PAUSED}
        self._answered = {
            r.number: r.epochs_done for r in records if r.number in self._running and r.number != ledger.unanswered
        }
        """Trial number -> the report after which it was told to go on."""
        self._failures = SameFailures()
        for record in records:
            self._failures.add(record)

    def next(self) -> Assignment | None:
        """Return an unfinished trial of an earlier start, else the policy's next one; None at the end."""
        if self._stop_error is not None:
            return None
        if (unfinished := self._next_unfinished()) is not None:
            return unfinished
        promoted = self._policy.promoted([self._ledger.record(number) for number in sorted(self._waiting)])
        if promoted is not None:
            self._waiting.discard(promoted)
            self._running.add(promoted)
            record = self._ledger.promote(promoted)
            self._tell(record)
            return record.assignment
        while self._stop_error is None and (assignment := self._policy.propose(len(self._ledger))) is not None:
            self._running.add(assignment.number)
            record = self._ledger.start(assignment)
            self._tell(record)
            if not self._is_failed(record):
                return assignment
        if not self._running and self._stop_error is None:
            self._stop_waiting()
        return None

    def _next_unfinished(self) -> Assignment | None:
        """Return a trial to continue; one that had failed already when a kill came before its end is ended."""
        while self._unfinished and self._stop_error is None:
            record = self._ledger.record(self._unfinished.pop(0))
            if not self._is_failed(record):
                self._tell(record)
                return record.assignment
        return None

    def report(self, number: int, report: EpochReport) -> Decision:
        """Record an epoch and decide.

        After a crash a trial may report an epoch again: the first report stands, because decisions were based
        on it, and so does the answer, whatever other trials have reported since.
        """
        try:
            return self._report(number, report)
        except DiskFullError as error:
            self._stop_error = error
            return Decision.STOP

    def _report(self, number: int, report: EpochReport) -> Decision:
        record = self._ledger.record(number)
        if record.state is not TrialState.RUNNING or self._stop_error is not None:
            return Decision.STOP
        if report.epoch > record.epochs_done:
            record = self._record_epoch(number, report)
        if record.state.is_finished:
            return Decision.STOP
        is_settled = record.audited_rung is not None or report.epoch in (record.promoted_at, self._answered.get(number))
        if is_settled or report.epoch < record.epochs_done:
            return Decision.CONTINUE
        reason = self._policy.stop_reason(record)
        if reason is None:
            self._answered[number] = report.epoch
            return Decision.CONTINUE
        if self._policy.audits(number):
            record = self._ledger.audit(number, record.epochs_done)
            self._policy.on_end(record.as_stopped())
            self._tell(record)
            return Decision.CONTINUE
        if self._policy.pauses:
            self._running.discard(number)
            self._waiting.add(number)
            record = self._ledger.pause(number)
            self._failures.add(record)
            self._policy.on_pause(record)
            self._tell(record)
        else:
            self._finish(number, TrialState.PRUNED, reason)
        return Decision.STOP

    def _stop_waiting(self) -> None:
        """End the trials that wait: nothing runs or comes any more that could promote one."""
        for number in sorted(self._waiting):
            self._finish(number, TrialState.PRUNED, rung_reason(self._ledger.record(number).epochs_done))
        self._waiting.clear()

    def end(self, number: int, failure: Failure | None = None) -> None:
        """Record the end of a trial's run, if it was not stopped: by itself, or by ``failure``."""
        try:
            self._end(number, failure)
        except DiskFullError as error:
            self._stop_error = error

    def _end(self, number: int, failure: Failure | None) -> None:
        record = self._ledger.record(number)
        if record.state is not TrialState.RUNNING or self._stop_error is not None:
            return  # it waits, or has ended; while the stage stops, trials are left as they are for the next start
        if failure is not None:
            self._handle(record, failure)
        elif not record.epochs:
            self._finish(number, TrialState.FAIL, "ended without reporting an epoch")
        elif record.epochs_done < record.assignment.max_epochs:
            has_patience = record.assignment.config.get("patience") is not None
            self._finish(number, TrialState.COMPLETE, "patience" if has_patience else "ended by itself")
        else:
            self._finish(number, TrialState.COMPLETE, "")

    @property
    def stop_error(self) -> SegbenchError | None:
        """Why the stage stops before its end."""
        return self._stop_error

    def record(self, number: int) -> TrialRecord:
        """Return what is known of a trial."""
        return self._ledger.record(number)

    def _record_epoch(self, number: int, report: EpochReport) -> TrialRecord:
        score = math.nan
        if self._metric is not None:
            score, _ = read_score(report.metrics, self._metric, report.epoch)
        epoch = EpochRecord(
            epoch=report.epoch,
            score=score,
            metrics=report.metrics,
            confusion=report.confusion,
            seconds=round(report.seconds, 4),
        )
        record = self._ledger.epoch(number, epoch)
        self._policy.on_epoch(record)
        if self._is_failed(record):
            return self._ledger.record(number)
        self._tell(record)
        return record

    def _is_failed(self, record: TrialRecord) -> bool:
        """End a trial that cannot go on by what is recorded of it, and say whether it was one."""
        failure = failure_in(record, self._metric)
        if failure is not None:
            self._finish(record.number, TrialState.FAIL, *failure)
        return failure is not None

    def _handle(self, record: TrialRecord, failure: Failure) -> None:
        response = respond(record, failure, self._max_failures)
        if isinstance(response, StopSweep):
            self._stop_error = SegbenchError(response.message)
        elif isinstance(response, GiveUp):
            self._finish(record.number, TrialState.FAIL, response.reason, failure.cause)
        else:
            record = self._ledger.attempt(record.number, failure.cause, failure.message, response.changes)
            self._unfinished.append(record.number)
            self._tell(record)

    def _finish(self, number: int, state: TrialState, reason: str, cause: Cause | None = None) -> TrialRecord:
        record = self._ledger.end(number, state, reason, cause)
        self._running.discard(number)
        if record.audited_rung is None:
            self._policy.on_end(record)
        self._tell(record)
        self._failures.add(record)
        if state is TrialState.FAIL and self._stop_error is None:
            self._stop_error = self._failures.error
        return record

    def _tell(self, record: TrialRecord) -> None:
        if self._tell_others is not None:
            self._tell_others(record)


def failure_in(record: TrialRecord, metric: str | None) -> tuple[str, Cause | None] | None:
    """Return why a trial cannot go on by what is recorded of it, reason and cause; None if it can.

    Its values make no configuration, or its last report has no score. The answer is that of the ledger, so a kill
    between the line that says so and the trial's end changes nothing.
    """
    if record.assignment.problem:
        cause = Cause.REQUIREMENT if record.assignment.is_refused else None
        return f"infeasible: {record.assignment.problem}", cause
    if metric is None or not record.epochs:
        return None
    last = record.epochs[-1]
    score, problem = read_score(last.metrics, metric, last.epoch)
    if problem is None:
        return None
    broke_down = metric in last.metrics and not math.isfinite(score)
    return problem, Cause.NON_FINITE if broke_down else Cause.ERROR


def read_score(metrics: Mapping[str, object], metric: str, epoch: int) -> tuple[float, str | None]:
    """Return the score in ``metrics`` and, if it is unusable, why the trial fails."""
    if metric not in metrics:
        reported = ", ".join(name for name in metrics if not name.startswith("system/"))
        return math.nan, f"metric {metric!r} not reported at epoch {epoch}; reported: {reported}"
    value = metrics[metric]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan, f"metric {metric!r} is {value!r} at epoch {epoch}, not a number"
    if math.isnan(value):
        return value, f"nan: {metric} at epoch {epoch}"
    if math.isinf(value):
        return value, f"inf: {metric} at epoch {epoch}"
    return float(value), None


class SameFailures:
    """Notices when the first trials have all failed in the same way: the rest would too."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()
        self._num_ended = 0
        self._last = ""

    def add(self, record: TrialRecord) -> None:
        """Take in a trial; one that has not ended, or never ran, says nothing, unless it came so far that it waits."""
        if record.state is TrialState.PAUSED or record.promoted_at is not None:
            self._reasons.add("")
        if not record.state.is_finished or record.assignment.problem:
            return
        self._num_ended += 1
        is_failure = record.state is TrialState.FAIL
        self._reasons.add(re.sub(r"\d+", "#", record.reason) if is_failure else "")
        self._last = record.reason

    @property
    def error(self) -> SegbenchError | None:
        """Why the stage should stop; None while there are few trials, a success, or failures of several kinds."""
        if self._num_ended < MAX_SAME_FAILURES or len(self._reasons) > 1 or "" in self._reasons:
            return None
        return SegbenchError(
            f"the first {self._num_ended} trials all failed in the same way: {self._last}. "
            "Mend the cause; the same command continues with the other trials, another --out starts afresh"
        )
