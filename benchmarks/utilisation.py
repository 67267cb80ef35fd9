"""Share of the workers' time that is training: sum of training time / (workers x makespan), from a sweep's ledgers.

    python benchmarks/utilisation.py runs/compare --workers 2
    python benchmarks/utilisation.py --run sweeps/compare.yaml --set data.root=... --workers 2

Training time is the sum over all epochs and tests of the seconds that their process took. The makespan of a stage is
that from its first start to its last end, so that time between stages is lost time; with ``--run`` the whole command
counts, from its start (Ray, imports, packing) to its end (tables, MLflow). An interrupted sweep has
no makespan.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import measure

from segbench.core.ledger import read_ledger
from segbench.core.paths import STAGES, SweepPaths
from segbench.core.records import TrialRecord


@dataclass(frozen=True)
class Utilisation:
    """Of one stage, of all from the first start to the last end, or of the whole command."""

    part: str
    trials: int
    training_s: float
    makespan_s: float
    share: float


def utilisation(
    part: str, records: Sequence[TrialRecord], workers: int, makespan_s: float | None = None
) -> Utilisation:
    """Return how busy ``workers`` were with ``records``."""
    if makespan_s is None:
        makespan_s = max(record.ended_at or 0.0 for record in records) - min(record.started_at for record in records)
    training_s = sum(record.seconds for record in records)
    return Utilisation(part, len(records), training_s, makespan_s, training_s / (workers * makespan_s))


def read(folder: Path, workers: int, command_s: float | None = None) -> list[Utilisation]:
    """Return the parts of a finished sweep."""
    paths = SweepPaths(folder)
    stages = {stage: read_ledger(paths.ledger(stage)) for stage in STAGES}
    every = [record for records in stages.values() for record in records]
    if any(record.ended_at is None for record in every) or not every:
        raise SystemExit(f"{folder}: the sweep has not ended, or is none")
    parts = [utilisation(stage, records, workers) for stage, records in stages.items() if records]
    parts.append(utilisation("all stages", every, workers))
    if command_s is not None:
        parts.append(utilisation("whole command", every, workers, command_s))
    return parts


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="a finished sweep")
    parser.add_argument("--run", type=Path, metavar="FILE", help="run this sweep file first")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time")
    options = parser.parse_args()
    machine = measure.describe_machine()
    if options.run is not None:
        with tempfile.TemporaryDirectory() as name:
            folder = options.folder or Path(name) / "sweep"
            overrides = [f"budget.max_concurrent={options.workers}", *options.overrides]
            settings = [part for override in overrides for part in ("--set", override)]
            started = time.perf_counter()
            command = [sys.executable, "-m", "segbench.sweep", str(options.run), "--out", str(folder), *settings]
            subprocess.run(command, check=True)
            parts = read(folder, options.workers, time.perf_counter() - started)
    elif options.folder is not None:
        parts = read(options.folder, options.workers)
    else:
        parser.error("give the folder of a finished sweep, or --run FILE")
    print(f"# utilisation\n\n{measure.describe(machine)}; {options.workers} workers\n")
    header = ("part", "trials", "training s", "makespan s", "share")
    rows = [(p.part, str(p.trials), f"{p.training_s:.1f}", f"{p.makespan_s:.1f}", f"{p.share:.3f}") for p in parts]
    print(measure.markdown(header, rows))
    if options.json is not None:
        document = {"benchmark": "utilisation", "command": sys.argv, "machine": machine}
        measure.write_json(options.json, {**document, "parts": json.loads(json.dumps([asdict(p) for p in parts]))})


if __name__ == "__main__":
    main()
