"""What the README says about a cluster, on isolated machines: `make e2e-cluster`."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from machines import Machines, why_not

from segbench.core.paths import SweepPaths

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

SWEEP = "sweeps/quickstart.yaml"
SETTINGS = (
    "name=e2e data.size=[32,64] data.num_images=[16,8,8] resources.cpu=2 budget.max_concurrent=3 budget.trials=4 "
    "search.startup_trials=2 scheduler.max_epochs=3 scheduler.grace_epochs=1 retrain.seeds=2"
)
REST = f"cluster/local.yaml {SWEEP} " + " ".join(f"--set {text}" for text in SETTINGS.split())


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("hosts"), 4) as found:
        found.bring_checkout()
        yield found


@pytest.mark.timeout(900)
def test_a_sweep_on_three_machines_as_the_readme_says(machines: Machines, tmp_path: Path) -> None:
    machines.laptop("ray get-auth-token --generate >/dev/null")
    machines.laptop(f"segbench cluster check {REST}")
    machines.laptop("ray up -y cluster/local.yaml")
    said = machines.laptop(f"segbench cluster submit {REST}")
    assert f"follow    segbench cluster logs --follow cluster/local.yaml {SWEEP}" in said

    again = machines.laptop(f"segbench cluster submit {REST}", is_checked=False)
    assert "the sweep e2e is running already" in again

    ledger = SweepPaths(machines.shared / "segbench/e2e").ledger("search")
    while not ledger.exists() or '"COMPLETE"' not in ledger.read_text():
        time.sleep(0.5)
    assert "COMPLETE" in machines.laptop(f"segbench cluster logs {REST}")
    machines.laptop(f"segbench cluster fetch {REST} --to early && segbench status early")
    machines.laptop(f"segbench cluster stop {REST}")
    machines.laptop(f"segbench cluster submit {REST}")
    followed = machines.laptop(f"segbench cluster logs --follow {REST}")
    assert re.search(r"search [1-9]/6: ", followed), "what had ended before the stop is not done again"
    assert "leaderboard  /shared/segbench/e2e/leaderboard.csv" in followed
    state = machines.laptop(f"segbench cluster status {REST}")
    assert "Job 'segbench-e2e' succeeded" in state
    assert f"/{3 * (os.cpu_count() or 1)}.0 CPU" in state, "three workers offer their cores, and the head none"

    machines.laptop(f"segbench cluster submit {REST} --set name=blind --set storage=/srv/own-disk")
    said = machines.laptop(f"segbench cluster logs --follow {REST} --set name=blind", is_checked=False)
    assert re.search(r"storage: /srv/own-disk/blind is not the same folder on all nodes: 10\.77\.0\.12, ", said)

    machines.laptop(f"segbench cluster fetch {REST}")
    machines.laptop("segbench leaderboard runs/e2e && cp -r runs/e2e /shared/fetched")
    machines.laptop("ray down -y cluster/local.yaml")

    paths = SweepPaths(machines.shared / "fetched")
    commit = machines.laptop("git rev-parse HEAD").strip()
    assert json.loads(paths.versions.read_text().splitlines()[0])["commit"].startswith(commit)
    board = pd.read_csv(paths.leaderboard)
    assert set(board["name"]) >= {"baseline-unet", "baseline-segformer-b0"}
    assert board["test/miou mean"].between(0, 1).all()
    assert list(paths.model(board["name"][0]).glob("*.safetensors"))
    for worker in machines.names[1:]:
        packed = machines.run(worker, "find ~/.cache/segbench -type f")
        assert packed.strip(), f"{worker} has trained nothing: it has no packed data set"
    machines.run("laptop", "cp ~/.ray/auth_token /shared/token")
    assert (machines.shared / "token").read_text().strip() not in followed + said + state
