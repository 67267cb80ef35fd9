"""What the README says about a cluster, on isolated machines: `make e2e-cluster`."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from machines import ROOT, Machines, why_not

from segbench.cluster.archive import list_code
from segbench.paths import SweepPaths

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
        checkout = found.shared / "checkout"
        for name in list_code(ROOT):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name)
        change_five_lines(checkout / "cluster/local.yaml", found)
        commit = "git init -q && git add -A && git -c user.name=x -c user.email=x commit -qm x && git rev-parse HEAD"
        found.run("laptop", f"mv /shared/checkout/{{*,.gitignore}} {ROOT}/ && cd {ROOT} && {commit}")
        yield found


def change_five_lines(path: Path, machines: Machines) -> None:
    """Do what the cluster file tells its user to do."""
    head, *workers = (machines.address(name) for name in machines.names)
    values = {
        "head_ip": head,
        "worker_ips": f"[{', '.join(workers)}]",
        "ssh_user": "root",
        "ssh_private_key": "~/.ssh/cluster_key",
        "storage": "/shared/segbench",
    }
    before = path.read_text()
    text = before
    for number, (key, value) in enumerate(values.items(), 1):
        text, count = re.subn(rf"^(  {key}: ).*?( *# \({number}\))", rf"\g<1>{value}\g<2>", text, flags=re.MULTILINE)
        assert count == 1, f"{key} is not marked ({number})"
    path.write_text(text)
    changed = [pair for pair in zip(before.splitlines(), text.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(changed) <= 5


def laptop(machines: Machines, command: str, is_checked: bool = True) -> str:
    """Run a command in the laptop's checkout."""
    return machines.run("laptop", f"cd {ROOT} && {command}", is_checked)


@pytest.mark.timeout(900)
def test_a_sweep_on_three_machines_as_the_readme_says(machines: Machines, tmp_path: Path) -> None:
    laptop(machines, "ray get-auth-token --generate >/dev/null")
    laptop(machines, f"segbench cluster check {REST}")
    laptop(machines, "ray up -y cluster/local.yaml")
    said = laptop(machines, f"segbench cluster submit {REST}")
    assert f"follow    segbench cluster logs --follow cluster/local.yaml {SWEEP}" in said

    again = laptop(machines, f"segbench cluster submit {REST}", is_checked=False)
    assert "the sweep e2e is running already" in again

    while "COMPLETE" not in laptop(machines, f"segbench cluster logs {REST}"):
        time.sleep(1)
    laptop(machines, f"segbench cluster fetch {REST} --to early && segbench status early")
    laptop(machines, f"segbench cluster stop {REST}")
    laptop(machines, f"segbench cluster submit {REST}")
    followed = laptop(machines, f"segbench cluster logs --follow {REST}")
    assert re.search(r"search [1-9]/6: ", followed), "what had ended before the stop is not done again"
    assert "leaderboard  /shared/segbench/e2e/leaderboard.csv" in followed
    state = laptop(machines, f"segbench cluster status {REST}")
    assert "Job 'segbench-e2e' succeeded" in state
    assert f"/{3 * (os.cpu_count() or 1)}.0 CPU" in state, "three workers offer their cores, and the head none"

    laptop(machines, f"segbench cluster submit {REST} --set name=blind --set storage=/srv/own-disk")
    said = laptop(machines, f"segbench cluster logs --follow {REST} --set name=blind", is_checked=False)
    assert re.search(r"storage: /srv/own-disk/blind is not the same folder on all nodes: 10\.77\.0\.12, ", said)

    laptop(machines, f"segbench cluster fetch {REST}")
    laptop(machines, "segbench leaderboard runs/e2e && cp -r runs/e2e /shared/fetched")
    laptop(machines, "ray down -y cluster/local.yaml")

    paths = SweepPaths(machines.shared / "fetched")
    commit = laptop(machines, "git rev-parse HEAD").strip()
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
