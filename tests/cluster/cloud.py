"""A region of AWS on this machine: moto answers what its interface is asked, and its instances are isolated machines.

An instance that moto says is running is booted as a machine with the instance's private and public address, opens to
its key pair, and is gone when it is terminated. At 169.254.169.254 it finds its own metadata: the credentials of its
profile, and the notice that comes before a spot instance is taken away.
"""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import boto3
from buckets import serve_aws
from machines import ROOT, Machines
from metadata import serve
from moto import settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.ec2.responses.instances import InstanceResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

REGION = "us-west-2"
NET = "172.31.48"
"""Of the subnet that Ray takes in a new account: that of the default network in the last zone."""
METADATA = "169.254.169.254"
HUB = (f"{NET}.1/24", f"{METADATA}/32")
PORT = 5000
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
"""With this environment's `aws`."""
ENDPOINT = f"http://{NET}.1:{PORT}"
"""Where machines find the mock."""


class Account:
    """An account of AWS, as who owns it and the test see it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {**environment, "AWS_DEFAULT_REGION": REGION}
        self.requests: list[dict[str, Any]] = []
        """What RunInstances was asked for."""
        self.roles: dict[str, str] = {}
        """Whose the access keys in instances' metadata are."""
        self.calls: set[tuple[str, str, str]] = set()
        """What roles have done: role, action, resource (``*`` but for S3)."""

    def client(self, service: str) -> Any:
        """Return boto3's client for a service."""
        environment = self.environment
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )

    def prepare(self, bucket: str, ssh_from: str) -> str:
        """Do what cluster/gpu.yaml says is done once: cluster/aws-account.sh; return the security group's id."""
        command = ["bash", str(ROOT / "cluster/aws-account.sh"), REGION, bucket, "me@example.org", "100"]
        environment = {**os.environ, **self.environment, "PATH": PATH, "SEGBENCH_SSH_FROM": ssh_from}
        printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return printed.strip().rpartition("[")[2].rstrip("]")

    def instances(self, *states: str) -> list[dict[str, Any]]:
        """Return the instances, the oldest first; only those in one of ``states``, if any are given."""
        filters = [{"Name": "instance-state-name", "Values": list(states)}] if states else []
        found = self.client("ec2").describe_instances(Filters=filters)["Reservations"]
        return [instance for reservation in found for instance in reservation["Instances"]]


@contextmanager
def open_account() -> Iterator[Account]:
    """Serve a new account, which refuses unknown types of instance and keys."""
    with (
        serve_aws() as environment,
        patch.object(settings, "EC2_ENABLE_INSTANCE_TYPE_VALIDATION", True),
        patch.object(settings, "ENABLE_KEYPAIR_VALIDATION", True),
    ):
        account = Account(environment)
        run_instances = InstanceResponse.run_instances

        def run_as_many_as_wanted(response: InstanceResponse) -> Any:
            """As EC2 does; moto starts MinCount, and gives only the first of them the profile."""
            asked = response.params
            account.requests.append({**asked})
            asked["MinCount"] = asked["MaxCount"]
            answer = run_instances(response)
            for instance in answer.result.instances[1:]:
                response.ec2_backend.associate_iam_instance_profile(instance.id, asked["IamInstanceProfile"]["Name"])
            return answer

        def write_down(response: Any, kind: type, resource: str = "*") -> None:
            role = account.roles.get(response.access_key)
            if role is not None:
                account.calls.add((role, f"{response.service_name}:{response._get_action()}", resource))

        with (
            patch.object(InstanceResponse, "run_instances", run_as_many_as_wanted),
            patch.object(ActionAuthenticatorMixin, "_authenticate_and_authorize_action", write_down),
        ):
            yield account


