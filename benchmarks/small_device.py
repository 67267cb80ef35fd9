"""The built-in training on a device that runs out of memory: for benchmarks/faults.py."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.records import EpochResult, TrainContext
from segbench.models.unet import UNet
from segbench.training.loop import train as train_built_in

DATA = DataConfig(size=(32, 64), num_images=(16, 4, 4))
FORWARD = UNet.forward


def train(config: Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """Train; from epoch 3 on at most ``config["room"]`` images fit at a time, as if a neighbour took the memory.

    The allocator's refusal is the only fake. Every epoch that is begun leaves a line in ``trained``.
    """
    assert context.output is not None
    log = Path(context.output) / "trained"
    log.parent.mkdir(parents=True, exist_ok=True)
    settings = {key: value for key, value in config.items() if key != "room"}
    results = train_built_in(TrialConfig(**settings), replace(context, data=DATA))
    for epoch in range(context.epoch + 1, context.max_epochs + 1):
        with log.open("a") as file:
            file.write(f"{epoch}\n")
        room = config["room"] if epoch >= 3 else config["batch_size"]

        def forward(self: UNet, image: torch.Tensor, room: int = room) -> torch.Tensor:
            if image.shape[0] > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return FORWARD(self, image)

        UNet.forward = forward  # type: ignore[method-assign, assignment]
        yield next(results)
