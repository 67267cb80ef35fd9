"""Count pixels by (label id, predicted class) on the device; the ratios follow in metrics.py."""

import torch
from torch import Tensor

from segbench.training.metrics import NUM_LABELS

_PART = 1 << 18
"""Pixels counted at a time on a CPU: one image of 512x512, half a megabyte of codes."""


def predict_classes(logits: Tensor) -> Tensor:
    """Return the class of the largest logit, uint8 (N, H, W), from logits (N, K, H, W), K <= 255."""
    # max is seven times as fast as argmax on CPU for a dimension that is not the last, with the same result
    return logits.max(dim=1).indices.to(torch.uint8)


def count_pixels(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return int64 (35, K): pixels of each label id (row) that were predicted as each class (column).

    Args:
        prediction: class index 0..K-1, uint8, any shape.
        labels: Cityscapes label ids 0..33, and 34 for the licence plate; uint8, same shape and device.
        num_classes: K.

    The counts stay on the device. On CPU the small integer type makes counting fast, and so do parts of the batch that
    stay in the cache; on an accelerator ``bincount`` would wait for the device to learn its own output size,
    ``scatter_add_`` does not.
    """
    size = NUM_LABELS * num_classes
    if labels.device.type == "cpu":
        counts = torch.zeros(size, dtype=torch.int64)
        parts = (torch.split(tensor.flatten(), _PART) for tensor in (prediction, labels))
        for part, part_labels in zip(*parts, strict=True):
            counted = torch.bincount(_codes(part, part_labels, num_classes), minlength=size)
            if counted.numel() > size:
                raise ValueError(f"labels or predictions out of range (label ids 0..34, classes 0..{num_classes - 1})")
            counts += counted
    else:
        codes = _codes(prediction, labels, num_classes).flatten().long()
        counts = torch.zeros(size, dtype=torch.int64, device=codes.device)
        counts.scatter_add_(0, codes, torch.ones_like(codes))
    return counts.view(NUM_LABELS, num_classes)


def _codes(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return one number per pixel, int16, for its place in the flattened counts."""
    return labels.to(torch.int16).mul_(num_classes).add_(prediction)
