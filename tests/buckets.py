"""A mock of AWS on this machine, above all of S3, as a server that other processes can use."""

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def serve_aws(address: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """Serve an account with nothing in it; yields the environment variables by which a process finds it."""
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(address, 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST"))
        yield {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}
    finally:
        server.stop()


@contextmanager
def serve_s3(bucket: str = "segbench-test", address: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """Serve one bucket; yields the environment variables by which a process finds it."""
    with serve_aws(address) as environment:
        place = f"{environment['AWS_ENDPOINT_URL']}/{bucket}"
        urllib.request.urlopen(urllib.request.Request(place, method="PUT"))
        yield environment
