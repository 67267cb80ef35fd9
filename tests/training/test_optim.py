from typing import Any, Literal

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from segbench.core.config import TrialConfig
from segbench.models import build_model
from segbench.training.optim import build_optimizer, build_schedule, lr_factor

MODELS = {
    "unet": TrialConfig(model="unet", width=4, depth=2),
    "segformer": TrialConfig(model="segformer", variant="mit-b0"),
    "upernet": TrialConfig(model="upernet", variant="convnext-atto"),
}
SCHEDULES: tuple[Literal["constant", "poly", "cosine", "one-cycle"], ...] = ("constant", "poly", "cosine", "one-cycle")


def tiny(**settings: Any) -> tuple[nn.Module, TrialConfig]:
    torch.manual_seed(0)
    config = TrialConfig(model="unet", width=4, depth=1, **settings)
    return build_model(config, 3), config


def factors(total: int = 100, **settings: Any) -> list[float]:
    return [lr_factor(step, total_steps=total, **settings) for step in range(total + 1)]


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_every_parameter_is_in_exactly_one_group(config: TrialConfig, optimizer: Literal["adamw", "sgd"]) -> None:
    model = build_model(config, 4)
    settings = TrialConfig(model=config.model, optimizer=optimizer, lr=0.01, head_lr_multiplier=10, weight_decay=0.1)
    groups = build_optimizer(model, settings).param_groups
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    encoder = {id(parameter) for parameter in model.get_submodule("encoder").parameters()}
    for group in groups:
        for parameter in group["params"]:
            is_head = id(parameter) not in encoder
            assert group["name"].startswith("head") == is_head
            assert group["lr"] == pytest.approx(0.1 if is_head else 0.01)
            assert group["weight_decay"] == (0.1 if parameter.ndim >= 2 else 0.0)


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_norms_and_biases_do_not_decay(config: TrialConfig) -> None:
    model = build_model(config, 4)
    decayed = {
        id(parameter)
        for group in build_optimizer(model, config).param_groups
        if group["weight_decay"]
        for parameter in group["params"]
    }
    for name, module in model.named_modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            is_norm = "norm" in type(module).__name__.lower()
            if is_norm or parameter_name == "bias" or "layer_scale" in parameter_name:
                assert id(parameter) not in decayed, f"{name}.{parameter_name}"
            else:
                assert id(parameter) in decayed, f"{name}.{parameter_name}"


def test_a_model_without_small_parameters_leaves_no_empty_group() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Conv2d(3, 4, 1, bias=False)
            self.head = nn.Conv2d(4, 2, 1)

    names = [group["name"] for group in build_optimizer(Bare(), TrialConfig()).param_groups]
    assert names == ["encoder", "head", "head-no-decay"]


def test_the_settings_reach_the_optimiser() -> None:
    model, config = tiny(optimizer="adamw", momentum=0.8)
    assert build_optimizer(model, config).defaults["betas"] == (0.8, 0.999)
    model, config = tiny(optimizer="sgd", momentum=0.8)
    defaults = build_optimizer(model, config).defaults
    assert (defaults["momentum"], defaults["nesterov"]) == (0.8, True)
    model, config = tiny(optimizer="sgd", momentum=0.0)
    build_optimizer(model, config)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_stay_between_zero_and_one_and_reach_one(schedule: str) -> None:
    for warmup in (0.0, 0.5, 7.3, 20.0):
        values = factors(schedule=schedule, warmup_steps=warmup)
        assert all(0 <= value <= 1 for value in values)
        assert max(values) == pytest.approx(1, abs=0.01)
        assert values[0] > 0
        assert values[99] > 0, "the last step still learns"


