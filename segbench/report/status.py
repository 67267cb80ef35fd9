"""What has run, runs and is left of a sweep, from its ledgers: also while it runs, and after a crash."""

from collections import Counter

from rich.table import Table

from segbench.ledger import read_ledger
from segbench.paths import STAGES, SweepPaths
from segbench.records import TrialRecord, TrialState
from segbench.spec.plan import plan_sweep
from segbench.spec.schema import SweepSpec
from segbench.spec.space import Space


def status_table(paths: SweepPaths, spec: SweepSpec, space: Space) -> Table:
    """Return a row per stage: trials planned, by state, epochs done, hours trained, best score so far."""
    plan = plan_sweep(spec, space)
    tests = plan.retrain_trainings if spec.is_segmentation else 0
    planned = {"search": plan.trials + plan.baselines, "retrain": plan.retrain_trainings, "test": tests}
    table = Table("stage", "planned", "left", *(state.value for state in TrialState), "epochs", "hours", "best")
    for stage in STAGES:
        records = read_ledger(paths.ledger(stage))
        states = Counter(record.state for record in records)
        ended = sum(record.state.is_finished for record in records)
        hours = sum(record.seconds for record in records) / 3600
        table.add_row(
            stage,
            str(planned[stage]),
            str(max(0, planned[stage] - ended)),
            *(str(states[state]) for state in TrialState),
            str(sum(record.epochs_done for record in records)),
            f"{hours:.2f}",
            _best(records, spec),
        )
    return table


def _best(records: list[TrialRecord], spec: SweepSpec) -> str:
    goal = spec.metric.goal
    scored = [(best.score, record.assignment.name) for record in records if (best := record.best(goal)) is not None]
    if not scored:
        return ""
    score, name = max(scored) if goal == "maximize" else min(scored)
    return f"{score:.4f} ({name})"
