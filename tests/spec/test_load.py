"""Reading right files: YAML 1.2, short forms, overrides, and the resolved file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.core.config import TrialConfig
from segbench.data.labels import CATEGORIES
from segbench.spec.checks import DEFAULT_GROUPS
from segbench.spec.load import LoadedSpec, dump_spec, load_spec
from segbench.spec.schema import RENAMED, SweepSpec, section_keys, sections
from segbench.spec.space import Constant, Real

TEXT = """\
name: x
description: two lines of text,
  with a colon and 'quotes'
data: {size: 64, num_images: [9, 3, 3], groups: {road: [7, 8], rest: [11]}, ignore: [rest]}
training: {model: segformer, variant: mit-b0, lr: 1e-4, ema_decay: null}
parameters:
  lr: {distribution: log_uniform_values, min: 1e-5, max: 1e-2}
  dropout: {values: [0, 0.5]}
  batch_size: 4
baselines:
  - &first {name: a, parameters: {lr: 1e-3, patience: 3}}
  - {<<: *first, name: b}
retrain:
"""


def load(tmp_path: Path, text: str = TEXT, *overrides: str) -> LoadedSpec:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    return load_spec(file, overrides)


def test_a_file_is_read_as_yaml_1_2(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    spec = loaded.spec
    assert spec.training.lr == 1e-4
    assert spec.data.size == (64, 64)
    assert spec.data.groups == {"road": (7, 8), "rest": (11,)}
    assert spec.retrain is None
    assert [(b.name, b.parameters) for b in spec.baselines] == [
        ("a", {"lr": 1e-3, "patience": 3}),
        ("b", {"lr": 1e-3, "patience": 3}),
    ]
    assert loaded.space["lr"].domain == Real(1e-5, 1e-2, log=True)
    assert loaded.space["batch_size"].domain == Constant(4)


def test_all_sections_but_parameters_have_defaults(tmp_path: Path) -> None:
    spec = load(tmp_path, "name: x\nparameters: {lr: {min: 0.1, max: 1.0}}\n").spec
    assert spec.training == TrialConfig()
    assert spec.metric.name == "val/miou"
    assert spec.is_segmentation


def test_overrides_set_any_key_and_later_ones_win(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        TEXT,
        "scheduler.max_epochs=7",
        "scheduler.max_epochs=5",
        "data.size=[32, 64]",
        "retrain.top_k=1",
        "parameters.lr=0.01",
        "parameters.dropout.values=[0.1]",
        "baselines.0.parameters.lr=1e-2",
        "mlflow.tracking_uri=http://x:5000/?a=b",
    )
    spec = loaded.spec
    assert spec.scheduler.max_epochs == 5
    assert spec.data.size == (32, 64)
    assert spec.retrain is not None
    assert (spec.retrain.top_k, spec.retrain.seeds) == (1, 3)
    assert loaded.space["lr"].domain == Constant(0.01)
    assert spec.baselines[0].parameters["lr"] == 1e-2
    assert spec.mlflow.tracking_uri == "http://x:5000/?a=b"
    assert load(tmp_path, TEXT, "baselines=[]", "retrain=null").spec.baselines == ()


def test_later_errors_name_file_line_and_key(tmp_path: Path) -> None:
    loaded = load(tmp_path, TEXT, "training.width=8")
    file = loaded.path
    assert str(loaded.error("training.variant", "no")) == f"{file}:5 training.variant: no"
    assert str(loaded.error("baselines[1].name", "no")) == f"{file}:12 baselines[1].name: no"
    assert str(loaded.error("baselines.0", "no")) == f"{file}:11 baselines[0]: no"
    assert str(loaded.error("scheduler.type", "no")) == f"{file}:1 scheduler.type: no"
    assert str(loaded.error("training.width", "no")) == "--set training.width=8 training.width: no"


def test_the_resolved_file_gives_an_equal_spec(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    again = load(tmp_path, dump_spec(loaded.spec))
    assert again.spec == loaded.spec
    assert again.space == loaded.space


def test_the_resolved_file_of_an_own_function_gives_an_equal_spec(tmp_path: Path) -> None:
    text = (
        "name: x\ntrain: a.b:f\nparameters: {o: {parameters: {r: {min: 1, max: 2}}, when: {k: 1}}, k: {values: [1]}}\n"
    )
    spec = load(tmp_path, text).spec
    assert load(tmp_path, dump_spec(spec)).spec == spec


@given(
    st.lists(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        unique_by=lambda value: (isinstance(value, bool), value),
        min_size=1,
    )
)
def test_any_value_survives_the_resolved_file(tmp_path_factory: pytest.TempPathFactory, values: list[object]) -> None:
    spec = SweepSpec(name="x", train="a:f", parameters={"p": {"values": values}})
    file = tmp_path_factory.mktemp("spec") / "x.yaml"
    file.write_text(dump_spec(spec))
    assert json.dumps(load_spec(file).spec.parameters) == json.dumps(spec.parameters)


def test_a_cityscapes_folder_is_accepted(tmp_path: Path) -> None:
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    text = f"name: x\ndata: {{dataset: cityscapes, root: '{tmp_path / 'data'}'}}\nparameters: {{lr: 0.1}}\n"
    assert load(tmp_path, text).spec.data.root == str(tmp_path / "data")


def test_default_groups_are_those_of_the_labels() -> None:
    assert tuple(CATEGORIES) == DEFAULT_GROUPS


def test_every_renamed_key_leads_to_a_key_that_exists() -> None:
    known = sections()
    for old, new in RENAMED.items():
        section, _, key = new.rpartition(".")
        assert key in section_keys(known[section]), old


def test_reading_a_file_imports_no_heavy_library() -> None:
    code = (
        "import sys, segbench.spec.load, segbench.spec.plan, segbench.spec.docs\n"
        "print([m for m in ('torch', 'ray', 'mlflow', 'optuna', 'numpy', 'transformers') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.strip() == "[]"
