"""The `segbench cluster` commands; wiring only."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from segbench.cluster.check import Checked
    from segbench.cluster.commands import RemoteSweep

_PATH = click.Path(path_type=Path)
_SET = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the sweep file.")


@click.group("cluster")
def cluster_group() -> None:
    """Sweeps on several machines: FILE is a cluster file (`segbench cluster init` writes some), SWEEP a sweep file."""


@cluster_group.command()
@click.argument("folder", type=_PATH, default=".")
def init(folder: Path) -> None:
    """Write the cluster files that come with segbench, and the lock for the nodes, to FOLDER (the current one)."""
    from segbench.core.ready import copy_cluster

    for path in copy_cluster(folder):
        click.echo(f"written: {path}")
    click.echo(
        f"change the lines marked (1) to (5) of {folder / 'cluster/local.yaml'}, or take another file: docs/clusters.md"
    )


def _sweep_verb(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what all verbs for a sweep on a cluster take."""
    for decorate in (_SET, click.argument("sweep", type=_PATH), click.argument("file", type=_PATH)):
        function = decorate(function)
    return function


@cluster_group.command()
@click.argument("file", type=_PATH)
@click.argument("sweep", type=_PATH, required=False)
@_SET
@click.option("--crd", type=_PATH, help="For a RayJob: `kubectl get crd rayjobs.ray.io -o yaml`, to check all of it.")
def check(file: Path, sweep: Path | None, overrides: tuple[str, ...], crd: Path | None) -> None:
    """Say all that is wrong with FILE, and with SWEEP on it, before money is spent."""
    from segbench.cluster.check import check_cluster

    _say(check_cluster(file, sweep, overrides, crd))


@cluster_group.command()
@_sweep_verb
@click.option("--resume", is_flag=True, help="Continue with a longer max_epochs or another retrain section.")
def submit(file: Path, sweep: Path, overrides: tuple[str, ...], resume: bool) -> None:
    """Start SWEEP on the cluster, or continue it there; it outlives this terminal."""
    from segbench.cluster.check import check_cluster, check_packed
    from segbench.cluster.commands import remote_sweep, sweep_arguments

    checked = check_cluster(file, sweep, overrides)
    _say(checked)
    for note in check_packed(checked):
        click.echo(note, err=True)
    remote_sweep(checked).submit(sweep_arguments(checked, overrides, resume))
    rest = shlex.join([str(file), str(sweep), *(word for text in overrides for word in ("--set", text))])
    click.echo(
        f"\nfollow    segbench cluster logs --follow {rest}\n"
        f"state     segbench cluster status {rest}\n"
        f"look      segbench cluster dashboard {shlex.quote(str(file))}\n"
        f"results   segbench cluster fetch {rest}\n"
        f"stop      segbench cluster stop {rest}\n"
        f"continue  segbench cluster submit {rest}"
    )


@cluster_group.command()
@_sweep_verb
@click.option("--follow", is_flag=True, help="Until the sweep ends.")
def logs(file: Path, sweep: Path, overrides: tuple[str, ...], follow: bool) -> None:
    """Print what SWEEP has printed on the cluster."""
    _remote(file, sweep, overrides).logs(follow)


@cluster_group.command()
@_sweep_verb
def status(file: Path, sweep: Path, overrides: tuple[str, ...]) -> None:
    """Print the state of SWEEP's job, of the nodes, and of its trials."""
    _remote(file, sweep, overrides).status()


@cluster_group.command()
@_sweep_verb
@click.option("--to", "target", type=_PATH, help="Folder for the results; default: runs/<name>.")
def fetch(file: Path, sweep: Path, overrides: tuple[str, ...], target: Path | None) -> None:
    """Bring tables, ledgers and models of SWEEP here; also while it runs."""
    remote = _remote(file, sweep, overrides)
    folder = target or Path("runs") / remote.name
    remote.fetch(folder)
    click.echo(
        f"\nresults in {folder}: segbench status {folder}, segbench leaderboard {folder}, segbench mlflow sync {folder}"
    )


@cluster_group.command()
@_sweep_verb
def stop(file: Path, sweep: Path, overrides: tuple[str, ...]) -> None:
    """Stop SWEEP in good order; submit continues it."""
    _remote(file, sweep, overrides).stop()


@cluster_group.command()
@click.argument("file", type=_PATH)
@click.option("--port", default=8265, show_default=True, help="On this machine, for Ray's dashboard.")
@click.option("--mlflow-port", default=5000, show_default=True, help="On this machine, for the head's MLflow server.")
def dashboard(file: Path, port: int, mlflow_port: int) -> None:
    """Bring Ray's dashboard (its token: ray get-auth-token) and the head's MLflow server here by SSH, until Ctrl-C."""
    from segbench.cluster.commands import open_dashboard
    from segbench.cluster.file import read_cluster

    open_dashboard(read_cluster(file), port, mlflow_port)


def _remote(file: Path, sweep: Path, overrides: tuple[str, ...]) -> "RemoteSweep":
    from segbench.cluster.check import locate
    from segbench.cluster.commands import remote_sweep

    return remote_sweep(locate(file, sweep, overrides))


def _say(checked: "Checked") -> None:
    for label, value in checked.rows():
        click.echo(f"{label:20} {value}")
    for note in checked.notes():
        click.echo(note, err=True)
