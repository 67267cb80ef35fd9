"""Test images as a segmentation model sees them, drawn from a world whose true mIoU is known.

Each image has its own classes (rare ones are mostly absent), its own difficulty, and clustered errors: what makes the
pixels of an image anything but independent.
"""

import numpy as np
import numpy.typing as npt

SHARE = np.array([0.02, 0.35, 0.22, 0.06, 0.16, 0.10, 0.02, 0.07])
"""Of each class's pixels, where it is present."""
PRESENT = np.array([0.6, 1.0, 0.95, 0.9, 0.9, 0.85, 0.35, 0.7])
"""Share of images that have the class."""
SKILL = np.array([-0.3, 3.0, 1.8, 0.0, 2.0, 2.5, -0.5, 1.0])
"""Log-odds that a pixel is found, by class."""
NUM_PIXELS = 4096

Counts = npt.NDArray[np.int64]


def draw_images(rng: np.random.Generator, num_images: int, num_models: int = 1) -> list[Counts]:
    """Return (N, K, K) pixel counts of several equally good models on the same images."""
    num_classes = len(SHARE)
    is_there = rng.random((num_images, num_classes)) < PRESENT
    shares = rng.gamma(SHARE / PRESENT * 12, size=is_there.shape) * is_there
    truth = rng.multinomial(NUM_PIXELS, shares / shares.sum(axis=1, keepdims=True))
    difficulty = rng.normal(0, 0.7, (num_images, 1))
    return [_predict(rng, truth, difficulty) for _ in range(num_models)]


def true_miou(num_images: int = 400_000) -> float:
    """Return the mIoU on so many images that its error does not matter (about 0.0001)."""
    rng = np.random.default_rng(0)
    counts = sum(draw_images(rng, 20_000)[0].sum(axis=0) for _ in range(num_images // 20_000))
    total = np.asarray(counts)
    tp = total.diagonal()
    return float((tp / (total.sum(axis=0) + total.sum(axis=1) - tp)).mean())


def _predict(rng: np.random.Generator, truth: Counts, difficulty: npt.NDArray[np.float64]) -> Counts:
    found = 1 / (1 + np.exp(-(SKILL - difficulty + rng.normal(0, 0.6, truth.shape))))
    mistaken_for = np.tile(np.sqrt(SHARE), (len(SHARE), 1))
    np.fill_diagonal(mistaken_for, 0)
    mistaken_for /= mistaken_for.sum(axis=1, keepdims=True)
    chances = found[..., None] * np.eye(len(SHARE)) + (1 - found[..., None]) * mistaken_for
    return rng.multinomial(truth, chances)
