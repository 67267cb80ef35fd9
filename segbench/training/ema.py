"""A running average of the weights, used for validation and for the exported model."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedModel:
    """Exponential moving average of a module's parameters and floating-point buffers.

    In the first steps the decay is ``(1 + n) / (10 + n)`` after n updates where that is smaller, so that the
    random start weights are forgotten in short trainings too.

    Args:
        model: the module that is trained; it is copied.
        decay: share of the average that stays at each update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False).eval()
        self._decay = decay
        self._num_updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights of ``model``."""
        decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
        self._num_updates += 1
        averages, values = self.module.state_dict(), model.state_dict()
        floats = [name for name, value in values.items() if value.is_floating_point()]
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average([averages[n] for n in floats], [values[n] for n in floats], None)
        for name in values.keys() - set(floats):  # counters of batch norm
            averages[name].copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of updates."""
        return {"weights": self.module.state_dict(), "num_updates": self._num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.module.load_state_dict(state["weights"])
        self._num_updates = state["num_updates"]
