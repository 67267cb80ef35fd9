"""Four trials at a time on a cluster whose driver, workers and nodes are killed at random: nothing is lost or twice."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import psutil
import pytest
import ray
from chaos.killing import TESTS, TIMEOUT_S
from ray.cluster_utils import Cluster
from running import SYNTHETIC

from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import TrialState
from segbench.search.rungs import Rungs

SEED = int(os.environ.get("SEGBENCH_CHAOS_SEED", random.SystemRandom().randrange(10**6)))
KILLS = 18
HEALTH = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 4}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": HEALTH})
    for _ in range(3):
        cluster.add_node(num_cpus=1)
    yield cluster
    with contextlib.suppress(Exception):
        ray.shutdown()
    cluster.shutdown()


def start(file: Path, folder: Path, address: str) -> subprocess.Popen[bytes]:
    arguments = ["-m", "segbench.sweep", str(file), "--out", str(folder), "--address", address]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    log = (folder.parent / "driver.log").open("ab")
    return subprocess.Popen(
        [sys.executable, *arguments], env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log
    )


def workers() -> list[psutil.Process]:
    """Return the processes that run trials."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        name = " ".join(process.info["cmdline"] or [])
        if name.startswith("ray::") and "Trainable" in name:
            found.append(process)
    return found


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_kills_of_driver_workers_and_nodes(cluster: Cluster, tmp_path: Path) -> None:
    print(f"SEGBENCH_CHAOS_SEED={SEED}")
    draw = random.Random(SEED)
    file = tmp_path / "logged.yaml"
    text = SYNTHETIC.format(function="logged", trials=100, retrain="retrain: {top_k: 1, seeds: 2}")
    text = text.replace("max_concurrent: 1", "max_concurrent: 4").replace("enabled: false", "enabled: true")
    file.write_text(text)
    folder = tmp_path / "sweep"
    paths = SweepPaths(folder)
    nodes = [node for node in cluster.list_all_nodes() if node is not cluster.head_node]
    kills = {"driver": 0, "worker": 0, "node": 0}

    process = start(file, folder, cluster.address)
    while process.poll() is None:
        time.sleep(draw.uniform(2, 6))
        if sum(kills.values()) >= KILLS or process.poll() is not None:
            process.wait(TIMEOUT_S)
            break
        kind = draw.choice(["driver", "worker", "worker", "node"])
        if kind == "driver":
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = start(file, folder, cluster.address)
        elif kind == "worker":
            running = workers()
            if not running:
                continue
            draw.choice(running).kill()
        else:
            node = nodes.pop(draw.randrange(len(nodes)))
            cluster.remove_node(node, allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=1))
        kills[kind] += 1
    assert process.returncode == 0, (tmp_path / "driver.log").read_text()[-3000:]
    print(f"kills: {kills}")
    assert sum(kills.values()) >= 15

    records = read_ledger(paths.ledger("search"))
    assert [record.number for record in records] == list(range(101))
    assert all(record.state in (TrialState.COMPLETE, TrialState.PRUNED) for record in records), [
        (record.number, record.state, record.reason) for record in records
    ]
    rungs = Rungs((1, 3), 3, "maximize", records)
    for record in records:
        assert [epoch.epoch for epoch in record.epochs] == list(range(1, record.epochs_done + 1))
        for rung in (1, 3):
            assert (record.number in rungs.scores[rung]) == (record.epochs_done >= rung)

    trained = sum(len((f / "trained").read_text().split()) for f in (folder / "trials" / "search").iterdir())
    recorded = sum(record.epochs_done for record in records)
    lost = trained - recorded
    print(f"epochs recorded {recorded}, trained {trained}, lost {lost}")
    assert 0 <= lost <= 4 * (kills["driver"] + kills["node"]) + kills["worker"]

    client = mlflow.MlflowClient(f"sqlite:///{paths.mlflow_db}")
    runs = client.search_runs([client.get_experiment_by_name("synthetic").experiment_id], max_results=1000)
    assert len(runs) == 1 + 101 + 4
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}
    for run in runs:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "sum")]
        assert steps == list(range(1, len(steps) + 1))
