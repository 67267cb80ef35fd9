"""How many epochs a search needs: segbench's real policy and queue beside stock Ray and Optuna, on learning curves.

    python benchmarks/search.py --curves curves/      # hours; a run that is recorded in --results is not repeated
    python benchmarks/search.py --only seg- --methods segbench,ray --seeds 3

W workers train in virtual time: an epoch takes one unit, give or take a thousandth, and each event (a report, a stop, a
proposal) happens when it would. *Regret* is how far the best score so far is from the best known one, in units of the
distance from that to the median configuration; the budget is 50 full trainings' worth of epochs. Stock Ray is
`OptunaSearch` (of Ray, with Optuna's default sampler) and `ASHAScheduler`, with the same first rung (a twentieth of the
length) and reduction factor (3). Tables of recorded curves become functions as benchmarks/search_tasks.py says.
"""

import argparse
import heapq
import json
import math
import os
import shutil
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from search_tasks import Task, tasks

from segbench.core.ledger import Ledger
from segbench.core.records import Cause, Decision, EpochReport, Failure
from segbench.core.seeding import derive_seed
from segbench.search.policy import SearchPolicy
from segbench.search.queue import LedgerQueue
from segbench.spec.space import Space

BUDGET = 50
"""Full trainings' worth of epochs."""
FLOOR = 2e-3
"""Regrets below this are the same: a fivehundredth of the way to the median."""
Curve = NDArray[np.float64]


class Method(Protocol):
    """A search as a worker sees it."""

    def start(self) -> tuple[Any, Mapping[str, Any], int] | None:
        """Return a trial to run: its id, what was drawn, the epochs that it has done."""
        ...

    def report(self, trial: Any, epoch: int, score: float) -> bool:
        """Take in an epoch and return whether the trial goes on."""
        ...

    def end(self, trial: Any, epoch: int, score: float, has_diverged: bool) -> None:
        """Take in the end of a trial that was not stopped."""
        ...


class Segbench:
    """The real policy, queue and ledger."""

    def __init__(self, task: Task, seed: int, folder: Path, **sections: Any) -> None:
        loaded = task.spec(seed, **sections)
        self._ledger = Ledger(folder / "search.jsonl")
        policy = SearchPolicy(loaded.spec, loaded.space, folder / "optuna.log")
        self._queue = LedgerQueue(self._ledger, policy, "score", "maximize")

    def start(self) -> tuple[int, Mapping[str, Any], int] | None:
        assignment = self._queue.next()
        if assignment is None:
            return None
        done = self._ledger.record(assignment.number).epochs_done
        return assignment.number, assignment.params, max(0, done - 1)  # it goes on from the checkpoint before

    def report(self, trial: int, epoch: int, score: float) -> bool:
        report = EpochReport(epoch=epoch, metrics={"score": score})
        return self._queue.report(trial, report) is Decision.CONTINUE

    def end(self, trial: int, epoch: int, score: float, has_diverged: bool) -> None:
        self._queue.end(trial, Failure(Cause.NON_FINITE, "nan") if has_diverged else None)


