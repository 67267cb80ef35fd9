"""Verbs before and during a sweep: sweep, plan, enqueue, sweeps and schema."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import click


@click.command()
@click.argument("file")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the file.")
@click.option("--out", help="Folder or bucket address of the sweep; default: <storage>/<name>.")
@click.option("--executor", type=click.Choice(["ray", "local"]), default="ray", show_default=True)
@click.option("--address", help="Ray cluster to run on; default: this machine.")
@click.option("--min-nodes", default=0, help="Wait until so many nodes of the cluster can run trials.")
@click.option("--growing", is_flag=True, help="Nodes come when trials wait: start budget.max_concurrent at once.")
@click.option("--resume", is_flag=True, help="Continue with a longer max_epochs, other parameters or retrain.")
@click.option("--dry-run", is_flag=True, help="Print the resolved file, the plan and three configurations.")
def sweep(
    file: str,
    overrides: tuple[str, ...],
    out: str | None,
    executor: Literal["ray", "local"],
    address: str | None,
    min_nodes: int,
    growing: bool,
    resume: bool,
    dry_run: bool,
) -> None:
    """Run the sweep in FILE, or continue it where it stopped.

    FILE is a path, or the name of a sweep that comes with segbench (segbench sweeps).
    """
    from segbench.core.ready import find_sweep
    from segbench.spec.load import load_spec
    from segbench.sweep.run import Run, check_address, run_sweep

    loaded = load_spec(find_sweep(file), overrides)
    check_address("--out", out)
    if dry_run:
        from segbench.sweep.dry_run import print_dry_run

        print_dry_run(loaded, out)
        return
    how = Run(executor=executor, address=address, min_nodes=min_nodes, growing=growing, resume=resume)
    run_sweep(loaded, out, how, stoppable=_stopped_in_good_order)


@contextmanager
def _stopped_in_good_order() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C: the first one stops in good order, the second at once."""

    def stop(signum: int, frame: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(130))
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.command()
@click.argument("file")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the file.")
@click.option("--out", help="Folder or bucket address of the sweep; default: <storage>/<name>.")
def plan(file: str, overrides: tuple[str, ...], out: str | None) -> None:
    """Print what the sweep in FILE would do and change; the same as segbench sweep --dry-run."""
    from segbench.core.ready import find_sweep
    from segbench.spec.load import load_spec
    from segbench.sweep.dry_run import print_dry_run
    from segbench.sweep.run import check_address

    loaded = load_spec(find_sweep(file), overrides)
    check_address("--out", out)
    print_dry_run(loaded, out)


@click.command()
@click.argument("folder")
@click.argument("values", nargs=-1, required=True, metavar="NAME=VALUE...")
def enqueue(folder: str, values: tuple[str, ...]) -> None:
    """Put a trial with these values next in the sweep in FOLDER, whether it runs or has ended.

    Parameters that are not named are as in a baseline: the values of training:.
    """
    from segbench.spec.chosen import read_values
    from segbench.sweep import enqueue as doing
    from segbench.sweep.folder import is_running, open_sweep

    chosen = doing.enqueue(folder, read_values(values))
    shown = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in chosen.items())
    click.echo(f"enqueued     {', '.join(shown)}")
    paths, _ = open_sweep(folder)
    command = f"segbench sweep {paths.spec} --out {folder}"
    click.echo(f"next         {'in the search that runs; if that has ended: ' if is_running(paths) else ''}{command}")


@click.command()
@click.option("--copy", "name", metavar="NAME", help="Write this one to the current folder, to be changed.")
def sweeps(name: str | None) -> None:
    """List the sweep files that come with segbench; `segbench sweep NAME` runs one."""
    from segbench.core.ready import copy_ready, ready_sweeps

    if name is not None:
        click.echo(f"written: {copy_ready('sweeps', f'{name}.yaml', Path())}")
        return
    found = ready_sweeps()
    width = max(len(name) for name in found)
    for name, description in found.items():
        click.echo(f"{name:<{width}}  {description}")


@click.command()
def schema() -> None:
    """Print the JSON Schema of sweep files, for editors."""
    from segbench.spec.schema import SweepSpec

    click.echo(json.dumps(SweepSpec.model_json_schema(), indent=2))
