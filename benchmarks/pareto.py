"""Searches for two metrics at once, on curves that cost nothing: the hypervolume found in the same number of epochs.

    python benchmarks/pareto.py [--lcbench FOLDER] [--seeds 10] [--trainings 50] [--quick] [--json FILE]

Ours (with rungs and without) against Optuna's NSGA-II and its multi-objective TPE, each with one worker and as many
epochs as ``--trainings`` full trainings take. What counts are trials that ran to their end: the volume that
their metrics dominate, over the volume of what all methods and seeds have found together. LCBench's surrogate (accuracy
against training time) is left out where its files are not given.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler

sys.path.insert(0, str(Path(__file__).parents[1]))

from segbench.core.ledger import Ledger
from segbench.core.records import Decision, EpochReport, TrialState
from segbench.core.seeding import derive_seed
from segbench.search.pareto import hypervolume
from segbench.search.policy import SearchPolicy
from segbench.search.queue import LedgerQueue
from segbench.search.study import as_distribution
from segbench.spec.load import spec_from

Config = Mapping[str, Any]
Pair = tuple[float, float]
"""Two losses."""
TASKS = ("3945", "126029", "189906")
"""Of LCBench: three of its data sets."""


@dataclass(frozen=True)
class Problem:
    """Something to search."""

    name: str
    parameters: Mapping[str, Any]
    metrics: tuple[str, str]
    """To be maximised, and to be minimised."""
    curve: Callable[[Config, int], list[Pair]]
    """Configuration and seed -> both metrics after every epoch."""
    epochs: int
    reference: Pair
    """Losses at which the hypervolume begins."""
    is_cost_known: bool
    """Whether the second metric is known before training."""


def made_parameters() -> dict[str, Any]:
    """Return the space of the made problem."""
    return {
        "width": {"values": [8, 16, 24, 32, 48, 64, 96, 128]},
        "depth": {"min": 2, "max": 5},
        "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
        "weight_decay": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
        "flip": {"min": 0.0, "max": 1.0},
    }


def made_latency_ms(config: Config) -> float:
    """Return 1.5 + 0.004 width^1.5 (depth - 1): convolutions grow a little less than quadratically with the width."""
    return float(1.5 + 0.004 * config["width"] ** 1.5 * (config["depth"] - 1))


def made_curve(config: Config, seed: int) -> list[Pair]:
    """Return (mIoU, latency) after each of 27 epochs.

    With w = log2(width / 8) and d = depth - 2 the ceiling is 0.8 (1 - exp(-0.5 (1 + w + 0.7 d))), less
    0.10 (log10 lr - b)^2 with b = -2.3 - 0.15 w (wider models want smaller steps), 0.02 (log10 weight_decay + 3)^2 and
    0.05 (flip - 0.5)^2, at least 0.02; after epoch t the score is ceiling (1 - exp(-r t)) with r = 0.35 / (1 + 0.2 w),
    and a normal error of 0.004.
    """
    w, d = math.log2(config["width"] / 8), config["depth"] - 2
    ceiling = 0.8 * (1 - math.exp(-0.5 * (1 + w + 0.7 * d)))
    ceiling -= 0.10 * (math.log10(config["lr"]) + 2.3 + 0.15 * w) ** 2
    ceiling -= 0.02 * (math.log10(config["weight_decay"]) + 3) ** 2 + 0.05 * (config["flip"] - 0.5) ** 2
    rate = 0.35 / (1 + 0.2 * w)
    errors = np.random.default_rng(seed).normal(0, 0.004, 27)
    scores = max(ceiling, 0.02) * (1 - np.exp(-rate * np.arange(1, 28))) + errors
    return [(float(score), made_latency_ms(config)) for score in scores]


def made() -> Problem:
    """Return the problem with a known formula."""
    slowest = made_latency_ms({"width": 128, "depth": 5})
    return Problem("made", made_parameters(), ("val/miou", "latency_ms"), made_curve, 27, (0.0, slowest), True)


def lcbench(folder: Path, task: str) -> Problem:
    """Return one data set of LCBench's surrogate: accuracy against training time."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    code = json.loads((folder / "encoding.json").read_text())["OpenML_task_id"][task]
    space = json.loads((folder / "config_space.json").read_text())["hyperparameters"]
    shown = {entry["name"]: entry for entry in space if entry["name"] not in ("OpenML_task_id", "epoch")}
    order = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")

    def curve(config: Config, seed: int) -> list[Pair]:
        inputs = np.array([[epoch, *(config[name] for name in order)] for epoch in range(1, 53)], np.float32)
        codes = np.full((52, 1), code, np.int32)
        output = session.run(None, {"x_cat": codes, "x_cont": inputs})[0]
        return [(float(row[1]), max(float(row[0]), 0.0)) for row in output]

    parameters = {name: _range(entry) for name, entry in shown.items()}
    reference = (0.0, slowest_of(curve, parameters))
    return Problem(f"lcbench {task}", parameters, ("accuracy", "time_s"), curve, 52, reference, False)


