"""What stages hand each other: frozen records, and the two protocols at the edges.

A *trial* is one configuration trained once. The three stages of a sweep (search, retrain, test) each keep
a ledger of trials, so one record serves all three.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from segbench.core.config import DataConfig
from segbench.core.errors import SegbenchError
from segbench.core.objectives import Goal as Goal
from segbench.core.objectives import Objective, Requirement, violation

Scalar = bool | int | float | str | None
Params = Mapping[str, Scalar]
"""Values drawn for one trial, by dotted parameter name, in the order of the sweep file."""

Confusion = tuple[tuple[int, ...], ...]
"""Pixel counts, rows = truth, columns = prediction, K x K."""


class TrialState(StrEnum):
    """State of a trial, in Optuna's words."""

    RUNNING = "RUNNING"
    """Started and not ended; after a crash such a trial is continued from its checkpoint."""
    PAUSED = "PAUSED"
    """Waits at a rung for its promotion; stopped there if the search ends before."""
    COMPLETE = "COMPLETE"
    """Ran to max_epochs, or ended by itself (patience)."""
    PRUNED = "PRUNED"
    """Stopped at a rung."""
    FAIL = "FAIL"
    """Ended by an error; ``reason`` says which."""

    @property
    def is_finished(self) -> bool:
        """Whether the trial will report nothing more."""
        return self not in (TrialState.RUNNING, TrialState.PAUSED)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A trial to run: what an executor is given, and what the ledger remembers of its start."""

    number: int
    """Within its stage, from 0."""
    name: str
    """Readable and unique within the stage: ``trial-0007``, ``baseline-unet``, ``trial-0007-seed-1``."""
    origin: Literal["search", "baseline", "enqueued"]
    """Whether the search proposed it, the sweep file names it, or it was asked for while the sweep ran."""
    params: Params
    """What was drawn, or what a baseline sets, by dotted parameter name."""
    config: Mapping[str, Any]
    """Complete settings: :class:`segbench.core.config.TrialConfig` as a mapping, or the user's nested parameters."""
    seed: int
    """Of the training."""
    max_epochs: int
    """Epochs of a full training."""
    draws: Params = field(default_factory=dict)
    """What the sampler drew where it is not the value itself: quantiles of normal and rounded parameters."""
    problem: str = ""
    """Why the drawn values make no valid configuration; such a trial is FAIL without running."""
    source: int | None = None
    """Number of the trial of the stage before that this one repeats (retrain) or tests (test)."""
    enqueued: str | None = None
    """Of an enqueued one the id of its line in ``state/enqueued.jsonl``."""
    costs: Params = field(default_factory=dict)
    """What the model costs to run (``model/...``), where the sweep asks for it: known before training."""

    @property
    def is_refused(self) -> bool:
        """Whether the model is known to break a requirement: its costs were measured, and are the problem."""
        return bool(self.problem and self.costs)


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What a training function yields after each epoch; a plain mapping of metrics stands for one with these alone.

    Examples:
        >>> from segbench import EpochResult
        >>> weights = {"w": 0.5}
        >>> result = EpochResult(metrics={"score": 0.81}, state=lambda: {"weights": weights})
        >>> result.state()  # after this epoch the training can be continued, as context.state
        {'weights': {'w': 0.5}}
    """

    metrics: Mapping[str, Any]
    """``val/miou``, ``val/iou/<group>``, ``train/loss``, ``time/epoch_s``, ...: numbers, or short texts."""
    confusion: Confusion | None = None
    """Pixel counts of this epoch's validation, K rows (truth) of K columns (prediction)."""
    state: Callable[[], Mapping[str, Any]] | None = None
    """Returns all that is needed to continue after this epoch: nested mappings and lists of tensors, numbers
    and strings. Called only when the caller decides to keep a checkpoint, before the generator goes on."""
    save_model: Callable[[Path], None] | None = None
    """Writes this epoch's model to a folder of its own, in place of what was there; like ``state``, called before
    the generator goes on."""


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What reaches the queue of an epoch: plain data that can cross processes."""

    epoch: int
    """Epochs done, from 1."""
    metrics: Mapping[str, Any]
    confusion: Confusion | None = None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainContext:
    """What a training function is given beside its configuration.

    Examples:
        >>> from segbench import TrainContext
        >>> def train(config, context):
        ...     for epoch in range(context.epoch + 1, context.max_epochs + 1):
        ...         yield {"score": config["x"] * epoch}
        >>> list(train({"x": 0.5}, TrainContext(max_epochs=2)))  # by hand, without a sweep
        [{'score': 0.5}, {'score': 1.0}]
    """

    max_epochs: int
    """Train up to this epoch; who runs the trial may stop it before."""
    epoch: int = 0
    """Epochs already done."""
    state: Mapping[str, Any] | None = None
    """What ``EpochResult.state()`` returned after epoch ``epoch``; None at the start."""
    seed: int = 0
    """Of everything that the training draws."""
    device: str = "cpu"
    """Where to compute: ``cpu`` or ``cuda``."""
    trial_number: int = 0
    """Within its stage."""
    data: DataConfig | None = None
    """The ``data:`` section; None for a training function of your own."""
    train_on: Literal["train", "train+val"] = "train"
    """Splits to learn from."""
    batched_augmentation: bool | None = None
    """Augment whole batches by tensor code (True) or sample by sample (False); None: what is faster on the device."""
    metric: str = "val/miou"
    """The searched metric, which patience looks at."""
    goal: Goal = "maximize"
    """Direction of its improvement."""
    checkpoint: str | None = None
    """Folder of a finished training's best weights (test stage only)."""
    sharing: str | None = None
    """File with what was measured on the sweep's GPUs (:mod:`segbench.training.sharing`)."""
    output: str | None = None
    """Folder where this trial may leave pictures and tables."""


