"""How often the epochs that a plan announces are those that the search takes: real searches over recorded curves.

    python benchmarks/plans.py --curves FOLDER     # the problems of search_tasks.py; without it those of this folder

Policy, queue and ledger are the real ones; time is virtual, an epoch takes the same everywhere.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from search_tasks import Task, tasks

from segbench.core.ledger import Ledger
from segbench.core.records import Decision, EpochReport
from segbench.search.forecast import forecast
from segbench.search.policy import SearchPolicy
from segbench.search.queue import LedgerQueue
from segbench.spec.load import LoadedSpec

TYPES = ("auto", "asha-promote", "hyperband", "pasha", "median", "none")


def search(loaded: LoadedSpec, task: Task, num_workers: int, folder: Path) -> int:
    """Run a whole search and return how many epochs it took."""
    ledger = Ledger(folder / "search.jsonl")
    policy = SearchPolicy(loaded.spec, loaded.space, folder / "optuna.log")
    queue = LedgerQueue(ledger, policy, "score", "maximize")
    running: list[tuple[int, int]] = []
    now = 0
    while True:
        while len(running) < num_workers and (assignment := queue.next()) is not None:
            heappush(running, (now + 1, assignment.number))
        if not running:
            break
        now, number = heappop(running)
        record = queue.record(number)
        epoch = record.epochs_done + 1
        score = float(task.curve(record.assignment.config, 0)[epoch - 1])
        decision = queue.report(number, EpochReport(epoch=epoch, metrics={"score": score}))
        if decision is Decision.CONTINUE and epoch < task.length:
            heappush(running, (now + 1, number))
        else:
            queue.end(number)
    ledger.close()
    if queue.stop_error is not None:
        raise queue.stop_error
    return sum(record.epochs_done for record in ledger.records)


def cases(args: argparse.Namespace) -> Iterator[tuple[Task, Mapping[str, Any]]]:
    """Yield each problem with each scheduler."""
    for task in tasks(args.curves):
        for kind in args.types:
            yield task, {"type": kind}


def main() -> None:
    """Print a line per search, and how many were inside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, help="folder with recorded curves (search_tasks.py)")
    parser.add_argument("--types", nargs="+", default=TYPES, help="schedulers")
    parser.add_argument("--trials", type=int, nargs="+", default=[60])
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    inside: dict[str, list[bool]] = {kind: [] for kind in args.types}
    print("| problem | scheduler | trials | workers | announced | happened | median off by | inside |")
    print("|---|---|---|---|---|---|---|---|")
    for task, scheduler in cases(args):
        for trials in args.trials:
            for workers in args.workers:
                loaded = task.spec(args.seed, scheduler=scheduler, budget={"trials": trials, "max_concurrent": workers})
                told = forecast(loaded.spec, trials).epochs
                with tempfile.TemporaryDirectory() as folder:
                    happened = search(loaded, task, workers, Path(folder))
                is_inside = math.floor(told.low) <= happened <= math.ceil(told.high)
                inside[scheduler["type"]].append(is_inside)
                off = happened / told.median - 1
                row = (task.name, scheduler["type"], trials, workers, told, happened, f"{off:+.0%}", is_inside)
                print("| " + " | ".join(map(str, row)) + " |", flush=True)
    for kind, answers in inside.items():
        print(f"{kind}: {sum(answers)} of {len(answers)} inside")


if __name__ == "__main__":
    main()
