"""What every `ray up` file must have to work and to be closed to strangers; each rule was a failed run once."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segbench.cluster.file import ClusterFile
from segbench.core.address import what_is_wrong
from segbench.spec.source import KeyPath, Problem

LOCK = "requirements.lock"
TOKEN = "~/.ray/auth_token"
PYTHON = "3.11"
_LOCKED = re.compile(r"^(?:# apart: )?([\w.-]+)==([\w.!+]+)", re.MULTILINE)
_SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|aws_secret_access_key|(?<![a-z])(?:password|passwd|secret_key|api_key|auth_token)\s*[=:]\s*[^\s$~/]"
    r"|RAY_AUTH_TOKEN=\S|gh[pousr]_[A-Za-z0-9]{30}|-----BEGIN",
    re.IGNORECASE,
)


def check_launch(file: ClusterFile) -> Iterator[Problem]:
    """Yield what is wrong with a file for `ray up`, whatever its provider."""
    tree = file.config
    yield from _start_commands(tree)
    yield from _file_mounts(tree)
    yield from _setup(tree)
    yield from _storage(file)
    if file.kind == "local":
        yield from _addresses(tree)
    auth = tree.get("auth", {})
    if not auth.get("ssh_user"):
        yield Problem(("auth",), "ssh_user is missing; name the account on the machines")
    key = auth.get("ssh_private_key")
    if key and not Path(key).expanduser().is_file():
        yield Problem(("auth", "ssh_private_key"), f"there is no file '{key}'; name the private key for the machines")


def check_secrets(value: Any, path: KeyPath = ()) -> Iterator[Problem]:
    """Yield each text in a file that looks like a secret."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, str) and _SECRET.search(f"{key}: {item}"):
                yield Problem((*path, str(key)), _SECRET_ADVICE)
            else:
                yield from check_secrets(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from check_secrets(item, (*path, index))
    elif isinstance(value, str) and _SECRET.search(value):
        yield Problem(path, _SECRET_ADVICE)


_SECRET_ADVICE = (
    "holds a secret; everyone who reads the file, a log or a process list would have it. Use an instance profile, or a "
    "file that only its owner can read, brought by file_mounts"
)


def _start_commands(tree: Mapping[str, Any]) -> Iterator[Problem]:
    for key, is_head in (("head_start_ray_commands", True), ("worker_start_ray_commands", False)):
        commands: list[str] = tree.get(key) or []
        index = next((i for i, text in enumerate(commands) if "ray start" in text), None)
        if index is None:
            yield Problem(
                (key,),
                "has no `ray start`; take the commands from cluster/local.yaml (segbench cluster init writes it)",
            )
            continue
        path, text = (key, index), commands[index]
        if "RAY_AUTH_MODE=token" not in text:
            yield Problem(
                path, "RAY_AUTH_MODE=token is missing before `ray start`: anybody who reaches the ports runs code"
            )
        if is_head:
            yield from _head_start(path, text)
        elif "--address" not in text:
            yield Problem(path, "`ray start` has no --address=$RAY_HEAD_IP:6379, so the worker would not join")


def _head_start(path: KeyPath, text: str) -> Iterator[Problem]:
    if "--autoscaling-config" not in text:
        yield Problem(
            path, "--autoscaling-config=~/ray_bootstrap_config.yaml is missing: no worker would ever be started"
        )
    if not re.search(r"RAY_enable_autoscaler_v2=(0|false)\b", text):
        yield Problem(path, "RAY_enable_autoscaler_v2=0 is missing: autoscaler v2 counts the head as a worker")
    for name in ("cpus", "gpus"):
        if not re.search(rf"--num-{name}[= ]0\b", text):
            yield Problem(path, f"--num-{name}=0 is missing: the head would run trials, and a trial can take it down")
    host = re.search(r"--dashboard-host[= ](\S+)", text)
    if host and host[1] not in ("127.0.0.1", "localhost"):
        yield Problem(
            path,
            f"--dashboard-host={host[1]} shows the dashboard to others; write 127.0.0.1, and open it "
            "with `segbench cluster dashboard`",
        )


def _file_mounts(tree: Mapping[str, Any]) -> Iterator[Problem]:
    mounts: Mapping[str, str] = tree.get("file_mounts") or {}
    for remote, local in mounts.items():
        if not Path(local).expanduser().exists():
            hint = (
                "; make it with `ray get-auth-token --generate`"
                if remote == TOKEN
                else f" (seen from {Path.cwd()}; `ray up` is run in the folder that has cluster/: a checkout, or where "
                "`segbench cluster init` wrote it)"
            )
            yield Problem(("file_mounts", remote), f"there is no '{local}'{hint}")
    if not any(remote.rstrip("/") in (TOKEN, "~/.ray") for remote in mounts):
        yield Problem(
            ("file_mounts",), f"{TOKEN} is missing: without the same token no worker can join; add {TOKEN}: {TOKEN}"
        )


def _setup(tree: Mapping[str, Any]) -> Iterator[Problem]:
    mounts: Mapping[str, str] = tree.get("file_mounts") or {}
    commands: list[str] = tree.get("setup_commands") or []
    lock = next((Path(local).expanduser() for local in mounts.values() if local.endswith(LOCK)), Path(LOCK))
    versions = locked_versions(lock) if lock.is_file() else {}
    installs = any(LOCK in text or "setup.sh" in text for text in commands)
    if not installs or not any(remote.endswith(LOCK) for remote in mounts):
        yield Problem(
            ("setup_commands",),
            "do not install requirements.lock: nodes with other versions than this checkout do not work together; "
            "see cluster/local.yaml (segbench cluster init writes it)",
        )
    for index, text in enumerate(commands):
        for package, version in re.findall(r"\b(ray|torch)(?:\[[\w,]*\])?==([\d.]+)", text):
            if versions.get(package, version) != version:
                yield Problem(
                    ("setup_commands", index), f"installs {package} {version}, but {lock} has {versions[package]}"
                )
    for key in ("image", "head_image", "worker_image"):
        image = (tree.get("docker") or {}).get(key)
        if image:
            yield from check_image(("docker", key), image, versions)


def check_image(path: KeyPath, image: str, versions: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what is wrong with a container image: not pinned, or of another Ray or Python than the lock."""
    name, _, tag = image.rpartition(":")
    if "@sha256:" in image:
        return
    if not name or "/" in tag or tag == "latest":
        yield Problem(path, f"'{image}' names no version; write one, such as {name or image}:2.60.0-py311-gpu")
        return
    found = re.match(r"(\d+\.\d+\.\d+)(?:\.\w+)?-py(\d)(\d+)", tag)
    if found and name.startswith("rayproject/"):
        if found[1] != versions.get("ray", found[1]):
            yield Problem(path, f"'{image}' has Ray {found[1]}, but {LOCK} has {versions['ray']}")
        if f"{found[2]}.{found[3]}" != PYTHON:
            yield Problem(path, f"'{image}' has Python {found[2]}.{found[3]}, but {LOCK} is for {PYTHON}")
    if name == "rayproject/ray-ml":
        yield Problem(path, "rayproject/ray-ml ended with Ray 2.49; build cluster/Dockerfile")


def locked_versions(lock: Path) -> dict[str, str]:
    """Return package -> version of a lock file; torch stands in a comment, because it is installed apart."""
    return {canonical(name): version for name, version in _LOCKED.findall(lock.read_text(encoding="utf-8"))}


def canonical(name: str) -> str:
    """Return the one spelling of a package's name that package indexes go by."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _storage(file: ClusterFile) -> Iterator[Problem]:
    if not file.storage:
        yield Problem(
            ("metadata",),
            "storage is missing; name a folder that all nodes see, or a bucket: metadata: {storage: /shared/segbench}",
        )
    else:
        yield from check_storage(file.storage_path, file.storage)


def check_storage(path: KeyPath, storage: str) -> Iterator[Problem]:
    """Yield what is wrong with a place for results: not a bucket's name, or not on a shared disk."""
    scheme, found, _ = storage.partition("://")
    if found:
        if scheme not in ("s3", "gs", "abfs", "abfss"):
            yield Problem(path, f"'{storage}': unknown scheme {scheme}; allowed: s3, gs, abfs, or a folder")
        elif problem := what_is_wrong(storage):
            yield Problem(path, problem)
    elif not storage.startswith("/"):
        yield Problem(path, f"'{storage}' is seen only by the node that it is on; write an absolute path, or a bucket")
    elif re.match(r"/(tmp|var/tmp|dev/shm|root)(/|$)", storage):
        yield Problem(path, f"'{storage}' is on each node's own disk; name a folder that all nodes see")


def _addresses(tree: Mapping[str, Any]) -> Iterator[Problem]:
    provider = tree["provider"]
    seen: dict[str, KeyPath] = {}
    places: list[tuple[KeyPath, str]] = [(("provider", "head_ip"), str(provider["head_ip"]))]
    places += [(("provider", "worker_ips", i), str(ip)) for i, ip in enumerate(provider["worker_ips"])]
    for path, address in places:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", address) or re.fullmatch(
                r"[\d.]+", address
            ):
                yield Problem(path, f"'{address}' is neither an address nor a host's name")
        if address in seen:
            yield Problem(path, f"'{address}' is given twice; the head runs no trials and is no worker")
        seen[address] = path
    if not provider["worker_ips"]:
        yield Problem(
            ("provider", "worker_ips"), "is empty; on a single machine run `segbench sweep` there, without a cluster"
        )
