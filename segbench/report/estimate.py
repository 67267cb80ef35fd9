"""How far a sweep is and how long it will take: folded from what observers hear, no terminal involved."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segbench.records import Goal, TrialRecord, TrialState

STATES = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class ExpectedWork:
    """Expected epochs of a whole stage (docs/method.md: each rung passes one trial in ``reduction_factor``)."""

    search_epochs: float
    retrain_epochs: float

    def of(self, stage: str) -> float:
        """Return the epochs of a stage; testing takes next to nothing."""
        return {"search": self.search_epochs, "retrain": self.retrain_epochs}.get(stage, 0.0)


class SweepView:
    """The state of the current stage, as far as its trials have been heard of.

    Args:
        work: expected epochs of both stages.
        goal: direction of improvement.
    """

    def __init__(self, work: ExpectedWork, goal: Goal) -> None:
        self.stage = ""
        self.num_trials = 0
        self.max_epochs = 0
        self._work = work
        self._goal = goal
        self._records: dict[int, TrialRecord] = {}
        self._running: dict[int, TrialRecord] = {}
        self._counts = dict.fromkeys(STATES, 0)
        self._best: TrialRecord | None = None
        self._concurrency = 1
        self._seconds = 0.0
        self._epochs = 0

    def start_stage(self, stage: str, num_trials: int, max_epochs: int) -> None:
        """Forget the trials of the stage before, not how long an epoch takes."""
        self.stage, self.num_trials, self.max_epochs = stage, num_trials, max_epochs
        self._records, self._running, self._best = {}, {}, None
        self._counts = dict.fromkeys(STATES, 0)

    def update(self, record: TrialRecord) -> TrialRecord | None:
        """Take in a trial's news and return what was known of it before; costs the same for any number of trials."""
        before = self._records.get(record.number)
        self._records[record.number] = record
        self._running.pop(record.number, None)
        if not record.state.is_finished:
            self._running[record.number] = record
        if before is not None:
            self._counts[before.state] -= 1
        self._counts[record.state] += 1
        self._seconds += record.seconds - (before.seconds if before else 0.0)
        self._epochs += len(record.epochs) - (len(before.epochs) if before else 0)
        if self._rank(record) > self._rank(self._best):
            self._best = record
        self._concurrency = max(self._concurrency, len(self._running))
        return before

    @property
    def counts(self) -> Mapping[TrialState, int]:
        """Number of trials by state."""
        return self._counts

    @property
    def num_ended(self) -> int:
        """Number of trials that have ended."""
        return len(self._records) - len(self._running)

    @property
    def running(self) -> Sequence[TrialRecord]:
        """Trials that have not ended, by number."""
        return [self._running[number] for number in sorted(self._running)]

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the best score so far; the first of equals."""
        return self._best

    @property
    def epochs_left(self) -> float:
        """Expected epochs of trials that run or are still to come, later stages included."""
        if self.stage == "test" or not self.num_trials:
            return 0.0
        mean_length = min(self._work.of(self.stage) / self.num_trials, float(self.max_epochs))
        running = sum(self._left(record, mean_length) for record in self.running)
        to_come = max(0, self.num_trials - len(self._records)) * mean_length
        later = self._work.of("retrain") if self.stage == "search" else 0.0
        return running + to_come + later

    @property
    def seconds_left(self) -> float | None:
        """Expected epochs x mean seconds of an epoch / largest number of trials seen at a time; None at first."""
        return self.epochs_left * self._seconds / self._epochs / self._concurrency if self._epochs else None

    def _left(self, record: TrialRecord, mean_length: float) -> float:
        """Return the epochs that a running trial may still take: half of what is left once it outlives the mean."""
        done = record.epochs_done
        return max(mean_length - done, (record.assignment.max_epochs - done) / 2)

    def _rank(self, record: TrialRecord | None) -> tuple[float, int]:
        best = None if record is None else record.best(self._goal)
        if record is None or best is None:
            return -math.inf, 0
        return best.score if self._goal == "maximize" else -best.score, -record.number
