"""The MLflow server on the head of isolated machines: its database, its artifacts, who logs to it, who sees it."""

import json
import re
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, Visit, open_browser
from machines import Machines, why_not
from services import BUCKET, POSTGRESQL, Database, Store

from segbench.core.ledger import read_records
from segbench.core.paths import SweepPaths
from segbench.results.folder import read_delivered
from segbench.tracking.comparison import choose_runs
from segbench.tracking.runs import PARENT_KEY

WHY_NOT = why_not()
if POSTGRESQL is None:
    WHY_NOT = WHY_NOT or "no PostgreSQL: apt-get install postgresql"
if CHROMIUM is None:
    WHY_NOT = WHY_NOT or "no Chromium: apt-get install chromium"
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]

FILE, SWEEP = "cluster/local.yaml", "sweeps/quickstart.yaml"
SMALL = (
    "data.size=[32,64] data.num_images=[16,8,8] budget.trials=2 search.startup_trials=2 scheduler.max_epochs=2 "
    "scheduler.grace_epochs=1 retrain.top_k=2 retrain.seeds=1"
)
REST = f"{FILE} {SWEEP} " + " ".join(
    f"--set {text}" for text in f"name=submitted resources.cpu=2 budget.max_concurrent=2 {SMALL}".split()
)
PORT = 5000


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A laptop, a head (h1), two workers (h2, h3), and h4, which is no part of the cluster."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    pytest.importorskip("moto", reason="moto[server] is not installed")
    with Machines(tmp_path_factory.mktemp("mlflow-hosts"), 4, "10.99.0") as found:
        found.bring_checkout()
        found.laptop("mkdir /shared/code && git archive HEAD | tar -x -C /shared/code")
        found.laptop(f"sed -i 's/, {found.address('h4')}]/]/' {FILE}")
        # of the cluster's network the laptop reaches nothing but SSH
        found.run("laptop", f"ip rule add to {found.net}.0/24 ipproto tcp dport {PORT} unreachable")
        yield found


def head_server(machines: Machines, name: str, mlflow: str, is_checked: bool = True) -> str:
    """Ask for the server on a machine as `segbench cluster submit` does: by a connection that then ends."""
    code = (
        "from pathlib import Path; from segbench.cluster.mlflow_head import head_server; "
        f"print(head_server('{mlflow}', '/shared/small', Path.home() / '.segbench'))"
    )
    command = f"cd /shared/code && {machines.venv}/bin/python -c {shlex.quote(code)}"
    ssh = f"ssh -o StrictHostKeyChecking=no -i ~/.ssh/cluster_key {machines.address(name)}"
    return machines.run("laptop", f"{ssh} {shlex.quote(command)}", is_checked)


@pytest.mark.timeout(300)
def test_the_small_case_is_a_file_on_the_heads_disk(machines: Machines) -> None:
    started = time.monotonic()
    url = head_server(machines, "h2", "server").splitlines()[-1]
    print(f"server on SQLite answers after {time.monotonic() - started:.1f} s")
    assert url == f"http://{machines.address('h2')}:{PORT}"
    note = read_note(machines, "h2")
    assert head_server(machines, "h2", "server").splitlines()[-1] == url
    assert read_note(machines, "h2") == note, "it is found, and left alone"
    said = head_server(machines, "h2", "postgresql://me@10.99.0.14/other", is_checked=False)
    assert f"has the database {note['database']}, not postgresql://me@10.99.0.14/other; end it" in said

    run_sweep(machines, "h3", "small", url)
    assert list((machines.shared / "small/mlflow").rglob("model.safetensors")), "artifacts are in the storage"
    machines.run("h2", f"kill {note['pid']} && while curl -so /dev/null {url}/health; do sleep .2; done")
    head_server(machines, "h2", "server")  # as on a head that was powered off and on
    again = read_note(machines, "h2")
    assert again["pid"] != note["pid"]
    printed = machines.run("h3", "cd /shared/code && python -m segbench compare /shared/small-of-h3")
    paths = SweepPaths(machines.shared / "small-of-h3")
    assert f"{len(choose_runs(read_records(paths, 'val/miou', 'maximize'), 10))} runs" in printed
    assert f"comparison   {url}/#/compare-runs?" in printed
    machines.run("h2", f"kill {again['pid']}")


