"""Pretrained weights: what is loaded, what is initialised anew, and what is refused."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
)

from segbench.core.config import TrialConfig
from segbench.core.errors import CheckpointError
from segbench.models import build_model, check_config


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder pretrained on images, as nvidia/mit-b0 is one; stored in half precision."""
    folder = tmp_path_factory.mktemp("mit-b0")
    torch.manual_seed(7)
    SegformerForImageClassification(SegformerConfig(num_labels=10)).half().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole SegFormer for 5 classes."""
    folder = tmp_path_factory.mktemp("segformer-b0")
    torch.manual_seed(8)
    SegformerForSemanticSegmentation(SegformerConfig(num_labels=5)).save_pretrained(folder)
    return folder


def build(folder: Path | str, seed: int = 0, num_classes: int = 5, variant: str | None = "mit-b0") -> nn.Module:
    torch.manual_seed(seed)
    config = TrialConfig(model="segformer", variant=variant, pretrained=str(folder), dropout=0.25)
    return build_model(config, num_classes)


def test_encoder_weights_are_loaded_in_float32_and_the_head_is_new(classifier: Path) -> None:
    model, other = build(classifier, seed=0), build(classifier, seed=1)
    source = SegformerForImageClassification.from_pretrained(classifier, dtype=torch.float32)
    for name, tensor in source.segformer.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor), name
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not torch.equal(model.decode_head.classifier.weight, other.decode_head.classifier.weight)
    assert model.training
    assert model.decode_head.dropout.p == 0.25
    assert torch.equal(model.decode_head.batch_norm.running_var, torch.ones(256))


def test_the_same_seed_gives_the_same_new_head(classifier: Path) -> None:
    first, second = build(classifier).state_dict(), build(classifier).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_whole_model_is_loaded_unchanged(segmenter: Path) -> None:
    library = SegformerForSemanticSegmentation.from_pretrained(segmenter).state_dict()
    ours = build(segmenter).state_dict()
    assert library.keys() == ours.keys()
    assert all(torch.equal(library[name], ours[name]) for name in library)


def test_another_number_of_classes_renews_the_classifier_only(segmenter: Path) -> None:
    library = SegformerForSemanticSegmentation.from_pretrained(segmenter).state_dict()
    ours = build(segmenter, num_classes=8).state_dict()
    changed = {name for name in ours if ours[name].shape != library[name].shape}
    assert changed == {"decode_head.classifier.weight", "decode_head.classifier.bias"}
    assert all(torch.equal(library[name], ours[name]) for name in library if name not in changed)
    assert ours["decode_head.classifier.weight"].isfinite().all()
    assert ours["decode_head.classifier.weight"].std() > 0


def test_a_trained_model_is_rebuilt_without_its_pretrained_weights(segmenter: Path) -> None:
    config = TrialConfig(model="segformer", pretrained=str(segmenter))
    trained = build_model(config, 5)
    rebuilt = build_model(replace(config, pretrained=None), 5)
    rebuilt.load_state_dict(trained.state_dict())


def test_loading_prints_no_table_and_leaves_logging_as_it_was(
    classifier: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.getLogger("transformers").level
    build(classifier)
    assert logging.getLogger("transformers").level == before
    assert "MISSING" not in "".join(capfd.readouterr())


def test_weights_of_another_variant_are_refused(classifier: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit variant=mit-b1: \d+ tensors .*set `variant`"):
        build(classifier, variant="mit-b1")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    small = ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 8])
    ConvNextForImageClassification(small).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="does not fit variant=mit-b0"):
        build(tmp_path)


def test_weights_with_a_part_of_the_head_are_refused(segmenter: Path, tmp_path: Path) -> None:
    weights = load_file(segmenter / "model.safetensors")
    del weights["decode_head.linear_fuse.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((segmenter / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="only a part of the decode head: 1 tensors such as decode_head"):
        build(tmp_path)


def test_a_missing_folder_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    config = TrialConfig(model="segformer", pretrained=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="is no folder; give a hub name such as nvidia/mit-b0"):
        check_config(config)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    config = TrialConfig(model="segformer", pretrained=str(tmp_path))
    with pytest.raises(ValueError, match=r"has no config.json; give a hub name"):
        check_config(config)


def test_damaged_weights_are_one_sentence(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((classifier / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"cannot be read: .*model\.safetensors"):
        build(tmp_path)
    weights = (classifier / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="cannot be read: ") as caught:
        build(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nvidia/mit-b0-of-nobody", "no such name", "a/b/c"])
def test_a_hub_name_without_network_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"is no folder here, and the Hugging Face hub did not") as caught:
        build(name)
    assert "\n" not in str(caught.value)