class Ray:
    """Ray's own classes, used as its controller uses them."""

    def __init__(self, task: Task, seed: int, folder: Path, sampler: str = "", stops: bool = True) -> None:
        import optuna
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        space = task.spec(seed).space
        made = {"random": optuna.samplers.RandomSampler}[sampler](seed=seed) if sampler else None
        self._searcher = OptunaSearch(
            lambda trial: suggest(space, trial), metric="score", mode="max", seed=None if made else seed, sampler=made
        )
        first = math.ceil(task.length / 20)
        self._scheduler = ASHAScheduler(
            metric="score", mode="max", max_t=task.length, grace_period=first, reduction_factor=3
        )
        self._stops, self._count = stops, 0

    def start(self) -> tuple[Any, Mapping[str, Any], int]:
        self._count += 1
        trial = SimpleNamespace(trial_id=f"{self._count:05d}")
        config = self._searcher.suggest(trial.trial_id)
        self._scheduler.on_trial_add(None, trial)
        return trial, config, 0

    def report(self, trial: Any, epoch: int, score: float) -> bool:
        result = {"training_iteration": epoch, "score": score}
        action = self._scheduler.on_trial_result(None, trial, result) if self._stops else "CONTINUE"
        if action == "CONTINUE":
            self._searcher.on_trial_result(trial.trial_id, result)
            return True
        self._end(trial, result)
        return False

    def end(self, trial: Any, epoch: int, score: float, has_diverged: bool) -> None:
        if has_diverged:  # the training function raises, as ours does
            self._scheduler.on_trial_error(None, trial)
            self._searcher.on_trial_complete(trial.trial_id, error=True)
        else:
            self._end(trial, {"training_iteration": epoch, "score": score})

    def _end(self, trial: Any, result: Mapping[str, Any]) -> None:
        self._scheduler.on_trial_complete(None, trial, result)
        self._searcher.on_trial_complete(trial.trial_id, dict(result))


class Optuna:
    """Optuna alone: a study with its default sampler and its Hyperband pruner."""

    def __init__(self, task: Task, seed: int, folder: Path) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner = optuna.pruners.HyperbandPruner(math.ceil(task.length / 20), task.length, 3)
        self._study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner
        )
        self._space = task.spec(seed).space

    def start(self) -> tuple[Any, Mapping[str, Any], int]:
        trial = self._study.ask()
        return trial, suggest(self._space, trial, is_whole=True), 0

    def report(self, trial: Any, epoch: int, score: float) -> bool:
        trial.report(score, epoch)
        if not trial.should_prune():
            return True
        self._study.tell(trial, state=self._states().PRUNED)
        return False

    def end(self, trial: Any, epoch: int, score: float, has_diverged: bool) -> None:
        if has_diverged:
            self._study.tell(trial, state=self._states().FAIL)
        else:
            self._study.tell(trial, score)

    @staticmethod
    def _states() -> Any:
        import optuna

        return optuna.trial.TrialState


def suggest(space: Space, trial: Any, is_whole: bool = False) -> dict[str, Any]:
    """Draw a configuration as a user of Optuna writes it; Ray wants only what Optuna has not drawn itself."""
    from segbench.spec.space import Categorical, Constant, Integer, Real, Transformed

    params: dict[str, Any] = {}
    for parameter in space.parameters:
        if not space.is_active(parameter, params):
            continue
        name, domain = parameter.name, parameter.domain
        if isinstance(domain, Constant):
            params[name] = domain.value
        elif isinstance(domain, Categorical):
            params[name] = trial.suggest_categorical(name, domain.values)
        elif isinstance(domain, Integer):
            params[name] = trial.suggest_int(name, domain.low, domain.high)
        elif isinstance(domain, Real):
            params[name] = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
        else:
            assert isinstance(domain, Transformed)
            assert isinstance(domain.base, Real)
            params[name] = trial.suggest_int(name, int(domain.base.low), int(domain.base.high), log=domain.base.log)
    return params if is_whole else {}


METHODS: Mapping[str, Callable[..., Method]] = {
    "ray": Ray,
    "random+asha": lambda *args: Ray(*args, sampler="random"),
    "random": lambda *args: Ray(*args, sampler="random", stops=False),
    "optuna": Optuna,
    "segbench": Segbench,
    "wide-rungs": lambda *args: Segbench(*args, scheduler={"rung_spacing": 3}),
    "promote": lambda *args: Segbench(*args, scheduler={"type": "asha-promote"}),
    "promote-wide": lambda *args: Segbench(*args, scheduler={"type": "asha-promote", "rung_spacing": 3}),
    "hyperband": lambda *args: Segbench(*args, scheduler={"type": "hyperband", "rung_spacing": 3}),
    "pasha": lambda *args: Segbench(*args, scheduler={"type": "pasha", "rung_spacing": 3}),
    "median": lambda *args: Segbench(*args, scheduler={"type": "median"}),
    "no-stop": lambda *args: Segbench(*args, scheduler={"type": "none"}),
    "multivariate": lambda *args: Segbench(*args, search={"algorithm": "tpe-multivariate"}),
    "gp": lambda *args: Segbench(*args, search={"algorithm": "gp"}),
    "cmaes": lambda *args: Segbench(*args, search={"algorithm": "cmaes"}),
    "qmc": lambda *args: Segbench(*args, search={"algorithm": "qmc"}),
}


