"""Losses against their formulas in numpy, in float64."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from segbench.core.config import Loss, TrialConfig
from segbench.training.losses import build_loss, weigh_classes

LOSSES: tuple[Loss, ...] = ("ce", "dice", "focal", "ce+dice", "ce+focal", "dice+focal", "ce+dice+focal")
FREQUENCIES = torch.tensor([700.0, 200.0, 99.0, 1.0, 0.0])
K = 5


def batch(num_images: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(num_images, K, 6, 7, generator=generator, dtype=torch.float64)
    mask = torch.randint(0, K - 1, (num_images, 6, 7), generator=generator)
    mask[torch.rand(mask.shape, generator=generator) < 0.3] = 255
    mask[0, :4] = 255
    return logits.requires_grad_(), mask


def valid_log_p_and_truth(logits: Tensor, mask: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return log-probabilities (P, K) and classes (P,) of the valid pixels."""
    scores = logits.detach().numpy().transpose(0, 2, 3, 1).reshape(-1, K)
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    truth = mask.numpy().reshape(-1)
    return log_p[truth != 255], truth[truth != 255]


def reference(name: str, logits: Tensor, mask: Tensor) -> float:
    log_p, truth = valid_log_p_and_truth(logits, mask)
    log_p_true = log_p[np.arange(len(truth)), truth]
    if name == "ce":
        return float(-log_p_true.mean())
    if name == "focal":
        return float(-((1 - np.exp(log_p_true)) ** 2 * log_p_true).mean())
    one_hot = np.eye(K)[truth]
    overlap, size = (np.exp(log_p) * one_hot).sum(0), (np.exp(log_p) ** 2 + one_hot).sum(0)
    return float(np.mean([1 - 2 * overlap[k] / size[k] for k in range(K) if k in truth]))


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_equals_its_formula_over_the_valid_pixels(name: Loss) -> None:
    logits, mask = batch()
    value = build_loss(TrialConfig(loss=name), None)(logits, mask)
    expected = sum(reference(term, logits, mask) for term in name.split("+"))
    assert value.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_have_no_gradient_and_no_say(name: Loss) -> None:
    loss = build_loss(TrialConfig(loss=name, class_weights="inverse", label_smoothing=0.1), FREQUENCIES)
    logits, mask = batch()
    value = loss(logits, mask)
    (gradient,) = torch.autograd.grad(value, logits)
    ignored = (mask == 255).unsqueeze(1).expand_as(logits)
    assert (gradient[ignored] == 0).all()
    assert (gradient[~ignored] != 0).any()
    assert torch.equal(loss(torch.where(ignored, 9.0, logits), mask), value)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_a_valid_pixel_has_loss_zero_and_zero_gradients(name: Loss) -> None:
    loss = build_loss(TrialConfig(loss=name, class_weights="inverse", label_smoothing=0.1), FREQUENCIES)
    logits, mask = batch()
    value = loss(logits, torch.full_like(mask, 255))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradients_stay_finite_for_sure_predictions(name: Loss, gamma: float) -> None:
    mask = batch()[1]
    right = torch.zeros(3, K, 6, 7)
    right.scatter_(1, mask.where(mask != 255, 0).unsqueeze(1), 1.0)
    for sign in (1, -1):
        logits = (sign * 1e4 * right).requires_grad_()
        value = build_loss(TrialConfig(loss=name, focal_gamma=gamma), None)(logits, mask)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_value(name: Loss) -> None:
    loss = build_loss(TrialConfig(loss=name, class_weights="inverse-sqrt", label_smoothing=0.1), FREQUENCIES)
    logits, mask = batch()
    logits, mask = logits.detach()[1:2, :, :3, :3].clone().requires_grad_(), mask[1:2, :3, :3]
    assert torch.autograd.gradcheck(lambda x: loss(x, mask), logits)


def test_focal_without_gamma_is_cross_entropy() -> None:
    logits, mask = batch()
    focal = build_loss(TrialConfig(loss="focal", focal_gamma=0.0), None)
    assert focal(logits, mask).item() == pytest.approx(reference("ce", logits, mask), rel=1e-12)


def test_label_smoothing_is_that_of_torch() -> None:
    logits, mask = batch()
    value = build_loss(TrialConfig(label_smoothing=0.2), None)(logits, mask)
    expected = torch.nn.CrossEntropyLoss(ignore_index=255, label_smoothing=0.2)(logits, mask)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize(("kind", "exponent"), [("inverse", 1.0), ("inverse-sqrt", 0.5)])
def test_weighted_cross_entropy_is_the_mean_over_pixels_of_the_weighted_loss(kind: str, exponent: float) -> None:
    logits, mask = batch()
    config = TrialConfig(class_weights="inverse" if kind == "inverse" else "inverse-sqrt")
    log_p, truth = valid_log_p_and_truth(logits, mask)
    weights = weigh_classes(FREQUENCIES, exponent).double().numpy()
    expected = np.mean(-weights[truth] * log_p[np.arange(len(truth)), truth])
    assert build_loss(config, FREQUENCIES)(logits, mask).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_weights_follow_the_frequencies_and_average_one_over_pixels(exponent: float) -> None:
    weights = weigh_classes(FREQUENCIES, exponent)
    shares = FREQUENCIES / FREQUENCIES.sum()
    assert (weights * shares).sum().item() == pytest.approx(1, rel=1e-6)
    assert (weights[3] / weights[0]).item() == pytest.approx(700**exponent, rel=1e-5)
    assert weights[4] == 1, "a class that never occurs"
    torch.testing.assert_close(weigh_classes(1000 * FREQUENCIES, exponent), weights)
    torch.testing.assert_close(weigh_classes(torch.ones(K), exponent), torch.ones(K))


def test_class_weights_without_frequencies_are_refused() -> None:
    with pytest.raises(ValueError, match="class_weights='inverse' needs the frequencies"):
        build_loss(TrialConfig(class_weights="inverse"), None)


@pytest.mark.parametrize("name", ["ce", "focal", "ce+focal"])
def test_parts_weighted_by_their_valid_pixels_add_up_to_the_batch(name: Loss) -> None:
    loss = build_loss(TrialConfig(loss=name, class_weights="inverse", label_smoothing=0.1), FREQUENCIES)
    logits, mask = batch(4)
    valid = (mask != 255).sum()
    parts = [loss(logits[i : i + 2], mask[i : i + 2]) * (mask[i : i + 2] != 255).sum() / valid for i in (0, 2)]
    torch.testing.assert_close(sum(parts), loss(logits, mask), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(name: Loss, dtype: torch.dtype) -> None:
    loss = build_loss(TrialConfig(loss=name), None)
    logits, mask = batch()
    half = logits.detach().to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, mask)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(half.double(), mask).item(), rel=1e-5)
