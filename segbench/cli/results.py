"""Verbs that read a sweep: leaderboard, report, status, compare, export and mlflow sync."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import click

from segbench.core.errors import SegbenchError, StateError, UserError
from segbench.core.paths import SweepPaths


@click.command()
@click.argument("folder")
@click.option("--format", "format_", type=click.Choice(["csv", "markdown", "table"]), default="table")
def leaderboard(folder: str, format_: Literal["csv", "markdown", "table"]) -> None:
    """Print the leaderboard of the sweep in FOLDER."""
    from segbench.results.folder import read_results
    from segbench.results.tables import render
    from segbench.sweep.folder import open_sweep
    from segbench.terminal.tables import render_table

    paths, loaded = open_sweep(folder)
    table = read_results(paths, loaded.spec).board
    click.echo(render_table(table) if format_ == "table" else render(table, format_), nl=False)


@click.command()
@click.argument("folders", nargs=-1, required=True)
@click.option("--out", "file", type=click.Path(path_type=Path), help="HTML file; default: report.html in the folder.")
@click.option("--figures", type=click.Path(path_type=Path), help="Folder for each chart as SVG and PNG.")
def report(folders: tuple[str, ...], file: Path | None, figures: Path | None) -> None:
    """Write the report of the sweep in FOLDER; of several sweeps one page, ./report.html."""
    from segbench.core.paths import atomic_write
    from segbench.report.build import build_page, write_figures
    from segbench.results.folder import read_results
    from segbench.sweep.folder import open_sweep

    sweeps = [read_results(open_sweep(folder)[0]) for folder in folders]
    target = file or (sweeps[0].paths.report if len(sweeps) == 1 else Path("report.html"))
    atomic_write(target, build_page(sweeps))
    click.echo(f"report       {target}")
    if figures is not None:
        count = sum(write_figures(results, figures / results.spec.name) for results in sweeps)
        click.echo(f"figures      {count} charts in {figures}")


@click.command()
@click.argument("folder")
def status(folder: str) -> None:
    """Print what has run, runs and is left of the sweep in FOLDER; also while it runs."""
    from segbench.sweep.folder import open_sweep
    from segbench.terminal.status import print_status

    paths, loaded = open_sweep(folder)
    print_status(paths, loaded.spec, loaded.space)


@click.command()
@click.argument("folder")
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="Rows and trials to compare.")
@click.option("--open", "browse", is_flag=True, help="Open the comparison in the browser.")
def compare(folder: str, top: int, browse: bool) -> None:
    """Show the best runs of the sweep in FOLDER side by side in MLflow; starts its server where none runs."""
    from segbench.core.ledger import read_records
    from segbench.results.folder import read_delivered
    from segbench.sweep.folder import open_sweep
    from segbench.tracking.comparison import choose_runs, compare_runs
    from segbench.tracking.tracker import set_mlflow_defaults, tracking_uri

    paths, loaded = open_sweep(folder)
    metric = loaded.spec.metric
    records = read_records(paths, metric.name, metric.goal, loaded.spec.requirements, metric.several)
    delivered = read_delivered(paths)
    chosen = [delivered.run_ids[key] for key in choose_runs(records, top) if key in delivered.run_ids]
    if not chosen:
        raise StateError(f"MLflow has no run of this sweep; deliver them with: segbench mlflow sync {folder}")
    comparison = compare_runs(delivered.experiment_id, chosen, records)
    set_mlflow_defaults()
    from segbench.tracking.view import share_view, tracking_server

    uris = tracking_uri(paths, loaded.spec), delivered.tracking_uri
    with interrupted_by_sigterm(), tracking_server(*uris, chosen[0], paths) as (url, server):
        share_view(url, delivered.experiment_id, comparison.view_key, comparison.view)
        shown = {"comparison": comparison.compare, "run table": comparison.table, "charts": comparison.charts}
        click.echo(f"{len(chosen)} runs")
        for name, address in shown.items():
            click.echo(f"{name:<12} {url}/{address}")
        if browse:
            click.launch(f"{url}/{comparison.compare}")
        if server is not None:
            click.echo("the MLflow server runs until Ctrl-C")
            with suppress(KeyboardInterrupt):
                server.wait()


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C: what was started is stopped."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.command()
@click.argument("source")
@click.option(
    "--format",
    "format_",
    required=True,
    type=click.Choice(["huggingface", "onnx", "torch-export", "tensorboard"]),
    help="The first three take a model folder, tensorboard a sweep's.",
)
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder for the files.")
def export(source: str, format_: Literal["huggingface", "onnx", "torch-export", "tensorboard"], folder: Path) -> None:
    """Write the model in SOURCE, or the curves of the sweep in SOURCE, in the format of another tool."""
    if format_ == "tensorboard":
        from segbench.core.ledger import read_records
        from segbench.sweep.folder import open_sweep
        from segbench.tracking.tensorboard import write_events

        paths, loaded = open_sweep(source)
        metric = loaded.spec.metric
        count = write_events(read_records(paths, metric.name, metric.goal), folder)
        click.echo(f"{count} trials; look at them with: tensorboard --logdir {folder}")
        return
    if SweepPaths(Path(source)).spec.is_file():
        names = sorted(path.name for path in Path(source).glob("models/*"))
        raise UserError(f"{source} is a sweep; name one of its models: {source}/models/{{{','.join(names)}}}")
    from segbench.final.export import export_model

    exported = export_model(Path(source), format_, folder)
    click.echo(f"{', '.join(exported.files)} in {folder}; logits differ by {exported.difference:.1g} from the model's")


@click.group("mlflow")
def mlflow_group() -> None:
    """MLflow."""


@mlflow_group.command("sync")
@click.argument("folder")
def mlflow_sync(folder: str) -> None:
    """Deliver what MLflow has not got yet of the sweep in FOLDER."""
    from segbench.sweep.folder import is_running, open_sweep
    from segbench.tracking.tracker import sync

    paths, loaded = open_sweep(folder)
    result = sync(paths, loaded.spec, final=not is_running(paths))
    if result.error is not None:
        raise SegbenchError(f"MLflow at {result.tracking_uri}: {result.error}; the same command tries again")
    click.echo(f"{result.num_runs} runs, {result.num_steps} new steps at {result.tracking_uri}")
