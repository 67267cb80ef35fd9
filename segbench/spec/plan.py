"""What a sweep will cost, before anything runs: rungs, trials, epochs."""

from dataclasses import dataclass

from segbench.spec.schema import SweepSpec
from segbench.spec.space import Space


@dataclass(frozen=True)
class RungPlan:
    """A rung, and how many searched trials are expected to reach it."""

    epoch: int
    trials: float


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """Work of a sweep; *expected* means that each rung passes one trial in ``reduction_factor``."""

    trials: int
    """Searched trials; baselines come on top."""
    baselines: int
    max_epochs: int
    rungs: tuple[RungPlan, ...]
    full_trials: float
    """Searched trials expected to run to max_epochs."""
    search_epochs_expected: float
    search_epochs_worst: int
    """When no trial is stopped."""
    finalists: int
    """Configurations that are retrained: the best searched ones and the baselines."""
    retrain_trainings: int
    retrain_epochs: int
    """Over all retrainings, when none ends by patience."""
    checkpoints: int
    """Model folders that are left at the end: one per training, one per row of the leaderboard."""

    @property
    def epochs_expected(self) -> float:
        """Epochs of search and retraining."""
        return self.search_epochs_expected + self.retrain_epochs

    @property
    def epochs_worst(self) -> int:
        """Epochs of search and retraining when no trial is stopped."""
        return self.search_epochs_worst + self.retrain_epochs

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Return (what, how much), for printing."""
        rungs = [(f"trials reaching epoch {rung.epoch}", f"{rung.trials:.3g}") for rung in self.rungs]
        rows = [("search trials", f"{self.trials}"), ("baselines", f"{self.baselines}"), *rungs]
        rows += [
            (f"trials reaching epoch {self.max_epochs}", f"{self.full_trials:.3g}"),
            ("search epochs, expected", f"{self.search_epochs_expected:.0f}"),
            ("search epochs, at worst", f"{self.search_epochs_worst}"),
            ("retrainings", f"{self.retrain_trainings}"),
            ("retraining epochs", f"{self.retrain_epochs}"),
            ("epochs in all, expected", f"{self.epochs_expected:.0f}"),
            ("epochs in all, at worst", f"{self.epochs_worst}"),
            ("model folders kept", f"{self.checkpoints}"),
        ]
        return tuple(rows)


def plan_sweep(spec: SweepSpec, space: Space) -> SweepPlan:
    """Return the work that ``spec`` asks for.

    Baselines run at full length and are never stopped. A grid smaller than the budget ends the search early.
    """
    trials = spec.budget.trials
    if spec.search.algorithm == "grid":
        trials = min(trials, len(space.grid()))
    scheduler = spec.scheduler
    factor = scheduler.reduction_factor
    epochs = scheduler.rungs
    # at least one trial goes on at each rung: the best so far always passes
    reaching = [max(trials / factor**rung, 1.0) for rung in range(len(epochs) + 1)]
    ends = (*epochs, scheduler.max_epochs)
    lengths = [end - start for start, end in zip((0, *epochs), ends, strict=True)]
    searched = sum(count * length for count, length in zip(reaching, lengths, strict=True))
    stopped = [(before - after, epoch) for before, after, epoch in zip(reaching, reaching[1:], epochs, strict=False)]
    searched += scheduler.audit * sum(count * (scheduler.max_epochs - epoch) for count, epoch in stopped)
    baselines = len(spec.baselines)
    finalists = trainings = retrain_epochs = 0
    if spec.retrain is not None:
        finalists = min(spec.retrain.top_k, trials) + baselines
        trainings = finalists * spec.retrain.seeds
        retrain_epochs = trainings * (spec.retrain.epochs or scheduler.max_epochs)
    return SweepPlan(
        trials=trials,
        baselines=baselines,
        max_epochs=scheduler.max_epochs,
        rungs=tuple(RungPlan(epoch, count) for epoch, count in zip(epochs, reaching, strict=False)),
        full_trials=reaching[-1],
        search_epochs_expected=searched + baselines * scheduler.max_epochs,
        search_epochs_worst=(trials + baselines) * scheduler.max_epochs,
        finalists=finalists,
        retrain_trainings=trainings,
        retrain_epochs=retrain_epochs,
        checkpoints=trials + baselines + trainings + (finalists or trials + baselines),
    )
