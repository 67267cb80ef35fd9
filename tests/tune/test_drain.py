"""A node that is given notice: its trials go on elsewhere, and no epoch is trained twice."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import ray
from objectives import Step, read_trail
from ray.cluster_utils import Cluster
from running import SYNTHETIC, local, outcome, run

from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import Cause, Failure
from segbench.spec.load import load_spec
from segbench.tune.adapters import explain_death
from segbench.tune.trainable import NodeDrainedError

TESTS = Path(__file__).parents[1]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    yield cluster
    with contextlib.suppress(Exception):
        ray.shutdown()
    cluster.shutdown()


def wait_for_epoch(folder: Path, epoch: int) -> Step:
    """Return the step of a trial's trail that ends ``epoch``."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            for step in read_trail(folder):
                if step.epoch == epoch:
                    return step
        assert time.monotonic() < deadline, f"{folder} does not come to epoch {epoch}"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.ray
def test_trials_leave_a_drained_node_and_lose_nothing(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "trail.yaml"
    text = SYNTHETIC.format(function="trail", trials=2, retrain="").replace("max_concurrent: 1", "max_concurrent: 2")
    file.write_text(text)
    settings = ["scheduler.type=none", "scheduler.max_epochs=12"]
    paths = SweepPaths(tmp_path / "out")
    command = [
        sys.executable,
        "-m",
        "segbench.sweep",
        str(file),
        "--out",
        str(paths.root),
        "--address",
        cluster.address,
    ]
    command += [word for text in settings for word in ("--set", text)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    drained = wait_for_epoch(paths.trial("search", "baseline-default"), 3)
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    client = ray._raylet.GcsClient(address=cluster.address)
    is_accepted, why = client.drain_node(drained.node, 2, "notice", int(time.time() + 60) * 1000)  # 2: preemption
    assert is_accepted, why
    assert process.wait(120) == 0, (tmp_path / "log").read_text()

    said = (tmp_path / "log").read_text()
    assert re.search(r"(baseline-default|trial-0001): its node \S+ was drained; it will go on after epoch \d+\n", said)
    assert "Traceback" not in said
    records = read_ledger(paths.ledger("search"))
    moved = [record for record in records if record.attempts]
    assert moved
    assert {attempt.cause for record in moved for attempt in record.attempts} == {Cause.DRAIN}
    for record in records:
        steps = read_trail(paths.trial("search", record.assignment.name))
        epochs = [step.epoch for before, step in pairwise(steps) if step.epoch > before.epoch]
        assert epochs == list(range(1, 13)), "an epoch was trained twice, or lost"
        assert len({step.node for step in steps}) == (2 if record in moved else 1)
    assert outcome(paths) == outcome(run(load_spec(file, settings), tmp_path / "calm", local))


def test_what_ray_says_of_a_node_that_was_taken_away_is_no_death() -> None:
    error = ray.exceptions.ActorDiedError()
    assert explain_death(error).cause is Cause.WORKER
    error._preempted = True
    assert explain_death(error).cause is Cause.DRAIN
    left = ray.exceptions.RayTaskError("step", f"Traceback ...\n{NodeDrainedError.__name__}: 10.0.0.7", ValueError())
    assert explain_death(left) == Failure(Cause.DRAIN, "its node 10.0.0.7 was drained")
    assert explain_death(None) == Failure(Cause.WORKER, "its process ended")
