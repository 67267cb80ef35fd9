"""A real MLflow server that goes away, and one that never answers: training goes on, and nothing is missing later."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from chaos.killing import TESTS, count_events
from running import SYNTHETIC

from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """Run `mlflow server` on loopback with its database in ``folder``; wait until it answers."""
    arguments = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "art")]
    log = (folder / "server.log").open("ab")
    process = subprocess.Popen([sys.executable, *arguments, *store], stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def sweep(folder: Path, port: int) -> subprocess.Popen[str]:
    file = folder / "slow.yaml"
    text = SYNTHETIC.format(function="slow", trials=12, retrain="retrain: {top_k: 1, seeds: 2}")
    file.write_text(text.replace("{enabled: false}", f"{{tracking_uri: 'http://127.0.0.1:{port}'}}"))
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    command = [sys.executable, "-m", "segbench.sweep", str(file), "--executor", "local", "--out", str(folder / "sweep")]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def assert_all_points(paths: SweepPaths, port: int) -> None:
    client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
    experiment = client.get_experiment_by_name("synthetic")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    runs = {run.data.tags.get("trial", run.info.run_name): run for run in found}
    records = [*read_ledger(paths.ledger("search")), *read_ledger(paths.ledger("retrain"))]
    assert len(runs) == len(records) + 1
    assert {run.info.status for run in runs.values()} <= {"FINISHED", "FAILED"}
    for record in records:
        run = next(run for name, run in runs.items() if name.endswith(record.assignment.name))
        history = client.get_metric_history(run.info.run_id, "score")
        assert [(point.step, point.value) for point in history] == [(e.epoch, e.score) for e in record.epochs]


def test_a_server_that_stops_in_the_middle_and_comes_back_has_every_point(tmp_path: Path) -> None:
    port = free_port()
    paths = SweepPaths(tmp_path / "sweep")
    with server(tmp_path, port):
        process = sweep(tmp_path, port)
        while count_events(paths) < 30:
            assert process.poll() is None
            time.sleep(0.1)
    # the server is gone; the sweep does not notice
    events = count_events(paths)
    while count_events(paths) < events + 20:
        assert process.poll() is None
        time.sleep(0.1)
    with server(tmp_path, port):
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        command = [sys.executable, "-m", "segbench", "mlflow", "sync", str(paths.root)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        assert_all_points(paths, port)


def test_a_server_that_accepts_and_never_answers_holds_nothing_up(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        port = int(silent.getsockname()[1])
        process = sweep(tmp_path, port)
        _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "segbench mlflow sync" in said
    paths = SweepPaths(tmp_path / "sweep")
    assert paths.leaderboard.exists()
    with server(tmp_path, port):
        command = [sys.executable, "-m", "segbench", "mlflow", "sync", str(paths.root)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        assert_all_points(paths, port)
