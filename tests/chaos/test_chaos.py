"""SIGKILL at random moments: the continued sweep equals the one that was left alone.

The short form is one of the slow tests (``make test-slow``). The long form is ``make chaos``; SEGBENCH_CHAOS_SEED
repeats one.
"""

import os
import random
from pathlib import Path

import pytest
from chaos.killing import assert_same, count_events, endure, finish, moments
from running import SYNTHETIC

from segbench.core.paths import SweepPaths

SEED = int(os.environ.get("SEGBENCH_CHAOS_SEED", random.SystemRandom().randrange(10**6)))

UNET = """
name: unet
data: {{size: [32, 64], num_images: [12, 4, 4], cache_dir: {cache}}}
training: {{width: 4, depth: 2, batch_size: 4, ema_decay: 0.9, flip: 0.5, precision: bf16, accumulation_steps: 2}}
parameters:
  lr: {{distribution: log_uniform_values, min: 1e-4, max: 1e-1}}
  schedule: {{values: [constant, one-cycle]}}
baselines: [{{name: seed, parameters: {{lr: 1e-3, patience: 2}}}}]
search: {{seed: 5, startup_trials: 2}}
scheduler: {{max_epochs: 4, grace_epochs: 1, reduction_factor: 2, audit: 0.3}}
budget: {{trials: 5, max_concurrent: 1}}
retrain: {{top_k: 1, seeds: 2}}
mlflow: {{enabled: false}}
"""


@pytest.fixture(autouse=True)
def _say_the_seed() -> None:
    print(f"SEGBENCH_CHAOS_SEED={SEED}")


def synthetic_file(folder: Path, trials: int) -> Path:
    path = folder / "synthetic.yaml"
    text = SYNTHETIC.format(function="curve", trials=trials, retrain="retrain: {top_k: 2, seeds: 2}")
    path.write_text(text.replace("reduction_factor: 3", "reduction_factor: 3, audit: 0.3"))
    return path


def unet_file(folder: Path) -> Path:
    path = folder / "unet.yaml"
    path.write_text(UNET.format(cache=folder / "cache"))
    return path


def compare(file: Path, folder: Path, executor: str, count: int, startup_s: float) -> int:
    calm = finish(file, folder / "calm", "local")
    chosen = moments(SEED, count, count_events(calm), startup_s)
    survivor, kills = endure(file, folder / "killed", executor, chosen)
    assert_same(survivor, calm)
    return kills


@pytest.mark.slow
def test_a_sweep_killed_again_and_again_ends_the_same(tmp_path: Path) -> None:
    assert compare(synthetic_file(tmp_path, 15), tmp_path, "local", count=7, startup_s=1.5) >= 4


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_on_ray_killed_twice_ends_the_same(tmp_path: Path) -> None:
    assert compare(synthetic_file(tmp_path, 10), tmp_path, "ray", count=3, startup_s=6) >= 2


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_many_kills_of_a_synthetic_sweep(executor: str, tmp_path: Path) -> None:
    kills = compare(synthetic_file(tmp_path, 40), tmp_path, executor, count=16, startup_s=6 if executor == "ray" else 2)
    print(f"{executor}: {kills} kills")
    assert kills >= 13


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_many_kills_of_real_training(executor: str, tmp_path: Path) -> None:
    kills = compare(unet_file(tmp_path), tmp_path, executor, count=8, startup_s=8 if executor == "ray" else 4)
    print(f"{executor}: {kills} kills")
    assert kills >= 6


def test_moments_are_spread_and_repeatable() -> None:
    chosen = moments(3, 20, 200, 2.0)
    assert chosen == moments(3, 20, 200, 2.0)
    assert {moment.phase for moment in chosen} == {"start-up", "running", "export"}
    assert count_events(SweepPaths(Path("/nowhere"))) == 0
