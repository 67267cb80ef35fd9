from pathlib import Path

import pytest
import torch
from transformers import ConvNextConfig, ConvNextForImageClassification

from segbench.core.config import TrialConfig
from segbench.core.errors import CheckpointError
from segbench.models import FAMILIES, build_model
from segbench.models.upernet import SIZES, PooledBatchNorm


def test_the_registry_lists_the_variants_of_the_module() -> None:
    assert tuple(SIZES) == FAMILIES["upernet"].variants


@pytest.mark.parametrize(
    ("variant", "millions"),
    [("convnext-atto", 3.4), ("convnext-tiny", 27.8), ("convnext-small", 49.5), ("convnext-base", 87.6)],
)
def test_encoders_have_the_sizes_of_the_paper(variant: str, millions: float) -> None:
    """ConvNeXt has 28.6, 50.2 and 88.6 million with its classifier of 1000 classes (atto, of timm, 3.7)."""
    with torch.device("meta"):
        model = build_model(TrialConfig(model="upernet", variant=variant), 19)
    assert sum(p.numel() for p in model.encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_a_pretrained_encoder_is_loaded(tmp_path: Path) -> None:
    atto = ConvNextConfig(depths=[2, 2, 6, 2], hidden_sizes=[40, 80, 160, 320])
    source = ConvNextForImageClassification(atto)
    source.save_pretrained(tmp_path)
    model = build_model(TrialConfig(model="upernet", pretrained=str(tmp_path)), 5)
    for name, tensor in source.convnext.encoder.state_dict().items():
        assert torch.equal(model.encoder.encoder.state_dict()[name], tensor), name
    assert model.training
    with pytest.raises(CheckpointError, match="does not fit variant=convnext-tiny"):
        build_model(TrialConfig(model="upernet", variant="convnext-tiny", pretrained=str(tmp_path)), 5)


def test_pooled_batch_norm_is_batch_norm_for_two_images_and_more() -> None:
    pooled, plain = PooledBatchNorm(3), torch.nn.BatchNorm2d(3)
    features = torch.randn(4, 3, 1, 1)
    assert torch.equal(pooled(features), plain(features))
    before = pooled.running_mean.clone()
    assert torch.equal(pooled(features[:1]), plain.eval()(features[:1]))
    assert torch.equal(pooled.running_mean, before)