class Cloud:
    """Boots the instances of an account as machines, and ends them; a context manager."""

    def __init__(self, account: Account, machines: Machines) -> None:
        self._account = account
        self._machines = machines
        self._metadata = machines.folder / "metadata"
        self._ended = machines.shared / "ended"
        self._names: dict[str, str] = {}
        self._stack = ExitStack()
        self._end = Event()
        self.booted: dict[str, float] = {}
        """When each instance could be reached; Unix time."""

    def __enter__(self) -> "Cloud":
        self._ended.mkdir()
        (self._machines.image / "usr/local/bin").mkdir(parents=True)
        shutdown = self._machines.image / "usr/local/bin/sudo"  # nothing else is asked of it
        shutdown.write_text("#!/bin/sh\n: >/shared/ended/$(hostname)\n")
        shutdown.chmod(0o755)
        interface = listen(self._machines.network, f"{NET}.1", PORT)
        app = DomainDispatcherApplication(create_backend_app)
        servers = [
            make_server(
                f"{NET}.1", PORT, app, threaded=True, request_handler=MotoRequestHandler, fd=interface.fileno()
            ),
            serve(0, self._metadata, listen(self._machines.network, METADATA, 80)),
        ]
        for server in servers:
            self._start(server.serve_forever)
            self._stack.callback(server.server_close)
            self._stack.callback(server.shutdown)
        follower = self._start(self._follow)
        self._stack.callback(follower.join)
        self._stack.callback(self._end.set)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def name(self, instance_id: str) -> str:
        """Return the machine that is an instance."""
        return self._names[instance_id]

    def give_notice(self, instance_id: str) -> None:
        """Say in the instance's metadata, as AWS does, that it is taken away in two minutes."""
        end = datetime.now(UTC) + timedelta(seconds=120)
        notice = {"action": "terminate", "time": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
        address = self._names[instance_id].removeprefix("ip-").replace("-", ".")
        self._tell(address, "spot/instance-action", json.dumps(notice))

    def _start(self, target: Any) -> Thread:
        thread = Thread(target=target, daemon=True)
        thread.start()
        return thread

    def _follow(self) -> None:
        while not self._end.wait(0.5):
            for instance in self._account.instances():
                self._look_at(instance, instance["InstanceId"], instance["State"]["Name"])

    def _look_at(self, instance: dict[str, Any], instance_id: str, state: str) -> None:
        name = self._names.get(instance_id)
        if name is None and state == "running":
            self._boot(instance)
        elif name is not None and state == "running" and (self._ended / name).exists():
            (self._ended / name).unlink()
            print(f"\n{instance_id} has shut itself down", flush=True)
            self._account.client("ec2").terminate_instances(InstanceIds=[instance_id])
        elif name is not None and state == "terminated" and instance_id in self.booted:
            print(f"\n{instance_id} is terminated", flush=True)
            del self.booted[instance_id]
            self._machines.remove(name)

    def _boot(self, instance: dict[str, Any]) -> None:
        address, instance_id = instance["PrivateIpAddress"], instance["InstanceId"]
        name = self._names[instance_id] = f"ip-{address.replace('.', '-')}"
        print(f"\n{instance_id} ({instance['InstanceType']}) is {name}", flush=True)
        shutil.rmtree(self._metadata / address, ignore_errors=True)
        self._tell(address, "placement/availability-zone", instance["Placement"]["AvailabilityZone"])
        profile = instance["IamInstanceProfile"]["Arn"].rpartition("/")[2]
        role = self._account.client("iam").get_instance_profile(InstanceProfileName=profile)
        self._give_credentials(address, role["InstanceProfile"]["Roles"][0], instance_id)
        (key,) = self._account.client("ec2").describe_key_pairs(KeyNames=[instance["KeyName"]], IncludePublicKey=True)[
            "KeyPairs"
        ]
        self._machines.add(name, key["PublicKey"], instance["PublicIpAddress"])
        self.booted[instance_id] = time.time()

    def _give_credentials(self, address: str, role: dict[str, Any], session: str) -> None:
        given = self._account.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName=session)["Credentials"]
        self._account.roles[given["AccessKeyId"]] = role["RoleName"]
        credentials = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": given["AccessKeyId"],
            "SecretAccessKey": given["SecretAccessKey"],
            "Token": given["SessionToken"],
            "LastUpdated": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "Expiration": f"{datetime.now(UTC) + timedelta(hours=6):%Y-%m-%dT%H:%M:%SZ}",
        }
        self._tell(address, f"iam/security-credentials/{role['RoleName']}", json.dumps(credentials))

    def _tell(self, address: str, path: str, text: str) -> None:
        file: Path = self._metadata / address / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def listen(network: str, address: str, port: int) -> socket.socket:
    """Return a socket that listens in another network namespace; only the thread that makes it goes there."""
    made: list[socket.socket] = []

    def make() -> None:
        with open(f"/run/netns/{network}") as there:
            assert not ctypes.CDLL(None).setns(there.fileno(), 0x40000000), "setns(CLONE_NEWNET)"
        made.append(socket.create_server((address, port), backlog=128))

    thread = Thread(target=make)
    thread.start()
    thread.join()
    return made[0]
