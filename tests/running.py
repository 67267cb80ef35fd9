"""Sweep files and shortcuts for tests of the orchestration."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from segbench.core.ledger import Ledger, read_ledger
from segbench.core.paths import Stage, SweepPaths
from segbench.core.records import StageWork, TrialRecord
from segbench.search.sequential import run_sequential
from segbench.spec.load import LoadedSpec, load_spec
from segbench.sweep.folder import open_folder
from segbench.sweep.stages import Executor, Sweep
from segbench.training.trial import TrialJob, run_trial
from segbench.tune.run import run_on_ray

SYNTHETIC = """
name: synthetic
train: objectives:{function}
metric: {{name: score, goal: maximize}}
parameters:
  family: {{values: [a, b]}}
  lr: {{distribution: log_uniform_values, min: 1e-5, max: 1e-1}}
  width: {{when: {{family: a}}, min: 8, max: 96}}
  momentum: {{when: {{family: b}}, distribution: normal, mu: 0.9, sigma: 0.02}}
baselines:
  - name: default
    parameters: {{family: a, lr: 1e-3, width: 200}}
search: {{seed: 3, startup_trials: 5}}
scheduler: {{max_epochs: 9, grace_epochs: 1, reduction_factor: 3}}
budget: {{trials: {trials}, max_concurrent: 1}}
resources: {{cpu: 1}}
{retrain}
mlflow: {{enabled: false}}
"""


def synthetic(
    folder: Path, function: str = "curve", trials: int = 20, retrain: str = "", overrides: Sequence[str] = ()
) -> LoadedSpec:
    """Write a sweep file for one of :mod:`objectives` and load it."""
    path = folder / f"{function}.yaml"
    path.write_text(SYNTHETIC.format(function=function, trials=trials, retrain=retrain))
    return load_spec(path, overrides)


def local(stages: Iterator[StageWork[TrialJob]]) -> None:
    """Run in this process."""
    run_sequential(stages, run_trial)


def on_ray(loaded: LoadedSpec, folder: Path) -> Executor:
    """Run on the connected Ray cluster."""
    return lambda stages: run_on_ray(stages, folder / "ray", loaded.spec.resources, loaded.spec.budget)


def run(loaded: LoadedSpec, folder: Path, execute: Executor = local) -> SweepPaths:
    """Run a whole sweep and return its folder."""
    paths = SweepPaths(folder)
    with open_folder(paths, loaded.spec):
        Sweep(loaded, paths, execute).run()
    return paths


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code under test catches it."""


@contextmanager
def killed_after(num_events: int) -> Iterator[None]:
    """Let the process die once so many events of ledgers are on disk, before what would follow."""
    count, append = 0, Ledger._append

    def dying(self: Ledger, event: dict[str, Any]) -> TrialRecord:
        nonlocal count
        if count == num_events:
            raise Killed
        count += 1
        return append(self, event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "_append", dying)
        try:
            yield
        except Killed:
            return
        pytest.fail(f"there were no more than {num_events} events")


def decisions(paths: SweepPaths, stage: Stage = "search") -> list[tuple[Any, ...]]:
    """Return all that was decided: configuration, seed, epochs, scores, state, reason of each trial."""
    return [decision(record) for record in read_ledger(paths.ledger(stage))]


def decision(record: TrialRecord) -> tuple[Any, ...]:
    """Return what was decided of one trial, with scores as text so that NaN equals NaN."""
    a = record.assignment
    scores = tuple((epoch.epoch, repr(epoch.score), repr(epoch.confusion)) for epoch in record.epochs)
    return (
        a.number,
        a.name,
        dict(a.params),
        dict(a.config),
        a.seed,
        record.state,
        record.reason,
        record.audited_rung,
        scores,
    )


def outcome(paths: SweepPaths, stage: Stage = "search") -> list[tuple[Any, ...]]:
    """Return scores and states without an accident's traces."""
    return [(decided[0], *decided[5:]) for decided in decisions(paths, stage)]


def optuna_states(paths: SweepPaths) -> list[str]:
    """Return each trial's state as optuna-dashboard would read it from the folder."""
    storage = JournalStorage(JournalFileBackend(str(paths.study)))
    study = optuna.load_study(study_name=None, storage=storage)
    return [trial.state.name for trial in study.trials]
