"""Distributed hyperparameter sweeps for semantic segmentation.

    import segbench

    result = segbench.run("sweeps/quickstart.yaml", {"budget.trials": 12})
    result.leaderboard

Every name is imported when it is first used: ``import segbench`` takes no time, and reading results imports neither
torch nor Ray (docs/api.md).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from segbench.core.errors import SegbenchError, UserError
    from segbench.core.records import (
        Assignment,
        EpochRecord,
        EpochResult,
        SweepObserver,
        TrainContext,
        TrainFunction,
        TrialRecord,
        TrialState,
    )
    from segbench.final.model import LoadedModel, load_model
    from segbench.report.vega import Chart
    from segbench.spec.schema import SweepSpec
    from segbench.sweep.enqueue import enqueue
    from segbench.sweep.result import Best, SweepResult, load
    from segbench.sweep.run import run

__all__ = [
    "Assignment",
    "Best",
    "Chart",
    "EpochRecord",
    "EpochResult",
    "LoadedModel",
    "SegbenchError",
    "SweepObserver",
    "SweepResult",
    "SweepSpec",
    "TrainContext",
    "TrainFunction",
    "TrialRecord",
    "TrialState",
    "UserError",
    "enqueue",
    "load",
    "load_model",
    "run",
]

_HOMES = {
    "core.errors": ("SegbenchError", "UserError"),
    "core.records": (
        *("Assignment", "EpochRecord", "EpochResult", "SweepObserver"),
        *("TrainContext", "TrainFunction", "TrialRecord", "TrialState"),
    ),
    "final.model": ("LoadedModel", "load_model"),
    "report.vega": ("Chart",),
    "spec.schema": ("SweepSpec",),
    "sweep.enqueue": ("enqueue",),
    "sweep.result": ("Best", "SweepResult", "load"),
    "sweep.run": ("run",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"segbench.{module}"), name)
    raise AttributeError(f"module 'segbench' has no attribute {name!r}; it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
