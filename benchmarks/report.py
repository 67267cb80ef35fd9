"""Times report.html of a long sweep: 1,000 trials of up to 50 epochs, built and opened in headless Chromium.

    python benchmarks/report.py [--trials 1000] [--epochs 50]

The sweep is synthetic (curves that rise towards a ceiling, none of them stopped, one in twenty audited, with confusion
matrices), written through the real ledger; report and browser are real. Opening is timed from the call to the end of
the load event, and to the moment when every chart in the first two screens has been drawn.
"""

import argparse
import math
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browsing import open_browser
from sweep_ledgers import SweepWriter, make_spec, write_tested

from segbench.core.paths import SweepPaths, atomic_write
from segbench.core.records import TrialState
from segbench.report.build import write_report
from segbench.spec.load import dump_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=50)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="segbench-report-"))
    try:
        paths = write_sweep(folder / "long", arguments.trials, arguments.epochs)
        started = time.perf_counter()
        write_report(paths)
        built_s = time.perf_counter() - started
        print(f"{arguments.trials} trials x {arguments.epochs} epochs: built in {built_s:.1f} s, "
              f"{paths.report.stat().st_size / 1e6:.1f} MB")  # fmt: skip
        loaded_s, drawn_s = open_page(paths.report)
        print(f"opened in {loaded_s:.2f} s, first charts drawn after {drawn_s:.2f} s")
    finally:
        shutil.rmtree(folder)


def write_sweep(folder: Path, num_trials: int, num_epochs: int) -> SweepPaths:
    """Return the folder of a sweep of which nothing is stopped: the most that a report can have to show."""
    writer = SweepWriter(SweepPaths(folder))
    write_tested(writer)
    atomic_write(writer.paths.spec, dump_spec(make_spec(scheduler={"max_epochs": num_epochs, "audit": 0.05})))
    rng = np.random.default_rng(0)
    real, os.fsync = os.fsync, lambda descriptor: None  # a disk's time is not the report's
    for number in range(3, num_trials):
        lr = float(10 ** rng.uniform(-4, -2))
        ceiling = 0.6 - 0.1 * abs(math.log10(lr) + 3) + rng.normal(0, 0.03)
        scores = [ceiling * (1 - math.exp(-epoch / 8)) + rng.normal(0, 0.01) for epoch in range(1, num_epochs + 1)]
        start = {"params": {"lr": lr}}
        if number % 20 == 0:
            writer.audited(number, f"trial-{number:04d}", scores, 9, **start)
        else:
            writer.trial("search", number, f"trial-{number:04d}", scores, TrialState.COMPLETE, **start)
    os.fsync = real
    writer.close()
    return writer.paths


def open_page(report: Path) -> tuple[float, float]:
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        started = time.perf_counter()
        page.goto(report.as_uri(), wait_until="load")
        loaded_s = time.perf_counter() - started
        page.wait_for_function("""[...document.querySelectorAll('.chart')].every((chart) =>
            chart.getBoundingClientRect().top > innerHeight || chart.dataset.drawn)""")
        return loaded_s, time.perf_counter() - started


if __name__ == "__main__":
    main()
