"""Sweeps that meet a fault, and what can be counted afterwards: the parts of benchmarks/faults.py."""

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.killing import kill_tree
from running import SYNTHETIC

from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import TrialRecord
from segbench.spec.load import load_spec

ROOT = Path(__file__).resolve().parent.parent
MAX_EPOCHS = 4
MAX_STARTS = 8
TIMEOUT_S = 300
OVERRIDES = (
    "budget.trials=3",  # and a baseline
    "budget.trial_timeout_s=300",
    "scheduler.type=none",
    f"scheduler.max_epochs={MAX_EPOCHS}",
    "scheduler.grace_epochs=1",
)
Scores = Mapping[tuple[str, int], float]
"""Score by trial and epoch."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one fault did."""

    fault: str
    happened: str
    trials: str
    epochs_trained_again: int
    epochs_left_out: int
    scores_that_differ: int
    seconds: float


class FaultySweep:
    """One sweep with its sweep file in ``folder``, started as often as it takes.

    Args:
        folder: becomes full of files.
        text: the sweep file.
        overrides: what ``--set`` is given after :data:`OVERRIDES`.
        arguments: other options of the command.
    """

    def __init__(self, folder: Path, text: str, overrides: Sequence[str], arguments: Sequence[str]) -> None:
        self.folder = folder
        self.paths = SweepPaths(folder / "sweep")
        self.happened: list[str] = []
        self.said = ""
        self.seconds = 0.0
        file = folder / "fault.yaml"
        file.write_text(text)
        sets = [argument for override in (*OVERRIDES, *overrides) for argument in ("--set", override)]
        options = ["--out", str(self.paths.root), *sets, *arguments]
        self._command = [sys.executable, "-m", "segbench.sweep", str(file), *options]
        self._begun = time.monotonic()

    @property
    def records(self) -> list[TrialRecord]:
        """All trials so far."""
        return read_ledger(self.paths.ledger("search"))

    @property
    def scores(self) -> Scores:
        """All finite scores."""
        return {(r.assignment.name, e.epoch): e.score for r in self.records for e in r.epochs if math.isfinite(e.score)}

    @property
    def begun(self) -> list[list[int]]:
        """Epochs that each trial began, in the order in which it did."""
        logs = [self.paths.trial("search", record.assignment.name) / "trained" for record in self.records]
        return [[int(line) for line in log.read_text().split()] for log in logs]

    def start(self) -> None:
        """Type the command."""
        path = os.pathsep.join(str(folder) for folder in (ROOT / "tests", ROOT / "benchmarks", ROOT))
        environment = {**os.environ, "PYTHONPATH": path, "SEGBENCH_CACHE": str(self.folder / "cache")}
        self.process = subprocess.Popen(
            self._command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_for_accidents(self, count: int) -> None:
        """Wait until so many trials have met theirs."""
        deadline = time.monotonic() + TIMEOUT_S
        while len(list(self.paths.root.glob("trials/search/*/stumbled"))) < count:
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, f"accident {count} does not come"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL the driver and all its children."""
        kill_tree(self.process.pid)
        self.process.communicate()

    def end(self) -> None:
        """Wait for the end of the process; remember how it ended."""
        self.said = self.process.communicate()[1]
        if self.process.returncode == -9:
            self.happened.append("killed")
        elif self.process.returncode:
            self.happened.append(f"exit code {self.process.returncode}: {first_line(self.said)}")
        self.seconds = time.monotonic() - self._begun

    @property
    def is_done(self) -> bool:
        """Whether all trials have ended; the exit code of a sweep in which all of them failed is not 0."""
        spec, records = load_spec(self.paths.spec).spec, self.records
        num_trials = spec.budget.trials + len(spec.baselines)
        return len(records) == num_trials and all(record.state.is_finished for record in records)

    def finish(self) -> None:
        """Wait, and type the same command until all trials have ended."""
        self.end()
        for _ in range(MAX_STARTS):
            if self.is_done:
                return
            self.start()
            self.end()
        raise RuntimeError(f"not done after {MAX_STARTS} starts: {self.said}")

    def row(self, fault: str, calm: Scores | None = None) -> Row:
        """Count; ``calm`` are the scores of the sweep without the fault."""
        records = self.records
        recorded = sum(record.epochs_done for record in records)
        happened = [*self.happened, *(f"{a.cause}: {a.reason}" for record in records for a in record.attempts)]
        happened += [record.reason for record in records if record.reason]
        texts = Counter(map(shorten, happened))
        calm = calm or {}
        return Row(
            fault=fault,
            happened="; ".join(f"{count} x {text}" for text, count in texts.items()) or "nothing",
            trials=", ".join(f"{n} {state}" for state, n in Counter(r.state.value for r in records).items()),
            epochs_trained_again=sum(len(epochs) - len(set(epochs)) for epochs in self.begun),
            epochs_left_out=len(records) * MAX_EPOCHS - recorded,
            scores_that_differ=sum(score != calm.get(key, score) for key, score in self.scores.items()),
            seconds=self.seconds,
        )


@contextmanager
def faulty_sweep(
    accident: str = "nothing", *overrides: str, arguments: Sequence[str] = (), text: str | None = None
) -> Iterator[FaultySweep]:
    """Start a sweep in which each trial meets ``accident`` once, in epoch 3."""
    if text is None:
        function = "logged" if accident == "nothing" else "stumbling"
        text = SYNTHETIC.format(function=function, trials=3, retrain="")
        text = text.replace("parameters:\n", f"parameters:\n  accident: {accident}\n", 1)
    with tempfile.TemporaryDirectory() as folder:
        sweep = FaultySweep(Path(folder), text, overrides, arguments)
        sweep.start()
        try:
            yield sweep
        finally:
            if sweep.process.poll() is None:
                sweep.kill()


def first_line(text: str) -> str:
    """Return the first line that says something."""
    return next((line for line in text.strip().splitlines() if line.strip()), "")


def shorten(text: str) -> str:
    """Return a text in one line and without numbers of this run."""
    text = re.sub(r"trial-\d+|baseline-\w+", "a trial", " ".join(text.split()))
    return re.sub(r"\(.*?\)|/\S+", "...", text)[:220].replace("|", "/")
