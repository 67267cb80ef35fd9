"""What a trial costs beside its training: a no-op objective with ten reports.

    python benchmarks/sweep_overhead.py
    python benchmarks/sweep_overhead.py --trials 10 --only "2 workers" --rounds 3

Each run is a process of its own. The clock starts when Ray is up, and a sweep is run with few and with many trials: the
difference divided by the number of further trials is the cost of a trial, without any start or end. All scores are
equal, so that neither scheduler stops a trial.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import measure

REPORTS = 10
FEW = 4

SWEEP = """
name: overhead
train: sweep_overhead:{function}
metric: {{name: score}}
parameters:
  lr: {{distribution: log_uniform_values, min: 1e-5, max: 1e-1}}
  width: {{min: 8, max: 96}}
scheduler: {{max_epochs: 10, grace_epochs: 1, reduction_factor: 3}}
budget: {{trials: {trials}, max_concurrent: {workers}}}
resources: {{cpu: 1}}
mlflow: {{enabled: {mlflow}}}
"""


def metrics() -> dict[str, float]:
    """Return what a report holds."""
    return {"score": 0.5, **{f"val/iou/{index}": 0.5 for index in range(8)}}


def no_op(config: Mapping[str, Any], context: Any) -> Iterator[dict[str, float]]:
    """Train nothing under segbench's contract."""
    for _ in range(context.epoch, REPORTS):
        yield metrics()


def no_op_imports(config: Mapping[str, Any], context: Any) -> Iterator[dict[str, float]]:
    """Train nothing, with the imports of a real trial."""
    import torch  # noqa: F401
    from transformers import SegformerForSemanticSegmentation  # noqa: F401

    yield from no_op(config, context)


def run_ours(folder: Path, case: argparse.Namespace) -> float:
    """Return the seconds of a sweep."""
    from segbench.core.paths import SweepPaths
    from segbench.spec.load import load_spec
    from segbench.sweep.folder import open_folder
    from segbench.sweep.stages import Sweep
    from segbench.tracking.tracker import Tracker
    from segbench.tune.cluster import connect
    from segbench.tune.run import run_on_ray

    function, mlflow = "no_op_imports" if case.imports else "no_op", str(case.mlflow).lower()
    text = SWEEP.format(function=function, trials=case.trials, workers=case.workers, mlflow=mlflow)
    (folder / "sweep.yaml").write_text(text)
    loaded = load_spec(folder / "sweep.yaml")
    spec, paths = loaded.spec, SweepPaths(folder / "sweep")
    with connect(None, spec.resources):
        started = time.perf_counter()
        with open_folder(paths, spec), Tracker(paths, spec):
            Sweep(loaded, paths, lambda stages: run_on_ray(stages, paths.ray, spec.resources, spec.budget)).run()
        return time.perf_counter() - started


def run_stock(folder: Path, case: argparse.Namespace) -> float:
    """Return the seconds of the same with Ray Tune's own searcher, scheduler and MLflow callback."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def trainable(config: dict[str, Any]) -> None:
        if case.imports:
            import torch  # noqa: F401
            from transformers import SegformerForSemanticSegmentation  # noqa: F401
        for _ in range(REPORTS):
            tune.report(metrics())

    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    started = time.perf_counter()
    callbacks = []
    if case.mlflow:
        callbacks.append(MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="overhead"))
    tune.Tuner(
        tune.with_resources(trainable, {"CPU": 1}),
        param_space={"lr": tune.loguniform(1e-5, 1e-1), "width": tune.randint(8, 97)},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=case.trials,
            search_alg=OptunaSearch(seed=0),
            scheduler=ASHAScheduler("training_iteration", max_t=REPORTS, grace_period=1, reduction_factor=3),
            max_concurrent_trials=case.workers,
            reuse_actors=case.variant == "stock, reuse_actors",
        ),
        run_config=tune.RunConfig(name="stock", storage_path=str(folder), callbacks=callbacks, verbose=0),
    ).fit()
    return time.perf_counter() - started


def run_optuna(folder: Path, case: argparse.Namespace) -> float:
    """Return the seconds of Optuna alone, in this process, in a journal file."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: Any) -> float:
        trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        trial.suggest_int("width", 8, 96)
        for epoch in range(1, REPORTS + 1):
            trial.report(metrics()["score"], epoch)
            trial.should_prune()
        return 0.5

    started = time.perf_counter()
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / "optuna.log"))),
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.SuccessiveHalvingPruner(1, 3),
        direction="maximize",
    )
    study.optimize(objective, n_trials=case.trials)
    return time.perf_counter() - started


RUN: dict[str, Callable[[Path, argparse.Namespace], float]] = {
    "ours": run_ours,
    "stock, default": run_stock,
    "stock, reuse_actors": run_stock,
    "optuna": run_optuna,
}


def seconds_a_trial(variant: str, settings: Mapping[str, Any], trials: int) -> float:
    """Return the seconds of a further trial: two processes, with few trials and with ``trials`` more."""
    few = run_child({"variant": variant, "trials": FEW, **settings})
    many = run_child({"variant": variant, "trials": FEW + trials, **settings})
    return (many - few) / trials


def run_child(case: Mapping[str, Any]) -> float:
    """Run one sweep in a new process and return what it measured."""
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, __file__, "--child", json.dumps(case)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr[-2000:]}")
    return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    parser.set_defaults(rounds=3, warmup=0)
    parser.add_argument("--trials", type=int, default=46, help=f"further trials beside {FEW}")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        case = argparse.Namespace(**json.loads(options.child))
        with tempfile.TemporaryDirectory() as name:
            print(RUN[case.variant](Path(name), case))
        return
    options = measure.set_up(options)
    trials = 6 if options.quick else options.trials
    bench = measure.Benchmark("sweep_overhead", options)
    cases: dict[str, dict[str, Any]] = {
        "1 worker": {"workers": 1, "imports": False, "mlflow": False},
        "2 workers": {"workers": 2, "imports": False, "mlflow": False},
        "2 workers, imports": {"workers": 2, "imports": True, "mlflow": False},
        "2 workers, MLflow": {"workers": 2, "imports": False, "mlflow": True},
    }
    for case, settings in cases.items():
        if not bench.wants(case):
            continue
        names = [name for name in RUN if name != "optuna" or case == "1 worker"]
        work = {name: lambda name=name, s=settings: seconds_a_trial(name, s, trials) for name in names}
        bench.add(case, measure.alternate(work, options), "s a trial", reference="stock, default")
        bench.target(case, "ours", "stock, default", at_most=0.1 if settings["mlflow"] else 0.2)
        bench.target(case, "ours", "stock, reuse_actors", at_most=1.0)
    bench.finish()


if __name__ == "__main__":
    main()