TrainFunction = Callable[[Any, TrainContext], Iterator["EpochResult | Mapping[str, float]"]]
"""``f(config, context)``: a generator that yields once per epoch. ``config`` is a TrialConfig for the
built-in function and a plain nested mapping for the user's own."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One reported epoch, as kept in the ledger."""

    epoch: int
    """From 1."""
    score: float
    """The searched metric's value at this epoch; NaN or infinite when training broke down."""
    metrics: Mapping[str, Any]
    """All that the training function reported."""
    confusion: Confusion | None = None
    """Pixel counts, as in EpochResult."""
    at: float = 0.0
    """When it was reported: Unix time in seconds."""
    seconds: float = 0.0
    """Time that the epoch took, validation included."""


class Cause(StrEnum):
    """Classes of failure; each has one policy."""

    ERROR = "error"
    """The training function raised."""
    HANG = "hang"
    """No report within ``budget.trial_timeout_s``."""
    NON_FINITE = "non-finite"
    """Loss or metric became NaN or infinite."""
    MEMORY = "oom"
    """The device's or the host's memory did not suffice."""
    WORKER = "worker died"
    """The process or its node went away."""
    DRAIN = "drained"
    """The node was given notice that it goes away; the trial's last epoch is kept."""
    DISK = "disk full"
    """A checkpoint could not be written."""
    REQUIREMENT = "requirement"
    """The model breaks what ``require:`` asks for, which was known before training."""


@dataclass(frozen=True)
class Failure:
    """What happened to a trial; plain data that crosses processes."""

    cause: Cause
    message: str
    """One line."""
    details: str = ""
    """The traceback."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A run of a trial that ended by a failure without ending the trial: it is continued."""

    epoch: int
    """Epochs reported before."""
    cause: Cause
    reason: str


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """Everything known of one trial, folded from the ledger."""

    assignment: Assignment
    """What was asked: name, parameters, seed."""
    state: TrialState = TrialState.RUNNING
    """Whether and how it ended."""
    reason: str = ""
    """Why it ended: ``rung 3``, ``patience``, ``nan``, ``oom``, ``error: <last traceback line>``."""
    cause: Cause | None = None
    """Of a FAIL: the class of failure; None where nothing failed, or what never ran."""
    epochs: Sequence[EpochRecord] = field(default=())
    """Reported so far, in order."""
    attempts: Sequence[Attempt] = field(default=())
    """Failures that the trial survived."""
    audited_rung: int | None = None
    """Epoch at which ASHA would have stopped the trial, which runs on for the audit (``scheduler.audit``)."""
    promoted_at: int | None = None
    """Epoch of the last promotion: there the trial is not asked again whether it goes on."""
    started_at: float = 0.0
    """Unix time in seconds."""
    ended_at: float | None = None
    """Unix time in seconds; None while it runs."""

    @property
    def number(self) -> int:
        """Trial number within its stage."""
        return self.assignment.number

    @property
    def epochs_done(self) -> int:
        """Last epoch reported; 0 before the first."""
        return self.epochs[-1].epoch if self.epochs else 0

    @property
    def last_score(self) -> float | None:
        """Score of the last epoch; None before the first."""
        return self.epochs[-1].score if self.epochs else None

    @property
    def seconds(self) -> float:
        """Training time over all epochs, interruptions not counted."""
        return sum(epoch.seconds for epoch in self.epochs)

    def best(self, goal: Goal) -> EpochRecord | None:
        """Return the first epoch with the best finite score; None when there is none."""
        return best_epoch(self.epochs, goal)

    def losses_at(self, epoch: EpochRecord, objectives: Sequence[Objective]) -> tuple[float, ...]:
        """Return what is to be minimised after an epoch: of the score, then of what the model costs or has reported."""
        first, *others = objectives
        known = {**epoch.metrics, **self.assignment.costs}
        return (first.loss(epoch.score), *(other.loss(known.get(other.name)) for other in others))

    def broken_requirement(self, goal: Goal, requirements: Sequence[Requirement]) -> str | None:
        """Return the first requirement that the best epoch breaks, as a sentence; None for none, or without a score."""
        best = self.best(goal)
        return None if best is None else violation(requirements, {**best.metrics, **self.assignment.costs})

    def as_stopped(self) -> "TrialRecord":
        """Return the trial as it would be without the audit: what other trials and the sampler may know of it."""
        rung = self.audited_rung
        if rung is None:
            return self
        epochs = tuple(epoch for epoch in self.epochs if epoch.epoch <= rung)
        return replace(self, epochs=epochs, state=TrialState.PRUNED, reason=rung_reason(rung), audited_rung=None)


