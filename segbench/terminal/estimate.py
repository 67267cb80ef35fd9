"""How far a sweep is and how long it will take: folded from what observers hear, no terminal involved."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from segbench.core.records import Goal, TrialRecord, TrialState


@dataclass(frozen=True)
class ExpectedWork:
    """Expected epochs of a whole stage; of a search those of the median forecast (:mod:`segbench.search.forecast`)."""

    search_epochs: float
    retrain_epochs: float

    def of(self, stage: str) -> float:
        """Return the epochs of a stage; testing takes next to nothing."""
        return {"search": self.search_epochs, "retrain": self.retrain_epochs}.get(stage, 0.0)


@dataclass
class StageView:
    """The trials of one stage that have been heard of."""

    records: dict[int, TrialRecord] = field(default_factory=dict)
    running: dict[int, TrialRecord] = field(default_factory=dict)
    counts: dict[TrialState, int] = field(default_factory=lambda: dict.fromkeys(TrialState, 0))
    best: TrialRecord | None = None
    epochs: int = 0

    def update(self, record: TrialRecord) -> TrialRecord | None:
        """Take in a trial's news and return what was known of it before."""
        before = self.records.get(record.number)
        self.records[record.number] = record
        self.running.pop(record.number, None)
        if record.state is TrialState.RUNNING:
            self.running[record.number] = record
        if before is not None:
            self.counts[before.state] -= 1
        self.counts[record.state] += 1
        self.epochs += len(record.epochs) - (len(before.epochs) if before else 0)
        return before


class SweepView:
    """The state of the current stage, and of trials of the next one that run ahead of it, as far as heard of.

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
        self._stages: dict[str, StageView] = defaultdict(StageView)
        self._concurrency = 1
        self._seconds = 0.0

    def start_stage(self, stage: str, num_trials: int, max_epochs: int) -> None:
        """Turn to a stage; how long an epoch takes is known from the one before."""
        self.stage, self.num_trials, self.max_epochs = stage, num_trials, max_epochs

    def update(self, record: TrialRecord, stage: str) -> TrialRecord | None:
        """Take in a trial's news and return what was known of it before; costs the same for any number of trials."""
        view = self._stages[stage]
        before = view.update(record)
        if stage == self.stage:
            self.num_trials = max(self.num_trials, len(view.records))  # more than announced: some were enqueued since
        self._seconds += record.seconds - (before.seconds if before else 0.0)
        if self._rank(record) > self._rank(view.best):
            view.best = record
        self._concurrency = max(self._concurrency, sum(len(view.running) for view in self._stages.values()))
        return before

    @property
    def counts(self) -> Mapping[TrialState, int]:
        """Number of trials by state."""
        return self._now.counts

    @property
    def num_ended(self) -> int:
        """Number of trials that have ended."""
        return sum(count for state, count in self._now.counts.items() if state.is_finished)

    @property
    def running(self) -> Sequence[TrialRecord]:
        """Trials that have not ended, by number."""
        return [self._now.running[number] for number in sorted(self._now.running)]

    @property
    def ahead(self) -> Sequence[TrialRecord]:
        """Trials of later stages that run already."""
        others = (view for stage, view in self._stages.items() if stage != self.stage)
        return [record for view in others for record in view.running.values()]

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the best score so far; the first of equals."""
        return self._now.best

    @property
    def epochs_left(self) -> float:
        """Expected epochs of trials that run or are still to come, later stages included."""
        if self.stage == "test" or not self.num_trials:
            return 0.0
        mean_length = min(self._work.of(self.stage) / self.num_trials, float(self.max_epochs))
        running = sum(self._left(record, mean_length) for record in self.running)
        to_come = max(0, self.num_trials - len(self._now.records)) * mean_length
        later = max(0.0, self._work.of("retrain") - self._stages["retrain"].epochs) if self.stage == "search" else 0.0
        return running + to_come + later

    @property
    def seconds_left(self) -> float | None:
        """Expected epochs x mean seconds of an epoch / largest number of trials seen at a time; None at first."""
        epochs = sum(view.epochs for view in self._stages.values())
        return self.epochs_left * self._seconds / epochs / self._concurrency if epochs else None

    @property
    def _now(self) -> StageView:
        return self._stages[self.stage]

    def _left(self, record: TrialRecord, mean_length: float) -> float:
        """Return the epochs that a running trial may still take: half of what is left once it outlives the mean."""
        done = record.epochs_done
        return max(mean_length - done, (record.assignment.max_epochs - done) / 2)

    def _rank(self, record: TrialRecord | None) -> tuple[float, int]:
        best = None if record is None else record.best(self._goal)
        if record is None or best is None:
            return -math.inf, 0
        return best.score if self._goal == "maximize" else -best.score, -record.number
