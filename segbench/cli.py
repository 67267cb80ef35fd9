"""The ``segbench`` command: one function per verb, wiring only.

Each verb imports what it needs: ``segbench schema`` does not wait for torch, Ray and MLflow.
"""

import gc
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console

from segbench.cluster.verbs import cluster_group
from segbench.errors import SegbenchError, UserError
from segbench.final.verbs import evaluate, predict
from segbench.paths import SweepPaths
from segbench.report import verbs
from segbench.report.verbs import open_sweep

if TYPE_CHECKING:
    from segbench.spec.load import LoadedSpec
    from segbench.sweep import Executor

INTERRUPTED = 130

out = Console()
err = Console(stderr=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="segbench", message="%(version)s")
def cli() -> None:
    """Hyperparameter sweeps for semantic segmentation: one YAML file in, an honest leaderboard out."""


cli.add_command(cluster_group)
for verb in (predict, evaluate, verbs.leaderboard, verbs.report, verbs.compare, verbs.export, verbs.status):
    cli.add_command(verb)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the file.")
@click.option("--out", help="Folder or bucket address of the sweep; default: <storage>/<name>.")
@click.option("--executor", type=click.Choice(["ray", "local"]), default="ray", show_default=True)
@click.option("--address", help="Ray cluster to run on; default: this machine.")
@click.option("--min-nodes", default=0, help="Wait until so many nodes of the cluster can run trials.")
@click.option("--growing", is_flag=True, help="Nodes come when trials wait: start budget.max_concurrent at once.")
@click.option("--resume", is_flag=True, help="Continue with a longer max_epochs or another retrain section.")
@click.option("--dry-run", is_flag=True, help="Print the resolved file, the plan and three configurations.")
def sweep(
    file: Path,
    overrides: tuple[str, ...],
    out: str | None,
    executor: Literal["ray", "local"],
    address: str | None,
    min_nodes: int,
    growing: bool,
    resume: bool,
    dry_run: bool,
) -> None:
    """Run the sweep in FILE, or continue it where it stopped."""
    from segbench.spec.load import load_spec

    loaded = load_spec(file, overrides)
    from segbench.preflight import check_sweep, print_dry_run

    check_sweep(loaded)
    if dry_run:
        print_dry_run(loaded, Console())
        return
    from segbench.storage.address import join, sweep_paths

    _check_address("--out", out)
    paths = sweep_paths(out or join(loaded.spec.storage, loaded.spec.name))
    on_ray = partial(_ray_executor, paths=paths, address=address, min_nodes=min_nodes, growing=growing)
    _run_sweep(loaded, paths, _local_executor if executor == "local" else on_ray, resume)


def _run_sweep(
    loaded: "LoadedSpec",
    paths: SweepPaths,
    executor: "Callable[[LoadedSpec], AbstractContextManager[Executor]]",
    resume: bool,
) -> None:
    from segbench.folder import open_folder, read_prior
    from segbench.preflight import get_ready, share_packed
    from segbench.storage.mirror import Mirror

    spec = loaded.spec
    with ExitStack() as stack:
        mirror = None if paths.uri is None else stack.enter_context(Mirror(paths, _warn))
        stack.enter_context(open_folder(paths, spec, resume))
        loaded = share_packed(loaded, paths, _tell, _warn)
        get_ready(loaded.spec)
        with ExitStack() as running:
            execute = running.enter_context(executor(loaded))

            # imported by now, while Ray started
            from segbench.report.page.live import LiveReport
            from segbench.report.progress import progress
            from segbench.report.tracking import Tracker, tracking_uri
            from segbench.spec.plan import plan_sweep
            from segbench.sweep import Sweep

            stack.enter_context(LiveReport(paths, warn=_warn))
            tracker = stack.enter_context(Tracker(paths, spec, warn=_warn))
            running.enter_context(_interruptible())  # after Ray, which takes SIGTERM for itself
            observer = running.enter_context(progress(spec, plan_sweep(spec, loaded.space), out))
            if spec.search.warm_start:
                out.print(f"warm start: {read_prior(spec, loaded.space).describe()}", highlight=False)
            Sweep(loaded, paths, execute, [observer], mirror).run()
            tracker.finish()  # while Ray ends

    from segbench.report.conclusion import conclude
    from segbench.report.folder import read_leaderboard
    from segbench.report.results import read_results
    from segbench.report.tables import LeaderboardView

    out.print(LeaderboardView(read_leaderboard(paths, spec.metric.name, spec.metric.goal)))
    for sentence in conclude(read_results(paths)):
        _tell(sentence)
    out.print(f"report       {paths.report}", highlight=False, soft_wrap=True)
    out.print(f"leaderboard  {paths.leaderboard}", highlight=False, soft_wrap=True)
    if spec.mlflow.enabled:
        uri = tracking_uri(paths, spec)
        at = f" (at {uri})" if uri.startswith("http") else ""
        out.print(f"MLflow       segbench compare {paths.root}{at}", highlight=False, soft_wrap=True)
    out.print(f"Optuna       optuna-dashboard {paths.study}", highlight=False, soft_wrap=True)
    if paths.uri is not None:
        out.print(f"elsewhere    segbench report {paths.uri}", highlight=False, soft_wrap=True)


