"""How many epochs a search will take, before it runs: this very scheduler over learning curves as they might be.

What passes a rung depends on the order in which trials come, so there is no formula: the first ones pass, and a sampler
that improves sends more than their share on. The rules are the real ones (:func:`segbench.search.rungs.stopper_for`);
the curves are made up, of many kinds, because nobody knows those of a search that has not run. docs/method.md says how
often the interval held.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from statistics import NormalDist, fmean

from segbench.core.records import Assignment, EpochRecord, TrialRecord
from segbench.core.seeding import derive_seed
from segbench.search.rungs import Stopper, is_audited, stopper_for
from segbench.spec.schema import Scheduler, SweepSpec

NUM_RUNS = 40
"""So many searches are simulated, each in a landscape of its own; half as many where trials wait: that takes longer."""
MAX_TRIALS = 120
"""At most so many trials of each, half as many where they wait; later ones are as long as those of the second half."""
MAX_REPORTS = 12
"""At most so many reports of a trial, where the rule asks after each epoch."""
SHARE = 0.8
"""Of the simulated searches between the ends of an interval."""
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """What half of the simulated searches stay below, and between which ends ``SHARE`` of them lie."""

    low: float
    median: float
    high: float

    def plus(self, epochs: float) -> "Interval":
        """Return the interval with what is known exactly on top."""
        return Interval(self.low + epochs, self.median + epochs, self.high + epochs)

    def __str__(self) -> str:
        """Return ``335 (210 to 480)``, or the one number that it is."""
        low, median, high = (f"{value:.3g}" if value < 10 else f"{value:.0f}" for value in self._ends())
        return median if low == high else f"{median} ({low} to {high})"

    def _ends(self) -> tuple[float, float, float]:
        return self.low, self.median, self.high


@dataclass(frozen=True)
class Forecast:
    """What a search is expected to do."""

    epochs: Interval
    """Of all its trials, baselines included."""
    reaching: tuple[tuple[int, Interval], ...]
    """For each rung, and the full length, its epoch and how many searched trials come so far."""

    def rows(self, retrain_epochs: int) -> tuple[tuple[str, str], ...]:
        """Return (what, how much), for printing.

        Args:
            retrain_epochs: epochs of all retrainings.
        """
        rungs = [(f"trials reaching epoch {epoch}, expected", f"{count}") for epoch, count in self.reaching]
        rows = [*rungs, ("search epochs, expected", f"{self.epochs}")]
        rows.append(("epochs in all, expected", f"{self.epochs.plus(retrain_epochs)}"))
        return tuple(rows)


@dataclass(frozen=True)
class Landscape:
    """One way in which scores may depend on configurations; in units of the spread of random ones' final scores."""

    early: float
    """Correlation between the score after one epoch and at the end; the rest of a curve's way crosses others."""
    noise: float
    """Of a score at one epoch."""
    rise: float
    """Of all curves from first to last epoch."""
    speed: float
    """Of that rise: all but ``exp(-speed)`` of it happens."""
    gain: float
    """How fast the sampler improves: trial n is as good as the best of ``(n / startup) ** gain`` random ones."""
    plateau: float
    """Share of random configurations that are all equally the best."""
    diverging: float
    """Share of random configurations that break down in their first epoch."""

    @classmethod
    def draw(cls, random: Random) -> "Landscape":
        """Return any of them: from curves that tell everything at once to those that tell nothing before the end."""
        return cls(
            early=random.uniform(0.1, 0.8),
            noise=math.exp(random.uniform(math.log(0.01), math.log(0.5))),
            rise=random.uniform(0.5, 6),
            speed=math.exp(random.uniform(math.log(2), math.log(20))),
            gain=max(0.0, random.uniform(-1, 3)),
            plateau=max(0.0, random.uniform(-0.2, 0.2)),
            diverging=max(0.0, random.uniform(-0.3, 0.4)),
        )


@dataclass(frozen=True)
class Run:
    """The lengths of the trials of one simulated search, in epochs, in the order of their numbers."""

    baselines: Sequence[int]
    searched: Sequence[int]


