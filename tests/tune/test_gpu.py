"""``resources.gpu: auto``: decided where the GPUs are, kept in the sweep's folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from segbench.core.errors import UserError
from segbench.core.paths import SweepPaths
from segbench.spec.load import LoadedSpec, load_spec
from segbench.sweep.folder import open_folder
from segbench.sweep.preflight import demanding_configs
from segbench.sweep.prepare import share_gpu
from segbench.training.probe import Measurement
from segbench.training.sharing import Sharing, no_gpu, strictest
from segbench.tune.gpu import keep_sharing, share_on_cluster

FILE = """
name: share
data: {{size: [16, 32], num_images: [4, 2, 2], cache_dir: {cache}}}
training: {{batch_size: 2}}
parameters:
  model: {{values: [unet, segformer]}}
  width: {{min: 4, max: 64, when: {{model: unet}}}}
  batch_size: {{values: [4, 16, 8]}}
  accumulation_steps: {{values: [2, 4]}}
  precision: {{values: [fp32, bf16]}}
  ema_decay: {{values: [null, 0.9]}}
  lr: {{min: 0.001, max: 0.1}}
baselines: [{{name: small, parameters: {{model: unet, width: 8, batch_size: 4, accumulation_steps: 1}}}}]
resources: {{gpu: auto}}
mlflow: {{enabled: false}}
"""


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedSpec:
    (tmp_path / "share.yaml").write_text(FILE.format(cache=tmp_path))
    return load_spec(tmp_path / "share.yaml")


@pytest.fixture(scope="module")
def node_with_a_gpu() -> Iterator[None]:
    """A Ray that believes in a GPU; what is called there must not."""
    ray.init(num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def half() -> Sharing:
    return Sharing(gpu=0.5, device="Fake", reason="as told")


def too_large() -> Sharing:
    raise UserError("batch_size=48 does not fit")


def never() -> Sharing:
    raise AssertionError("decided twice")


def test_the_most_demanding_configuration_of_each_model_is_measured(loaded: LoadedSpec) -> None:
    configs = demanding_configs(loaded)
    assert {config.model for config in configs} == {"unet", "segformer"}
    searched = [config for config in configs if config.width != 8]
    assert {(c.batch_size, c.accumulation_steps, c.precision, c.ema_decay) for c in searched} == {(16, 1, "fp32", 0.9)}
    assert max(config.width for config in configs if config.model == "unet") == 64


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("node_with_a_gpu")
def test_the_node_decides_once_and_the_folder_keeps_it(tmp_path: Path) -> None:
    file = tmp_path / "state" / "sharing.json"
    assert keep_sharing(file, half) == half()
    assert keep_sharing(file, never) == half()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("node_with_a_gpu")
def test_what_does_not_fit_there_is_said_here(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch_size=48 does not fit"):
        share_on_cluster(too_large)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("node_with_a_gpu")
@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="this machine has a GPU to measure")
def test_a_gpu_that_torch_cannot_use_is_none(loaded: LoadedSpec) -> None:
    decided = share_on_cluster(share_gpu(loaded))
    assert (decided.gpu, decided.reason) == (0.0, "there is no GPU that torch can use")


def test_the_smallest_gpu_of_a_cluster_decides() -> None:
    seen = Measurement(fits=True, step_s=1.0)
    small = Sharing(gpu=0.5, device="T4", reason="", measurements={"a": seen})
    large = Sharing(gpu=0.25, device="A100", reason="", measurements={"b": seen})
    assert strictest([large, small, no_gpu("none")]) == Sharing(
        gpu=0.5, device="T4", reason="", measurements={"a": seen, "b": seen}
    )


def test_auto_is_how_a_sweep_is_run_not_what_it_is(loaded: LoadedSpec, tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "out")
    with open_folder(paths, loaded.spec):
        pass
    with open_folder(paths, load_spec(loaded.path, ["resources.gpu=1"]).spec):
        assert load_spec(paths.spec).spec.resources.gpu == 1
    with open_folder(paths, loaded.spec):
        assert load_spec(paths.spec).spec.resources.gpu == "auto"
