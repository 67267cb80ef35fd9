"""A sweep in a bucket: killed, its copy deleted, continued elsewhere; it ends like a calm one in a folder."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from buckets import serve_s3
from chaos.killing import TESTS, TIMEOUT_S, assert_same, finish, kill_tree
from chaos.test_chaos import unet_file
from running import SYNTHETIC

from segbench.cli import main
from segbench.core.address import sweep_paths
from segbench.core.paths import SweepPaths
from segbench.storage.bucket import Bucket
from segbench.storage.lease import CLAIMS

PLACE = "s3://segbench-test/runs"


def start(file: Path, executor: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "segbench.sweep", str(file), "--executor", executor, "--set", f"storage={PLACE}"]
    log = file.with_suffix(".log").open("ab")
    return subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True)


def survive(file: Path, executor: str, kills: list[tuple[str, int]], store: Mapping[str, str], cache: Path) -> None:
    """Run the sweep; kill it when a stage has so many events, and delete all that the machine has kept."""
    environment = {**store, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "SEGBENCH_CACHE": str(cache)}
    bucket = Bucket(f"{PLACE}/{file.stem}")
    for stage, count in kills:
        process = start(file, executor, environment)
        deadline = time.monotonic() + TIMEOUT_S
        while sum(1 for _ in bucket.entries(f"state/{stage}")) < count:
            assert process.poll() is None, file.with_suffix(".log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        kill_tree(process.pid)
        process.wait()
        shutil.rmtree(cache)
    process = start(file, executor, environment)
    assert process.wait(TIMEOUT_S) == 0, file.with_suffix(".log").read_text()[-3000:]


def compare(file: Path, executor: str, kills: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    calm = finish(file, file.parent / "calm", "local")
    with serve_s3() as store:
        for key, value in store.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("SEGBENCH_CACHE", str(file.parent / "cache"))
        place = f"{PLACE}/{file.stem}"
        survive(file, executor, kills, store, file.parent / "cache")
        assert_same(sweep_paths(place), calm)

        main(["leaderboard", place, "--format", "csv"])
        main(["status", place])
        seen = sweep_paths(place, "views")
        assert seen.leaderboard.read_bytes() == sweep_paths(place).leaderboard.read_bytes()
        _whole_and_clean(Bucket(place), SweepPaths(calm.root))


def _whole_and_clean(bucket: Bucket, calm: SweepPaths) -> None:
    names = set(bucket.entries())
    results = {"sweep.yaml", "leaderboard.csv", "trials.parquet", "metrics.parquet", "report.html"}
    models = {path.relative_to(calm.root).as_posix() for path in calm.root.glob("models/*/*")}
    pictures = {path.relative_to(calm.root).as_posix() for path in calm.root.glob("trials/*/*/examples/*")}
    assert results | models | pictures <= names
    assert not {name for name in names if "/last/" in name or name.startswith(CLAIMS)}, (
        "checkpoints and claims are gone"
    )
    for stage in ("search", "retrain"):
        assert sum(name.startswith(f"state/{stage}/") for name in names) == 1, "each ledger is one object at the end"


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_in_a_bucket_killed_and_continued_elsewhere_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "synthetic.yaml"
    file.write_text(SYNTHETIC.format(function="curve", trials=8, retrain="retrain: {top_k: 2, seeds: 2}"))
    compare(file, "ray", [("search", 12), ("retrain", 5)], monkeypatch)


@pytest.mark.slow
def test_real_models_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="needs torch in a process of its own")
    compare(unet_file(tmp_path), "local", [("search", 9), ("test", 1)], monkeypatch)
