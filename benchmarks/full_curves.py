"""Records full learning curves, none stopped early, for the tests of the early-stopping audit.

    python benchmarks/full_curves.py          # writes tests/search/full_curves.csv, some minutes on one core

150 small UNets on generated street scenes, 9 epochs each, settings drawn at random: a sweep as anybody runs it, with
``scheduler.type: none``. A row per trial: what was drawn, then val/miou after each epoch.
"""

import csv
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.search.sequential import run_sequential
from segbench.spec.load import load_spec
from segbench.sweep.folder import open_folder
from segbench.sweep.stages import Sweep
from segbench.training.trial import run_trial

TARGET = Path(__file__).parents[1] / "tests" / "search" / "full_curves.csv"
SWEEP = """
name: full-curves
data: {size: [32, 64], num_images: [40, 16, 4]}
training: {width: 4, depth: 3, batch_size: 4}
parameters:
  lr: {distribution: log_uniform_values, min: 3e-4, max: 1e-1}
  optimizer: {values: [adamw, sgd]}
  width: {values: [4, 6, 8]}
  schedule: {values: [constant, poly, cosine]}
  warmup_epochs: {min: 0.0, max: 3.0}
  loss: {values: [ce, dice, ce+dice, focal]}
  class_weights: {values: [none, inverse-sqrt]}
  norm: {values: [batch, group, none]}
  flip: {values: [0.0, 0.5]}
search: {algorithm: random, seed: 1}
scheduler: {type: none, max_epochs: 9}
budget: {trials: 150}
mlflow: {enabled: false}
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "full-curves.yaml"
        file.write_text(SWEEP)
        loaded, paths = load_spec(file), SweepPaths(Path(folder) / "sweep")
        with open_folder(paths, loaded.spec):
            Sweep(loaded, paths, lambda stages: run_sequential(stages, run_trial)).run()
        records = read_ledger(paths.ledger("search"))
    names = [parameter.name for parameter in loaded.space.parameters]
    with TARGET.open("w", newline="") as target:
        rows = csv.writer(target, lineterminator="\n")
        rows.writerow(["number", *names, *(f"epoch {epoch}" for epoch in range(1, 10))])
        for record in records:
            params = [_short(record.assignment.params[name]) for name in names]
            rows.writerow([record.number, *params, *(f"{epoch.score:.5f}" for epoch in record.epochs)])
    print(f"{TARGET}: {len(records)} curves, {sum(record.seconds for record in records):.0f} s of training")


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
