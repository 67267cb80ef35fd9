"""What a report costs the driver when a sweep has 100, 1,000 or 5,000 trials.

    python benchmarks/driver_scaling.py

Trials are simulated, no process is started; what decides and what writes is real. Ours: search policy, queue, ledger,
Optuna study and progress. Stock: ``OptunaSearch`` and ``ASHAScheduler`` as Ray Tune calls them. Up to 9 reports a
trial, ASHA stops most at a rung; the figures are those of the last 50 trials before each size. Bytes are what a report
writes: stock writes nothing but its snapshots, which hold all trials (11.8 KB each when measured) at most every 10 s.
"""

import io
import logging
import math
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measure

MAX_EPOCHS, GRACE, FACTOR = 9, 1, 3
LAST = 50
SNAPSHOT_KB = 11.8

SWEEP = """
name: scaling
train: nothing:at_all
metric: {{name: score}}
parameters:
  lr: {{distribution: log_uniform_values, min: 1e-5, max: 1e-1}}
  width: {{min: 8, max: 96}}
  dropout: {{min: 0.0, max: 0.5}}
  schedule: {{values: [constant, poly, cosine]}}
scheduler: {{max_epochs: 9, grace_epochs: 1, reduction_factor: 3}}
budget: {{trials: {trials}}}
"""


def score(config: Mapping[str, Any], epoch: int) -> float:
    """Return a curve that rises to a ceiling, with noise."""
    ceiling = 0.9 - 0.15 * abs(math.log10(config["lr"]) + 3) - 0.1 * abs(config["width"] - 48) / 48
    noise = random.Random(f"{config['lr']:.6e} {epoch}").uniform(-0.01, 0.01)
    return ceiling * (1 - math.exp(-0.5 * epoch)) + noise


def ours(sizes: list[int]) -> dict[int, tuple[list[float], float]]:
    """Return, by size, CPU ms a report of each of the last trials, and bytes a report."""
    from rich.console import Console

    from segbench.ledger import Ledger
    from segbench.records import Decision, EpochReport
    from segbench.report.estimate import ExpectedWork, SweepView
    from segbench.report.progress import LineProgress
    from segbench.search.policy import SearchPolicy
    from segbench.search.queue import LedgerQueue
    from segbench.spec.load import load_spec

    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweep.yaml").write_text(SWEEP.format(trials=max(sizes)))
        loaded = load_spec(folder / "sweep.yaml")
        ledger, study = Ledger(folder / "ledger.jsonl"), folder / "optuna.log"
        view = SweepView(ExpectedWork(1.0, 0.0), "maximize")
        view.start_stage("search", max(sizes), MAX_EPOCHS)
        progress = LineProgress(view, Console(file=io.StringIO()), "score", "maximize")
        policy = SearchPolicy(loaded.spec, loaded.space, study)
        queue = LedgerQueue(ledger, policy, "score", "maximize", progress)

        def run_one() -> int:
            assignment = queue.next()
            assert assignment is not None
            for epoch in range(1, MAX_EPOCHS + 1):
                metrics = {"score": score(assignment.config, epoch), **{f"val/iou/{i}": 0.5 for i in range(8)}}
                report = EpochReport(epoch=epoch, metrics=metrics, confusion=((9,) * 8,) * 8, seconds=1.0)
                if queue.report(assignment.number, report) is Decision.STOP:
                    break
            queue.end(assignment.number)
            return epoch

        done = 0
        for size in sizes:
            while done < size - LAST:
                run_one()
                done += 1
            before = (folder / "ledger.jsonl").stat().st_size + study.stat().st_size
            costs, reports = cost_of_last(run_one)
            done += LAST
            written = (folder / "ledger.jsonl").stat().st_size + study.stat().st_size - before
            found[size] = costs, written / reports
        ledger.close()
    return found


