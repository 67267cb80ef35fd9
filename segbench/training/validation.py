"""Score a model on a whole split: one confusion matrix, one mean loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segbench.data import Split
from segbench.training.batches import count_valid, normalise, split_batches
from segbench.training.confusion import count_pixels, predict_classes
from segbench.training.metrics import NUM_LABELS, Counts
from segbench.training.switches import Switches


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of one pass over a split."""

    by_label: Counts
    """(35, K) pixel counts, row: label id, column: predicted class."""
    loss: float
    """Mean over the pixels that are not ignored; NaN if no loss was given."""


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: Split,
    lut: npt.NDArray[np.uint8],
    num_classes: int,
    *,
    batch_size: int,
    switches: Switches,
    device: torch.device,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Evaluation:
    """Return the counts (and the loss) of ``model`` over ``split``; the device is waited for once, at the end.

    Args:
        model: put into eval mode; on ``device``.
        split: images and label ids.
        lut: uint8[256], label id -> class, or 255; for the loss.
        num_classes: K.
        batch_size: images at a time.
        switches: those of the training.
        device: where ``model`` is.
        loss: of (logits, mask).
    """
    model.eval()
    classes = torch.from_numpy(lut.astype(np.int64)).to(device)
    counts = torch.zeros(NUM_LABELS, num_classes, dtype=torch.int64, device=device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    num_valid = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in split_batches(split, batch_size, device):
        with switches.autocast(device):
            logits = model(normalise(images))
        counts += count_pixels(predict_classes(logits), labels, num_classes)
        if loss is not None:
            masks = classes[labels.long()]
            valid = count_valid(masks)
            loss_sum += loss(logits.float(), masks) * valid
            num_valid += valid
    mean_loss = (loss_sum / num_valid.clamp(min=1)).item() if loss is not None else math.nan
    return Evaluation(by_label=counts.cpu().numpy(), loss=mean_loss)