def simulate(method: Method, task: Task, workers: int, seed: int, trainings: int = BUDGET) -> Curve:
    """Return the best score after each epoch of the budget, shape (trainings * length,)."""
    rng = np.random.default_rng(derive_seed(seed, task.name, workers))
    budget = trainings * task.length
    incumbents = np.empty(budget)
    best, used = -math.inf, 0
    events: list[tuple[float, int, Any, int, Curve]] = []
    idle: list[tuple[float, int]] = [(0.0, worker) for worker in range(workers)]
    while used < budget:
        while idle:
            now, worker = idle.pop(0)
            begun = method.start()
            assert begun is not None, "there are more trials than any budget allows"
            trial, params, done = begun
            heapq.heappush(events, (now + _epoch(rng), worker, trial, done + 1, task.curve(params, seed)))
        now, worker, trial, epoch, curve = heapq.heappop(events)
        score = float(curve[epoch - 1])
        if math.isfinite(score):
            best = max(best, score)
        incumbents[used] = best
        used += 1
        if not math.isfinite(score):
            method.end(trial, epoch, score, has_diverged=True)
        elif not method.report(trial, epoch, score):
            pass
        elif epoch < task.length:
            heapq.heappush(events, (now + _epoch(rng), worker, trial, epoch + 1, curve))
            continue
        else:
            method.end(trial, epoch, score, has_diverged=False)
        idle.append((now, worker))
    return incumbents


def _epoch(rng: np.random.Generator) -> float:
    return 1 + 1e-3 * float(rng.uniform())


_TASKS: dict[str, Task] = {}


def load(curves: Path | None) -> None:
    """Read the problems, in each process once."""
    warnings.simplefilter("ignore")
    _TASKS.update((task.name, task) for task in tasks(curves))


def regrets(method: str, name: str, workers: int, seed: int, trainings: int = BUDGET) -> list[float]:
    """Run one search and return its regret after each full training's worth of epochs."""
    task = _TASKS[name]
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        incumbents = simulate(METHODS[method](task, seed, folder), task, workers, seed, trainings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    scaled = (task.best - incumbents) / (task.best - task.median)
    ends = np.arange(task.length, len(scaled) + 1, task.length) - 1
    return [round(float(value), 5) for value in np.minimum(scaled[ends], 10.0)]


def main() -> None:
    """Run what is missing, then print the tables."""
    options = arguments()
    load(options.curves)
    names = [name for name in _TASKS if not options.only or any(text in name for text in options.only)]
    asked = [
        (method, name, workers, seed)
        for seed in range(options.seeds)
        for workers in options.workers
        for name in names
        for method in options.methods
    ]
    done = dict(read_results(options.results))
    missing = [run for run in asked if run not in done]
    with ProcessPoolExecutor(options.processes, initializer=load, initargs=(options.curves,)) as pool:
        futures = {pool.submit(regrets, *run): run for run in missing}
        with options.results.open("a") as file:
            for count, future in enumerate(as_completed(futures), start=1):
                run = futures[future]
                done[run] = future.result()
                file.write(json.dumps([*run, done[run]]) + "\n")
                file.flush()
                if count % 50 == 0:
                    print(f"{count}/{len(missing)}", file=sys.stderr, flush=True)
    for workers in options.workers:
        print(table(done, options.methods, names, workers, options.seeds))


def arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, help="folder with TaskSet, LCBench and MNIST; without it two tasks")
    parser.add_argument("--methods", default="ray,random+asha,optuna,segbench", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--workers", default="1,4,16")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--only", action="append", metavar="TEXT", help="tasks whose name holds TEXT; may be repeated")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("search.jsonl"), help="finished runs, a line each")
    options = parser.parse_args()
    options.methods = options.methods.split(",")
    options.workers = [int(count) for count in options.workers.split(",")]
    return options


