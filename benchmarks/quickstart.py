"""A whole sweep from two states of this repository, in alternation: wall seconds, and where processor seconds go.

    python benchmarks/quickstart.py --before 58742f5

Each run is `python -m segbench.sweep` in a process of its own, with a fresh folder and an empty data cache. The sweep
file is the older state's, so that both run the same trials. Processes that are not part of the sweep slow both
down: on a busy machine compare the processor seconds, not the wall.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import measure
import psutil

HERE = Path(__file__).resolve().parent.parent
STAGES = ("search", "retrain", "test")
PERIOD_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Run:
    """One sweep, in seconds."""

    wall: float
    training: float
    """Sum over epochs, as the ledgers have it."""
    first_epoch: float
    """From the start of the process until the first epoch was reported."""
    after_test: float
    """From the last test until the process ended."""
    driver_cpu: float
    ray_cpu: float
    """Of Ray's own processes."""
    worker_cpu: float


class Processes:
    """Samples the processor time of a process and all below it, also of those that end before it does."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seconds: dict[psutil.Process, tuple[str, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> dict[str, float]:
        """Return seconds by role: driver, ray, worker."""
        self._stop.set()
        self._thread.join()
        total = {"driver": 0.0, "ray": 0.0, "worker": 0.0}
        for role, seconds in self._seconds.values():
            total[role] += seconds
        return total

    def _watch(self) -> None:
        while not self._stop.wait(PERIOD_S):
            try:
                found = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in found:
                try:
                    times, title = process.cpu_times(), " ".join(process.cmdline()[:3])
                except psutil.Error:
                    continue
                self._seconds[process] = (self._role(process, title), times.user + times.system)

    def _role(self, process: psutil.Process, title: str) -> str:
        if process == self._root:
            return "driver"
        is_worker = title.startswith("ray::") and "Agent" not in title
        return "worker" if is_worker or "default_worker.py" in title else "ray"


def run_sweep(checkout: Path, file: Path) -> Run:
    """Run the sweep once with the code in ``checkout``."""
    with tempfile.TemporaryDirectory(prefix="quickstart-") as folder:
        out = Path(folder) / "out"
        environment = {
            **os.environ,
            "PYTHONPATH": str(checkout),
            "SEGBENCH_CACHE": str(Path(folder) / "cache"),
            "RAY_TQDM": "0",
            "RAY_worker_niceness": "0",  # else every other process of the machine comes first
        }
        command = [sys.executable, "-m", "segbench.sweep", str(file), "--out", str(out)]
        started, started_at = time.perf_counter(), time.time()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        processes = Processes(process.pid)
        _, errors = process.communicate()
        wall, ended_at = time.perf_counter() - started, time.time()
        cpu = processes.close()
        if process.returncode:
            raise SystemExit(f"{checkout}: the sweep failed:\n{errors}")
        lines = [line for stage in STAGES for line in (out / "state" / f"{stage}.jsonl").read_text().splitlines()]
        events = [json.loads(line) for line in lines]
    epochs = [event for event in events if event["event"] == "epoch"]
    return Run(
        wall=wall,
        training=sum(event["seconds"] for event in epochs),
        first_epoch=min(event["at"] for event in epochs) - started_at,
        after_test=ended_at - max(event["at"] for event in events),
        driver_cpu=cpu["driver"],
        ray_cpu=cpu["ray"],
        worker_cpu=cpu["worker"],
    )


def main() -> None:
    """Compare two states."""
    parser = measure.parser(__doc__)
    parser.add_argument("--before", default="58742f5", help="commit to compare with")
    parser.add_argument("--sweep", default="sweeps/quickstart.yaml", help="file within the older state")
    parser.set_defaults(rounds=3, warmup=0)
    options = measure.set_up(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="before-") as folder:
        before = Path(folder) / "before"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(before), options.before], check=True)
        try:
            compare(before, before / options.sweep, options)
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=True)


def compare(before: Path, file: Path, options: argparse.Namespace) -> None:
    """Run both states in alternation and print the table."""
    bench = measure.Benchmark("quickstart", options)
    runs: dict[str, list[Run]] = {"before": [], "now": []}

    def measured(name: str, checkout: Path) -> float:
        run = run_sweep(checkout, file)
        runs[name].append(run)
        print(f"{name}: {asdict(run)}", file=sys.stderr, flush=True)
        return run.wall

    measure.alternate({"before": lambda: measured("before", before), "now": lambda: measured("now", HERE)}, options)
    for case in asdict(runs["now"][0]):
        values = {name: [asdict(run)[case] for run in found] for name, found in runs.items()}
        bench.add(case.replace("_", " "), values, "s", reference="before")
    bench.target("wall", "now", "before", at_most=0.5)
    bench.finish()


if __name__ == "__main__":
    main()
