"""Optimisers and learning-rate schedules; steps are optimiser steps, and stay inside ``training``."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from segbench.core.config import TrialConfig

ONE_CYCLE_RISE = 0.3
"""Share of a one-cycle schedule in which the rate rises, if no warm-up is given."""
ONE_CYCLE_START = 1 / 25
"""Learning rate at the start of a one-cycle schedule, relative to the peak."""


def build_optimizer(model: nn.Module, config: TrialConfig) -> Optimizer:
    """Return the optimiser over all parameters of a model that is already on its device.

    Parameters outside ``model.encoder`` learn at ``lr * head_lr_multiplier``. Weight decay applies to parameters of
    two or more dimensions: not to biases, norms and layer scales. The groups are named ``encoder``,
    ``encoder-no-decay``, ``head`` and ``head-no-decay``; empty ones are left out. The kernels are torch's fused ones.
    """
    encoder = {id(parameter) for parameter in model.get_submodule("encoder").parameters()}
    groups = []
    for part, lr in (("encoder", config.lr), ("head", config.lr * config.head_lr_multiplier)):
        parameters = [p for p in model.parameters() if (id(p) in encoder) == (part == "encoder")]
        groups += [
            _group(part, (p for p in parameters if p.ndim >= 2), lr, config.weight_decay),
            _group(f"{part}-no-decay", (p for p in parameters if p.ndim < 2), lr, 0.0),
        ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)
    nesterov = config.momentum > 0
    return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=True)


def build_schedule(optimizer: Optimizer, config: TrialConfig, steps_per_epoch: int, max_epochs: int) -> LambdaLR:
    """Return the schedule of a training of ``max_epochs``; call ``step()`` after each optimiser step.

    Its state is the number of steps done and the rates: :func:`lr_factor` gives the same rate for the same step, so a
    loaded state goes on exactly. A training that stops early follows the schedule of the full length up to there.
    """
    total_steps = steps_per_epoch * max_epochs
    warmup_steps = steps_per_epoch * config.warmup_epochs

    def factor(step: int) -> float:
        return lr_factor(
            step,
            schedule=config.schedule,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            poly_power=config.poly_power,
        )

    return LambdaLR(optimizer, factor)


def lr_factor(
    step: int, *, schedule: str, total_steps: int, warmup_steps: float = 0.0, poly_power: float = 1.0
) -> float:
    """Return the learning rate of a step relative to the peak, in [0, 1].

    Constant, poly and cosine begin with a linear warm-up that ends at 1 and reach 0 (constant: stay at 1) at
    ``total_steps``. One-cycle rises along a cosine from 1/25 over the warm-up, or the first 30 % without one, and
    falls along a cosine to 0; momentum stays as it is.

    Args:
        step: Optimiser steps already done: 0 for the first.
        schedule: ``constant``, ``poly``, ``cosine`` or ``one-cycle``.
        total_steps: Steps of the whole training.
        warmup_steps: Length of the warm-up; need not be an integer.
        poly_power: Exponent of ``poly``.
    """
    rise = warmup_steps
    if schedule == "one-cycle":
        rise = warmup_steps or ONE_CYCLE_RISE * total_steps
        if step < rise:
            return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * (1 - _half_cosine(step / rise))
    elif step < rise:
        return min(1.0, (step + 1) / rise)
    progress = min(1.0, (step - rise) / max(1.0, total_steps - rise))
    if schedule == "constant":
        return 1.0
    if schedule == "poly":
        return float((1 - progress) ** poly_power)
    return _half_cosine(progress)


def _half_cosine(progress: float) -> float:
    """Fall from 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * progress)) / 2


def _group(name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> dict[str, object]:
    return {"name": name, "params": list(parameters), "lr": lr, "weight_decay": weight_decay}