@contextmanager
def _local_executor(loaded: "LoadedSpec") -> "Iterator[Executor]":
    from segbench.search.sequential import run_sequential
    from segbench.training.trial import run_trial

    yield lambda stages: run_sequential(stages, run_trial)


@contextmanager
def _ray_executor(
    loaded: "LoadedSpec", paths: SweepPaths, address: str | None, min_nodes: int, growing: bool
) -> "Iterator[Executor]":
    from segbench.preflight import share_gpu, worker_modules
    from segbench.tune.cluster import check_storage, connect

    spec = loaded.spec
    with connect(address, spec.resources, min_nodes, growing, worker_modules(loaded)):
        from segbench.tune.run import run_on_ray

        check_storage(paths)
        resources = spec.resources
        if resources.gpu == "auto":
            from segbench.tune.gpu import keep_sharing

            sharing = keep_sharing(paths.sharing, share_gpu(loaded), growing)
            out.print(f"GPUs of a trial: {sharing.gpu:g} ({sharing.reason})", highlight=False, soft_wrap=True)
            resources = resources.model_copy(update={"gpu": sharing.gpu})
        yield lambda stages: run_on_ray(stages, paths.ray, resources, spec.budget, growing)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of sweep files, for editors."""
    from segbench.spec.schema import SweepSpec

    click.echo(json.dumps(SweepSpec.model_json_schema(), indent=2))


@cli.group("mlflow")
def mlflow_group() -> None:
    """MLflow."""


@mlflow_group.command("sync")
@click.argument("folder")
def mlflow_sync(folder: str) -> None:
    """Deliver what MLflow has not got yet of the sweep in FOLDER."""
    from segbench.folder import is_running
    from segbench.report.tracking import sync

    paths, loaded = open_sweep(folder)
    result = sync(paths, loaded.spec, final=not is_running(paths))
    if result.error is not None:
        raise SegbenchError(f"MLflow at {result.tracking_uri}: {result.error}; the same command tries again")
    out.print(f"{result.num_runs} runs, {result.num_steps} new steps at {result.tracking_uri}", soft_wrap=True)


@cli.group("data")
def data_group() -> None:
    """Data sets."""


@data_group.command("pack")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the file.")
@click.option("--to", metavar="ADDRESS", help="Put the packed set there, too: s3://bucket/packed, or a shared folder.")
def data_pack(file: Path, overrides: tuple[str, ...], to: str | None) -> None:
    """Check and pack the data set of the sweep in FILE; done by the first use otherwise.

    With --to, or where the file names a bucket (storage, data.packed), the packed set is put there too: the nodes of a
    cluster fetch it, and need no pictures of their own.
    """
    from segbench.data import check_data, open_data, share_data
    from segbench.spec.load import load_spec

    _check_address("--to", to)
    config = load_spec(file, overrides).spec.data
    check_data(replace(config, packed=None))
    data = open_data(replace(config, packed=None))
    sizes = ", ".join(f"{len(getattr(data, split).names)} {split}" for split in ("train", "val", "test"))
    click.echo(f"{sizes} images; groups: {', '.join(data.groups)}")
    shared = share_data(replace(config, packed=to or config.packed))
    if shared.config.packed:
        how = "uploaded to" if shared.is_uploaded else "is there already, nothing was uploaded:"
        click.echo(f"packed set {how} {shared.config.packed}")


def _check_address(option: str, address: str | None) -> None:
    from segbench.storage.address import is_bucket, what_is_wrong

    if address and is_bucket(address) and (problem := what_is_wrong(address)):
        raise UserError(f"{option}: {problem}")


def _tell(message: str) -> None:
    out.print(message, markup=False, highlight=False, soft_wrap=True)


def _warn(message: str) -> None:
    err.print(message, style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C: the first one stops in good order, the second at once."""

    def stop(signum: int, frame: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(INTERRUPTED))
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 (failed), 2 (the user's mistake) or 130 (interrupted)."""
    gc.set_threshold(50_000)  # imports make objects that stay: the default looks at them again and again
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name="segbench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SegbenchError as error:
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        program = ["segbench"] if arguments is None else ["python", "-m", "segbench.sweep"]
        command = shlex.join([*program, *sys.argv[1:]])
        err.print(f"\nstopped; nothing is lost. The same command continues:\n  {command}", markup=False, soft_wrap=True)
        sys.exit(INTERRUPTED)
    finally:
        gc.freeze()  # else Python looks at every object once more before it ends: a second, with these libraries


if __name__ == "__main__":
    main()
