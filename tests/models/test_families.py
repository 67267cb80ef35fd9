"""The contract that every family fulfils; a new family adds one line to TINY."""

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from segbench.core.config import TrialConfig
from segbench.models import FAMILIES, build_model, check_config

TINY = {
    "unet": TrialConfig(model="unet", width=4, depth=2),
    "segformer": TrialConfig(model="segformer", variant="mit-b0"),
    "upernet": TrialConfig(model="upernet", variant="convnext-atto"),
}
each_family = pytest.mark.parametrize("config", TINY.values(), ids=TINY.keys())


def build(config: TrialConfig, seed: int = 0, num_classes: int = 5) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(config, num_classes)


def test_every_registered_family_is_under_test() -> None:
    assert TINY.keys() == FAMILIES.keys()


def test_the_page_on_adding_a_model_shows_the_code_as_it_is() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "adding-a-model.md").read_text()
    registry = (root / "segbench" / "models" / "__init__.py").read_text()
    entry = page[page.index('    "upernet": Family(') :]
    assert entry[: entry.index("\n    ),") + 7] in registry
    assert len((root / "segbench" / "models" / "upernet.py").read_text().splitlines()) < 120


def test_the_registry_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, segbench.models as m; from segbench.core.config import TrialConfig; "
        "m.check_config(TrialConfig(model='segformer', variant='mit-b5', pretrained='nvidia/mit-b5')); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_building_models_imports_neither_torchvision_nor_timm() -> None:
    for config in TINY.values():
        build(config)
    assert not {"torchvision", "timm"} & sys.modules.keys()


def test_families_name_existing_configuration_fields() -> None:
    known = {field.name for field in fields(TrialConfig)}
    for family in FAMILIES.values():
        assert set(family.fields) <= known


@each_family
@pytest.mark.parametrize("size", [(64, 64), (65, 79), (96, 64)])
@pytest.mark.parametrize("num_images", [1, 2])
def test_logits_have_the_size_of_the_image(config: TrialConfig, size: tuple[int, int], num_images: int) -> None:
    model = build(config)
    assert model.training
    for mode in (True, False):
        logits = model.train(mode)(torch.rand(num_images, 3, *size))
        assert logits.shape == (num_images, 5, *size)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


@each_family
def test_backward_reaches_every_parameter(config: TrialConfig) -> None:
    model = build(replace(config, drop_path=0.0))
    model(torch.rand(2, 3, 65, 79)).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@each_family
def test_the_encoder_is_a_proper_part_and_the_rest_is_a_head(config: TrialConfig) -> None:
    model = build(config)
    every = {id(parameter) for parameter in model.parameters()}
    encoder = {id(parameter) for parameter in model.get_submodule("encoder").parameters()}
    assert encoder < every
    assert len(every) == len(list(model.state_dict(keep_vars=True))) - len(list(model.buffers()))


@each_family
def test_the_encoder_does_not_depend_on_the_number_of_classes(config: TrialConfig) -> None:
    shapes = [
        [parameter.shape for parameter in build(config, num_classes=k).get_submodule("encoder").parameters()]
        for k in (2, 7)
    ]
    assert shapes[0] == shapes[1]


@each_family
def test_the_state_dict_goes_round(config: TrialConfig) -> None:
    model, other = build(config, seed=0).eval(), build(config, seed=1).eval()
    image = torch.rand(1, 3, 64, 64)
    assert not torch.equal(model(image), other(image))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(image), other(image))


@each_family
def test_the_same_torch_seed_builds_the_same_weights(config: TrialConfig) -> None:
    first, second, third = (build(config, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


@each_family
def test_dropout_acts_in_training_and_not_in_evaluation(config: TrialConfig) -> None:
    model = build(replace(config, dropout=0.5, drop_path=0.0))
    image = torch.rand(2, 3, 64, 64)
    assert not torch.equal(model(image), model(image))
    model.eval()
    assert torch.equal(model(image), model(image))


@each_family
def test_channels_last_and_bf16_stay_near_the_plain_result(config: TrialConfig) -> None:
    model = build(config).eval()
    image = torch.rand(1, 3, 64, 64)
    plain = model(image)
    torch.testing.assert_close(
        model.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last)),
        plain,
        atol=1e-4,
        rtol=1e-4,
    )
    with torch.autocast("cpu", torch.bfloat16):
        half = model(image)
    assert (half.float() - plain).abs().mean() < 0.05 * plain.std()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrialConfig(model="unett"), r"unknown model 'unett'; choose one of unet, segformer.*nearest: unet\)"),
        (
            TrialConfig(model="segformer", variant="b3"),
            r"unknown variant 'b3' of segformer; choose one of mit-b0, .*mit-b5 \(nearest: mit-b3\)",
        ),
        (
            TrialConfig(model="unet", variant="mit-b0"),
            r"unet has no variants; leave variant out .*width and depth",
        ),
        (TrialConfig(model="unet", pretrained="x/y"), r"unet has no pretrained weights; leave pretrained out"),
        (
            TrialConfig(model="segformer", pretrained="./nowhere"),
            r"pretrained='./nowhere' is no folder; give a hub name",
        ),
    ],
)
def test_a_wrong_configuration_is_refused_with_what_is_allowed(config: TrialConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(config)
    with pytest.raises(ValueError, match=message):
        build_model(config, 5)


@pytest.mark.parametrize("config", TINY.values(), ids=TINY.keys())
def test_a_right_configuration_passes(config: TrialConfig) -> None:
    check_config(config)
    check_config(replace(config, variant=None))
