"""What the driver does at 1,000 workers and 10,000 trials: real driver code, simulated trials.

    python benchmarks/scale.py                # an hour of a real cluster in some minutes
    python benchmarks/scale.py --quick        # 50 workers, 300 trials

A whole sweep runs through :class:`segbench.sweep.stages.Sweep`: search policy, Optuna study, ASHA, queue, ledger,
progress, tables. Only the executor is simulated: each of its workers trains epochs of known length in simulated time,
and the driver is asked and told in the order in which that happens, one call after another as Tune does it. A
decision is an answer to a worker: the next trial's configuration, or go on or stop after an epoch. The rate is
decisions over the wall time inside those calls, writing to disk included. Not in it: Ray's own messages and
scheduling, and MLflow, which a thread delivers from the ledger (``--mlflow`` runs it beside)."""

import cProfile
import heapq
import io
import pstats
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import driver_scaling
import measure

from segbench.core.paths import SweepPaths
from segbench.core.records import Assignment, Decision, EpochReport, StageWork, SweepObserver, TrialQueue
from segbench.sweep.stages import Sweep

Answer = TypeVar("Answer")

NUM_PARTS = 5
"""So many parts of the sweep, or one more, are told apart, each measured in some groups of trials."""
PROFILED = 0.04
"""This part of the trials, near the end, runs under the profiler and counts in no rate."""


@dataclass
class Clock:
    """Where the driver's time goes."""

    workers: int
    num_trials: int
    paths: SweepPaths
    proposals: list[float] = field(default_factory=list)
    """Seconds of each."""
    reports: list[float] = field(default_factory=list)
    marks: list[dict[str, float]] = field(default_factory=list)
    """How far all counters were, at equal distances."""
    ended: int = 0
    profile: cProfile.Profile = field(default_factory=cProfile.Profile)

    def time(self, kind: list[float], call: Callable[[], Answer]) -> Answer:
        """Call, and count the seconds; under the profiler, and when no trials are left to start, only call."""
        last = self.num_trials - self.workers  # afterwards there is nothing to propose
        if self.ended >= last:
            return call()
        if self.ended >= last * (1 - PROFILED):
            return self.profile.runcall(call)
        started = time.perf_counter()
        answer = call()
        kind.append(time.perf_counter() - started)
        return answer

    def end(self) -> None:
        """Count a trial."""
        self.ended += 1
        last = (self.num_trials - self.workers) * (1 - PROFILED)
        if self.ended % max(1, int(last / NUM_PARTS**2)) == 0 and self.ended <= last:
            self.marks.append(
                {
                    "trials": self.ended,
                    "proposals": len(self.proposals),
                    "proposal_s": sum(self.proposals),
                    "reports": len(self.reports),
                    "report_s": sum(self.reports),
                    "rss_mb": rss_mb(),
                    "ledger_mb": size_mb(self.paths.ledger("search")),
                    "study_mb": size_mb(self.paths.study),
                }
            )


def simulate(stages: Iterator[StageWork[Any]], clock: Clock, epoch_s: float) -> None:
    """Run all stages on simulated workers, as an executor of :class:`Sweep`."""
    for work in stages:
        queue, make_job = work.queue, work.make_job
        events: list[tuple[float, int, int, Assignment]] = []
        """When an epoch ends, of which trial, which epoch."""
        for _ in range(clock.workers):
            begin(events, 0.0, queue, make_job, clock, epoch_s)
        while events:
            now, number, epoch, assignment = heapq.heappop(events)
            report = report_of(assignment, epoch, epoch_s)
            if clock.time(clock.reports, partial(tell, queue, assignment, report)) is Decision.CONTINUE:
                later = now + length(number, epoch + 1, epoch_s)
                heapq.heappush(events, (later, number, epoch + 1, assignment))
            else:
                clock.end()
                begin(events, now, queue, make_job, clock, epoch_s)
        if queue.stop_error is not None:
            raise queue.stop_error


def begin(
    events: list[tuple[float, int, int, Assignment]],
    now: float,
    queue: TrialQueue,
    make_job: Callable[[Assignment], Any],
    clock: Clock,
    epoch_s: float,
) -> None:
    """Give a free worker a trial, if there is one."""

    def propose() -> Assignment | None:
        assignment = queue.next()
        if assignment is not None:
            make_job(assignment)
        return assignment

    assignment = clock.time(clock.proposals, propose)
    if assignment is not None:
        heapq.heappush(events, (now + length(assignment.number, 1, epoch_s), assignment.number, 1, assignment))


def tell(queue: TrialQueue, assignment: Assignment, report: EpochReport) -> Decision:
    """Report an epoch, and the end of the trial if it is its last."""
    decision = queue.report(assignment.number, report)
    if decision is Decision.STOP or report.epoch == assignment.max_epochs:
        queue.end(assignment.number)
        return Decision.STOP
    return decision


def length(number: int, epoch: int, epoch_s: float) -> float:
    """Return how long an epoch takes, between half and one and a half of the mean."""
    return epoch_s * random.Random(f"{number} {epoch}").uniform(0.5, 1.5)


def report_of(assignment: Assignment, epoch: int, epoch_s: float) -> EpochReport:
    """Return what a segmentation trial reports."""
    score = driver_scaling.score(assignment.config, epoch)
    metrics = {"score": score, **{f"val/iou/{i}": 0.5 for i in range(8)}}
    return EpochReport(epoch=epoch, metrics=metrics, confusion=((9,) * 8,) * 8, seconds=epoch_s)


def rss_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def size_mb(path: Path) -> float:
    """Return the size of a file."""
    return path.stat().st_size / 1e6 if path.exists() else 0.0


