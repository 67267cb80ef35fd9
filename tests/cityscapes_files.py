"""Writes small data sets in the Cityscapes layout."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_pair(
    root: Path, folder: str, city: str, frame: int, labels: np.ndarray | None = None, size=(24, 32)
) -> tuple[Path, Path]:
    """Write an image of noise and its label map (by default: road below sky) in the Cityscapes layout."""
    if labels is None:
        labels = np.full(size, 23, np.uint8)
        labels[size[0] // 2 :] = 7
    name = f"{city}_000000_{frame:06d}"
    image = root / "leftImg8bit" / folder / city / f"{name}_leftImg8bit.png"
    label = root / "gtFine" / folder / city / f"{name}_gtFine_labelIds.png"
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(frame).integers(0, 256, (*labels.shape, 3), np.uint8)
    Image.fromarray(noise).save(image)
    Image.fromarray(labels).save(label)
    return image, label
