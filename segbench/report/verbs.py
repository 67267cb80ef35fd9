"""The verbs that read results: leaderboard, report, compare, export and status; wiring only."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console

from segbench.errors import StateError, UserError
from segbench.paths import SweepPaths

if TYPE_CHECKING:
    from segbench.spec.load import LoadedSpec

out = Console()


def open_sweep(folder: str) -> "tuple[SweepPaths, LoadedSpec]":
    """Return the paths and the file of an existing sweep; one in a bucket is brought here first."""
    from segbench.spec.load import load_spec
    from segbench.storage.address import sweep_paths

    paths = sweep_paths(folder, "views")
    if paths.uri is not None:
        from segbench.storage.mirror import view

        view(paths)
    if not paths.spec.is_file():
        raise StateError(f"{folder} is not a sweep's folder (no sweep.yaml in it); give one such as runs/quickstart")
    return paths, load_spec(paths.spec)


@click.command()
@click.argument("folder")
@click.option("--format", "format_", type=click.Choice(["csv", "markdown", "table"]), default="table")
def leaderboard(folder: str, format_: Literal["csv", "markdown", "table"]) -> None:
    """Print the leaderboard of the sweep in FOLDER."""
    from segbench.report.folder import read_leaderboard
    from segbench.report.tables import render

    paths, loaded = open_sweep(folder)
    metric = loaded.spec.metric
    click.echo(render(read_leaderboard(paths, metric.name, metric.goal), format_), nl=False)


@click.command()
@click.argument("folders", nargs=-1, required=True)
@click.option("--out", "file", type=click.Path(path_type=Path), help="HTML file; default: report.html in the folder.")
@click.option("--figures", type=click.Path(path_type=Path), help="Folder for each chart as SVG and PNG.")
def report(folders: tuple[str, ...], file: Path | None, figures: Path | None) -> None:
    """Write the report of the sweep in FOLDER; of several sweeps one page, ./report.html."""
    from segbench.paths import atomic_write
    from segbench.report.page.build import build_page, write_figures
    from segbench.report.results import read_results

    sweeps = [read_results(open_sweep(folder)[0]) for folder in folders]
    target = file or (sweeps[0].paths.report if len(sweeps) == 1 else Path("report.html"))
    atomic_write(target, build_page(sweeps))
    out.print(f"report       {target}", highlight=False, soft_wrap=True)
    if figures is not None:
        count = sum(write_figures(results, figures / results.spec.name) for results in sweeps)
        out.print(f"figures      {count} charts in {figures}", highlight=False, soft_wrap=True)


@click.command()
@click.argument("folder")
def status(folder: str) -> None:
    """Print what has run, runs and is left of the sweep in FOLDER; also while it runs."""
    from segbench.report.status import status_table

    paths, loaded = open_sweep(folder)
    out.print(status_table(paths, loaded.spec, loaded.space))


@click.command()
@click.argument("folder")
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="Rows and trials to compare.")
@click.option("--open", "browse", is_flag=True, help="Open the comparison in the browser.")
def compare(folder: str, top: int, browse: bool) -> None:
    """Show the best runs of the sweep in FOLDER side by side in MLflow; starts its server where none runs."""
    from segbench.report.comparison import choose_runs, compare_runs, table_columns
    from segbench.report.folder import read_delivered, read_records
    from segbench.report.tracking import set_mlflow_defaults, tracking_uri

    paths, loaded = open_sweep(folder)
    metric, records = loaded.spec.metric, read_records(paths)
    delivered = read_delivered(paths)
    chosen = [delivered.run_ids[key] for key in choose_runs(records, metric.goal, top) if key in delivered.run_ids]
    if not chosen:
        raise StateError(f"MLflow has no run of this sweep; deliver them with: segbench mlflow sync {folder}")
    columns = table_columns(records, metric.name)
    comparison = compare_runs(delivered.experiment_id, chosen, columns, metric.name, metric.goal)
    set_mlflow_defaults()
    from segbench.report.mlflow_view import share_view, tracking_server

    uris = tracking_uri(paths, loaded.spec), delivered.tracking_uri
    with interrupted_by_sigterm(), tracking_server(*uris, chosen[0], paths) as (url, server):
        share_view(url, delivered.experiment_id, comparison.view_key, comparison.view)
        shown = {"comparison": comparison.compare, "run table": comparison.table, "charts": comparison.charts}
        out.print(f"{len(chosen)} runs", highlight=False)
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
        from segbench.report.folder import read_records
        from segbench.report.tensorboard import write_events

        paths, loaded = open_sweep(source)
        count = write_events(read_records(paths), loaded.spec.metric.name, loaded.spec.metric.goal, folder)
        out.print(f"{count} trials; look at them with: tensorboard --logdir {folder}", highlight=False, soft_wrap=True)
        return
    if SweepPaths(Path(source)).spec.is_file():
        names = sorted(path.name for path in Path(source).glob("models/*"))
        raise UserError(f"{source} is a sweep; name one of its models: {source}/models/{{{','.join(names)}}}")
    from segbench.final.export import export_model

    exported = export_model(Path(source), format_, folder)
    out.print(
        f"{', '.join(exported.files)} in {folder}; logits differ by {exported.difference:.1g} from the model's",
        highlight=False,
        soft_wrap=True,
    )
