"""The head's end of `segbench cluster dashboard`.

Ray forwards a port of the laptop to the same port of the head's 127.0.0.1, and to no other address; MLflow's server
listens at the cluster's private one.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from segbench.cluster.mlflow_head import NOTE
from segbench.core.errors import UserError

RAY_PORT = 8265
"""Of Ray's dashboard, on the head."""
Address = tuple[str, int]


def tunnel(dashboard_port: int, mlflow_port: int, home: Path) -> None:
    """Offer Ray's dashboard and the head's MLflow server at ports of 127.0.0.1, until interrupted.

    Args:
        dashboard_port: for Ray's dashboard, which needs nothing at its own port.
        mlflow_port: for MLflow.
        home: where :func:`~segbench.cluster.mlflow_head.head_server` left its note.

    Raises:
        UserError: a port is taken.
    """
    routes = {} if dashboard_port == RAY_PORT else {dashboard_port: ("127.0.0.1", RAY_PORT)}
    sys.stdout.write(f"Ray     http://127.0.0.1:{dashboard_port}\n")
    if (home / NOTE).exists():
        server = urlsplit(json.loads((home / NOTE).read_text())["url"])
        routes[mlflow_port] = (str(server.hostname), int(server.port or 80))
        sys.stdout.write(f"MLflow  http://127.0.0.1:{mlflow_port}\n")
    else:
        sys.stdout.write("MLflow  does not run yet: `segbench cluster submit` starts it\n")
    sys.stdout.write("until Ctrl-C\n")
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(routes))


async def _serve(routes: Mapping[int, Address]) -> None:
    servers = []
    for port, address in routes.items():
        try:
            servers.append(await asyncio.start_server(partial(_relay, address), "127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port} is taken on the head ({error.strerror}); choose another") from error
    await asyncio.Event().wait()  # also without any: the connection itself forwards Ray's own port


async def _relay(address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        far_reader, far_writer = await asyncio.open_connection(*address)
    except OSError:
        writer.close()  # refused here means refused there
        return
    await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
