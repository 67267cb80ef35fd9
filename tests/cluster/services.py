"""What a cluster uses and is no part of it, on a machine of its own: Debian's PostgreSQL, and a mock of S3."""

import json
import secrets
from pathlib import Path
from typing import Any

from machines import Machines

POSTGRESQL = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
BUCKET = "segbench-cluster"
_BUCKET_PORT, _DATABASE_PORT = 9000, 5432


class Database:
    """A PostgreSQL server on a machine, with a database ``mlflow`` of the user ``segbench``; ends with the machine."""

    def __init__(self, machines: Machines, name: str) -> None:
        self._machines, self._name = machines, name
        host = machines.address(name)
        self.address = f"postgresql://segbench@{host}/mlflow"
        self.password = secrets.token_urlsafe(16)
        self.pgpass = f"{host}:{_DATABASE_PORT}:mlflow:segbench:{self.password}\n"

    def start(self) -> None:
        """Make the database in a temporary folder and serve it to the network, to those who know the password."""
        assert POSTGRESQL is not None
        host, network = self._machines.address(self._name), f"{self._machines.net}.0/24"
        roles = self._machines.shared / "roles.sql"  # a command line would show the password
        roles.write_text(
            f"create role segbench login password '{self.password}';\ncreate database mlflow owner segbench;\n"
        )
        as_postgres = f"cd /tmp/postgres && runuser -u postgres -- {POSTGRESQL}"
        self._run("install -d -o postgres -m 700 /tmp/postgres")
        self._run(f"{as_postgres}/initdb -D data --auth-local=trust --auth-host=scram-sha-256 >/dev/null")
        self._run(f"echo 'host mlflow segbench {network} scram-sha-256' >>/tmp/postgres/data/pg_hba.conf")
        settings = f"-c listen_addresses={host} -c unix_socket_directories=/tmp/postgres -c fsync=off"
        self._run(f"{as_postgres}/pg_ctl -D data -l log -w -o '{settings}' start >/dev/null")
        self._run("psql -h /tmp/postgres -U postgres -q -v ON_ERROR_STOP=1 -f /shared/roles.sql")
        roles.unlink()

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        wrapped = f"select coalesce(json_agg(found), '[]') from ({query}) as found"
        answer = self._run(f'psql -h /tmp/postgres -U postgres -At mlflow -c "{wrapped}"')
        rows: list[dict[str, Any]] = json.loads(answer)
        return rows

    def dump(self) -> str:
        """Return all that is in the database."""
        self._run("pg_dump -h /tmp/postgres -U postgres mlflow >/shared/dump.sql")
        return (self._machines.shared / "dump.sql").read_text()

    def _run(self, command: str) -> str:
        return self._machines.run(self._name, command)


class Store:
    """A mock of S3 on a machine, with one bucket; ends with the machine."""

    def __init__(self, machines: Machines, name: str) -> None:
        self._machines, self._name = machines, name
        self._endpoint = f"http://{machines.address(name)}:{_BUCKET_PORT}"

    def start(self) -> None:
        """Serve the bucket, and tell all machines of the cluster how to reach it."""
        host = self._machines.address(self._name)
        self._run(f"setsid -f moto_server -H {host} -p {_BUCKET_PORT} >/tmp/moto.log 2>&1 </dev/null")
        self._run(f"for i in $(seq 100); do 2>/dev/null >/dev/tcp/{host}/{_BUCKET_PORT} && break; sleep .2; done")
        keys = r"[default]\naws_access_key_id = test\naws_secret_access_key = test\n"
        for name in self._machines.names:  # as an instance profile and a region would
            self._machines.run(
                name,
                f"mkdir -p ~/.aws && printf '{keys}' >~/.aws/credentials && chmod 600 ~/.aws/credentials && "
                f"echo 'export AWS_ENDPOINT_URL={self._endpoint} AWS_DEFAULT_REGION=us-east-1' >>~/.bashrc",
            )
        self._boto3(f"s3.create_bucket(Bucket='{BUCKET}')")

    def list(self, prefix: str) -> dict[str, int]:
        """Return the names of the objects below ``prefix``, without it, and their sizes."""
        answer = self._boto3(
            f"pages = s3.get_paginator('list_objects_v2').paginate(Bucket='{BUCKET}', Prefix='{prefix}'); "
            "print(json.dumps({o['Key']: o['Size'] for page in pages for o in page.get('Contents', [])}))"
        )
        return {key.removeprefix(prefix): size for key, size in json.loads(answer).items()}

    def read(self, key: str) -> str:
        """Return the text of an object."""
        return self._boto3(f"print(s3.get_object(Bucket='{BUCKET}', Key='{key}')['Body'].read().decode())")

    def _boto3(self, code: str) -> str:
        return self._run(f". ~/.bashrc && python -c \"import boto3, json; s3 = boto3.client('s3'); {code}\"")

    def _run(self, command: str) -> str:
        return self._machines.run(self._name, command)
