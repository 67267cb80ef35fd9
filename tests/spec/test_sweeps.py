"""The files in sweeps/ are right, and say what the README promises of them."""

from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from segbench.core.config import TrialConfig
from segbench.models import check_config
from segbench.spec.load import LoadedSpec, dump_spec, load_spec
from segbench.spec.plan import plan_sweep
from segbench.spec.schema import SweepSpec
from segbench.spec.space import baseline_params, build_config

FILES = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))
SHIPPED = ("compare", "quickstart", "segformer", "unet")


def load(name: str, folder: Path) -> LoadedSpec:
    file = next(file for file in FILES if file.stem == name)
    if name == "quickstart":
        return load_spec(file)
    for part in ("leftImg8bit", "gtFine"):
        (folder / part).mkdir()
    return load_spec(file, [f"data.root={folder}"])


def families(loaded: LoadedSpec) -> set[object]:
    return set(loaded.space["model"].domain.probes())


def test_the_files_are_there() -> None:
    assert {file.stem for file in FILES} >= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_file_loads_is_named_as_its_file_and_can_be_planned(name: str, tmp_path: Path) -> None:
    loaded = load(name, tmp_path)
    assert loaded.spec.name == name
    assert plan_sweep(loaded.spec, loaded.space).retrain_trainings > 0


@pytest.mark.parametrize("name", SHIPPED)
def test_the_resolved_file_is_the_same_sweep(name: str, tmp_path: Path) -> None:
    loaded = load(name, tmp_path)
    (tmp_path / "sweep.yaml").write_text(dump_spec(loaded.spec))
    again = load_spec(tmp_path / "sweep.yaml")
    assert (again.spec, again.space) == (loaded.spec, loaded.space)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_fits_the_json_schema_that_editors_use(file: Path) -> None:
    jsonschema.validate(YAML(typ="safe", pure=True).load(file), SweepSpec.model_json_schema())


@pytest.mark.parametrize("name", SHIPPED)
def test_baselines_are_the_settings_of_the_seed_experiment(name: str, tmp_path: Path) -> None:
    loaded = load(name, tmp_path)
    spec = loaded.spec
    assert spec.baselines
    for baseline in spec.baselines:
        config = TrialConfig(**build_config(spec, baseline_params(spec, loaded.space, baseline)))
        check_config(config)
        assert (config.optimizer, config.lr, config.patience) == ("adamw", 1e-3, 3)
        assert (config.flip, config.scale_min, config.scale_max, config.color) == (0, 1, 1, 0), "no augmentation"
        if name != "quickstart":
            assert spec.scheduler.max_epochs == 20
            assert config.batch_size == 8
            assert (config.model, config.variant) in (("unet", None), ("segformer", "mit-b3"))


def test_both_families_share_one_space_in_quickstart_and_compare(tmp_path: Path) -> None:
    for name in ("quickstart", "compare"):
        assert families(load(name, tmp_path)) == {"unet", "segformer"}


def test_segformer_covers_all_variants(tmp_path: Path) -> None:
    domain = load("segformer", tmp_path).space["variant"].domain
    assert domain.probes() == tuple(f"mit-b{size}" for size in range(6))


def test_the_quickstart_is_small(tmp_path: Path) -> None:
    spec = load("quickstart", tmp_path).spec
    assert spec.budget.trials >= 8
    assert spec.data.dataset == "streets"
    assert (spec.resources.cpu, spec.resources.gpu, spec.budget.max_concurrent) == (1, 0, 2)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_files_are_commented(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert sum("#" in line for line in lines) >= 25
    assert max(map(len, lines)) <= 120
