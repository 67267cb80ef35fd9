"""Does a sweep notice that its MLflow server is away for half of the time?

    python benchmarks/mlflow_outage.py [--pairs 3]

A real `mlflow server` on loopback; the same sweep (sequential executor, 0.2 s an epoch) with the server up all the time
and with the server stopped between a quarter and three quarters of its events. The time is that from the first to the
last event of the ledgers; what is delivered afterwards is checked to be complete.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from chaos.killing import count_events  # noqa: E402
from chaos.test_mlflow_outage import assert_all_points, free_port, server, sweep  # noqa: E402

from segbench.core.paths import STAGES, SweepPaths  # noqa: E402


def duration(paths: SweepPaths) -> float:
    """Return the seconds between the first and the last event."""
    files = [paths.ledger(stage) for stage in STAGES]
    times = [json.loads(line)["at"] for file in files if file.exists() for line in file.read_text().splitlines()]
    return max(times) - min(times)


def wait_for(paths: SweepPaths, events: float, process: subprocess.Popen[str]) -> None:
    """Wait until the ledgers have so many events."""
    while count_events(paths) < events and process.poll() is None:
        time.sleep(0.02)


def measure(num_events: int | None) -> tuple[float, int]:
    """Run one sweep, with an outage if the number of its events is known; return its time and its events."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, port = Path(name), free_port()
        paths = SweepPaths(folder / "sweep")
        up = stack.enter_context(contextlib.ExitStack())
        up.enter_context(server(folder, port))
        process = sweep(folder, port)
        if num_events is not None:
            wait_for(paths, num_events / 4, process)
            up.close()
            wait_for(paths, 3 * num_events / 4, process)
            stack.enter_context(server(folder, port))
        process.communicate(timeout=300)
        subprocess.run([sys.executable, "-m", "segbench", "mlflow", "sync", str(paths.root)], check=True)
        assert_all_points(paths, port)
        return duration(paths), count_events(paths)


def main() -> None:
    """Print each pair and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    ratios = []
    for _ in range(parser.parse_args().pairs):
        calm, events = measure(None)
        away, _ = measure(events)
        ratios.append(away / calm)
        print(f"undisturbed {calm:.2f} s, server away for half of it {away:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