def read_note(machines: Machines, name: str) -> dict[str, Any]:
    """Return what is remembered on a machine of the server that was started there."""
    note: dict[str, Any] = json.loads(machines.run(name, "cat ~/.segbench/mlflow_server.json"))
    return note


def run_sweep(machines: Machines, name: str, sweep: str, url: str) -> None:
    """Run a whole sweep on one machine, which logs to the server."""
    settings = " ".join(f"--set {text}" for text in f"name={sweep} {SMALL}".split())
    machines.run(
        name,
        f"cd /shared/code && MLFLOW_TRACKING_URI={url} python -m segbench.sweep {SWEEP} --executor local "
        f"--out /shared/{sweep}-of-{name} {settings}",
    )


@pytest.fixture(scope="module")
def database(machines: Machines) -> Database:
    found = Database(machines, "h4")
    found.start()
    return found


@pytest.fixture(scope="module")
def store(machines: Machines) -> Store:
    found = Store(machines, "h4")
    found.start()
    return found


@pytest.mark.timeout(900)
def test_three_hosts_log_to_postgresql_and_a_bucket_and_the_laptop_compares(
    machines: Machines, database: Database, store: Store, tmp_path: Path
) -> None:
    said = submit(machines, database)
    url = f"http://{machines.address('h1')}:{PORT}"
    wait_for_a_trial_that_knows(machines, "h2", url)
    with ThreadPoolExecutor() as pool:
        local = [pool.submit(run_sweep, machines, name, f"alone-{name}", url) for name in ("h2", "h3")]
        said += machines.laptop(f"segbench cluster logs --follow {REST}")
        for future in local:
            future.result()
    machines.laptop(f"segbench cluster fetch {REST} && cp -r runs/submitted /shared/submitted-of-h1")
    sweeps = {
        sweep: SweepPaths(machines.shared / f"{sweep}-of-{host}")
        for sweep, host in (("submitted", "h1"), ("alone-h2", "h2"), ("alone-h3", "h3"))
    }

    expected = []
    for sweep, paths in sweeps.items():
        records = read_records(paths, "val/miou", "maximize")
        trials = [*records["search"], *records["retrain"]]
        epochs = sum(len(trial.epochs) for trial in trials)
        expected.append({"sweep": sweep, "status": "FINISHED", "runs": 1 + len(trials), "epochs": epochs})
    found = database.ask(
        "select e.name as sweep, r.status, count(distinct r.run_uuid) as runs, count(m.key) as epochs "
        "from experiments e join runs r using (experiment_id) "
        "left join metrics m on m.run_uuid = r.run_uuid and m.key = 'val/miou' "
        "where e.name <> 'Default' group by e.name, r.status"
    )
    assert sorted(found, key=str) == sorted(expected, key=str)

    objects = store.list("runs/mlflow/")
    for paths in sweeps.values():
        delivered = read_delivered(paths)
        folder = f"{delivered.experiment_id}/{delivered.run_ids[PARENT_KEY]}/artifacts"
        assert {f"{folder}/sweep.yaml", f"{folder}/leaderboard.csv"} <= set(objects)
        assert store.read(f"runs/mlflow/{folder}/leaderboard.csv").strip() == paths.leaderboard.read_text().strip()
        models = [
            name for name in objects if re.match(rf"{delivered.experiment_id}/models/.*model\.safetensors$", name)
        ]
        assert models
        assert all(objects[name] > 10_000 for name in models)

    check_secrecy(machines, database, said)
    compare(machines, sweeps["submitted"], tmp_path)

    before = read_note(machines, "h1")
    machines.laptop(f"ray up -y {FILE}")
    machines.run("h1", f"curl -sf {url}/health")
    assert read_note(machines, "h1") == before, "Ray was started anew, MLflow was not"
    machines.laptop(f"ray down -y {FILE}")


