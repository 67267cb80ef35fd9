"""Everything that changes while a model learns, and one optimiser step."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segbench.core.config import TrialConfig
from segbench.core.errors import CheckpointError
from segbench.models import build_model
from segbench.training.batches import count_valid, normalise
from segbench.training.ema import AveragedModel
from segbench.training.losses import build_loss
from segbench.training.optim import build_optimizer, build_schedule
from segbench.training.switches import Switches, switches_for


class Learner:
    """Model, averaged model, loss, optimiser, schedule and gradient scaler of one training.

    Args:
        config: settings; model weights are drawn from torch's global generator.
        num_classes: K.
        class_frequencies: float32 (K,), for class weights; None if ``config`` asks for none.
        steps_per_epoch: optimiser steps an epoch.
        max_epochs: length of the schedule.
        device: where the training runs.
        switches: those that the training began with; None: it begins here.
    """

    def __init__(
        self,
        config: TrialConfig,
        num_classes: int,
        class_frequencies: Tensor | None,
        steps_per_epoch: int,
        max_epochs: int,
        device: torch.device,
        switches: Switches | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self.switches = switches or switches_for(config, device)
        self.model = self.switches.place(build_model(config, num_classes), device)
        self._forward: Callable[[Tensor], Tensor] = self.model
        if self.switches.compile:
            torch.compiler.reset()  # a worker's earlier models count towards the limit of recompilations
            self._forward = torch.compile(self.model, dynamic=False)
        self.ema = AveragedModel(self.model, config.ema_decay) if config.ema_decay is not None else None
        self.loss = build_loss(config, class_frequencies)
        self.optimizer = build_optimizer(self.model, config)
        self.schedule = build_schedule(self.optimizer, config, steps_per_epoch, max_epochs)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.switches.precision == "fp16")

    @property
    def eval_model(self) -> nn.Module:
        """The module that is validated and exported: the average where there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def lr(self) -> float:
        """Learning rate of the encoder at the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, images: Tensor, masks: Tensor) -> Tensor:
        """Make one optimiser step and return the batch's loss, a scalar that stays on the device.

        The batch goes through the model in ``accumulation_steps`` parts. Each part's loss counts by its share of
        the pixels that are not ignored, so that the sum is the mean over all pixels of the batch.

        Args:
            images: (N, 3, H, W) float32 in 0..1.
            masks: (N, H, W) int64, ignored pixels 255.
        """
        part_size = self.config.batch_size // self.config.accumulation_steps
        images = normalise(images).contiguous(memory_format=self.switches.memory_format)
        num_valid = count_valid(masks).clamp(min=1)
        total = torch.zeros((), device=self.device)
        for part, mask in zip(torch.split(images, part_size), torch.split(masks, part_size), strict=True):
            with self.switches.autocast(self.device):
                # compiled for one shape: the last, smaller batch of an epoch is not worth compiling
                logits = (self._forward if len(part) == part_size else self.model)(part)
            loss = self.loss(logits.float(), mask) * (count_valid(mask) / num_valid)
            torch.autograd.backward(self.scaler.scale(loss))
            total += loss.detach()
        self._update()
        return total

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)  # with fp16 this waits for the device: a step with overflow is left out
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        if self.ema is not None:
            self.ema.update(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue; the tensors are those in use, so save or copy them at once."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            CheckpointError: the state belongs to a training with other settings.
        """
        try:
            self.model.load_state_dict(state["model"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.scaler.load_state_dict(state["scaler"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint belongs to a training with other settings ({' '.join(str(error).split())[:200]}); "
                "delete it to start this trial again"
            ) from error
        self._restore_memory_format()

    def _restore_memory_format(self) -> None:
        """Lay out the optimiser's tensors as their parameters: another layout may round otherwise."""
        for parameter, values in self.optimizer.state.items():
            for name, value in values.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
