"""The disk that a sweep takes stays below what the dry run says."""

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import run

from segbench.cli import main
from segbench.core.paths import SweepPaths, link_or_copy
from segbench.spec.load import load_spec
from segbench.sweep.disk import has_hard_links
from segbench.sweep.prepare import disk_of

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


class Peak:
    """The largest size of a folder that was seen."""

    size = 0


@contextmanager
def watched(folder: Path) -> Iterator[Peak]:
    """Look at the folder all the time."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(0.002):  # a look takes as long; without a pause the sweep itself would hardly run
            peak.size = max(peak.size, size(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


@pytest.mark.parametrize("retrain", ["", "retrain: {top_k: 1, seeds: 2}"])
def test_the_peak_stays_below_the_plan(retrain: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.yaml"
    path.write_text(FILE.format(cache=tmp_path / "cache", retrain=retrain))
    loaded = load_spec(path)
    paths = SweepPaths(tmp_path / "sweep")
    plan = disk_of(loaded, paths)
    with watched(paths.root) as peak:
        run(loaded, paths.root)
    assert plan.largest_model / 2 < peak.size <= plan.peak
    assert size(paths.root) <= plan.kept + plan.tests + 1e6
    assert not list(paths.root.glob("trials/*/*/last"))
    models = sorted(paths.root.glob("models/*/model.safetensors"))
    assert models
    assert all(model.stat().st_nlink == 2 for model in models), "a copy where a second name would do"


WHOLE = """
name: whole
data: {{size: [64, 128], num_images: [4, 2, 12], cache_dir: {cache}}}
training: {{batch_size: 2, width: 48, depth: 3, ema_decay: 0.9}}
parameters: {{lr: {{distribution: log_uniform_values, min: 1e-4, max: 1e-2}}}}
baselines: [{{name: unet, parameters: {{lr: 1e-3}}}}]
scheduler: {{max_epochs: 3, grace_epochs: 1}}
budget: {{trials: 3, max_concurrent: 1}}
retrain: {{top_k: 2, seeds: 2}}
"""


@pytest.mark.slow
def test_the_peak_of_a_whole_sweep_with_mlflow_tests_and_report_stays_below_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(WHOLE.format(cache=tmp_path / "cache"))
    paths = SweepPaths(tmp_path / "sweep")
    plan = disk_of(load_spec(path), paths)
    with watched(paths.root) as peak:
        main(["sweep", str(path), "--executor", "local", "--out", str(paths.root)])
    assert paths.mlflow_db.exists()
    assert paths.report.exists()
    assert list(paths.root.glob("trials/test/*/examples/*.png"))
    assert 0.4 * plan.peak < peak.size <= plan.peak, "true, and no idle word"
    weights = sum(size(folder) for folder in (paths.root / "trials/retrain", paths.mlflow_artifacts / "models"))
    assert 0.7 * plan.kept < weights <= plan.kept


def test_a_second_name_takes_the_place_of_what_was_there_and_is_a_copy_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "models" / "target"
    source.write_text("new")
    target.parent.mkdir()
    target.write_text("old")
    for _ in range(2):
        link_or_copy(source, target)
        assert target.samefile(source)
    assert [path.name for path in target.parent.iterdir()] == ["target"]

    def refuse(self: Path, other: Path) -> None:
        raise OSError("no links here")

    assert has_hard_links(tmp_path / "not" / "there")
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert not has_hard_links(tmp_path)
    target.unlink()
    link_or_copy(source, target)
    assert not target.samefile(source)
    assert target.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "source"]


def test_copies_in_the_models_folder_are_counted_where_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(WHOLE.format(cache=tmp_path / "cache"))
    loaded, paths = load_spec(path), SweepPaths(tmp_path / "sweep")
    with_links = disk_of(loaded, paths)
    monkeypatch.setattr("segbench.sweep.disk.has_hard_links", lambda folder: False)
    without = disk_of(loaded, paths)
    assert without.kept - with_links.kept >= 3 * with_links.largest_model