def submit(machines: Machines, database: Database) -> str:
    """Do what docs/clusters.md says, up to a sweep that runs; return what was printed."""
    machines.laptop(
        f"sed -i -e 's|storage: /shared/segbench|storage: s3://{BUCKET}/runs|' "
        f"-e 's|# mlflow: server|mlflow: {database.address}|' {FILE}"
    )
    pgpass = machines.shared / "mlflow.pgpass"
    pgpass.write_text(database.pgpass)
    machines.laptop("install -m 600 /shared/mlflow.pgpass ~/mlflow.pgpass && rm /shared/mlflow.pgpass")
    machines.laptop("ray get-auth-token --generate >/dev/null")
    said = machines.laptop(f"segbench cluster check {REST}")
    assert f"a server on the head, database {database.address}" in said
    said += machines.laptop(f"ray up -y {FILE}")
    refused = machines.laptop(f"segbench cluster submit {REST}", is_checked=False)
    assert "it belongs into ~/.pgpass on the head, of mode 600, as HOST:PORT:DATABASE:USER:PASSWORD" in refused
    machines.laptop(f"ray rsync-up {FILE} ~/mlflow.pgpass '~/.pgpass'")
    started = time.monotonic()
    submitted = machines.laptop(f"segbench cluster submit {REST}")
    print(f"submitted, with the start of the server, within {time.monotonic() - started:.1f} s")
    assert f"MLflow at http://{machines.address('h1')}:{PORT}" in submitted
    return said + refused + submitted


def wait_for_a_trial_that_knows(machines: Machines, name: str, url: str) -> None:
    """Return when a trial's process on a worker has the server in its environment, for what it may log itself."""
    has_it = f"xargs -rI% grep -zls ^MLFLOW_TRACKING_URI={url} /proc/%/environ"
    loop = f"until pgrep -f ^ray::ResourceTrainable | {has_it} | grep -q .; do sleep 1; done"
    machines.run(name, f"timeout 200 bash -c {shlex.quote(loop)}")


def check_secrecy(machines: Machines, database: Database, said: str) -> None:
    """The password is in one file of the head, and the server at one address of it."""
    processes = machines.run("h1", "ps -eo args")
    assert "mlflow server" in processes
    log = machines.run("h1", "stat -c %a ~/.segbench/mlflow_server.log ~/.pgpass; cat ~/.segbench/mlflow_server.log")
    assert log.startswith("600\n600\n")
    for text in (processes, log, said, database.dump(), machines.laptop(f"cat {FILE}")):
        assert database.password not in text
    for name in ("h2", "h3"):
        assert machines.run(name, "ls ~/.pgpass 2>/dev/null", is_checked=False) == ""
    listening = machines.run("h1", f"ss -Hltn 'sport = :{PORT}'").split()
    assert [word for word in listening if word.endswith(f":{PORT}")] == [f"{machines.address('h1')}:{PORT}"]


def compare(machines: Machines, paths: SweepPaths, tmp_path: Path) -> None:
    """Open the comparison on the laptop, which reaches the head by SSH alone."""
    refused = machines.laptop("segbench compare runs/submitted --top 3", is_checked=False)
    assert "`segbench cluster dashboard FILE` brings it to http://127.0.0.1:5000" in " ".join(refused.split())
    machines.laptop(f"setsid -f segbench cluster dashboard {FILE} >/shared/dashboard.log 2>&1 </dev/null")
    machines.laptop(f"timeout 60 bash -c 'until 2>/dev/null >/dev/tcp/127.0.0.1/{PORT}; do sleep .5; done'")
    printed = machines.laptop("segbench compare runs/submitted --top 3")
    addresses = dict(re.findall(r"^(comparison|run table|charts) +(http\S+)$", printed, re.MULTILINE))
    assert all(address.startswith(f"http://127.0.0.1:{PORT}/") for address in addresses.values())
    run_ids = read_delivered(paths).run_ids
    chosen = {run_ids[key] for key in choose_runs(read_records(paths, "val/miou", "maximize"), 3)}
    program = tmp_path / "chromium"
    program.write_text(f'#!/bin/sh\nexec nsenter --net={machines.network_of("laptop")} {CHROMIUM} "$@"\n')
    program.chmod(0o755)
    with open_browser(program) as browser:
        visit = Visit(browser, addresses["comparison"])
        visit.page.get_by_text(f"Comparing {len(chosen)} Runs").wait_for(timeout=60_000)
        visit.page.locator(".js-plotly-plot .parcoords").first.wait_for(timeout=60_000)
        assert visit.shown_runs() == chosen
        visit.finish("mlflow-server-comparison")
        visit = Visit(browser, addresses["run table"])
        visit.page.locator(".ag-row a").nth(len(chosen) - 1).wait_for(timeout=60_000)
        assert visit.shown_runs() == chosen
        visit.finish("mlflow-server-run-table")
