"""Spaces: conditions, grids, and drawn values -> configuration."""

from dataclasses import asdict

import pytest

from segbench.core.config import TrialConfig
from segbench.core.errors import SpecError
from segbench.spec.parse import parse_space
from segbench.spec.schema import Baseline, SweepSpec
from segbench.spec.space import Categorical, Constant, Integer, Parameter, Real, Space, baseline_params, build_config

CONDITIONAL = {
    "norm": {"values": ["batch", "group"], "when": {"width": 8}},
    "width": {"values": [8, 16], "when": {"model": "unet"}},
    "model": {"values": ["unet", "segformer"]},
}


def space_of(parameters: dict[str, object], training: TrialConfig | None = None) -> Space:
    space, problems = parse_space(parameters, training)
    assert problems == []
    return space


def spec_of(**sections: object) -> SweepSpec:
    return SweepSpec.model_validate({"name": "x", "parameters": {"lr": 0.1}, **sections})


def test_parents_stand_before_their_children_and_the_rest_as_in_the_file() -> None:
    names = [parameter.name for parameter in space_of(CONDITIONAL, TrialConfig()).parameters]
    assert names == ["model", "width", "norm"]


def test_a_parameter_is_inactive_when_its_parent_is() -> None:
    space = space_of(CONDITIONAL, TrialConfig())
    norm = space["norm"]
    assert space.is_active(norm, {"model": "unet", "width": 8})
    assert not space.is_active(norm, {"model": "unet", "width": 16})
    assert not space.is_active(norm, {"model": "segformer"})
    assert not space.is_active(norm, {"model": "segformer", "width": 8}), "what is said of an inactive parent is void"


def test_conditions_tell_true_from_one() -> None:
    space = Space((Parameter("a", Categorical((1, True))), Parameter("b", Constant(0), {"a": (True,)})))
    assert space.is_active(space["b"], {"a": True})
    assert not space.is_active(space["b"], {"a": 1})


def test_a_grid_has_each_conditional_configuration_once() -> None:
    assert space_of(CONDITIONAL, TrialConfig()).grid() == [
        {"model": "unet", "width": 8, "norm": "batch"},
        {"model": "unet", "width": 8, "norm": "group"},
        {"model": "unet", "width": 16},
        {"model": "segformer"},
    ]


def test_a_grid_over_a_continuous_or_endless_space_is_refused() -> None:
    with pytest.raises(SpecError, match=r"parameters\.lr: a grid needs a list"):
        Space((Parameter("lr", Real(0.0, 1.0)),)).grid()
    with pytest.raises(SpecError, match="more than 1000000 points"):
        Space((Parameter("a", Integer(1, 2000)), Parameter("b", Integer(1, 2000)))).grid()


def test_a_condition_on_a_fixed_setting_that_holds_is_dropped() -> None:
    space = space_of({"width": {"values": [8, 16], "when": {"model": ["unet", "upernet"]}}}, TrialConfig(model="unet"))
    assert space["width"].when == {}


def test_a_condition_on_a_constant_may_name_other_families_too() -> None:
    parameters = {"model": "unet", "lr": {"value": 0.1, "when": {"model": ["unet", "segformer"]}}}
    space = space_of(parameters, TrialConfig())
    assert space.is_active(space["lr"], {"model": "unet"})


def test_values_become_what_the_field_keeps() -> None:
    space = space_of({"dropout": {"values": [0, 0.5]}, "lr": 1, "variant": {"values": [None, "mit-b0"]}}, TrialConfig())
    assert [type(value) for value in space["dropout"].domain.probes()] == [float, float]
    assert isinstance(space["lr"].domain, Constant)
    assert isinstance(space["lr"].domain.value, float)
    assert space["variant"].domain == Categorical((None, "mit-b0"))


def test_nested_groups_give_dotted_names_and_share_their_condition() -> None:
    parameters = {
        "opt": {
            "when": {"kind": ["sgd", "adam"]},
            "parameters": {
                "rate": {"min": 0.1, "max": 1.0},
                "momentum": {"values": [0.8, 0.9], "when": {"kind": ["sgd", "rms"]}},
            },
        },
        "kind": {"values": ["sgd", "adam", "rms"]},
    }
    space = space_of(parameters)
    assert [parameter.name for parameter in space.parameters] == ["kind", "opt.rate", "opt.momentum"]
    assert space["opt.rate"].when == {"kind": ("sgd", "adam")}
    assert space["opt.momentum"].when == {"kind": ("sgd",)}


def test_a_configuration_is_training_with_the_drawn_values_over_it() -> None:
    spec = spec_of(training={"model": "segformer", "dropout": 0.1})
    config = build_config(spec, {"lr": 1, "dropout": 0.3})
    assert config == asdict(TrialConfig(model="segformer", lr=1.0, dropout=0.3))
    assert isinstance(config["lr"], float)


def test_a_configuration_of_an_own_function_is_nested() -> None:
    spec = spec_of(train="mine:train")
    assert build_config(spec, {"opt.rate": 0.1, "opt.x.y": None, "z": "a"}) == {
        "opt": {"rate": 0.1, "x": {"y": None}},
        "z": "a",
    }


def test_values_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(SpecError, match="parameters: accumulation_steps=3 must divide batch_size=8"):
        build_config(spec_of(), {"accumulation_steps": 3})
    with pytest.raises(SpecError, match=r"parameters\.lr: must be above 0, got -1"):
        build_config(spec_of(), {"lr": -1.0})


def test_a_baseline_takes_over_the_constants_that_hold_for_it_and_nothing_searched() -> None:
    parameters = {
        "model": {"values": ["unet", "segformer"]},
        "batch_size": 4,
        "width": {"value": 8, "when": {"model": "unet"}},
        "variant": {"value": "mit-b0", "when": {"model": "segformer"}},
        "lr": {"min": 0.1, "max": 1.0},
    }
    spec, space = spec_of(), space_of(parameters, TrialConfig())
    unet = Baseline(name="a", parameters={"flip": 0.5})
    assert baseline_params(spec, space, unet) == {"batch_size": 4, "width": 8, "flip": 0.5}
    segformer = Baseline(name="b", parameters={"model": "segformer", "batch_size": 2})
    assert baseline_params(spec, space, segformer) == {"model": "segformer", "batch_size": 2, "variant": "mit-b0"}


def test_a_baseline_of_an_own_function_is_flattened() -> None:
    space = space_of({"opt": {"parameters": {"rate": {"min": 0.1, "max": 1.0}, "steps": 3}}})
    baseline = Baseline(name="a", parameters={"opt": {"rate": 0.5}})
    assert baseline_params(spec_of(train="mine:train"), space, baseline) == {"opt.rate": 0.5, "opt.steps": 3}