def rung_reason(epoch: int) -> str:
    """Return the reason of a trial that is stopped at the rung after ``epoch`` epochs."""
    return f"rung {epoch}"


def best_epoch(epochs: Sequence[EpochRecord], goal: Goal) -> EpochRecord | None:
    """Return the first of ``epochs`` with the best finite score; None when there is none."""
    finite = [epoch for epoch in epochs if float("-inf") < epoch.score < float("inf")]
    if not finite:
        return None
    return max(finite, key=lambda e: e.score) if goal == "maximize" else min(finite, key=lambda e: e.score)


class Decision(StrEnum):
    """What an executor does with a trial after an epoch."""

    CONTINUE = "CONTINUE"
    STOP = "STOP"


class TrialQueue(Protocol):
    """Where an executor gets its trials and leaves what they report.

    It writes to the ledger before it answers, so an executor can be killed at any moment.
    """

    def next(self) -> Assignment | None:
        """Return the next trial to run or continue; None when there is none left to start."""
        ...

    def report(self, number: int, report: EpochReport) -> Decision:
        """Record an epoch of a running trial and say whether it goes on."""
        ...

    def end(self, number: int, failure: Failure | None = None) -> None:
        """Record that a trial's run ended by itself (None) or by a failure; a no-op for a finished trial.

        After some failures the trial is handed out again by :meth:`next`.
        """
        ...

    @property
    def stop_error(self) -> SegbenchError | None:
        """Why the whole stage stops; then nothing more is handed out, and each trial is to be left as it is."""
        ...

    def record(self, number: int) -> TrialRecord:
        """Return what is known of a trial."""
        ...


Job = TypeVar("Job")


@dataclass(frozen=True, kw_only=True)
class StageWork(Generic[Job]):
    """What an executor runs of one stage."""

    queue: TrialQueue
    make_job: Callable[[Assignment], Job]
    """Completes an assignment to what a worker needs."""
    ahead: Callable[[], "StageWork[Job] | None"] = lambda: None
    """Returns what is known already of the next stage: for workers that would wait for this stage's last trials."""


class SweepObserver(Protocol):
    """Hears of what happens; decides nothing.

    Any object with these two methods is one. They are called in the process that called :func:`segbench.run`, one at a
    time; what they raise stops the sweep, which the same call continues.

    Examples:
        >>> class Best:
        ...     score = 0.0
        ...     def on_stage(self, stage, num_trials, max_epochs):
        ...         self.score = 0.0
        ...     def on_trial(self, record, stage):
        ...         self.score = max(self.score, record.last_score or 0.0)
    """

    def on_stage(self, stage: str, num_trials: int, max_epochs: int) -> None:
        """Take in that a stage begins; some of its trials may have run ahead of it.

        When a sweep is continued, :meth:`on_trial` is then called for each trial that was there before.

        Args:
            stage: ``search``, ``retrain`` or ``test``.
            num_trials: how many trials it has at most.
            max_epochs: how long they are at most.
        """
        ...

    def on_trial(self, record: TrialRecord, stage: str) -> None:
        """Take in that a trial started, reported an epoch, or ended.

        Args:
            record: all that is known of it now.
            stage: ``search``, ``retrain`` or ``test``.
        """
        ...
