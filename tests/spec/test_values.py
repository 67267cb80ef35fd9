"""Values of ``parameters:`` as a W&B sweep means them: names with dots, lists and mappings, words, guesses."""

import json
from pathlib import Path

import pytest

from segbench.core.errors import SpecError
from segbench.core.records import Scalar
from segbench.spec.domains import Structure, Transformed
from segbench.spec.load import LoadedSpec, dump_spec, load_spec, spec_from
from segbench.spec.space import Categorical, Constant, Real, baseline_params, build_config

OWN = "name: x\ntrain: a.b:f\nmetric: {name: score}\n"
STRUCTURES = """\
parameters:
  kernel: {values: [[3, 3, 3], [5, 5, 5]], prior: [5, 5, 5]}
  optimizer: {values: [{name: adamw, lr: 0.1}, {name: sgd, nested: {momentum: [0.9]}}]}
  head: {value: {sizes: [8, 4]}}
  steps: {values: [1, 2], when: {kernel: [[3, 3, 3]]}}
"""


def load(tmp_path: Path, text: str, *overrides: str) -> LoadedSpec:
    file = tmp_path / "x.yaml"
    file.write_text(OWN + text)
    return load_spec(file, overrides)


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value).removeprefix(f"{tmp_path / 'x.yaml'}:")


def test_a_name_with_dots_is_the_same_as_a_nested_one(tmp_path: Path) -> None:
    flat = load(tmp_path, 'parameters: {"opt.lr": {min: 0.1, max: 1.0}, opt.sgd.momentum: 0.9}\n')
    nested = load(
        tmp_path,
        "parameters:\n  opt:\n    parameters:\n      lr: {min: 0.1, max: 1.0}\n"
        "      sgd: {parameters: {momentum: 0.9}}\n",
    )
    assert flat.space == nested.space
    assert build_config(flat.spec, {"opt.lr": 0.5, "opt.sgd.momentum": 0.9}) == {
        "opt": {"lr": 0.5, "sgd": {"momentum": 0.9}}
    }


def test_a_name_with_dots_goes_on_in_a_group_and_in_conditions(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        "parameters:\n  a.b: {values: [1, 2]}\n  g: {parameters: {h.i: {min: 0.1, max: 1.0}}, when: {a.b: 1}}\n",
    ).space
    assert space["g.h.i"].when == {"a.b": (1,)}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("  a.b: 1\n  a: {parameters: {b: 2}}", "6 parameters.a.parameters.b: 'a.b' is given twice, as a name with"),
        ("  a: 1\n  a.b: 2", "6 parameters.a.b: 'a' is a parameter, so it cannot hold 'a.b' too; rename one"),
        ("  a.b: 1\n  a: 2", "6 parameters.a: 'a' is a parameter, so it cannot hold 'a.b' too; rename one"),
        ("  .a: 1", "5 parameters..a: a name has a part on each side of a dot"),
        ("  a..b: 1", "5 parameters.a..b: a name has a part on each side of a dot"),
    ],
)
def test_a_name_that_is_given_twice_or_has_an_empty_part_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refused(tmp_path, f"parameters:\n{text}\n")


def test_an_override_finds_a_name_with_dots(tmp_path: Path) -> None:
    text = "parameters:\n  a.b: {min: 0.1, max: 1.0}\n  c: 1\n"
    assert load(tmp_path, text, "parameters.a.b.max=0.5").space["a.b"].domain == Real(0.1, 0.5)
    assert load(tmp_path, text, "parameters.a.b=0.5").space["a.b"].domain == Constant(0.5)
    message = refused(tmp_path, text, "parameters.a.b.max=0.01")
    assert message == "5 parameters.a.b: min=0.1 is above max=0.01; swap them (with --set parameters.a.b.max=0.01)"


def test_a_later_error_finds_the_line_of_a_name_with_dots(tmp_path: Path) -> None:
    text = "search: {algorithm: grid}\nparameters:\n  c: 1\n  a.b: {min: 0.1, max: 1.0}\n"
    assert refused(tmp_path, text).startswith("7 parameters.a.b: is continuous")


def test_lists_and_mappings_are_values_and_reach_the_function_as_such(tmp_path: Path) -> None:
    loaded = load(tmp_path, STRUCTURES)
    space = loaded.space
    kernel, optimizer = space["kernel"].domain, space["optimizer"].domain
    assert isinstance(kernel, Categorical)
    assert kernel.values == ("[3, 3, 3]", "[5, 5, 5]"), "as JSON text wherever a value is a text"
    assert space["kernel"].prior == "[5, 5, 5]"
    drawn: dict[str, Scalar] = {
        "kernel": kernel.value_at(0.1),
        "optimizer": optimizer.value_at(0.9),
        "head": space["head"].domain.value_at(0.5),
    }
    assert build_config(loaded.spec, drawn) == {
        "kernel": [3, 3, 3],
        "optimizer": {"name": "sgd", "nested": {"momentum": [0.9]}},
        "head": {"sizes": [8, 4]},
    }
    assert space.is_active(space["steps"], drawn)
    assert space.is_active(space["steps"], json.loads(json.dumps(drawn))), "as the ledger remembers it"


def test_configurations_do_not_share_lists(tmp_path: Path) -> None:
    loaded = load(tmp_path, STRUCTURES)
    drawn = {"kernel": loaded.space["kernel"].domain.value_at(0.1)}
    build_config(loaded.spec, drawn)["kernel"].append(9)
    assert build_config(loaded.spec, drawn) == {"kernel": [3, 3, 3]}


