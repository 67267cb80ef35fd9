"""Sweeps on a cluster from the laptop: each verb is one or two of Ray's own commands."""

import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from segbench.cluster.archive import list_code, pack_code
from segbench.cluster.check import Checked
from segbench.cluster.file import ClusterFile
from segbench.cluster.head import DASHBOARD, job_id
from segbench.cluster.tracking import is_on_head
from segbench.core.errors import SegbenchError, UserError
from segbench.core.versions import commit
from segbench.spec.load import load_spec

CODE = "~/.segbench/code"
"""Where the code is on the head; replaced by each submission."""
_LAUNCHER = ("aiohttp", "aiohttp_cors", "colorful", "smart_open", "virtualenv")
"""Modules of ray[default] that ray[tune] does not bring."""


@dataclass(frozen=True)
class RemoteSweep:
    """A sweep on a cluster."""

    file: Path
    """The cluster file."""
    name: str
    folder: str
    """The sweep's folder as the head sees it."""
    mlflow: tuple[str, str] | None = None
    """What the cluster file says of MLflow and its storage; None where the sweep file names its own, or uses none."""

    def submit(self, arguments: Sequence[str]) -> None:
        """Copy the code of the current folder to the head and start the sweep there as a Ray job.

        Args:
            arguments: of `python -m segbench.sweep`.

        Raises:
            UserError: the code cannot be copied, or the sweep is running already.
        """
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "code.zip"
            pack_code(Path.cwd(), archive)
            self._ray("rsync-up", str(archive), f"{CODE}.zip")
        tracking = shlex.join(["--mlflow", *self.mlflow]) if self.mlflow else ""
        self._execute(
            f"cd ~/.segbench && rm -rf code && python -m zipfile -e code.zip code && cd code && "
            f"SEGBENCH_COMMIT={shlex.quote(commit() or '')} "
            f"python -m segbench.cluster.head start {self.name} {tracking} -- {shlex.join(arguments)}"
        )

    def logs(self, follow: bool) -> None:
        """Print what the sweep has printed so far; with ``follow`` until it ends."""
        self._job("logs", *(["--follow"] if follow else []))

    def status(self) -> None:
        """Print the state of the job, of the nodes and of the sweep's trials."""
        self._execute(
            f"ray job status --address {DASHBOARD} {job_id(self.name)}; ray status; "
            f"cd {CODE} && python -m segbench status {shlex.quote(self.folder)}"
        )

    def stop(self) -> None:
        """End the sweep in good order; submitting it again continues it."""
        self._job("stop")

    def fetch(self, target: Path) -> None:
        """Bring tables, ledgers and models to ``target``; also while the sweep runs."""
        packed = f"~/.segbench/{self.name}.tar.gz"
        self._execute(f"cd {CODE} && python -m segbench.cluster.head pack {shlex.quote(self.folder)} {packed}")
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "results.tar.gz"
            self._ray("rsync-down", packed, str(archive))
            if not archive.is_file():
                raise SegbenchError(f"nothing came from {packed} on the head")
            target.mkdir(parents=True, exist_ok=True)
            with tarfile.open(archive) as content:
                content.extractall(target, filter="data")

    def _job(self, verb: str, *options: str) -> None:
        self._execute(shlex.join(["ray", "job", verb, "--address", DASHBOARD, *options, job_id(self.name)]))

    def _execute(self, command: str) -> None:
        self._ray("exec", command)

    def _ray(self, verb: str, *arguments: str) -> None:
        run_ray(verb, "--log-style", "pretty", str(self.file), *arguments)


def run_ray(*arguments: str) -> None:
    """Run one of Ray's commands here.

    Raises:
        UserError: Ray is there without its launcher and dashboard.
        SegbenchError: it failed; it has said why.
    """
    if missing := [name for name in _LAUNCHER if name not in sys.modules and find_spec(name) is None]:
        raise UserError(
            f"sweeps on a cluster need Ray's launcher and dashboard, of which {', '.join(missing)} is not installed: "
            "pip install 'segbench[cluster]'"
        )
    result = subprocess.run([str(Path(sys.executable).parent / "ray"), *arguments], check=False)
    if result.returncode:
        raise SegbenchError(
            f"`ray {arguments[0]}` failed with exit code {result.returncode}; its own words stand above"
        )


def open_dashboard(file: ClusterFile, port: int, mlflow_port: int) -> None:
    """Forward the head's dashboard, and its MLflow server if it has one, to this machine through SSH until Ctrl-C."""
    if not is_on_head(file.mlflow):
        run_ray("dashboard", str(file.path), "--port", str(port))
        return
    early = "echo 'no sweep was submitted yet: only the dashboard, at its own port'; exec sleep infinity"
    tunnel = f"exec python -m segbench.cluster.head tunnel {port} {mlflow_port}"
    command = f"if cd {CODE} 2>/dev/null; then {tunnel}; else {early}; fi"
    run_ray("exec", "--port-forward", str(port), "--port-forward", str(mlflow_port), str(file.path), command)


def remote_sweep(checked: Checked) -> RemoteSweep:
    """Return the sweep of checked files."""
    assert checked.loaded is not None
    if checked.file.kind == "kubernetes":
        raise UserError(f"{checked.file.path} is started by Kubernetes: kubectl apply -f {checked.file.path}")
    spec, file = checked.loaded.spec, checked.file
    mlflow = None
    if file.mlflow is not None and file.storage is not None and spec.mlflow.enabled and not spec.mlflow.tracking_uri:
        mlflow = (file.mlflow, file.storage)
    return RemoteSweep(file.path, spec.name, f"{checked.storage.rstrip('/')}/{spec.name}", mlflow)


def sweep_arguments(checked: Checked, overrides: Sequence[str], resume: bool) -> list[str]:
    """Return the arguments of `python -m segbench.sweep` on the head.

    The storage becomes the cluster's, and on a cluster that grows on demand as many trials are started as it can ever
    hold: those that wait are what makes it grow.

    Raises:
        UserError: the sweep file is not among what is copied to the head.
    """
    assert checked.loaded is not None
    spec, path = checked.loaded.spec, checked.loaded.path
    here = path.absolute().relative_to(Path.cwd()) if path.absolute().is_relative_to(Path.cwd()) else None
    if here is None or here not in list_code(Path.cwd()):
        raise UserError(
            f"{path} is not copied to the cluster: it must lie in {Path.cwd()}, where git does not ignore it"
        )
    settings = [*overrides, f"storage={checked.storage}"]
    if spec.budget.max_concurrent is None and checked.places is not None:
        settings.append(f"budget.max_concurrent={checked.places}")
    load_spec(path, settings, is_remote=True)
    arguments = [here.as_posix(), "--address", "auto", "--min-nodes", str(checked.file.min_nodes)]
    arguments += ["--growing"] if checked.places is not None else []
    arguments += ["--resume"] if resume else []
    return arguments + [word for text in settings for word in ("--set", text)]
