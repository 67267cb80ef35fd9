"""What a report and a proposal cost the driver when a sweep has 100, 1,000 or 5,000 trials.

    python benchmarks/driver_scaling.py

Trials are simulated, no process is started; what decides and what writes is real. Ours: search policy, queue, ledger,
Optuna study and progress. Stock: ``OptunaSearch`` and ``ASHAScheduler`` as Ray Tune calls them, with the same sampler.
Up to 9 reports a trial, ASHA stops most at a rung; the figures are those of the last 50 trials before each size.

*Report* is what comes with every epoch of every running trial. *Trial* is what comes once: the proposal, which is the
sampler's arithmetic over the trials that it looks at, and the end, with the report that ASHA answers by a stop. Bytes:
stock writes nothing but its snapshots, which hold all trials (11.8 KB each when measured) at most every 10 s.
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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import measure

MAX_EPOCHS, GRACE, FACTOR = 9, 1, 3
LAST = 50
SNAPSHOT_KB = 11.8
T = TypeVar("T")

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


@dataclass(frozen=True)
class Costs:
    """Of the last trials before a size: CPU ms in groups, and bytes, by what is done."""

    milliseconds: dict[str, list[float]]
    bytes_written: dict[str, float]


class Meter:
    """Adds up processor seconds and bytes by what is done.

    Args:
        size: gives the bytes written so far.
    """

    def __init__(self, size: Callable[[], int] = lambda: 0) -> None:
        self._size = size
        self.seconds = {"report": 0.0, "trial": 0.0}
        self.written = {"report": 0, "trial": 0}
        self.counts = {"report": 0, "trial": 0}

    def run(self, what: str | Callable[[T], str], work: Callable[[], T]) -> T:
        """Return what ``work`` returns; ``what`` it is may depend on that."""
        before, started = self._size(), time.process_time()
        result = work()
        seconds = time.process_time() - started
        name = what if isinstance(what, str) else what(result)
        self.seconds[name] += seconds
        self.written[name] += self._size() - before
        self.counts[name] += 1
        return result


def ours(sizes: list[int]) -> dict[int, Costs]:
    """Return the costs by size."""
    from rich.console import Console

    from segbench.core.ledger import Ledger
    from segbench.core.records import Decision, EpochReport
    from segbench.search.policy import SearchPolicy
    from segbench.search.queue import LedgerQueue
    from segbench.spec.load import load_spec
    from segbench.terminal.estimate import ExpectedWork, SweepView
    from segbench.terminal.progress import LineProgress

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
        queue = LedgerQueue(ledger, policy, "score", "maximize", partial(progress.on_trial, stage="search"))

        def run_one(meter: Meter) -> int:
            assignment = meter.run("trial", queue.next)
            assert assignment is not None
            for epoch in range(1, MAX_EPOCHS + 1):
                metrics = {"score": score(assignment.config, epoch), **{f"val/iou/{i}": 0.5 for i in range(8)}}
                report = EpochReport(epoch=epoch, metrics=metrics, confusion=((9,) * 8,) * 8, seconds=1.0)
                decision = meter.run(
                    lambda decision: "trial" if decision is Decision.STOP else "report",
                    lambda report=report: queue.report(assignment.number, report),
                )
                if decision is Decision.STOP:
                    break
            meter.run("trial", lambda: queue.end(assignment.number))
            return epoch

        done = 0
        for size in sizes:
            while done < size - LAST:
                run_one(Meter())
                done += 1
            found[size] = costs_of_last(
                run_one, lambda: (folder / "ledger.jsonl").stat().st_size + study.stat().st_size
            )
            done += LAST
        ledger.close()
    return found


def stock(sizes: list[int]) -> dict[int, Costs]:
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

        def report(trial: Any, result: Any, fill: bool, searcher: Any = searcher, scheduler: Any = scheduler) -> bool:
            if scheduler.on_trial_result(None, trial, result) == "STOP":
                return False
            if not fill:
                searcher.on_trial_result(trial.trial_id, result)
            return True

        def end(trial: Any, result: Any, fill: Any, searcher: Any = searcher, scheduler: Any = scheduler) -> None:
            scheduler.on_trial_complete(None, trial, result)
            if fill:
                searcher._ot_study.add_trial(
                    optuna.trial.create_trial(params=dict(trial.config), distributions=fill, value=result["score"])
                )
            else:
                searcher.on_trial_complete(trial.trial_id, result)

        def run_one(
            number: int,
            meter: Meter,
            config: Any = None,
            known: Any = None,
            searcher: Any = searcher,
            scheduler: Any = scheduler,
            report: Any = report,
            end: Any = end,
        ) -> int:
            trial = SimpleNamespace(trial_id=f"{number:05d}", config=config)
            config = config or meter.run("trial", lambda: searcher.suggest(trial.trial_id))
            scheduler.on_trial_add(None, trial)
            for epoch in range(1, MAX_EPOCHS + 1):
                result = {"score": score(config, epoch), "training_iteration": epoch, "trial_id": trial.trial_id}
                goes_on = meter.run(
                    lambda goes_on: "report" if goes_on else "trial",
                    lambda result=result: report(trial, result, bool(known)),
                )
                if not goes_on:
                    break
            meter.run("trial", lambda: end(trial, result, known))
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
                Meter(),
                config={"lr": lr, "width": width, "dropout": draw.uniform(0, 0.5), "schedule": schedule},
                known=distributions,
            )
        numbers = iter(range(size, size + LAST))
        costs = costs_of_last(lambda meter, numbers=numbers, run_one=run_one: run_one(next(numbers), meter))
        found[size] = replace(costs, bytes_written={"report": SNAPSHOT_KB * 1e3 * size / 10})  # a report a second
    return found


def costs_of_last(run_one: Callable[[Meter], int], size: Callable[[], int] = lambda: 0) -> Costs:
    """Run the last trials in five groups."""
    milliseconds: dict[str, list[float]] = {"report": [], "trial": []}
    written, counts = {"report": 0, "trial": 0}, {"report": 0, "trial": LAST}
    for _ in range(5):
        meter, trials = Meter(size), LAST // 5
        for _ in range(trials):
            run_one(meter)
        reports = max(1, meter.counts["report"])
        counts["report"] += reports
        for what, number in (("report", reports), ("trial", trials)):
            milliseconds[what].append(meter.seconds[what] * 1e3 / number)
            written[what] += meter.written[what]
    return Costs(milliseconds, {what: total / counts[what] for what, total in written.items()})


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
        first = f"{sizes[0]} trials"
        for what in ("report", "trial"):
            values = {f"{size} trials": costs.milliseconds[what] for size, costs in found.items()}
            written = {size: costs.bytes_written.get(what) for size, costs in found.items()}
            extra = {
                f"{size} trials": {"bytes": f"{value:.0f}"} for size, value in written.items() if value is not None
            }
            bench.add(f"{name}: {what}", values, "CPU ms", reference=first, extra=extra)
        if name == "ours":
            for size in sizes[1:]:
                bench.target(f"{name}: report", f"{size} trials", first, at_most=1.3)
    bench.note(
        "Stock's bytes: its snapshot of all trials at most every 10 s, at a report a second; from its size a trial."
    )
    bench.finish()


if __name__ == "__main__":
    sys.exit(main())
