"""MLflow's pages on a sweep: the server that shows them is found, or started and stopped again."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from segbench.core.errors import SegbenchError
from segbench.core.paths import SweepPaths, atomic_write
from segbench.tracking.server import PORT, answers, end_server, start_server, wait_for_server

USUAL_ADDRESS = f"http://127.0.0.1:{PORT}"
"""Where ``mlflow server`` listens, and where `segbench cluster dashboard` brings that of a cluster."""


@contextmanager
def tracking_server(
    configured: str, delivered: str, run_id: str, paths: SweepPaths
) -> "Iterator[tuple[str, subprocess.Popen[bytes] | None]]":
    """Yield the address of a tracking server that shows ``run_id``, and its process where it was started here.

    A server that is named is used, else one that shows the run at the usual address: a tunnel to it, or another view of
    the same database. For a database where none does, one is started on a free port of this machine, and stopped at
    the end.

    Args:
        configured: server or database that a delivery from here would go to.
        delivered: server or database that the runs were delivered to.
        run_id: of one of them.
        paths: the sweep.

    Raises:
        SegbenchError: no server knows the run, or does not start.
    """
    servers = [uri.rstrip("/") for uri in (configured, delivered) if uri.startswith("http")]
    note = paths.root / "state" / "mlflow_server.json"
    known = [json.loads(note.read_text())["url"]] if note.exists() else []
    for url in dict.fromkeys([*servers, *known, USUAL_ADDRESS]):
        if answers(url) and _shows_run(url, run_id):
            yield url, None
            return
    if delivered.startswith("http"):
        raise SegbenchError(
            f"MLflow at {delivered} does not answer, or has no run of this sweep any more (segbench mlflow sync). "
            f"Where it runs on the head of a cluster, `segbench cluster dashboard FILE` brings it to {USUAL_ADDRESS}"
        )
    database = delivered if configured.startswith("http") else configured
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    log = paths.root / "state" / "mlflow_server.log"
    process = start_server(database, paths.mlflow_artifacts.resolve().as_uri(), "127.0.0.1", port, log)
    try:
        wait_for_server(process, url, log)
        if not _shows_run(url, run_id):
            raise SegbenchError("MLflow has no run of this sweep any more; deliver it again: segbench mlflow sync")
        atomic_write(note, json.dumps({"url": url, "pid": process.pid}) + "\n")
        yield url, process
    finally:
        note.unlink(missing_ok=True)
        end_server(process)


def share_view(url: str, experiment_id: str, key: str, value: str) -> None:
    """Leave a view of the run table where MLflow's own *Share* button leaves it: in a tag of the experiment."""
    MlflowClient(tracking_uri=url).set_experiment_tag(experiment_id, key, value)


def _shows_run(url: str, run_id: str) -> bool:
    """Whether the server at ``url`` has this run; only one on the same database can."""
    try:
        MlflowClient(tracking_uri=url).get_run(run_id)
    except MlflowException:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
