"""Every fault, as it really happens: what was done about it and what was lost. Makes the table in docs/faults.md.

    python benchmarks/faults.py [--write]

Each row is a sweep of four trials x four epochs on Ray with one worker; each trial meets the fault once, in epoch 3.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from chaos.killing import count_events, kill_tree  # noqa: E402
from running import SYNTHETIC  # noqa: E402

from segbench.ledger import read_ledger  # noqa: E402
from segbench.paths import SweepPaths  # noqa: E402

DOCUMENT = ROOT / "docs" / "faults.md"
MARKS = ("<!-- measured -->", "<!-- /measured -->")
OVERRIDES = ["budget.trials=3", "budget.trial_timeout_s=6", "scheduler.type=none", "scheduler.max_epochs=4"]


@dataclass(frozen=True)
class Row:
    """What one fault did."""

    fault: str
    happened: str
    states: str
    epochs_trained_again: int
    epochs_never_trained: int
    seconds: float


def start(folder: Path, kind: str) -> subprocess.Popen[str]:
    """Start the sweep in which each trial meets ``kind``."""
    file = folder / "fault.yaml"
    function = "logged" if kind == "nothing" else "stumbling"
    text = SYNTHETIC.format(function=function, trials=3, retrain="")
    file.write_text(text.replace("parameters:\n", f"parameters:\n  accident: {kind}\n", 1))
    overrides = [argument for override in OVERRIDES for argument in ("--set", override)]
    command = [sys.executable, "-m", "segbench.sweep", str(file), "--out", str(folder / "sweep"), *overrides]
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def measure(fault: str, kind: str, act: Callable[[subprocess.Popen[str], SweepPaths], None] | None = None) -> Row:
    """Run one sweep with its fault, continue it until it is done, and count."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = SweepPaths(folder / "sweep")
        started = time.monotonic()
        happened: list[str] = []
        process = start(folder, kind)
        if act is not None:
            act(process, paths)
        said = process.communicate()[1]
        while not is_done(paths) and len(happened) < 6:
            happened.append("killed" if process.returncode in (0, -9) else f"exit: {first_line(said)}")
            process = start(folder, kind)
            said = process.communicate()[1]
        seconds = time.monotonic() - started
        records = read_ledger(paths.ledger("search"))
        lines = [len((trial / "trained").read_text().split()) for trial in (folder / "sweep/trials/search").iterdir()]
        recorded = sum(record.epochs_done for record in records)
        happened += [f"{a.cause}: {a.reason}" for record in records for a in record.attempts]
        happened += [record.reason for record in records if record.reason]
        states = Counter(record.state.value for record in records)
        return Row(
            fault,
            "; ".join(f"{count} x {text}" for text, count in Counter(map(shorten, happened)).items()) or "nothing",
            ", ".join(f"{count} {state}" for state, count in states.items()),
            sum(lines) - recorded,
            16 - recorded,
            seconds,
        )


def is_done(paths: SweepPaths) -> bool:
    """Whether all four trials have ended."""
    records = read_ledger(paths.ledger("search"))
    return len(records) == 4 and all(record.state.is_finished for record in records)


def when(events: int, number: int) -> Callable[[subprocess.Popen[str], SweepPaths], None]:
    """Return what sends a signal after so many events; SIGKILL goes to the whole family."""

    def act(process: subprocess.Popen[str], paths: SweepPaths) -> None:
        while count_events(paths) < events and process.poll() is None:
            time.sleep(0.01)
        if number == signal.SIGKILL:
            kill_tree(process.pid)
        else:
            process.send_signal(number)

    return act


def first_line(text: str) -> str:
    """Return the first line that says something."""
    return next((line for line in text.strip().splitlines() if line.strip()), "")


def shorten(text: str) -> str:
    """Return a text without numbers of this run."""
    text = re.sub(r"trial-\d+|baseline-\w+", "a trial", text)
    return re.sub(r"\(.*?\)|/\S+", "...", text)[:110].replace("|", "/")


def main() -> None:
    """Measure all rows, print them, and write them into the document if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"replace the table in {DOCUMENT.name}")
    options = parser.parse_args()
    rows = [
        measure("none", "nothing"),
        measure("exception in the training function", "exception"),
        measure("NaN score", "nan"),
        measure("infinite score", "inf"),
        measure("metric missing", "missing"),
        measure("worker killed (SIGKILL)", "kill"),
        measure("out of memory in a user's function", "memory"),
        measure("hanging trial (6 s)", "hang"),
        measure("disk full", "disk"),
        measure("Ctrl-C, then the same command", "nothing", when(7, signal.SIGINT)),
        measure("SIGTERM, then the same command", "nothing", when(7, signal.SIGTERM)),
        measure("driver and all children killed (SIGKILL), then the same command", "nothing", when(7, signal.SIGKILL)),
    ]
    lines = [
        "| fault | what happened | trials | epochs trained again | epochs never trained | seconds |",
        "|---|---|---|---:|---:|---:|",
    ]
    for row in rows:
        cells = (row.fault, row.happened, row.states, row.epochs_trained_again, row.epochs_never_trained)
        lines.append("| " + " | ".join(map(str, cells)) + f" | {row.seconds:.0f} |")
    table = "\n".join(lines)
    print(table)
    if options.write:
        head, rest = DOCUMENT.read_text().split(MARKS[0])
        DOCUMENT.write_text(f"{head}{MARKS[0]}\n{table}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main()
