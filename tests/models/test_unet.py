from typing import Literal

import pytest
import torch
from torch import nn

from segbench.core.config import TrialConfig
from segbench.models import build_model
from segbench.models.unet import normalisation


def build(
    width: int = 4, depth: int = 2, norm: Literal["batch", "group", "none"] = "batch", dropout: float = 0.0
) -> nn.Module:
    torch.manual_seed(0)
    return build_model(TrialConfig(width=width, depth=depth, norm=norm, dropout=dropout), 3)


def test_a_full_size_unet_has_the_parameters_of_the_paper() -> None:
    """Ronneberger's network has 31.03 million with biases and without norms, for 1 input channel and 2 classes."""
    model = build(width=64, depth=4, norm="none")
    assert sum(p.numel() for p in model.parameters()) == 31_030_658 + 2 * 9 * 64 + 65


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 16), (31, 33)])
def test_any_size_works(norm: Literal["batch", "group", "none"], size: tuple[int, int]) -> None:
    model = build(depth=3, norm=norm).eval()
    assert model(torch.rand(1, 3, *size)).shape == (1, 3, *size)


def test_a_pixel_of_an_odd_image_sees_what_it_sees_in_a_larger_one() -> None:
    model = build(norm="none").eval()
    image = torch.rand(1, 3, 64, 64)
    far = model(image)[..., :20, :20]
    torch.testing.assert_close(model(image[..., :45, :51])[..., :20, :20], far, atol=1e-6, rtol=1e-5)


def test_activations_keep_their_size_without_a_norm() -> None:
    features = build(width=16, depth=4, norm="none").encoder(torch.randn(1, 3, 64, 64))
    for level in features:
        assert 0.1 < level.square().mean() < 10


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (16, 1), (64, 4), (24, 1)])
def test_group_norm_takes_sixteen_channels_a_group(channels: int, groups: int) -> None:
    layer = normalisation("group", channels)
    assert isinstance(layer, nn.GroupNorm)
    assert layer.num_groups == groups
