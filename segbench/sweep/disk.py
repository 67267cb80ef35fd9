"""How much disk a sweep can occupy at most, known before it starts."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from segbench.core.config import TrialConfig
from segbench.models import build_model
from segbench.spec.plan import plan_sweep
from segbench.spec.schema import SweepSpec
from segbench.spec.space import Space

BYTES = 4
"""Weights, their averages and the optimiser's moments are float32."""
SLOTS = 2
"""A running trial keeps its last two checkpoints..."""
WRITING = 1
"""...while it writes another one beside them."""
OVERHEAD = 1.05
"""Headers, buffers, ledgers, tables and pictures beside the weights."""
FIXED = 50e6
"""MLflow's database and Optuna's journal."""


@dataclass(frozen=True)
class DiskPlan:
    """Bytes at most, packed data set not included."""

    largest_model: int
    """Weights of the largest model in the space."""
    running: int
    """Checkpoints of running trials."""
    kept: int
    """Best weights, and MLflow's copies of those on the leaderboard."""

    @property
    def peak(self) -> int:
        """All at once."""
        return int((self.running + self.kept) * OVERHEAD + FIXED)


def plan_disk(spec: SweepSpec, space: Space, configs: Iterable[TrialConfig], num_classes: int) -> DiskPlan:
    """Return the peak of a sweep's folder.

    Args:
        spec: the sweep.
        space: its search space.
        configs: one configuration for each model that a trial can have.
        num_classes: K.
    """
    sizes = [(count_weights(config, num_classes) * BYTES, config) for config in configs]
    largest = max(size for size, _ in sizes)
    # weights, two moments (one for sgd counts as two), and the average where one is kept
    with_average = any(c.ema_decay is not None for _, c in sizes) or "ema_decay" in space
    checkpoint = largest * (4 if with_average else 3)
    concurrent = spec.budget.max_concurrent or max(1, int((os.cpu_count() or 1) / spec.resources.cpu))
    plan = plan_sweep(spec, space)
    best = plan.retrain_trainings or plan.trials + plan.baselines
    rows = plan.finalists or plan.trials + plan.baselines
    copies = rows if spec.mlflow.enabled else 0
    return DiskPlan(
        largest_model=largest,
        running=concurrent * checkpoint * (SLOTS + WRITING),
        kept=(best + copies + concurrent) * largest,
    )


def count_weights(config: TrialConfig, num_classes: int) -> int:
    """Return the number of values in a model's state, without allocating them."""
    with torch.device("meta"):
        model = build_model(config, num_classes)
    return sum(value.numel() for value in model.state_dict().values())