def sweep(folder: Path, workers: int, trials: int, epoch_s: float, with_mlflow: bool) -> tuple[Clock, dict[str, float]]:
    """Run a sweep; return where time went, and seconds and sizes of what comes at its end and at a restart."""
    from rich.console import Console

    from segbench.core.ledger import Ledger
    from segbench.results.folder import read_results, write_tables
    from segbench.search.policy import SearchPolicy
    from segbench.spec.load import load_spec
    from segbench.sweep.folder import open_folder
    from segbench.terminal.estimate import ExpectedWork, SweepView
    from segbench.terminal.progress import LineProgress
    from segbench.tracking.tracker import Tracker

    file = folder / "sweep.yaml"
    file.write_text(driver_scaling.SWEEP.format(trials=trials) + f"mlflow: {{enabled: {str(with_mlflow).lower()}}}\n")
    loaded = load_spec(file)
    paths = SweepPaths(folder / "sweep")
    clock = Clock(workers, trials, paths)
    view = SweepView(ExpectedWork(1.0, 0.0), "maximize")
    progress: SweepObserver = LineProgress(view, Console(file=io.StringIO()), "score", "maximize")
    before = rss_mb()
    with ExitStack() as stack:
        stack.enter_context(open_folder(paths, loaded.spec))
        if with_mlflow:
            stack.enter_context(Tracker(paths, loaded.spec, warn=lambda text: print(text, file=sys.stderr)))
        Sweep(loaded, paths, lambda stages: simulate(stages, clock, epoch_s), [progress]).run()
    found = {"rss_before_mb": before, "rss_end_mb": rss_mb(), "folder_mb": folder_mb(paths.root)}
    started = time.perf_counter()
    write_tables(read_results(paths, loaded.spec))
    found["tables_s"] = time.perf_counter() - started
    started = time.perf_counter()
    ledger = Ledger(paths.ledger("search"))
    SearchPolicy(loaded.spec, loaded.space, folder / "again.log", ledger.records)
    ledger.close()
    found["restart_s"] = time.perf_counter() - started
    return clock, found


def folder_mb(root: Path) -> float:
    """Return the size of all files."""
    return sum(size_mb(path) for path in root.rglob("*") if path.is_file())


def add_rows(bench: measure.Benchmark, clock: Clock) -> None:
    """Add a row for each part of the sweep: medians of its groups."""
    steps = [{key: after[key] - before[key] for key in after} for before, after in pairwise(clock.marks)]
    size = max(1, len(steps) // NUM_PARTS)
    values, extra = {}, {}
    for first in range(0, len(steps) - size + 1, size):
        part, mark = steps[first : first + size], clock.marks[first + size]
        name = f"until trial {mark['trials']:.0f}"
        values[name] = [
            (step["proposals"] + step["reports"]) / (step["proposal_s"] + step["report_s"]) for step in part
        ]
        total = {key: sum(step[key] for step in part) for key in steps[0]}
        epochs_per_s = total["reports"] / (total["proposal_s"] + total["report_s"])
        extra[name] = {
            "ms a proposal": f"{1e3 * total['proposal_s'] / max(total['proposals'], 1):.1f}",
            "ms a report": f"{1e3 * total['report_s'] / max(total['reports'], 1):.2f}",
            "keeps up with epochs of": f"{clock.workers / epochs_per_s:.2g} s",
            "memory MB": f"{mark['rss_mb']:.0f}",
            "ledger MB": f"{mark['ledger_mb']:.1f}",
            "study MB": f"{mark['study_mb']:.1f}",
        }
    bench.options.rounds = size
    case = f"{clock.workers} workers, {clock.num_trials} trials"
    bench.add(case, values, "decisions/s", reference=next(iter(values)), extra=extra)


def profile_text(clock: Clock, lines: int = 12) -> str:
    """Return the functions of the driver in which most time was spent, by their own time and with what they call."""
    text = io.StringIO()
    stats = pstats.Stats(clock.profile, stream=text).strip_dirs()
    stats.sort_stats("tottime").print_stats(lines)
    stats.sort_stats("cumulative").print_stats(lines)
    kept = [
        line for line in text.getvalue().splitlines() if line.strip() and "{built-in method builtins.exec}" not in line
    ]
    return "\n".join(kept)


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    parser = measure.parser(__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epoch-s", type=float, default=60.0, help="mean length of an epoch, in simulated time")
    parser.add_argument("--mlflow", action="store_true", help="deliver to MLflow (SQLite) beside, as in a real sweep")
    options = measure.set_up(parser.parse_args())
    if options.quick:
        options.workers, options.trials = 50, 300
    bench = measure.Benchmark("scale", options)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        clock, found = sweep(Path(folder), options.workers, options.trials, options.epoch_s, options.mlflow)
    add_rows(bench, clock)
    bench.note("Rows are parts of one run, one after the other; quartiles are over equal groups of trials in each.")
    bench.note(
        f"The whole sweep, with {len(clock.proposals) + len(clock.reports)} decisions that were timed: "
        f"{time.perf_counter() - started:.0f} s. Memory before it {found['rss_before_mb']:.0f} MB, at its end "
        f"{found['rss_end_mb']:.0f} MB; its folder {found['folder_mb']:.1f} MB; all tables written in "
        f"{found['tables_s']:.1f} s; ready to go on after a restart in {found['restart_s']:.1f} s."
    )
    mark = clock.marks[-1]
    share = mark["proposal_s"] / (mark["proposal_s"] + mark["report_s"])
    bench.note(
        f"{share:.0%} of the driver's time are proposals. The last trials under the profiler:\n\n"
        f"```\n{profile_text(clock)}\n```"
    )
    bench.finish()


if __name__ == "__main__":
    sys.exit(main())
