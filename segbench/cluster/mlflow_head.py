"""The tracking server of a cluster, on its head: found, or started so that it outlives connections and jobs."""

import ipaddress
import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from segbench.core.address import is_bucket, join
from segbench.core.errors import UserError
from segbench.core.paths import atomic_write
from segbench.tracking.server import PORT, answers, end_server, start_server, wait_for_server

NOTE = "mlflow_server.json"
"""In the head's folder: which server was started, and with what."""


def head_server(mlflow: str, storage: str, home: Path) -> str:
    """Return the address of the head's tracking server, which is started where it does not run yet.

    Args:
        mlflow: ``server``, or the address of its database.
        storage: folder or bucket of the cluster; artifacts are in its ``mlflow``.
        home: for the log, and for the SQLite file where no database is named.

    Raises:
        UserError: another server is there, the head's address is a public one, or the database refuses.
        SegbenchError: the server does not start.
    """
    address = private_address(os.environ)
    url = f"http://{address}:{PORT}"
    place = join(storage, "mlflow")
    artifacts = place if is_bucket(place) else Path(place).as_uri()
    database = f"sqlite:///{home.resolve() / 'mlflow.db'}" if mlflow == "server" else mlflow
    wanted = {"url": url, "database": database, "artifacts": artifacts}
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "mlflow_server.lock"):
        if answers(url):
            _check_same(home / NOTE, wanted)
            return url
        if mlflow != "server":
            check_database(database)
        log = home / "mlflow_server.log"
        # asked for by its own address, or through a tunnel
        hosts = f"{address}:*,localhost:*,127.0.0.1:*"
        process = start_server(with_driver(database), artifacts, address, PORT, log, hosts, home)
        try:
            atomic_write(home / NOTE, json.dumps({**wanted, "pid": process.pid}) + "\n")
            wait_for_server(process, url, log)
        except BaseException:
            end_server(process)
            raise
    return url


def _check_same(note: Path, wanted: Mapping[str, str]) -> None:
    """Raise a UserError where another server listens than the cluster file asks for."""
    known = json.loads(note.read_text()) if note.exists() else {}
    if known.get("url") != wanted["url"]:
        raise UserError(
            f"metadata.mlflow: something listens at {wanted['url']} that was not started from here; write that "
            "address if it is your MLflow server, else end it"
        )
    for key in ("database", "artifacts"):
        if known[key] != wanted[key]:
            raise UserError(
                f"metadata.mlflow: the server at {wanted['url']} has the {key} {known[key]}, not {wanted[key]}; end it "
                f"on the head when no sweep logs to it (kill {known['pid']}), and submit again"
            )


def check_database(address: str) -> None:
    """Connect to a PostgreSQL database once: its own words are worth more than a server's that does not start.

    Raises:
        UserError: it is not there, or refuses.
    """
    try:
        import psycopg2
    except ImportError as error:
        raise UserError(
            "metadata.mlflow: PostgreSQL needs psycopg2 on the head: pip install 'segbench[postgres]'"
        ) from error
    try:
        psycopg2.connect(address, connect_timeout=10).close()
    except psycopg2.Error as error:
        text = " ".join(str(error).split())
        advice = ""
        if "password" in text:
            advice = "; it belongs into ~/.pgpass on the head, of mode 600, as HOST:PORT:DATABASE:USER:PASSWORD"
        raise UserError(f"metadata.mlflow: {address}: {text}{advice}") from error


def with_driver(database: str) -> str:
    """Return SQLAlchemy's address of a database; without a name it takes psycopg 3, and the lock has psycopg2."""
    return re.sub(r"^postgresql://", "postgresql+psycopg2://", database)


def private_address(environment: Mapping[str, str]) -> str:
    """Return the address of this machine to which the SSH connection came, else the one that it sends from.

    Raises:
        UserError: it is a public one, where everybody could reach the server, or none that others reach.
    """
    parts = environment.get("SSH_CONNECTION", "").split()
    address = parts[2] if len(parts) == 4 else _own_address()
    found = ipaddress.ip_address(address)
    if found.is_global or found.is_loopback or found.version != 4:
        raise UserError(
            f"metadata.mlflow: the head's address {address} is not one of a private IPv4 network, so a server there "
            "would be reached by strangers, or by nobody; start one yourself and write its address: http://HOST:PORT"
        )
    return address


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))  # sends nothing; asks for the route
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
