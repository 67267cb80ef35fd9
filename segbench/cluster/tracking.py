"""Where the sweeps of a cluster log to: what ``metadata.mlflow`` and ``mlflow.tracking_uri`` can be."""

import re
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

from segbench.cluster.file import ClusterFile
from segbench.spec.schema import SweepSpec
from segbench.spec.source import Problem

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_PATH = ("metadata", "mlflow")
_ALLOWED = (
    "server (one on the head, with SQLite), postgresql://USER@HOST/DATABASE (one on the head, with that database), "
    "http://HOST:PORT (one that you have)"
)


def is_on_head(mlflow: str | None) -> bool:
    """Whether ``metadata.mlflow`` asks for a server on the head."""
    return mlflow is not None and not mlflow.startswith(("http://", "https://"))


def describe_tracking(mlflow: str | None) -> str:
    """Return in words what ``metadata.mlflow`` means."""
    if mlflow is None:
        return "as the sweep file says, else a database in the sweep's folder"
    if not is_on_head(mlflow):
        return mlflow
    return f"a server on the head, database {'SQLite on its disk' if mlflow == 'server' else mlflow}"


def check_metadata(file: ClusterFile) -> Iterator[Problem]:
    """Yield what is wrong with ``metadata.mlflow``."""
    mlflow = file.mlflow
    if mlflow is None or mlflow == "server":
        return
    address = _split(mlflow)
    if address is not None and address.scheme == "postgresql":
        yield from _database(address)
    elif address is not None and address.scheme in ("http", "https") and address.hostname:
        yield from _server(_PATH, mlflow, address)
    else:
        yield Problem(_PATH, f"'{_without_password(mlflow)}' is unknown; allowed: {_ALLOWED}")


def check_tracking(spec: SweepSpec) -> Iterator[Problem]:
    """Yield why a sweep on a cluster could not log to the server or database that it names."""
    uri = spec.mlflow.tracking_uri
    if uri is None or not spec.mlflow.enabled:
        return
    path = ("mlflow", "tracking_uri")
    if re.match(r"sqlite:///(?!/)|file:|[^:]*$", uri):
        yield Problem(
            path, f"'{uri}' is in a folder that ends with the job; leave it out: a database in the sweep's folder"
        )
    else:
        yield from _server(path, uri, urlsplit(uri))


def _database(address: SplitResult) -> Iterator[Problem]:
    if address.password:
        yield Problem(
            _PATH,
            "holds a password; leave it out, and write it into ~/.pgpass on the head, a file of mode 600: "
            "HOST:PORT:DATABASE:USER:PASSWORD",
        )
    elif not (address.username and address.hostname and address.path.strip("/")):
        yield Problem(
            _PATH, f"'{address.geturl()}' lacks user, host or database; write postgresql://USER@HOST/DATABASE"
        )


def _server(path: tuple[str, ...], uri: str, address: SplitResult) -> Iterator[Problem]:
    if address.password:
        yield Problem(path, "holds a password; use $MLFLOW_TRACKING_USERNAME and $MLFLOW_TRACKING_PASSWORD of the head")
    elif address.hostname in _LOCAL_HOSTS:
        yield Problem(path, f"'{uri}' is this machine, but the sweep runs on the head; write the server's own address")


def _split(text: str) -> SplitResult | None:
    try:
        address = urlsplit(text)
        _ = address.port
    except ValueError:
        return None
    return address


def _without_password(text: str) -> str:
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:...@", text)