def _range(entry: Mapping[str, Any]) -> dict[str, Any]:
    log = {"distribution": "log_uniform_values"} if entry["log"] else {}
    whole = {"distribution": "q_log_uniform_values", "q": 1} if entry["log"] and "int" in entry["type"] else log
    low, high = (int(entry[end]) if "int" in entry["type"] else float(entry[end]) for end in ("lower", "upper"))
    return {"min": low, "max": high, **whole}


def slowest_of(curve: Callable[[Config, int], list[Pair]], parameters: Mapping[str, Any]) -> float:
    """Return the 0.9 quantile of the second metric over 200 random configurations."""
    spec = spec_from(_file(parameters, ("a", "b"), 1, "random", "none", 0))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    times = []
    for _ in range(200):
        trial = study.ask({p.name: as_distribution(p) for p in spec.space.parameters})
        times.append(curve(_config(spec.space, trial.params), 0)[-1][1])
    return float(np.quantile(times, 0.9))


def _file(
    parameters: Mapping[str, Any], metrics: tuple[str, str], epochs: int, algorithm: str, scheduler: str, seed: int
) -> dict[str, Any]:
    first, second = metrics
    return {
        "name": "pareto",
        "train": "benchmarks.pareto:made_curve",
        "metric": [{"name": first, "goal": "maximize"}, {"name": second, "goal": "minimize"}],
        "parameters": dict(parameters),
        "search": {"algorithm": algorithm, "seed": seed},
        "scheduler": {"type": scheduler, "max_epochs": epochs},
        "budget": {"trials": 100_000},
    }


def _config(space: Any, drawn: Mapping[str, Any]) -> dict[str, Any]:
    from segbench.search.observations import from_sampler

    return {parameter.name: from_sampler(parameter.domain, drawn[parameter.name]) for parameter in space.parameters}


def ours(problem: Problem, seed: int, num_epochs: int, algorithm: str, scheduler: str) -> list[Pair]:
    """Return the losses of the trials that ran to their end: real policy, queue and ledger."""
    loaded = spec_from(_file(problem.parameters, problem.metrics, problem.epochs, algorithm, scheduler, seed))
    first, second = problem.metrics
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "search.jsonl")
        policy = SearchPolicy(loaded.spec, loaded.space, Path(folder) / "optuna.log")
        queue = LedgerQueue(ledger, policy, first, "maximize")
        left = num_epochs
        while left > 0 and (assignment := queue.next()) is not None:
            curve = problem.curve(assignment.config, derive_seed(seed, "noise", assignment.number))
            for epoch in range(ledger.record(assignment.number).epochs_done + 1, problem.epochs + 1):
                score, cost = curve[epoch - 1]
                left -= 1
                report = EpochReport(epoch=epoch, metrics={first: score, second: cost})
                if queue.report(assignment.number, report) is Decision.STOP or left <= 0:
                    break
            if left > 0:
                queue.end(assignment.number)
        ended = [r for r in ledger.records if r.state is TrialState.COMPLETE]
        ledger.close()
        return [r.losses_at(r.epochs[-1], loaded.spec.metric.several) for r in ended]  # type: ignore[misc]


