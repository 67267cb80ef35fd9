"""The composed decode head is the published one, in another order; the weights are the published ones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from segbench.core.config import TrialConfig
from segbench.models import FAMILIES, build_model, segformer

CONFIG = TrialConfig(model="segformer", dropout=0.0, drop_path=0.0)


def pair() -> tuple[segformer.SegFormer, SegformerForSemanticSegmentation]:
    """Our model and the library's with the same weights, in float64; norms and biases not at their initial values."""
    torch.manual_seed(0)
    ours = build_model(CONFIG, 5).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        ours.decode_head.batch_norm.running_mean.normal_()
        ours.decode_head.batch_norm.running_var.uniform_(0.5, 2)
    library = SegformerForSemanticSegmentation(ours.config).double()
    library.load_state_dict(ours.state_dict())
    return ours, library


def upsampled(library: SegformerForSemanticSegmentation, image: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(
        library(image).logits, size=image.shape[-2:], mode="bilinear", align_corners=False
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (70, 93)])
def test_outputs_and_all_gradients_equal_the_library(training: bool, size: tuple[int, int]) -> None:
    ours, library = pair()
    ours.train(training)
    library.train(training)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    target = torch.randn(2, 5, *size, dtype=torch.float64)
    logits, expected = ours(image), upsampled(library, image)
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)
    (logits * target).mean().backward()
    (expected * target).mean().backward()
    library_gradients = dict(library.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, library_gradients[name].grad, atol=1e-10, rtol=1e-10, msg=name)
    library_buffers = dict(library.named_buffers())
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, library_buffers[name], atol=1e-10, rtol=1e-10, msg=name)


def test_the_gradient_with_respect_to_the_image_equals_the_library() -> None:
    ours, library = pair()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    (mine,) = torch.autograd.grad(ours.eval()(image).square().sum(), image)
    (theirs,) = torch.autograd.grad(upsampled(library.eval(), image).square().sum(), image)
    torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-10)


def test_under_bf16_the_composed_head_is_at_least_as_exact_as_the_published_one() -> None:
    ours, library = pair()
    head, published = ours.decode_head.float().eval(), library.decode_head.float().eval()
    features = [torch.randn(2, channels, 32 // 2**i, 32 // 2**i) for i, channels in enumerate(ours.config.hidden_sizes)]
    exact = published(features)
    with torch.autocast("cpu", torch.bfloat16):
        logits = segformer.decode(head, [feature.permute(0, 2, 3, 1) for feature in features]).permute(0, 3, 1, 2)
        error = (logits - exact).square().mean()
        published_error = (published(features) - exact).square().mean()
    assert error <= 1.1 * published_error


def test_under_bf16_the_whole_network_is_at_least_as_exact_as_the_published_one() -> None:
    ours, library = pair()
    ours, library = ours.float().eval(), library.float().eval()
    image = torch.randn(16, 3, 96, 64)  # on two images chance decides by a tenth
    exact = upsampled(library, image)
    with torch.autocast("cpu", torch.bfloat16):
        error = (ours(image) - exact).square().mean()
        published_error = (upsampled(library, image) - exact).square().mean()
    assert error <= 1.1 * published_error


def test_stochastic_depth_leaves_out_whole_branches_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    block = build_model(TrialConfig(model="segformer", drop_path=0.4), 5).encoder.stages[-1].blocks[-1]
    x, branch = torch.zeros(2000, 1, 1, 2), torch.ones(2000, 1, 1, 2)
    added = segformer.add_branch(x, branch, block.train())
    assert sorted(added.unique().tolist()) == pytest.approx([0, 1 / 0.6])
    assert (added[..., 0] == added[..., 1]).all()
    assert added.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(segformer.add_branch(x, branch, block.eval()), branch)


def test_weights_go_round_through_transformers(tmp_path: Path) -> None:
    ours, _ = pair()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    ours.eval().save_pretrained(tmp_path / "ours")
    library = SegformerForSemanticSegmentation.from_pretrained(tmp_path / "ours").double().eval()
    torch.testing.assert_close(ours(image), upsampled(library, image), atol=1e-10, rtol=1e-10)
    library.save_pretrained(tmp_path / "library")
    mine = load_file(tmp_path / "ours" / "model.safetensors")
    theirs = load_file(tmp_path / "library" / "model.safetensors")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_state_dict_names_are_those_of_the_library() -> None:
    ours, library = pair()
    assert list(ours.state_dict()) == list(library.state_dict())


@pytest.mark.parametrize(
    ("variant", "millions"),
    [("mit-b0", 3.7), ("mit-b1", 13.7), ("mit-b2", 27.3), ("mit-b3", 47.2), ("mit-b4", 64.0), ("mit-b5", 84.6)],
)
def test_variants_have_the_sizes_of_the_paper(variant: str, millions: float) -> None:
    """Millions of parameters with 19 classes; the paper's table 1 has 3.8, 13.7, 27.5, 47.3, 64.1, 84.7 with 150."""
    with torch.device("meta"):
        model = build_model(TrialConfig(model="segformer", variant=variant), 19)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_the_registry_lists_the_variants_of_the_module() -> None:
    assert tuple(segformer.DEPTHS) == FAMILIES["segformer"].variants


def test_dropout_and_drop_path_reach_the_library() -> None:
    model = build_model(TrialConfig(model="segformer", dropout=0.3, drop_path=0.2), 5)
    assert model.decode_head.dropout.p == 0.3
    assert model.encoder.stages[-1].blocks[-1].drop_path.drop_prob == pytest.approx(0.2)


def test_the_default_configuration_of_transformers_is_b0() -> None:
    """Guards against a library update that changes what is not set here."""
    default = SegformerConfig(num_labels=5, classifier_dropout_prob=0.0, drop_path_rate=0.0)
    library = SegformerForSemanticSegmentation(default)
    ours = build_model(CONFIG, 5)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in library.state_dict().items()}
