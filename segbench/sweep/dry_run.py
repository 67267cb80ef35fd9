"""What a sweep would do, said without starting it."""

import math
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from segbench.core.address import join, sweep_paths
from segbench.core.enqueued import read_enqueued
from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import Assignment, Scalar, TrialRecord
from segbench.search.forecast import forecast
from segbench.search.observations import count_fits
from segbench.search.policy import SearchPolicy
from segbench.search.warm_start import warm_start
from segbench.spec.identity import Changes
from segbench.spec.load import LoadedSpec, dump_spec
from segbench.spec.plan import plan_sweep
from segbench.sweep.folder import changes_of, has_begun
from segbench.sweep.preflight import check_sweep
from segbench.sweep.prior import find_old
from segbench.sweep.run import import_path
from segbench.terminal.console import plain_console


def sample_configurations(
    loaded: LoadedSpec, paths: SweepPaths, records: Sequence[TrialRecord], count: int
) -> list[Assignment]:
    """Return the trials that the sweep would start now, were none of them to end: baselines and ``count`` others."""
    prior = warm_start(find_old(paths, loaded.spec), loaded.space, loaded.spec.metric.goal)
    wishes = partial(read_enqueued, paths.enqueued)
    begun, num_baselines = len(records), sum(record.assignment.origin == "baseline" for record in records)
    count += len(loaded.spec.baselines) - num_baselines
    with tempfile.TemporaryDirectory() as folder:
        policy = SearchPolicy(loaded.spec, loaded.space, Path(folder) / "optuna.log", records, prior, wishes)
        proposed = (policy.propose(number) for number in range(begun, begun + count))
        return [assignment for assignment in proposed if assignment is not None]


def print_dry_run(loaded: LoadedSpec, place: str | None = None) -> None:
    """Print the resolved file, the plan and the next configurations; start nothing.

    Of a sweep that has begun also what the file would change. With ``resources.gpu: auto`` a GPU of this machine is
    measured, unless that was done before.

    Args:
        loaded: the file.
        place: folder or bucket address of the sweep; None: ``<storage>/<name>``.

    Raises:
        UserError: what would stop the sweep before its first trial.
    """
    with import_path(loaded.path):
        check_sweep(loaded)
    paths = sweep_paths(place or join(loaded.spec.storage, loaded.spec.name))
    console = plain_console()
    console.print(f"# {loaded.path}, as resolved", style="bold")
    console.print(dump_spec(loaded.spec), soft_wrap=True)
    console.print(_plan_table(loaded, paths))
    records: list[TrialRecord] = []
    if paths.uri is None and has_begun(paths):  # of one in a bucket there may be an old copy here
        records = read_ledger(paths.ledger("search"))
        changes = changes_of(paths, loaded.spec)
        _print_changes(console, loaded, paths, records, changes)
        if changes.refused:
            return
    console.print("next configurations" if records else "first configurations", style="bold")
    for assignment in sample_configurations(loaded, paths, records, 3):
        params = ", ".join(f"{name}={_short(value)}" for name, value in assignment.params.items())
        console.print(f"  {assignment.name}: {params}", soft_wrap=True)


def _plan_table(loaded: LoadedSpec, paths: SweepPaths) -> Table:
    plan = Table(title="plan", title_justify="left", show_header=False)
    work = plan_sweep(loaded.spec, loaded.space)
    expected = forecast(loaded.spec, work.trials).rows(work.retrain_epochs)
    for label, value in (*work.rows(), *expected):
        plan.add_row(label, value)
    if loaded.spec.is_segmentation:
        from segbench.sweep.prepare import disk_of, share_gpu

        plan.add_row("disk at most, without the data set", f"{_gigabytes(disk_of(loaded, paths).peak)} GB")
        if loaded.spec.resources.gpu == "auto":
            decided = share_gpu(loaded)()
            plan.add_row("GPUs of a trial", f"{decided.gpu:g}: {decided.reason}")
    return plan


def _print_changes(
    console: Console, loaded: LoadedSpec, paths: SweepPaths, records: Sequence[TrialRecord], changes: Changes
) -> None:
    """Print what the file would change in a sweep that has begun, and what of its trials the sampler would look at."""
    console.print(f"{paths.place} holds {len(records)} trials of this sweep", style="bold", soft_wrap=True)
    for title, lines in (("refused", changes.refused), ("with --resume", changes.on_request)):
        for line in lines:
            console.print(f"  {title}: {line}", soft_wrap=True, markup=False)
    if not (changes.refused or changes.on_request):
        console.print("  continues as it is")
    if changes.has_new_space:
        counts = count_fits(records, loaded.space)
        told = f"{counts.describe()}; baselines and enqueued trials as they are"
        console.print(f"  the sampler would learn from: {told}", soft_wrap=True)
    waiting = len(read_enqueued(paths.enqueued)) - sum(record.assignment.enqueued is not None for record in records)
    if waiting:
        console.print(f"  enqueued and not begun: {waiting}")


def _gigabytes(size: float) -> str:
    """Return two digits, rounded up: what is said to be the most is the most."""
    unit = 10 ** (math.floor(math.log10(size)) - 1)
    return f"{math.ceil(size / unit) * unit / 1e9:.2g}"


def _short(value: Scalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