def forecast(spec: SweepSpec, num_trials: int, num_workers: int | None = None) -> Forecast:
    """Return how many epochs the search of ``spec`` will take; a limit of ``budget.trial_hours`` is not looked at.

    Args:
        spec: the sweep.
        num_trials: searched trials; baselines come on top.
        num_workers: trials at a time; None: as on this machine.
    """
    workers = num_workers or workers_of(spec)
    share = 2 if spec.scheduler.pauses else 1
    runs = []
    for index in range(NUM_RUNS // share):
        random = Random(derive_seed(spec.search.seed, "forecast", index))
        count = min(num_trials, MAX_TRIALS // share)
        runs.append(Search(spec, count, workers, Landscape.draw(random), random).run())
    totals = [sum(run.baselines) + _whole(run.searched, num_trials) for run in runs]
    reaching = []
    for epoch in (*spec.scheduler.rungs, spec.scheduler.max_epochs):
        counts = [_whole([length >= epoch for length in run.searched], num_trials) for run in runs]
        reaching.append((epoch, _interval(counts)))
    return Forecast(_interval(totals), tuple(reaching))


def workers_of(spec: SweepSpec) -> int:
    """Return how many trials of a sweep run at a time, as far as this machine tells."""
    return spec.budget.max_concurrent or max(1, int((os.cpu_count() or 1) / spec.resources.cpu))


def _whole(lengths: Sequence[float], num_trials: int) -> float:
    """Return the sum over all trials, of which the first ``len(lengths)`` were simulated."""
    late = lengths[len(lengths) // 2 :]
    return sum(lengths) + (num_trials - len(lengths)) * (fmean(late) if late else 0.0)


def _interval(values: Sequence[float]) -> Interval:
    ascending = sorted(values)
    tail = (1 - SHARE) / 2
    low, median, high = (ascending[round(share * (len(ascending) - 1))] for share in (tail, 0.5, 1 - tail))
    return Interval(low, median, high)


class Search:
    """One simulated search: workers with virtual time, real rules, made-up curves.

    Args:
        spec: the sweep.
        num_trials: searched trials.
        num_workers: trials at a time.
        landscape: what the curves are like.
        random: draws everything.
    """

    def __init__(
        self, spec: SweepSpec, num_trials: int, num_workers: int, landscape: Landscape, random: Random
    ) -> None:
        self._spec = spec
        self._scheduler = spec.scheduler
        self._num_trials = num_trials
        self._num_workers = num_workers
        self._landscape = landscape
        self._random = random
        self._stopper: Stopper = stopper_for(spec.scheduler, "maximize", spec.search.seed)
        self._epochs = report_epochs(spec.scheduler)
        self._num_ended = 0
        self._records: list[TrialRecord] = []
        self._lengths: list[int] = []
        self._curves: list[Curve] = []
        self._waiting: set[int] = set()
        self._events: list[tuple[float, int]] = []
        """Of running trials: when each reports next, and its number."""

    def run(self) -> Run:
        """Run all trials."""
        self._fill(0.0)
        while self._events:
            now, number = heappop(self._events)
            if self._report(number):
                self._go_on(number, now)
            self._fill(now)
        count = len(self._spec.baselines)
        return Run(self._lengths[:count], self._lengths[count:])

    def _fill(self, now: float) -> None:
        """Give free workers the trial that was promoted, or a new one."""
        while len(self._events) < self._num_workers:
            waiting = [self._records[number] for number in sorted(self._waiting)]
            number = self._stopper.promoted(waiting) if waiting else None
            if number is not None:
                self._waiting.discard(number)
            elif len(self._records) < self._num_trials + len(self._spec.baselines):
                number = self._begin()
            else:
                return
            self._go_on(number, now)

    def _begin(self) -> int:
        number = len(self._records)
        self._records.append(TrialRecord(assignment=_assignment(number, number < len(self._spec.baselines))))
        self._lengths.append(0)
        self._curves.append(Curve.draw(self._landscape, self._power(), self._spec, self._random))
        return number

    def _power(self) -> float:
        """Return the exponent ``a`` of the next trial's quality ``u ** (1 / a)``, u uniform: 1 is a random one."""
        search = self._spec.search
        is_blind = search.algorithm in ("random", "grid", "qmc") or self._num_ended < search.startup_trials
        if is_blind or len(self._records) < len(self._spec.baselines):
            return 1.0
        power: float = max(1.0, self._num_ended / max(search.startup_trials, 1)) ** self._landscape.gain
        return power

    def _go_on(self, number: int, now: float) -> None:
        """Let a trial train up to its next report."""
        left = self._next_epoch(number) - self._lengths[number]
        heappush(self._events, (now + left * self._curves[number].epoch_s, number))

    def _next_epoch(self, number: int) -> int:
        done, end = self._lengths[number], self._curves[number].end
        return min(end, next((epoch for epoch in self._epochs if epoch > done), end))

    def _report(self, number: int) -> bool:
        """Take in a trial's next report and say whether it goes on."""
        epoch, curve = self._next_epoch(number), self._curves[number]
        self._lengths[number] = epoch
        if not curve.is_diverging:
            score = curve.score(epoch, self._scheduler.max_epochs, self._landscape, self._random)
            record = self._records[number]
            reported = EpochRecord(epoch=epoch, score=score, metrics={})
            record = TrialRecord(assignment=record.assignment, epochs=(*record.epochs, reported))
            self._records[number] = record
            self._stopper.enter(record)
            if epoch < curve.end and (record.assignment.origin == "baseline" or self._stopper.passes(record)):
                return True
            if epoch < curve.end and self._stopper.pauses:
                self._waiting.add(number)
            elif epoch < curve.end and is_audited(self._scheduler, self._spec.search.seed, number):
                self._lengths[number] = curve.end
        self._num_ended += 1
        return False


@dataclass(frozen=True)
class Curve:
    """One trial's made-up training."""

    final: float
    """Where it leads, in standard deviations of random configurations."""
    early: float
    """Where it seems to lead at first."""
    end: int
    """Epochs until it ends by itself."""
    epoch_s: float
    """How long an epoch takes, relative to others."""
    is_diverging: bool

    @classmethod
    def draw(cls, landscape: Landscape, power: float, spec: SweepSpec, random: Random) -> "Curve":
        """Return the curve of a configuration whose quality is ``u ** (1 / power)`` for a uniform u."""
        u = random.random()
        is_diverging = random.random() < landscape.diverging / power
        quality = min(u ** (1 / power), 1 - landscape.plateau)
        end = spec.scheduler.max_epochs
        if spec.training.patience is not None:
            end = min(end, math.ceil(random.uniform(0.2, 1.0) * end) + spec.training.patience)
        return cls(
            final=_normal(quality),
            early=_normal(random.random() ** (1 / math.sqrt(power))),
            end=1 if is_diverging else end,
            epoch_s=math.exp(random.gauss(0, 0.3)),
            is_diverging=is_diverging,
        )

    def score(self, epoch: int, max_epochs: int, landscape: Landscape, random: Random) -> float:
        """Return the score after an epoch."""
        passed = math.log(epoch) / math.log(max_epochs) if max_epochs > 1 else 1.0
        told = landscape.early + (1 - landscape.early) * passed
        level = told * self.final + math.sqrt(1 - told**2) * self.early
        risen = landscape.rise * (1 - math.exp(-landscape.speed * epoch / max_epochs))
        return level + risen + landscape.noise * random.gauss(0, 1)


def _normal(quantile: float) -> float:
    """Return the value at a quantile, none further out than one in ten thousand."""
    return _NORMAL.inv_cdf(min(max(quantile, 1e-4), 1 - 1e-4))


def _assignment(number: int, is_baseline: bool) -> Assignment:
    return Assignment(
        number=number,
        name="",
        origin="baseline" if is_baseline else "search",
        params={},
        config={},
        seed=0,
        max_epochs=1,
    )


def report_epochs(scheduler: Scheduler) -> tuple[int, ...]:
    """Return the epochs after which a rule is asked, at most ``MAX_REPORTS`` where it is asked after each."""
    if scheduler.type != "median":
        return scheduler.rungs
    every = range(scheduler.first_rung, scheduler.max_epochs)
    return tuple(every[:: max(1, math.ceil(len(every) / MAX_REPORTS))])
