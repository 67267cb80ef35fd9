"""MLflow's pages on a sweep: the server that shows them is found, or started and stopped again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from segbench.errors import SegbenchError
from segbench.paths import SweepPaths, atomic_write

USUAL_ADDRESS = "http://127.0.0.1:5000"
"""Where ``mlflow ui`` and ``mlflow server`` listen unless told otherwise."""
_START_TIMEOUT_S = 180


@contextmanager
def tracking_server(uri: str, run_id: str, paths: SweepPaths) -> "Iterator[tuple[str, subprocess.Popen[bytes] | None]]":
    """Yield the address of a tracking server that shows ``run_id``, and its process where it was started here.

    A server's address is used as it is. For a database a server that shows the run already, at the usual address or
    started by another ``segbench compare``, is used; else one is started on a free port of this machine, and stopped at
    the end.

    Raises:
        SegbenchError: the server does not know the run, or does not start.
    """
    if uri.startswith("http"):
        if not shows_run(uri, run_id):
            raise SegbenchError(f"MLflow at {uri} does not answer, or has no run of this sweep (segbench mlflow sync)")
        yield uri.rstrip("/"), None
        return
    note = paths.root / "state" / "mlflow_server.json"
    known = json.loads(note.read_text())["url"] if note.exists() else USUAL_ADDRESS
    for url in (known, USUAL_ADDRESS):
        if answers(url) and shows_run(url, run_id):
            yield url, None
            return
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    log = paths.root / "state" / "mlflow_server.log"
    process = _start(uri, port, paths, log)
    try:
        _wait(process, url, log)
        if not shows_run(url, run_id):
            raise SegbenchError(f"{uri} has no run of this sweep any more; deliver it again: segbench mlflow sync")
        atomic_write(note, json.dumps({"url": url, "pid": process.pid}) + "\n")
        yield url, process
    finally:
        note.unlink(missing_ok=True)
        _end(process)


def answers(url: str) -> bool:
    """Whether an MLflow server listens there."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def shows_run(url: str, run_id: str) -> bool:
    """Whether the server at ``url`` has this run; only one on the same database can."""
    try:
        MlflowClient(tracking_uri=url).get_run(run_id)
    except MlflowException:
        return False
    return True


def share_view(url: str, experiment_id: str, key: str, value: str) -> None:
    """Leave a view of the run table where MLflow's own *Share* button leaves it: in a tag of the experiment."""
    MlflowClient(tracking_uri=url).set_experiment_tag(experiment_id, key, value)


def _start(uri: str, port: int, paths: SweepPaths, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--workers", "1"]
    command += ["--artifacts-destination", paths.mlflow_artifacts.resolve().as_uri()]
    # its job runner serves what segbench does not use, and takes most of the memory
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", **os.environ}
    with log.open("wb") as output:
        # a session of its own: Ctrl-C is for us, and its workers end with it
        return subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not answers(url):
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise SegbenchError(f"the MLflow server ended at once: {lines[-1] if lines else ''} (all of it: {log})")
        if time.monotonic() > deadline:
            raise SegbenchError(f"the MLflow server does not answer after {_START_TIMEOUT_S} s; see {log}")
        time.sleep(0.2)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
