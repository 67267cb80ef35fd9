"""An autoscaler with GPU nodes that are only processes: workers come for a sweep, and go."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from objectives import read_trail
from ruamel.yaml import YAML
from running import SYNTHETIC

from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import TrialState
from segbench.tune.launcher import complete_config

TESTS = Path(__file__).parents[1]
PORT = 26379
CLUSTER = """
cluster_name: fake
max_workers: 3
idle_timeout_minutes: 0.1
upscaling_speed: 3
provider:
  type: external
  module: ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider
  gcs_address: {address}
  use_node_id_as_ip: true
  disable_node_updaters: true
  disable_launch_config_check: true
available_node_types:
  ray.head.default: {{resources: {{CPU: 0, GPU: 0}}, node_config: {{}}, max_workers: 0}}
  gpu: {{resources: {{CPU: 1, GPU: 1}}, node_config: {{}}, min_workers: 0, max_workers: 3}}
head_node_type: ray.head.default
auth: {{}}
docker: {{}}
file_mounts: {{}}
cluster_synced_files: []
file_mounts_sync_continuously: false
initialization_commands: []
setup_commands: []
head_setup_commands: []
worker_setup_commands: []
head_start_ray_commands: []
worker_start_ray_commands: []
"""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a head that may start three nodes with a GPU each, as `ray up` would leave it."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    here = f"{ray.util.get_node_ip_address()}:{PORT}"
    file = tmp_path / "ray_bootstrap_config.yaml"
    config, refused = complete_config(YAML(typ="safe").load(CLUSTER.format(address=here)))
    assert not refused
    file.write_text(json.dumps(config))
    arguments = ["--num-cpus=0", "--num-gpus=0", "--object-store-memory=100000000", "--include-dashboard=false"]
    arguments += [f"--ray-client-server-port={PORT + 1}", f"--autoscaling-config={file}", "--block"]
    environment = {
        **os.environ,
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", f"--port={PORT}", *arguments]
    with (tmp_path / "head.log").open("wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not is_open(PORT):
            assert head.poll() is None, (tmp_path / "head.log").read_text()
            assert time.monotonic() < deadline, "the head does not come"
            time.sleep(0.2)
        ray.init(address=here, log_to_driver=False, configure_logging=False)  # to count nodes
        yield here
    finally:
        ray.shutdown()
        for process in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
            process.kill()
        head.wait()


def is_open(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((ray.util.get_node_ip_address(), port)) == 0


def start(folder: Path, address: str, *options: str) -> "subprocess.Popen[str]":
    file = folder / "gathering.yaml"
    text = SYNTHETIC.format(function="gathering", trials=11, retrain="")
    file.write_text(text.replace("max_concurrent: 1", "max_concurrent: 3").replace("cpu: 1", "cpu: 1, gpu: 1"))
    command = [sys.executable, "-m", "segbench.sweep", str(file), "--out", str(folder / "out"), "--address", address]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "HOME": str(folder)}
    return subprocess.Popen(
        [*command, "--growing", *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def living() -> set[str]:
    """Return the ids of the nodes with a GPU that live."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")}


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_workers_come_for_the_trials_and_go_afterwards(address: str, tmp_path: Path) -> None:
    head = next(node["NodeID"] for node in ray.nodes())
    assert not living()

    never = start(tmp_path, address, "--set", "resources.gpu=2")
    said, _ = never.communicate(timeout=60)
    assert never.returncode == 2
    assert "resources.gpu=2, but there are 1 GPUs" in said
    assert not living()

    started = time.monotonic()
    process = start(tmp_path, address)
    counts = [0]
    while process.poll() is None:
        if len(living()) != counts[-1]:
            counts.append(len(living()))
            print(f"{counts[-1]} workers after {time.monotonic() - started:.0f} s")
        time.sleep(0.2)
    assert process.returncode == 0, process.stdout.read() if process.stdout else ""
    assert max(counts) == 3
    ended = time.monotonic()
    while living():
        assert time.monotonic() - ended < 60, "workers stay that have nothing to do"
        time.sleep(0.5)
    print(f"the sweep took {ended - started:.0f} s, the last worker went {time.monotonic() - ended:.0f} s later")

    paths = SweepPaths(tmp_path / "out")
    records = read_ledger(paths.ledger("search"))
    assert len(records) == 12
    assert {record.state for record in records} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert not any(record.attempts for record in records)
    nodes = {step.node for r in records for step in read_trail(paths.trial("search", r.assignment.name))}
    assert head not in nodes
    assert len(nodes) == 3
