"""Records learning curves of UNets and SegFormers in one conditional space, for judging the search.

    python benchmarks/segmentation_curves.py --root data/camvid     # an hour or two on two cores

Each configuration of ``segmentation_curves.yaml`` (drawn at random, 21 parameters) is trained for 27 epochs without
stopping, on small images of CamVid and of generated streets, and again with another seed: val/miou after each epoch.
A training that broke down has NaN from there. The table, ``segmentation_curves.npz``, is written again after every ten
trainings and has NaN where nothing is recorded yet: the same command goes on where it was stopped.
"""

import argparse
import json
import math
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from segbench.core.paths import atomic_path
from segbench.core.seeding import derive_seed
from segbench.spec.load import load_spec
from segbench.spec.space import Categorical, Integer, Real, Space

HERE = Path(__file__).parent
SPACE = HERE / "segmentation_curves.yaml"
TABLE = HERE / "segmentation_curves.npz"
EPOCHS = 27
SEEDS = 2
DATASETS = ("camvid", "streets")
SHARE_OF_UNETS = 0.7
Job = tuple[str, int, int]
"""Data set, seed, number of the configuration."""


def main() -> None:
    """Train what is not trained yet."""
    options = arguments()
    space = load_spec(SPACE).space
    configs = [draw(space, number) for number in range(options.configs)]
    done = read_table()
    jobs = [(name, seed, n) for seed in range(SEEDS) for n in range(options.configs) for name in DATASETS]
    missing = [job for job in jobs if job not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        futures = [pool.submit(curve, job, configs[job[2]], options.root) for job in missing]
        for count, future in enumerate(as_completed(futures), start=1):
            job, scores, seconds = future.result()
            done[job] = scores
            print(f"{count}/{len(missing)} {job}: {max([0.0, *scores]):.4f} in {seconds:.1f} s", flush=True)
            if count % 10 == 0 or count == len(missing):
                write_table(configs, done)


def arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="CamVid in the Cityscapes layout")
    parser.add_argument("--configs", type=int, default=600)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    options.root = str(Path(options.root).resolve())
    return options


def draw(space: Space, number: int) -> dict[str, Any]:
    """Return configuration ``number``: every active parameter, drawn as the sweep file says.

    The model alone is drawn with weights: a SegFormer takes three times as long as a UNet.
    """
    rng = np.random.default_rng(derive_seed(0, "segmentation-curves", number))
    params: dict[str, Any] = {}
    for parameter in space.parameters:
        u, domain = float(rng.uniform()), parameter.domain
        if not space.is_active(parameter, params):
            continue
        if parameter.name == "model":
            params["model"] = "unet" if u < SHARE_OF_UNETS else "segformer"
        elif isinstance(domain, Categorical):
            params[parameter.name] = domain.values[int(u * len(domain.values))]
        elif isinstance(domain, Integer):
            params[parameter.name] = domain.low + int(u * (domain.high - domain.low + 1))
        else:
            assert isinstance(domain, Real)
            params[parameter.name] = domain.value_at(u)
    return params


def curve(job: Job, params: dict[str, Any], root: str) -> tuple[Job, list[float], float]:
    """Train, and return the scores up to the last epoch or to where the training broke down."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from segbench.core.config import DataConfig, TrialConfig
    from segbench.core.errors import NonFiniteError
    from segbench.core.records import TrainContext
    from segbench.training.loop import train

    torch.set_num_threads(1)
    name, seed, number = job
    if name == "camvid":
        data = DataConfig(dataset="cityscapes", root=root, size=(32, 48), split="official", limit=50)
    else:
        data = DataConfig(dataset="streets", size=(32, 48), num_images=(32, 16, 4))
    context = TrainContext(max_epochs=EPOCHS, seed=derive_seed(seed, name, number), data=data)
    scores: list[float] = []
    started = time.perf_counter()
    try:
        for result in train(TrialConfig(**params), context):
            assert not isinstance(result, dict)
            scores.append(float(result.metrics["val/miou"]))
    except NonFiniteError as error:
        print(f"{job}: {error}", flush=True)
    return job, [score for score in scores if math.isfinite(score)], time.perf_counter() - started


def read_table() -> dict[Job, list[float]]:
    """Return the finished trainings; none while there is no table."""
    if not TABLE.exists():
        return {}
    stored = np.load(TABLE)
    return {
        (name, int(seed), int(number)): [float(score) for score in stored[name][seed, number] if not math.isnan(score)]
        for name in DATASETS
        for seed, number in zip(*np.nonzero(stored[f"{name}-recorded"]), strict=True)
    }


def write_table(configs: list[dict[str, Any]], done: dict[Job, list[float]]) -> None:
    """Write the table.

    ``configs`` are JSON texts; ``<data set>`` is (seeds, configurations, epochs) of float32, NaN from where a training
    broke down, and ``<data set>-recorded`` (seeds, configurations) says which trainings there are.
    """
    arrays: dict[str, Any] = {"configs": np.array([json.dumps(config) for config in configs])}
    for name in DATASETS:
        curves = np.full((SEEDS, len(configs), EPOCHS), np.nan, np.float32)
        recorded = np.zeros((SEEDS, len(configs)), bool)
        for (of, seed, number), scores in done.items():
            if of == name and number < len(configs):
                curves[seed, number, : len(scores)] = np.round(scores, 4)
                recorded[seed, number] = True
        arrays |= {name: curves, f"{name}-recorded": recorded}
    with atomic_path(TABLE) as new, new.open("wb") as file:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
