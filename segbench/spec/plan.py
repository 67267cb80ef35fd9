"""What a sweep costs at most, before anything runs: trials, epochs. What is expected: segbench/search/forecast.py."""

from dataclasses import dataclass

from segbench.spec.schema import SweepSpec
from segbench.spec.space import Space


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """Work of a sweep, as far as it is known exactly."""

    trials: int
    """Searched trials; baselines come on top."""
    baselines: int
    max_epochs: int
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
    def epochs_worst(self) -> int:
        """Epochs of search and retraining when no trial is stopped."""
        return self.search_epochs_worst + self.retrain_epochs

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Return (what, how much), for printing."""
        return (
            ("search trials", f"{self.trials}"),
            ("baselines", f"{self.baselines}"),
            ("search epochs, at worst", f"{self.search_epochs_worst}"),
            ("retrainings", f"{self.retrain_trainings}"),
            ("retraining epochs", f"{self.retrain_epochs}"),
            ("epochs in all, at worst", f"{self.epochs_worst}"),
            ("model folders kept", f"{self.checkpoints}"),
        )


def plan_sweep(spec: SweepSpec, space: Space) -> SweepPlan:
    """Return the work that ``spec`` asks for.

    Baselines run at full length and are never stopped. A grid smaller than the budget ends the search early.
    """
    trials = spec.budget.trials
    if spec.search.algorithm == "grid":
        trials = min(trials, len(space.grid()))
    scheduler = spec.scheduler
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
        search_epochs_worst=(trials + baselines) * scheduler.max_epochs,
        finalists=finalists,
        retrain_trainings=trainings,
        retrain_epochs=retrain_epochs,
        checkpoints=trials + baselines + trainings + (finalists or trials + baselines),
    )
