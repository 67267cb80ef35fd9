"""The training function: ``for result in train(config, context)`` trains one epoch at a time."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from segbench.core.config import TrialConfig
from segbench.core.errors import CheckpointError, NonFiniteError, UserError
from segbench.core.records import EpochResult, Goal, TrainContext
from segbench.core.seeding import derive_seed
from segbench.data import SegmentationData, cache_folder, open_data
from segbench.training import checkpoint
from segbench.training.batches import Samples, epoch_batches
from segbench.training.learner import Learner
from segbench.training.metrics import as_confusion, group_rows, metrics_from_confusion
from segbench.training.sharing import compiled_pays
from segbench.training.switches import Switches, keep_compiled_code, switches_for
from segbench.training.validation import evaluate

_log = logging.getLogger(__name__)


def train(config: TrialConfig, context: TrainContext) -> Iterator[EpochResult]:
    """Train one model and yield after each epoch.

    Every random draw comes from (seed, epoch, sample index): the generators are seeded anew at the start of each
    epoch, so a state holds none, and a training that is continued from it gives the same numbers as one that never
    stopped (bit for bit on CPU).

    With ``train_on="train+val"`` nothing honest is left to validate on: only ``train/loss``, ``lr`` and the times
    are reported, there is no confusion matrix, and ``patience`` does not apply.

    Args:
        config: all settings.
        context: data, length, seed, device, and the state to continue from.

    Yields:
        Metrics of the epoch, the K x K confusion matrix of the validation split, and the ways to keep the state
        and the model (averaged weights if ``ema_decay`` is set).

    Raises:
        NonFiniteError: the loss of an epoch is NaN or infinite.
        CheckpointError: ``context.state`` belongs to other settings.
    """
    # --- data
    if context.data is None:
        raise UserError("training needs a data set; give `data:` in the sweep file (TrainContext.data)")
    data = open_data(context.data)
    device = torch.device(context.device)
    splits = (data.train, data.val) if context.train_on == "train+val" else (data.train,)
    samples = Samples(splits, data.lut, device)
    num_classes = len(data.groups)

    # --- what learns
    torch.manual_seed(derive_seed(context.seed, "weights"))
    steps_per_epoch = len(epoch_batches(len(samples), config.batch_size, context.seed, epoch=0))
    keep_compiled_code(cache_folder(context.data))
    pays = compiled_pays(
        context.sharing, config, num_classes, context.data.size, device, steps_per_epoch * context.max_epochs
    )
    learner = Learner(
        config,
        num_classes,
        samples.class_frequencies(num_classes) if config.class_weights != "none" else None,
        steps_per_epoch=steps_per_epoch,
        max_epochs=context.max_epochs,
        device=device,
        switches=choose_switches(config, device, context.state, pays),
    )
    patience = Patience(config.patience, context.goal)

    # --- continue
    if context.state is not None:
        learner.load_state_dict(context.state)
        patience.load_state_dict(context.state["patience"])

    for epoch in range(context.epoch, context.max_epochs):
        if patience.is_exhausted:
            return

        # --- one epoch; the host never waits for the device inside it
        started = time.perf_counter()
        torch.manual_seed(derive_seed(context.seed, "epoch", epoch))  # dropout, stochastic depth
        learner.model.train()
        loss_sum = torch.zeros((), device=device)
        num_images = 0
        with closing(samples.epoch(config, context.seed, epoch, batched=context.batched_augmentation)) as batches:
            for images, masks in batches:
                loss_sum += learner.step(images, masks) * len(images)
                num_images += len(images)
        metrics: dict[str, float] = {"train/loss": loss_sum.item() / num_images, "lr": learner.lr}
        check_finite(metrics["train/loss"], "train/loss", epoch)
        trained = time.perf_counter()

        # --- validation
        confusion = None
        if context.train_on == "train":
            validation = evaluate(
                learner.eval_model,
                data.val,
                data.lut,
                num_classes,
                batch_size=config.batch_size // config.accumulation_steps,
                switches=learner.switches,
                device=device,
                loss=learner.loss,
            )
            check_finite(validation.loss, "val/loss", epoch)
            metrics["val/loss"] = validation.loss
            metrics |= metrics_from_confusion(validation.by_label, data.lut, data.groups)
            confusion = as_confusion(group_rows(validation.by_label, data.lut))
            patience.update(metrics.get(context.metric))
        metrics["time/epoch_s"] = time.perf_counter() - started
        metrics["time/images_per_s"] = num_images / (trained - started)

        # --- the caller decides what to keep, and whether to go on
        def state() -> dict[str, Any]:
            return {
                **learner.state_dict(),
                "patience": patience.state_dict(),
                "switches": asdict(learner.switches),
            }

        def save_model(folder: Path, epoch: int = epoch, score: float | None = metrics.get(context.metric)) -> None:
            card = model_card(config, learner.switches, data, epoch + 1, context.metric, score)
            checkpoint.save_model(folder, learner.eval_model.state_dict(), card)

        yield EpochResult(metrics=metrics, confusion=confusion, state=state, save_model=save_model)


class Patience:
    """Counts epochs without a better score.

    Args:
        max_epochs: after so many the training ends; None: never.
        goal: direction of improvement.
    """

    def __init__(self, max_epochs: int | None, goal: Goal) -> None:
        self._max_epochs = max_epochs
        self._sign = 1.0 if goal == "maximize" else -1.0
        self._best = -math.inf
        self._num_epochs = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether training should end."""
        return self._max_epochs is not None and self._num_epochs >= self._max_epochs

    def update(self, score: float | None) -> None:
        """Take in an epoch's score; None (the metric is not reported) changes nothing."""
        if score is None:
            return
        if self._sign * score > self._best:
            self._best, self._num_epochs = self._sign * score, 0
        else:
            self._num_epochs += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {"best": self._best, "num_epochs": self._num_epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._best, self._num_epochs = state["best"], state["num_epochs"]


def choose_switches(
    config: TrialConfig, device: torch.device, state: Mapping[str, Any] | None, compiled_pays: bool = False
) -> Switches:
    """Return the switches of a training; one that is continued keeps those that it began with, and says so."""
    chosen = switches_for(config, device, compiled_pays)
    if state is None:
        return chosen
    try:
        kept = Switches(**state["switches"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            "the checkpoint is of another version of segbench; delete it to start this trial again"
        ) from error
    if kept != chosen:
        _log.warning("continuing with %s, as it began; this machine would choose %s", kept, chosen)
    return kept


def model_card(
    config: TrialConfig, switches: Switches, data: SegmentationData, epoch: int, metric: str, score: float | None
) -> dict[str, Any]:
    """Return what a model folder's ``config.json`` says: all that is needed to build the model and to use it."""
    return {
        "config": asdict(config),
        "switches": asdict(switches),
        "groups": list(data.groups),
        "colors": [list(color) for color in data.colors],
        "lut": data.lut.tolist(),
        "size": list(data.train.images.shape[1:3]),
        "epoch": epoch,
        "metric": metric or None,
        "score": score if score is not None and math.isfinite(score) else None,
    }


def check_finite(loss: float, name: str, epoch: int) -> None:
    """Raise NonFiniteError if ``loss`` of the epoch counted from 0 is NaN or infinite."""
    if not math.isfinite(loss):
        kind = "nan" if math.isnan(loss) else "inf"
        raise NonFiniteError(f"{kind}: {name} at epoch {epoch + 1}; a lower lr, clip_norm or a warm-up may help")