def optunas(problem: Problem, seed: int, num_epochs: int, sampler: BaseSampler) -> list[Pair]:
    """Return the losses of full trainings that one of Optuna's samplers proposes."""
    loaded = spec_from(_file(problem.parameters, problem.metrics, problem.epochs, "random", "none", seed))
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    losses = []
    for number in range(num_epochs // problem.epochs):
        trial = study.ask({p.name: as_distribution(p) for p in loaded.space.parameters})
        config = _config(loaded.space, trial.params)
        score, cost = problem.curve(config, derive_seed(seed, "noise", number))[-1]
        study.tell(trial, [score, cost])
        losses.append((-score, cost))
    return losses


Method = Callable[[Problem, int, int], list[Pair]]
METHODS: Mapping[str, Method] = {
    "ours": lambda p, seed, n: ours(p, seed, n, "tpe", "asha"),
    "ours, no rungs": lambda p, seed, n: ours(p, seed, n, "tpe", "none"),
    "random, our rungs": lambda p, seed, n: ours(p, seed, n, "random", "asha"),
    "Optuna NSGA-II": lambda p, seed, n: optunas(p, seed, n, NSGAIISampler(seed=seed)),
    "Optuna NSGA-II, 10": lambda p, seed, n: optunas(p, seed, n, NSGAIISampler(seed=seed, population_size=10)),
    "Optuna TPE": lambda p, seed, n: optunas(p, seed, n, TPESampler(seed=seed)),
}


def compare(problem: Problem, num_seeds: int, trainings: int) -> dict[str, list[float]]:
    """Return each method's hypervolume by seed, as a share of what all of them found together."""
    num_epochs = trainings * problem.epochs
    found = {name: [method(problem, seed, num_epochs) for seed in range(num_seeds)] for name, method in METHODS.items()}
    everything = [point for runs in found.values() for run in runs for point in run]
    most = hypervolume(everything, problem.reference)
    return {name: [hypervolume(run, problem.reference) / most for run in runs] for name, runs in found.items()}


def constrained(seed: int, trials: int) -> tuple[int, int, int]:
    """Return how many trials broke ``latency_ms < 4``, how many of these were trained, and how many of all were."""
    file = _file(made_parameters(), ("val/miou", "x"), 27, "tpe", "asha", seed)
    metric, require = {"name": "val/miou"}, {"model/latency_ms": "< 4"}
    loaded = spec_from({**file, "metric": metric, "require": require, "budget": {"trials": trials}})
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "search.jsonl")
        costs = cache_costs()
        policy = SearchPolicy(loaded.spec, loaded.space, Path(folder) / "optuna.log", costs=costs)
        queue = LedgerQueue(ledger, policy, "val/miou", "maximize")
        while (assignment := queue.next()) is not None:
            for epoch, (score, _) in enumerate(made_curve(assignment.config, seed), start=1):
                if (
                    queue.report(assignment.number, EpochReport(epoch=epoch, metrics={"val/miou": score}))
                    is Decision.STOP
                ):
                    break
            queue.end(assignment.number)
        ledger.close()
        broken = [r for r in ledger.records if made_latency_ms(r.assignment.config) >= 4]
        trained = sum(bool(record.epochs) for record in ledger.records)
        return len(broken), sum(bool(record.epochs) for record in broken), trained


def cache_costs() -> Callable[[Config], dict[str, float]]:
    """Return what gives the made latency, asked once per architecture."""
    known = cache(lambda width, depth: made_latency_ms({"width": width, "depth": depth}))
    return lambda config: {"model/latency_ms": known(config["width"], config["depth"])}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lcbench", type=Path, help="folder with model.onnx, encoding.json, config_space.json")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trainings", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="ask only whether it runs")
    parser.add_argument("--json", type=Path, help="keep all values")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seeds, trainings = (2, 5) if options.quick else (options.seeds, options.trainings)
    problems = [made()]
    if options.lcbench is None or not (options.lcbench / "model.onnx").is_file():
        print("LCBench is left out: --lcbench names no folder with model.onnx")
    else:
        problems += [lcbench(options.lcbench, task) for task in TASKS]
    rows = []
    for problem in problems:
        shares = compare(problem, seeds, trainings)
        print(f"\n{problem.name}: hypervolume after {trainings} trainings' worth of epochs, {seeds} seeds", flush=True)
        for name, values in shares.items():
            error = stdev(values) / math.sqrt(len(values))
            print(f"  {name:20} {fmean(values):.4f} +- {error:.4f}", flush=True)
            rows.append({"case": problem.name, "variant": name, "values": values})
    counts = [constrained(seed, 10 if options.quick else 50) for seed in range(seeds)]
    broken, wasted, trained = (sum(column) for column in zip(*counts, strict=True))
    print(f"\nlatency_ms < 4: {trained} trials trained, {broken} proposals broke it, {wasted} of these were trained")
    rows.append({"case": "constraint", "broken": broken, "trained": wasted})
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
