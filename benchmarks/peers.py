"""The peers' own ways to train: a plain loop, HuggingFace's Trainer, Lightning, segmentation_models_pytorch.

Import this module before anything that may import torchvision (transformers does).
"""

import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LR, WEIGHT_DECAY, CLIP_NORM = 1e-3, 0.01, 1.0
"""The same for all."""


def has(package: str) -> bool:
    """Whether a distribution is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def mend_torchvision() -> None:
    """Let torchvision be imported beside a CPU build of torch.

    The registry's torchvision is built for CUDA; without CUDA its library of operators does not load, and the
    import fails at the shapes that it registers for two of them. Declared here without kernels they satisfy it;
    transforms are made of torch's own operators.
    """
    global _operators
    if torch.version.cuda is None and _operators is None:
        _operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_operators: torch.library.Library | None = None
mend_torchvision()


class WithLoss(nn.Module):
    """A model of images with the interface of transformers' models: (images, labels) -> loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the mean cross-entropy over the pixels that are not 255."""
        return {"loss": F.cross_entropy(self.model(pixel_values), labels, ignore_index=255)}


def stock_model(config: Any, num_classes: int) -> nn.Module:
    """Return transformers' SegFormer, or for a UNet the same network as a plain module."""
    from transformers import SegformerForSemanticSegmentation

    from segbench.models import build_model

    model = build_model(config, num_classes)
    if config.model != "segformer":
        return WithLoss(model)
    return SegformerForSemanticSegmentation(model.config)


def smp_model(config: Any, num_classes: int) -> tuple[str, nn.Module]:
    """Return name and model of what comes nearest in segmentation_models_pytorch, without pretrained weights."""
    import segmentation_models_pytorch as smp

    kwargs = {"encoder_weights": None, "classes": num_classes}
    if config.model == "segformer":
        name = config.variant.replace("-", "_")
        return f"smp Segformer {name}", WithLoss(smp.Segformer(name, **kwargs))
    if config.width >= 64:  # full-resolution double convolutions, as in a UNet
        return "smp Unet vgg13_bn", WithLoss(smp.Unet("vgg13_bn", decoder_channels=(512, 256, 128, 64, 64), **kwargs))
    return "smp Unet resnet18", WithLoss(smp.Unet("resnet18", decoder_channels=(128, 64, 32, 16, 16), **kwargs))


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser as most scripts make it."""
    return torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)


class PlainLoop:
    """The training loop of a tutorial."""

    def __init__(self, model: nn.Module, device: str = "cpu", precision: str = "fp32") -> None:
        self.model = model.to(device).train()
        self.optimizer = adamw(self.model)
        self.autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")

    def step(self, images: Tensor, masks: Tensor) -> Tensor:
        """Make one step on normalised images and class masks."""
        with self.autocast:
            loss: Tensor = self.model(pixel_values=images, labels=masks)["loss"]
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        return loss.detach()


class StepClock:
    """Times a trainer's steps from the end of the first one, so that its set-up does not count."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.ends: list[float] = []

    def mark(self, is_edge: bool) -> None:
        """Take the end of a step; at the first and the last one the device is waited for."""
        if is_edge and self.device == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Time of all steps but the first."""
        return self.ends[-1] - self.ends[0]


def trainer_run(model: nn.Module, dataset: Any, steps: int, batch_size: int, **options: Any) -> Callable[[], float]:
    """Return a run of ``steps`` steps through HuggingFace's Trainer, which gives their seconds.

    Args:
        model: takes ``pixel_values`` and ``labels``, returns a mapping with ``loss``.
        dataset: of mappings with these keys.
        steps: optimiser steps; one more is made before them.
        batch_size: images a step.
        options: ``device``, ``precision``, and ``workers`` of the loader.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments

    device, precision, workers = options.get("device", "cpu"), options.get("precision", "fp32"), options.get("workers")

    class Marks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.mark(state.global_step in (1, steps + 1))

    arguments = TrainingArguments(
        output_dir=str(Path(gettempdir()) / "segbench-benchmarks" / "trainer"),
        use_cpu=device == "cpu",
        bf16=precision == "bf16",
        per_device_train_batch_size=batch_size,
        max_steps=steps + 1,
        learning_rate=LR,
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=CLIP_NORM,
        lr_scheduler_type="constant",
        dataloader_num_workers=workers or 0,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=dataset)
    trainer.callback_handler.callbacks = [
        callback for callback in trainer.callback_handler.callbacks if "Printer" not in type(callback).__name__
    ]
    clock = StepClock(device)
    trainer.add_callback(Marks())

    def run() -> float:
        clock.ends.clear()
        trainer.train()
        return clock.seconds

    return run


def lightning_run(model: nn.Module, batches: Sequence[Any], steps: int, **options: Any) -> Callable[[], float]:
    """Return a run of ``steps`` steps through Lightning's Trainer, which gives their seconds.

    Args:
        model: takes ``pixel_values`` and ``labels``, returns a mapping with ``loss``.
        batches: pairs of images and masks, at least ``steps + 1``.
        steps: optimiser steps; one more is made before them.
        options: ``device`` and ``precision``.
    """
    import logging
    import warnings

    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    device, precision = options.get("device", "cpu"), options.get("precision", "fp32")
    clock = StepClock(device)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, index: int) -> Tensor:
            loss: Tensor = self.model(pixel_values=batch[0], labels=batch[1])["loss"]
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return adamw(self.model)

    class Marks(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            clock.mark(trainer.global_step in (1, steps + 1))

    module = Module()

    def run() -> float:
        clock.ends.clear()
        trainer = lightning.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_steps=steps + 1,
            gradient_clip_val=CLIP_NORM,
            callbacks=[Marks()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
        return clock.seconds

    return run