@pytest.mark.parametrize("schedule", ["constant", "poly", "cosine"])
def test_warm_up_is_linear_and_then_the_schedule_begins_at_the_peak(schedule: str) -> None:
    values = factors(schedule=schedule, warmup_steps=20)
    assert values[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert values[20] == 1
    assert values[20:] == pytest.approx(factors(80, schedule=schedule))


def test_the_shapes_after_the_warm_up() -> None:
    assert factors(schedule="constant") == [1.0] * 101
    assert factors(schedule="poly", poly_power=2)[50] == pytest.approx(0.25)
    assert factors(schedule="poly", poly_power=0.9)[25] == pytest.approx(0.75**0.9)
    cosine = factors(schedule="cosine")
    assert (cosine[0], cosine[50], cosine[100]) == pytest.approx((1, 0.5, 0))
    for schedule in ("poly", "cosine"):
        values = factors(schedule=schedule)
        assert values == sorted(values, reverse=True)
        assert values[-1] == pytest.approx(0)


@pytest.mark.parametrize("warmup", [0, 10])
def test_one_cycle_is_that_of_torch_but_for_a_step_of_shift(warmup: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = OneCycleLR(optimizer, max_lr=1.0, total_steps=1000, pct_start=warmup / 1000 or 0.3, cycle_momentum=False)
    ours = factors(1000, schedule="one-cycle", warmup_steps=warmup)
    peak = max(range(1001), key=ours.__getitem__)
    assert peak == (warmup or 300)
    for step in range(1000):
        assert ours[step] == pytest.approx(theirs.get_last_lr()[0], abs=2 / (warmup or 300))
        optimizer.step()
        if step < 999:
            theirs.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_longer_than_the_training_never_ends(schedule: str) -> None:
    values = factors(10, schedule=schedule, warmup_steps=40)
    assert values == sorted(values)
    assert values[-1] < 0.5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_beyond_the_end_and_tiny_trainings_are_harmless(schedule: str) -> None:
    assert 0 <= lr_factor(15, schedule=schedule, total_steps=10) <= 1
    assert 0 < lr_factor(0, schedule=schedule, total_steps=1) <= 1


def test_epochs_become_steps_and_heads_keep_their_ratio() -> None:
    model, config = tiny(schedule="poly", lr=0.2, head_lr_multiplier=10, warmup_epochs=0.5)
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config, steps_per_epoch=10, max_epochs=3)
    for step in range(30):
        expected = 0.2 * lr_factor(step, schedule="poly", total_steps=30, warmup_steps=5)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([expected, expected, 10 * expected, 10 * expected])
        optimizer.step()
        schedule.step()


def train(model: nn.Module, optimizer: Optimizer, schedule: LambdaLR, steps: range) -> list[tuple[float, ...]]:
    rates = []
    for step in steps:
        rates.append(tuple(group["lr"] for group in optimizer.param_groups))
        image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(image).square().mean().backward()
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_going_on_from_a_saved_state_is_exact(
    schedule: Literal["constant", "poly", "cosine", "one-cycle"], optimizer: Literal["adamw", "sgd"]
) -> None:
    def start() -> tuple[nn.Module, Optimizer, LambdaLR]:
        model, config = tiny(optimizer=optimizer, schedule=schedule, warmup_epochs=0.7, head_lr_multiplier=3)
        made = build_optimizer(model, config)
        return model, made, build_schedule(made, config, steps_per_epoch=4, max_epochs=3)

    whole = start()
    expected = train(*whole, range(12))
    first = start()
    rates = train(*first, range(5))
    states = [part.state_dict() for part in first]
    for group in states[1]["param_groups"]:
        group.update({key: list(value) for key, value in group.items() if isinstance(value, tuple)})  # as JSON does
    second = start()
    for part, state in zip(second, states, strict=True):
        part.load_state_dict(state)
    rates += train(*second, range(5, 12))
    assert rates == expected
    for name, tensor in whole[0].state_dict().items():
        assert torch.equal(second[0].state_dict()[name], tensor), name


def test_the_state_of_a_schedule_is_small_and_plain() -> None:
    model, config = tiny()
    state = build_schedule(build_optimizer(model, config), config, steps_per_epoch=4, max_epochs=3).state_dict()
    assert len(repr(state)) < 500
    assert all(isinstance(value, int | float | bool | list) for value in state.values())
