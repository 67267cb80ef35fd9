"""A process that runs MLflow's server: started, waited for, ended.

The database's address may hold a password, so the server gets it by its environment, never by its command line.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from segbench.core.errors import SegbenchError

PORT = 5000
"""Where ``mlflow ui`` and ``mlflow server`` listen unless told otherwise."""
_START_TIMEOUT_S = 180


def start_server(
    database: str,
    artifacts: str,
    address: str,
    port: int,
    log: Path,
    allowed_hosts: str | None = None,
    folder: Path | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a server that outlives this process, unless :func:`end_server` is called.

    Args:
        database: SQLAlchemy's address of it.
        artifacts: address of the folder or bucket below which the server keeps them; clients need no rights there.
        address: of this machine, to listen at.
        port: to listen at.
        log: file for what it prints, begun anew; readable by its owner only.
        allowed_hosts: names under which browsers may ask for it; None: MLflow's own list, private addresses.
        folder: in which it runs; None: the current one.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", address, "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", artifacts]
    command += ["--allowed-hosts", allowed_hosts] if allowed_hosts else []
    environment = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # serves what segbench does not use, with most of the memory
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": database,
    }
    log.unlink(missing_ok=True)
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
        # a session of its own: Ctrl-C and the end of a connection are not for it, and its workers end with it
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def answers(url: str) -> bool:
    """Whether an MLflow server listens there."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def wait_for_server(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Return when the server answers.

    Raises:
        SegbenchError: it ended, or does not answer within three minutes.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not answers(url):
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise SegbenchError(f"the MLflow server ended at once: {lines[-1] if lines else ''} (all of it: {log})")
        if time.monotonic() > deadline:
            raise SegbenchError(f"the MLflow server does not answer after {_START_TIMEOUT_S} s; see {log}")
        time.sleep(0.2)


def end_server(process: "subprocess.Popen[bytes]") -> None:
    """End the server and its workers."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            return
