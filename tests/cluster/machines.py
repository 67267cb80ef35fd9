"""Isolated machines for tests, made by hosts.sh: a laptop, and a cluster's."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from segbench.cluster.archive import list_code

ROOT = Path(__file__).parents[2]
TOOLS = {"ip": "iproute2", "sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "nsenter": "util-linux"}
PROBE = """
mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root &&
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root &&
ip link add probe0 type veth peer name probe1
"""
"""What hosts.sh will ask of the kernel; all of it ends with the namespaces that it runs in."""


def why_not() -> str | None:
    """Return why no machines can be made here; None if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "isolated hosts need root on Linux"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = sorted(package for tool, package in TOOLS.items() if shutil.which(tool, path=path) is None)
    if missing:
        return f"isolated hosts need packages: apt-get install {' '.join(missing)}"
    command = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "sh", "-c", PROBE]
    probe = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "PATH": path})
    refused = "isolated hosts need namespaces and overlay mounts, which this machine does not allow"
    return f"{refused}: {' '.join(probe.stderr.split())}" if probe.returncode else None


class Machines:
    """A laptop and ``count`` machines with the virtual environment of this Python; a context manager.

    The checkout is hidden: what runs there has been brought there.

    Args:
        folder: for all that they need.
        count: how many there are at first.
        net: the first three numbers of their addresses.
        hub: addresses of the network itself, see hosts.sh.
    """

    def __init__(self, folder: Path, count: int, net: str = "10.77.0", hub: Sequence[str] = ()) -> None:
        self.names = [f"h{number}" for number in range(1, count + 1)]
        self.shared = folder / "shared"
        self.folder = folder
        self.image = folder / "image"
        """What is on all machines' disks from the beginning."""
        self._prefix = f"seg-{folder.parent.name}-{folder.name}"  # as in hosts.sh
        self.network = f"{self._prefix}-hub"
        """Name of the network's own namespace."""
        self._count = count
        self.net = net
        self._hub = hub
        self.venv = Path(sys.prefix)

    def address(self, name: str) -> str:
        """Return the address of a machine."""
        return f"{self.net}.{10 + int(name[1:])}"

    def network_of(self, name: str) -> str:
        """Return the network namespace of a machine, for a program of this one that should see what it sees."""
        return f"/run/netns/{self._prefix}-{name}"

    def __enter__(self) -> "Machines":
        home = self.image / Path.home().relative_to("/") / ".segbench"
        home.mkdir(parents=True)
        (home / "venv").symlink_to(self.venv)  # a machine image with the locked versions
        self._hosts("up", str(self._count))
        return self

    def __exit__(self, *exception: object) -> None:
        self._hosts("down")

    def run(self, name: str, command: str, is_checked: bool = True) -> str:
        """Run a command on a machine, show its output as it comes, and return it."""
        started = time.monotonic()
        print(f"\n{name}$ {command}", flush=True)
        printed = self._hosts("sh", name, "bash", "-c", f"cd && {command}", is_checked=is_checked)
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
        return printed

    def laptop(self, command: str, is_checked: bool = True) -> str:
        """Run a command in the laptop's checkout."""
        return self.run("laptop", f"cd {ROOT} && {command}", is_checked)

    def add(self, name: str, key: str, second: str = "") -> None:
        """Make one more machine, which opens to the public ``key`` and has a second address."""
        (self.folder / f"{name}.pub").write_text(f"{key}\n")
        self._hosts("add", name, second)

    def remove(self, name: str) -> None:
        """End a machine and forget it."""
        self._hosts("remove", name)

    def power(self, verb: Literal["kill", "crash", "cut", "heal", "start"], name: str) -> None:
        """Do to a machine what hosts.sh describes."""
        self._hosts(verb, name)

    def bring_checkout(self, change: Callable[[Path], None] | None = None) -> None:
        """Give the laptop this checkout as a commit, with cluster/local.yaml changed for these machines.

        Args:
            change: called with the folder, instead of that change.
        """
        checkout = self.shared / "checkout"
        for name in list_code(ROOT):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name)
        if change is None:
            change_five_lines(checkout / "cluster/local.yaml", self)
        else:
            change(checkout)
        self.run("laptop", f"mv /shared/checkout/{{*,.gitignore}} {ROOT}/")
        self.laptop(
            "git init -q && git add -A && git -c user.name=x -c user.email=x commit -qm x && git rev-parse HEAD"
        )

    def _hosts(self, *arguments: str, is_checked: bool = True) -> str:
        environment = {
            **os.environ,
            "HOSTS_DIR": str(self.folder),
            "HOSTS_NET": self.net,
            "HOSTS_HUB": " ".join(self._hub),
            "HOSTS_HIDE": str(ROOT),
            "HOSTS_BIND": f"{self.venv} {sys.base_prefix}",
            "HOSTS_PATH": f"{self.venv}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        command: Sequence[str] = ["bash", str(Path(__file__).with_name("hosts.sh")), *arguments]
        output = []
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                output.append(line)
                print(line, end="", flush=True)
        assert not is_checked or process.returncode == 0, f"{' '.join(arguments)}: exit code {process.returncode}"
        return "".join(output)


def change_five_lines(path: Path, machines: Machines) -> None:
    """Do what cluster/local.yaml tells its user to do."""
    head, *workers = (machines.address(name) for name in machines.names)
    values = {
        "head_ip": head,
        "worker_ips": f"[{', '.join(workers)}]",
        "ssh_user": "root",
        "ssh_private_key": "~/.ssh/cluster_key",
        "storage": "/shared/segbench",
    }
    change_marked(path, values)


def change_marked(path: Path, values: Mapping[str, str]) -> None:
    """Change the lines of a cluster file that are marked (1) to (5), at their end or in a comment above.

    Args:
        path: the file.
        values: key -> value, in the order of the marks.
    """
    lines = path.read_text().splitlines()
    for number, (key, value) in enumerate(values.items(), 1):
        mark = next(place for place, line in enumerate(lines) if f"# ({number})" in line)
        place = next(place for place in range(mark, mark + 4) if lines[place].lstrip().startswith(f"{key}: "))
        indent, _, rest = lines[place].partition(f"{key}: ")
        lines[place] = f"{indent}{key}: {value}" + (rest[rest.index(" #") :] if " #" in rest else "")
    path.write_text("\n".join(lines) + "\n")
