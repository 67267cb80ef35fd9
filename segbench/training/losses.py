"""Losses over the pixels that count: cross-entropy, Dice, focal, and their sums.

**What a value means.** A loss of a batch is a mean over its *valid* pixels: those whose mask is not 255. To split a
batch into parts (``accumulation_steps``), weight each part's loss by the part's share of the batch's valid pixels and
add:

    (loss(part_logits, part_mask) * valid_in_part / valid_in_batch).backward()

Cross-entropy (class weights included) and focal loss then add up to the whole batch's loss exactly; Dice, which is a
ratio of sums, becomes the average of the parts' Dice losses.

A batch without a valid pixel has loss 0 and zero gradients. Nothing here waits for the device.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from segbench.core.config import TrialConfig
from segbench.data.labels import IGNORE_INDEX

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (N, K, H, W) and mask (N, H, W), int64 with 0..K-1 or 255, to a scalar, float32 or wider."""


def build_loss(config: TrialConfig, class_frequencies: Tensor | None) -> LossFunction:
    """Return the loss that the configuration names; the terms of a sum weigh the same.

    Args:
        config: ``loss``, ``class_weights``, ``label_smoothing`` and ``focal_gamma`` are read. Class weights and
            smoothing apply to the cross-entropy only.
        class_frequencies: Pixels of each class in the training split, (K,), counts or shares, on the training device.
            May be None if ``class_weights`` is ``none``.

    Raises:
        ValueError: Class weights are asked for without frequencies.
    """
    weights = None
    if config.class_weights != "none":
        if class_frequencies is None:
            raise ValueError(f"class_weights={config.class_weights!r} needs the frequencies of the classes")
        exponent = 1.0 if config.class_weights == "inverse" else 0.5
        weights = weigh_classes(class_frequencies, exponent)

    def cross_entropy_term(logits: Tensor, mask: Tensor) -> Tensor:
        return cross_entropy(logits, mask, weights, config.label_smoothing)

    def focal_term(logits: Tensor, mask: Tensor) -> Tensor:
        return focal(logits, mask, config.focal_gamma)

    terms = {"ce": cross_entropy_term, "dice": dice, "focal": focal_term}
    chosen = [terms[name] for name in config.loss.split("+")]

    def loss(logits: Tensor, mask: Tensor) -> Tensor:
        # Under autocast logits come in half precision; sums over a million pixels need float32.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        with torch.autocast(logits.device.type, enabled=False):
            return torch.stack([term(logits, mask) for term in chosen]).sum()

    return loss


def weigh_classes(frequencies: Tensor, exponent: float) -> Tensor:
    """Return weights (K,), float32, proportional to ``frequency ** -exponent`` over the classes that occur.

    Their mean over the *pixels* of the training split is 1, so that a weighted cross-entropy has the size of an
    unweighted one (a mean of 1 over classes would shrink it where classes are rare, and with it the share of the
    cross-entropy in a sum of losses). A class that does not occur gets weight 1.
    """
    occurs = frequencies > 0
    shares = frequencies.double() / frequencies.sum().clamp(min=1e-12)
    weights = torch.where(occurs, shares.clamp(min=1e-12) ** -exponent, 0.0)
    weights = weights / (weights * shares).sum().clamp(min=1e-12)
    return torch.where(occurs, weights, 1.0).float()


def cross_entropy(logits: Tensor, mask: Tensor, weights: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean over valid pixels of ``-weight[class] * log p[class]``, smoothed as torch does it.

    The divisor is the number of valid pixels, not the sum of their weights as in torch: a pixel of a rare class
    counts the same whatever else is in its batch, and parts of a batch add up.
    """
    total = F.cross_entropy(
        logits,
        mask,
        weight=None if weights is None else weights.to(logits),
        ignore_index=IGNORE_INDEX,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return total / _count_valid(mask)


def focal(logits: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Return the mean over valid pixels of ``-(1 - p)**gamma * log p``, p of the true class (Lin et al. 2017).

    Without the paper's alpha.
    """
    minus_log_p = F.cross_entropy(logits, mask, ignore_index=IGNORE_INDEX, reduction="none")
    # Away from 0, where the power has no finite gradient for gamma below 1.
    one_minus_p = -torch.expm1(-minus_log_p)
    one_minus_p = one_minus_p.clamp(min=torch.finfo(logits.dtype).eps)
    return (one_minus_p**gamma * minus_log_p).sum() / _count_valid(mask)


def dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Return 1 minus the mean soft Dice coefficient of the classes that occur in the mask.

    The variant of Milletari et al. 2016 (V-Net), squares in the denominator: per class
    ``2 sum(p g) / (sum(p**2) + sum(g**2))`` over the valid pixels of the batch, p the softmax and g 0 or 1. A class
    without a pixel in the batch has no gradient in this form, and is left out.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    truth = mask.unsqueeze(1) == classes.view(1, -1, 1, 1)
    valid = (mask != IGNORE_INDEX).unsqueeze(1)
    probabilities = logits.softmax(dim=1) * valid
    pixels = truth.sum(dim=(0, 2, 3))
    overlap = (probabilities * truth).sum(dim=(0, 2, 3))
    size = probabilities.square().sum(dim=(0, 2, 3)) + pixels
    occurs = pixels > 0
    # A class that occurs has size >= 1; the clamp only keeps the others from dividing by 0.
    losses = (1 - 2 * overlap / size.clamp(min=1)) * occurs
    return losses.sum() / occurs.sum().clamp(min=1)


def _count_valid(mask: Tensor) -> Tensor:
    return (mask != IGNORE_INDEX).sum().clamp(min=1)
