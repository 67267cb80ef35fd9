"""What has run, runs and is left of a sweep, from its ledgers: also while it runs, and after a crash."""

from collections import Counter

from rich.box import SIMPLE_HEAD
from rich.table import Table

from segbench.core.enqueued import read_enqueued
from segbench.core.ledger import read_ledger
from segbench.core.paths import STAGES, SweepPaths
from segbench.core.records import TrialRecord, TrialState
from segbench.spec.plan import plan_sweep
from segbench.spec.schema import SweepSpec
from segbench.spec.space import Space
from segbench.terminal.console import plain_console


def print_status(paths: SweepPaths, spec: SweepSpec, space: Space) -> None:
    """Print :func:`status_table`."""
    plain_console().print(status_table(paths, spec, space))


def status_table(paths: SweepPaths, spec: SweepSpec, space: Space) -> Table:
    """Return a row per stage: trials ended of those planned, by state, epochs done, hours trained, best score."""
    plan = plan_sweep(spec, space)
    tests = plan.retrain_trainings if spec.is_segmentation else 0
    planned = {
        "search": plan.trials + plan.baselines + len(read_enqueued(paths.enqueued)),
        "retrain": plan.retrain_trainings,
        "test": tests,
    }
    table = Table(box=SIMPLE_HEAD)
    for heading in ("stage", "ended", "epochs", "hours"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "stage" else "right")
    table.add_column("trials")
    table.add_column("best so far")
    for stage in STAGES:
        records = read_ledger(paths.ledger(stage))
        states = Counter(record.state for record in records)
        table.add_row(
            stage,
            f"{sum(record.state.is_finished for record in records)}/{planned[stage]}",
            str(sum(record.epochs_done for record in records)),
            f"{sum(record.seconds for record in records) / 3600:.2f}",
            ", ".join(f"{states[state]} {state.value.lower()}" for state in TrialState if states[state]),
            _best(records, spec),
        )
    return table


def _best(records: list[TrialRecord], spec: SweepSpec) -> str:
    goal = spec.metric.goal
    scored = [(best.score, record.assignment.name) for record in records if (best := record.best(goal)) is not None]
    if not scored:
        return ""
    score, name = max(scored) if goal == "maximize" else min(scored)
    return f"{score:.4f} {name}"
