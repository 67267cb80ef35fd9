"""Kills a sweep with SIGKILL at chosen moments, continues it with the same command, and compares with a calm run."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
import psutil
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from running import decisions

from segbench.core.ledger import read_ledger
from segbench.core.paths import STAGES, SweepPaths
from segbench.search.rungs import rung_scores
from segbench.spec.load import load_spec

TESTS = Path(__file__).parent.parent
WALL_CLOCK = ["seconds", "search_seconds", "started_at", "ended_at", "mlflow_runs", "latency_ms", "latency_batch_ms"]
TIMEOUT_S = 300


@dataclass(frozen=True)
class Moment:
    """When to kill: so long after the start, or after the so-many-th event of the ledgers, and a little later."""

    phase: str
    after_s: float = 0.0
    after_events: int = 0


def moments(seed: int, count: int, num_events: int, startup_s: float, executor_delay_s: float = 0.05) -> list[Moment]:
    """Return ``count`` random moments: a fifth while starting, the others over all events, the last ones at the end."""
    draw = random.Random(seed)
    chosen = [Moment("start-up", after_s=draw.uniform(0, startup_s)) for _ in range(max(1, count // 5))]
    chosen.append(Moment("export", after_s=draw.uniform(0, 0.5), after_events=num_events))
    events = sorted(draw.sample(range(1, num_events), count - len(chosen)))
    chosen += [Moment("running", after_s=draw.uniform(0, executor_delay_s), after_events=event) for event in events]
    return sorted(chosen, key=lambda moment: moment.after_events)


def count_events(paths: SweepPaths) -> int:
    """Return the number of lines in all ledgers."""
    files = [paths.ledger(stage) for stage in STAGES]
    return sum(file.read_bytes().count(b"\n") for file in files if file.exists())


def command(file: Path, folder: Path, executor: str) -> list[str]:
    """Return what a user types."""
    return [sys.executable, "-m", "segbench.sweep", str(file), "--out", str(folder), "--executor", executor]


def start(file: Path, folder: Path, executor: str) -> subprocess.Popen[bytes]:
    """Start the sweep in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    log = (folder.parent / f"{folder.name}.log").open("ab")
    return subprocess.Popen(
        command(file, folder, executor), env=environment, stdout=log, stderr=log, start_new_session=True
    )


def finish(file: Path, folder: Path, executor: str) -> SweepPaths:
    """Run the sweep to its end."""
    process = start(file, folder, executor)
    assert process.wait(TIMEOUT_S) == 0, (folder.parent / f"{folder.name}.log").read_text()[-3000:]
    return SweepPaths(folder)


def kill_at(moment: Moment, file: Path, folder: Path, executor: str) -> bool:
    """Start the sweep and kill it with all its children at ``moment``; False if it had ended before."""
    process = start(file, folder, executor)
    paths = SweepPaths(folder)
    deadline = time.monotonic() + TIMEOUT_S
    while count_events(paths) < moment.after_events and process.poll() is None:
        assert time.monotonic() < deadline, f"the sweep is stuck; see {folder.name}.log"
        time.sleep(0.002)
    time.sleep(moment.after_s)
    if process.poll() is not None:
        return False
    kill_tree(process.pid)
    process.wait()
    return True


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all its descendants."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=10)


def table(path: Path) -> pd.DataFrame:
    """Return a table without its wall-clock columns."""
    frame = pd.read_csv(path)
    return frame.drop(columns=[column for column in WALL_CLOCK if column in frame])


def study(paths: SweepPaths) -> list[tuple[object, ...]]:
    """Return all that Optuna knows, but times."""
    storage = JournalStorage(JournalFileBackend(str(paths.study)))
    trials = optuna.load_study(study_name=None, storage=storage).trials
    return [
        (t.number, t.state.name, t.params, t.distributions, t.values, repr(t.intermediate_values), t.user_attrs)
        for t in trials
    ]


def rungs(paths: SweepPaths) -> dict[int, dict[int, float]]:
    """Return the contents of all rungs."""
    spec = load_spec(paths.spec).spec
    epochs = spec.scheduler.rungs
    records = read_ledger(paths.ledger("search"))
    return {rung: rung_scores(records, rung, spec.metric.goal) for rung in epochs}


def assert_same(actual: SweepPaths, expected: SweepPaths) -> None:
    """Compare tables, ledgers, rungs and study."""
    for stage in STAGES:
        assert decisions(actual, stage) == decisions(expected, stage), stage
    pd.testing.assert_frame_equal(table(actual.trials), table(expected.trials))
    pd.testing.assert_frame_equal(table(actual.leaderboard), table(expected.leaderboard))
    assert rungs(actual) == rungs(expected)
    assert study(actual) == study(expected)


def endure(file: Path, folder: Path, executor: str, chosen: Sequence[Moment]) -> tuple[SweepPaths, int]:
    """Kill one sweep at each moment in turn, then let it end; return its folder and the number of kills."""
    kills = sum(kill_at(moment, file, folder, executor) for moment in chosen)
    return finish(file, folder, executor), kills
