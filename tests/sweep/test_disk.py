"""The disk that a sweep takes stays below what the dry run says."""

import contextlib
import os
import threading
from pathlib import Path

import pytest
from running import local

from segbench.core.paths import SweepPaths
from segbench.spec.load import load_spec
from segbench.sweep.folder import open_folder
from segbench.sweep.prepare import disk_of
from segbench.sweep.stages import Sweep

FILE = """
name: disk
data: {{size: [32, 64], num_images: [4, 2, 2], cache_dir: {cache}}}
training: {{batch_size: 2}}
parameters: {{width: {{min: 24, max: 48}}, depth: {{values: [2, 3]}}, ema_decay: {{values: [null, 0.9]}}}}
scheduler: {{max_epochs: 2}}
budget: {{trials: 3, max_concurrent: 1}}
{retrain}
mlflow: {{enabled: false}}
"""


def size(folder: Path) -> int:
    """Return the bytes of all files, each hard-linked one once; files and folders may vanish meanwhile."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(os.path.join(parent, name))
                found[status.st_ino] = status.st_size
    return sum(found.values())


@pytest.mark.parametrize("retrain", ["", "retrain: {top_k: 1, seeds: 2}"])
def test_the_peak_stays_below_the_plan(retrain: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.yaml"
    path.write_text(FILE.format(cache=tmp_path / "cache", retrain=retrain))
    loaded = load_spec(path)
    plan = disk_of(loaded)
    paths = SweepPaths(tmp_path / "sweep")
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):  # a look takes as long; without a pause the sweep itself would hardly run
            peak = max(peak, size(paths.root))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with open_folder(paths, loaded.spec):
            Sweep(loaded, paths, local).run()
    finally:
        done.set()
        watcher.join()
    assert plan.largest_model < peak <= plan.peak
    assert size(paths.root) <= plan.kept * 1.05 + 1e6
    assert not list(paths.root.glob("trials/*/*/last"))