def stock(sizes: list[int]) -> dict[int, tuple[list[float], float]]:
    """Return the same of Ray Tune's own searcher and scheduler, filled without suggestions up to each size."""
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    found = {}
    for size in sizes:
        space = {
            "lr": tune.loguniform(1e-5, 1e-1),
            "width": tune.randint(8, 97),
            "dropout": tune.uniform(0.0, 0.5),
            "schedule": tune.choice(["constant", "poly", "cosine"]),
        }
        # the sampler that segbench uses, for a like comparison
        sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, constant_liar=True)
        searcher = OptunaSearch(space=space, metric="score", mode="max", sampler=sampler)
        scheduler = ASHAScheduler("training_iteration", "score", "max", MAX_EPOCHS, GRACE, FACTOR)

        def run_one(
            number: int, searcher: Any = searcher, scheduler: Any = scheduler, config: Any = None, known: Any = None
        ) -> int:
            trial = SimpleNamespace(trial_id=f"{number:05d}", config=config)
            fill = config is not None
            config = config or searcher.suggest(trial.trial_id)
            scheduler.on_trial_add(None, trial)
            for epoch in range(1, MAX_EPOCHS + 1):
                result = {"score": score(config, epoch), "training_iteration": epoch, "trial_id": trial.trial_id}
                if scheduler.on_trial_result(None, trial, result) == "STOP":
                    break
                if not fill:
                    searcher.on_trial_result(trial.trial_id, result)
            scheduler.on_trial_complete(None, trial, result)
            if fill:
                kept = dict(config)
                searcher._ot_study.add_trial(
                    optuna.trial.create_trial(params=kept, distributions=known, value=result["score"])
                )
            else:
                searcher.on_trial_complete(trial.trial_id, result)
            return epoch

        first = searcher.suggest("first")
        searcher.on_trial_complete("first", {"score": score(first, 1), "training_iteration": 1})
        distributions = searcher._ot_study.get_trials()[0].distributions
        draw = random.Random(0)
        for number in range(size - LAST):
            lr, width = 10 ** draw.uniform(-5, -1), draw.randint(8, 96)
            schedule = draw.choice(["constant", "poly", "cosine"])
            run_one(
                number,
                config={"lr": lr, "width": width, "dropout": draw.uniform(0, 0.5), "schedule": schedule},
                known=distributions,
            )
        numbers = iter(range(size, size + LAST))
        costs, _ = cost_of_last(lambda numbers=numbers, run_one=run_one: run_one(next(numbers)))
        found[size] = costs, SNAPSHOT_KB * 1e3 * size / 10  # a report a second
    return found


def cost_of_last(run_one: Callable[[], int]) -> tuple[list[float], int]:
    """Return CPU ms a report in five groups of trials, and the number of reports."""
    costs, total = [], 0
    for _ in range(5):
        started, reports = time.process_time(), 0
        for _ in range(LAST // 5):
            reports += run_one()
        costs.append((time.process_time() - started) * 1e3 / reports)
        total += reports
    return costs, total


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    parser = measure.parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 5000])
    options = measure.set_up(parser.parse_args())
    options.rounds = 5  # groups of ten trials each
    sizes = [100, 300] if options.quick else sorted(options.sizes)
    bench = measure.Benchmark("driver_scaling", options)
    for name, variant in (("ours", ours), ("stock", stock)):
        if not bench.wants(name):
            continue
        found = variant(sizes)
        extra = {f"{size} trials": {"bytes a report": f"{found[size][1]:.0f}"} for size in sizes}
        values = {f"{size} trials": found[size][0] for size in sizes}
        bench.add(name, values, "CPU ms a report", reference=f"{sizes[0]} trials", extra=extra)
        if name == "ours":
            for size in sizes[1:]:
                bench.target(name, f"{size} trials", f"{sizes[0]} trials", at_most=1.3)
    bench.note(
        "Stock's bytes: its snapshot of all trials at most every 10 s, at a report a second; from its size a trial."
    )
    bench.finish()


if __name__ == "__main__":
    sys.exit(main())
