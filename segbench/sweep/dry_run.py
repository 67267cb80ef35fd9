"""What a sweep would do, said without starting it."""

import tempfile
from pathlib import Path

from rich.table import Table

from segbench.core.records import Assignment, Scalar
from segbench.search.policy import SearchPolicy
from segbench.spec.load import LoadedSpec, dump_spec
from segbench.spec.plan import plan_sweep
from segbench.sweep.preflight import check_sweep
from segbench.sweep.run import import_path
from segbench.terminal.console import plain_console


def sample_configurations(loaded: LoadedSpec, count: int) -> list[Assignment]:
    """Return the baselines and the first ``count`` searched trials, exactly as the sweep would start them."""
    with tempfile.TemporaryDirectory() as folder:
        policy = SearchPolicy(loaded.spec, loaded.space, Path(folder) / "optuna.log")
        proposed = (policy.propose(number) for number in range(len(loaded.spec.baselines) + count))
        return [assignment for assignment in proposed if assignment is not None]


def print_dry_run(loaded: LoadedSpec) -> None:
    """Print the resolved file, the plan and three sampled configurations; start nothing.

    With ``resources.gpu: auto`` a GPU of this machine is measured, unless that was done before.

    Raises:
        UserError: what would stop the sweep before its first trial.
    """
    with import_path(loaded.path):
        check_sweep(loaded)
    console = plain_console()
    console.print(f"# {loaded.path}, as resolved", style="bold")
    console.print(dump_spec(loaded.spec), soft_wrap=True)
    plan = Table(title="plan", title_justify="left", show_header=False)
    for label, value in plan_sweep(loaded.spec, loaded.space).rows():
        plan.add_row(label, value)
    if loaded.spec.is_segmentation:
        from segbench.sweep.prepare import disk_of, share_gpu

        plan.add_row("disk at most, without the data set", f"{disk_of(loaded).peak / 1e9:.2g} GB")
        if loaded.spec.resources.gpu == "auto":
            decided = share_gpu(loaded)()
            plan.add_row("GPUs of a trial", f"{decided.gpu:g}: {decided.reason}")
    console.print(plan)
    console.print("first configurations", style="bold")
    for assignment in sample_configurations(loaded, 3):
        params = ", ".join(f"{name}={_short(value)}" for name, value in assignment.params.items())
        console.print(f"  {assignment.name}: {params}", soft_wrap=True)


def _short(value: Scalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