def test_a_baseline_may_have_lists_and_mappings_where_the_space_has(tmp_path: Path) -> None:
    text = STRUCTURES + "baselines:\n  - {name: a, parameters: {kernel: [7], optimizer: {name: z}}}\n"
    loaded = load(tmp_path, text)
    params = baseline_params(loaded.spec, loaded.space, loaded.spec.baselines[0])
    assert build_config(loaded.spec, params) == {"kernel": [7], "optimizer": {"name": "z"}, "head": {"sizes": [8, 4]}}
    message = refused(tmp_path, STRUCTURES + "baselines:\n  - {name: a, parameters: {steps: [1, 2]}}\n")
    assert "steps is a single value; a baseline has one for each parameter" in message


def test_a_baseline_gives_a_name_with_dots_once(tmp_path: Path) -> None:
    text = "parameters: {a.b: {values: [1, 2]}}\nbaselines:\n  - {name: x, parameters: %s}\n"
    loaded = load(tmp_path, text % "{a.b: 1}")
    assert loaded.spec.baselines[0].parameters == {"a.b": 1}
    assert baseline_params(loaded.spec, loaded.space, loaded.spec.baselines[0]) == {"a.b": 1}
    assert "'a.b' is given twice, as a name with dots and nested" in refused(tmp_path, text % "{a.b: 1, a: {b: 2}}")


def test_a_mapping_is_one_value_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    assert "is listed twice" in refused(tmp_path, "parameters: {a: {values: [{x: 1, y: 2}, {y: 2, x: 1}]}}\n")


def test_lists_words_and_dots_survive_the_resolved_file(tmp_path: Path) -> None:
    spec = load(
        tmp_path, STRUCTURES + "  a.b: {values: ['yes', 'No', 'choice(1, 2)'], probabilities: [1, 0, 0]}\n"
    ).spec
    file = tmp_path / "again.yaml"
    file.write_text(dump_spec(spec))
    assert load_spec(file).spec == spec
    assert spec_from(spec).spec == spec


def test_words_in_quotes_are_texts_and_so_are_those_of_python(tmp_path: Path) -> None:
    text = "parameters: {a: {values: ['yes', \"off\"]}, b: 'no', c: {value: 'normal(0, 1)'}}\n"
    space = load(tmp_path, text).space
    assert space["a"].domain == Categorical(("yes", "off"))
    assert space["b"].domain == Constant("no")
    assert space["c"].domain == Constant("normal(0, 1)")
    content = {"name": "x", "train": "a:f", "metric": {"name": "s"}, "parameters": {"a": {"values": ["yes", "no"]}}}
    assert spec_from(content).space["a"].domain == Categorical(("yes", "no"))


def test_a_word_of_yaml_1_1_is_refused_wherever_a_value_stands(tmp_path: Path) -> None:
    text = "parameters: {a: {values: [true, false]}}\nbaselines:\n  - {name: b, parameters: {a: off}}\n"
    assert refused(tmp_path, text).startswith("6 baselines[0].parameters.a: off without quotes is a boolean in W&B")
    assert "--set parameters.a.values=[on] parameters.a.values[0]: on without" in refused(
        tmp_path, "parameters: {a: {values: [1]}}\n", "parameters.a.values=[on]"
    )
    anchored = "parameters:\n  a: {value: &word yes}\n"
    assert refused(tmp_path, anchored).startswith("5 parameters.a.value: yes without quotes")


def test_q_is_one_where_it_is_left_out() -> None:
    content = {
        "name": "x",
        "train": "a:f",
        "metric": {"name": "s"},
        "parameters": {"a": {"distribution": "q_uniform", "min": 0.2, "max": 3.9}},
    }
    domain = spec_from(content).space["a"].domain
    assert isinstance(domain, Transformed)
    assert domain.choices() == (1, 2, 3)


def test_a_guess_stands_beside_any_searched_parameter() -> None:
    parameters = {
        "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1, "prior": 1e-3},
        "width": {"distribution": "q_log_uniform_values", "min": 8, "max": 64, "prior": 16, "prior_confidence": "low"},
        "depth": {"min": 2, "max": 5, "prior": 3, "prior_confidence": "high"},
        "loss": {"values": ["ce", "dice"], "probabilities": [0.9, 0.1], "prior": "dice", "when": {"depth": [2, 3]}},
        "flip": {"distribution": "beta", "a": 2, "prior": 0.5},
        "color": {"min": 0.0, "max": 1.0},
    }
    space = spec_from({"name": "x", "data": {"dataset": "streets"}, "parameters": parameters}).space
    guesses = {p.name: (p.prior, p.prior_confidence) for p in space.parameters}
    assert guesses == {
        "lr": (1e-3, "medium"),
        "width": (16, "low"),
        "depth": (3, "high"),
        "loss": ("dice", "medium"),
        "flip": (0.5, "medium"),
        "color": (None, "medium"),
    }
    assert space["loss"].domain == Categorical(("ce", "dice"), (0.9, 0.1))


def test_a_guess_is_the_value_that_is_listed() -> None:
    content = {
        "name": "x",
        "train": "a:f",
        "metric": {"name": "s"},
        "parameters": {"a": {"values": [1, 2], "prior": 2.0}},
    }
    prior = spec_from(content).space["a"].prior
    assert (type(prior), prior) == (int, 2)


def test_a_grid_with_probabilities_is_refused(tmp_path: Path) -> None:
    text = "search: {algorithm: grid}\nparameters:\n  a:\n    values: [1, 2]\n    probabilities: [0.5, 0.5]\n"
    assert refused(tmp_path, text).startswith("8 parameters.a.probabilities: a grid runs every value once; remove")


def test_a_structure_is_a_text_that_remembers_what_it_is_made_of() -> None:
    value = Structure.of({"b": [1, True, None, "ä"], "a": 0.5})
    assert value == '{"a": 0.5, "b": [1, true, null, "ä"]}'
    assert value.content == {"a": 0.5, "b": [1, True, None, "ä"]}