def read_results(path: Path) -> Iterator[tuple[tuple[str, str, int, int], list[float]]]:
    """Yield the finished runs: (method, task, workers, seed), regrets."""
    for line in path.read_text().splitlines() if path.exists() else []:
        method, name, workers, seed, found = json.loads(line)
        yield (method, name, workers, seed), found


Results = Mapping[tuple[str, str, int, int], Sequence[float]]


def table(done: Results, methods: Sequence[str], names: Sequence[str], workers: int, num_seeds: int) -> str:
    """Return Markdown: each method relative to the first, over tasks, with bootstrapped standard errors over seeds."""
    arrays: dict[str, dict[str, Curve]] = defaultdict(dict)
    for method in methods:
        for name in names:
            rows = [done[run] for seed in range(num_seeds) if (run := (method, name, workers, seed)) in done]
            arrays[method][name] = np.array(rows)
    whole = [name for name in names if all(len(arrays[method][name]) > 1 for method in methods)]
    lines = [f"\n{workers} workers, {len(whole)} tasks, regret relative to {methods[0]} after 10 / 25 / 50 trainings\n"]
    lines += ["| method | 10 | 25 | 50 | epochs to its result | worst task |", "|---|---|---|---|---|---|"]
    reference = arrays[methods[0]]
    for method in methods:
        own = arrays[method]
        ratios = [spread(own, reference, whole, lambda a, b, at=at: a[at] / b[at]) for at in (9, 24, 49)]
        speed = spread(own, reference, whole, speed_up)
        worst = max(whole, key=lambda name: _excess(own[name], reference[name]))
        shown = " | ".join(f"{mean:.2f} ± {error:.2f}" for mean, error in ratios)
        excess = f"{worst} {_excess(own[worst], reference[worst]):+.1f} s.e."
        lines.append(f"| {method} | {shown} | {speed[0]:.2f}x ± {speed[1]:.2f} | {excess} |")
    return "\n".join(lines)


def spread(
    own: Mapping[str, Curve], other: Mapping[str, Curve], names: Sequence[str], of: Callable[[Curve, Curve], float]
) -> tuple[float, float]:
    """Return the geometric mean over tasks of ``of`` the two methods' mean regrets, and its standard error."""
    rng = np.random.default_rng(0)

    def draw(resample: bool) -> float:
        logs = []
        for name in names:
            means = []
            for rows in (own[name], other[name]):
                picked = rng.integers(len(rows), size=len(rows)) if resample else slice(None)
                means.append(np.maximum(rows[picked].mean(axis=0), FLOOR))
            logs.append(math.log(of(means[0], means[1])))
        return math.exp(sum(logs) / len(logs))

    return draw(False), float(np.std([draw(True) for _ in range(200)]))


def speed_up(own: Curve, other: Curve) -> float:
    """Return how many times fewer epochs ``own`` needs to the other's last regret; short of it, the ratio of both."""
    reached = np.nonzero(own <= other[-1])[0]
    return len(own) / (reached[0] + 1) if len(reached) else float(other[-1] / own[-1])


def _excess(own: Curve, other: Curve) -> float:
    """Return by how many standard errors the regret at the end is above the other's."""
    a, b = own[:, -1], other[:, -1]
    error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return float((a.mean() - b.mean()) / error) if error else 0.0


if __name__ == "__main__":
    main()
