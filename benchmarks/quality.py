"""Final mIoU with and without each switch that changes arithmetic, over seeds, on CamVid.

    python benchmarks/quality.py --root data/camvid --json quality.json

Each training differs from the reference (float32, contiguous, image by image augmentation on the host, no averaging)
in one switch, and is compared with the reference of the same model and seed: weights, order and augmentation begin
alike. A switch costs mIoU if its mean difference is below 0 by more than two standard errors. Two trainings run at a
time, one thread each. Finished ones stand in --results and are not repeated: the same command goes on after a stop.
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import measure

MODELS: Mapping[str, Mapping[str, Any]] = {
    "unet-16": {"model": "unet", "width": 16},
    "segformer-b0": {"model": "segformer", "variant": "mit-b0"},
}
PLAIN = {"precision": "fp32", "channels_last": False, "ema_decay": None}
SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "reference": {},
    "bf16 + channels_last": {"precision": "bf16", "channels_last": True},
    "augmentation on the device": {"batched": True},
    "ema 0.99": {"ema_decay": 0.99},
}
TRAINING = {
    "batch_size": 8, "lr": 1e-3, "schedule": "poly", "warmup_epochs": 0.5, "class_weights": "inverse-sqrt",
    "flip": 0.5, "scale_min": 0.75, "scale_max": 1.5, "color": 0.3,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training; equal ones give equal scores."""

    model: str
    switch: str
    seed: int
    epochs: int
    size: tuple[int, int]
    root: str


def main() -> None:
    """Train what is not trained yet, then print the table."""
    options = measure.set_up(arguments())
    size = (options.size[0], options.size[1])
    trainings = [
        Training(model=model, switch=switch, seed=seed, epochs=options.epochs, size=size, root=options.root)
        for seed in range(options.seeds)  # whole pairs first, should the run be stopped
        for model in MODELS
        for switch in SWITCHES
        if not options.only or any(text in f"{model} {switch}" for text in options.only)
    ]
    done = dict(read_results(options.results))
    missing = [training for training in trainings if training not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool, options.results.open("a") as file:
        for count, future in enumerate(as_completed([pool.submit(score, t) for t in missing]), start=1):
            training, miou, seconds = future.result()
            done[training] = miou
            file.write(json.dumps({**asdict(training), "miou": miou, "seconds": seconds}) + "\n")
            file.flush()
            print(f"{count}/{len(missing)} {training.model} {training.switch}: {miou:.4f}", file=sys.stderr, flush=True)
    rows = compare({training: done[training] for training in trainings})
    machine = measure.describe_machine(options.device)
    print(f"# quality\n\n{measure.describe(machine)}; {options.epochs} epochs at {size[0]}x{size[1]}\n")
    print(table(rows))
    if options.json is not None:
        measure.write_json(options.json, {"benchmark": "quality", "machine": machine, "rows": rows})


def arguments() -> argparse.Namespace:
    """Return the options; ``--quick`` is one seed and one epoch."""
    parser = measure.parser(__doc__)
    parser.add_argument("--root", default=os.environ.get("CAMVID_ROOT"), help="CamVid in the Cityscapes layout")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(72, 96), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("quality.jsonl"), help="finished trainings, a line each")
    options = parser.parse_args()
    if options.root is None:
        parser.error("give --root, or set CAMVID_ROOT")
    options.root = str(Path(options.root).resolve())
    if options.quick:
        options.seeds = options.epochs = 1
    return options


def score(training: Training) -> tuple[Training, float, float]:
    """Train, and return the last epoch's mIoU on the validation split and the seconds it took."""
    import torch

    from segbench.core.config import DataConfig, TrialConfig
    from segbench.core.records import TrainContext
    from segbench.training.loop import train

    torch.set_num_threads(1)
    started = time.perf_counter()
    settings = {**TRAINING, **MODELS[training.model], **PLAIN, **SWITCHES[training.switch]}
    batched = settings.pop("batched", False)
    data = DataConfig(dataset="cityscapes", root=training.root, size=training.size, split="by-city")
    context = TrainContext(
        max_epochs=training.epochs, seed=training.seed, data=data, batched_augmentation=bool(batched)
    )
    miou = math.nan
    for result in train(TrialConfig(**settings), context):
        miou = result.metrics["val/miou"]
    return training, miou, round(time.perf_counter() - started, 1)


def read_results(path: Path) -> Iterator[tuple[Training, float]]:
    """Yield the finished trainings; a last line that was cut off by a kill is left out."""
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        miou = entry.pop("miou")
        entry.pop("seconds")
        yield Training(**{**entry, "size": tuple(entry["size"])}), miou


def compare(scores: Mapping[Training, float]) -> list[dict[str, Any]]:
    """Return a row per model and switch: mean mIoU, and the mean difference to the reference of the same seed."""
    by_place = {(t.model, t.switch, t.seed): miou for t, miou in scores.items()}
    rows = []
    for model, switch in dict.fromkeys((model, switch) for model, switch, _ in by_place):
        seeds = sorted(seed for m, s, seed in by_place if (m, s) == (model, switch))
        values = [by_place[model, switch, seed] for seed in seeds]
        references = [by_place.get((model, "reference", seed), math.nan) for seed in seeds]
        difference, error = mean_and_error([a - b for a, b in zip(values, references, strict=True)])
        rows.append(
            {"model": model, "switch": switch, "seeds": seeds, "miou": values, "mean": statistics.fmean(values),
             "spread": statistics.stdev(values) if len(values) > 1 else math.nan,
             "difference": difference, "standard_error": error, "costs": difference < -2 * error}
        )  # fmt: skip
    return rows


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error (NaN of one value)."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows in Markdown."""
    cells = []
    for row in rows:
        is_reference = row["switch"] == "reference"
        difference = "" if is_reference else f"{row['difference']:+.4f} ± {row['standard_error']:.4f}"
        verdict = (
            "" if is_reference else "COSTS" if row["costs"] else "no loss" if len(row["seeds"]) > 1 else "one seed"
        )
        score_cell = f"{row['mean']:.4f} ± {row['spread']:.4f}"
        cells.append((row["model"], row["switch"], str(len(row["seeds"])), score_cell, difference, verdict))
    header = ("model", "switch", "seeds", "val/miou (spread)", "difference (standard error)", "")
    return measure.markdown(header, cells)


if __name__ == "__main__":
    main()
