"""Stock Ray Tune and segbench through the same kill schedule: what survives?

    python benchmarks/resume.py --kills 10 --trials 40

Both search the same space with TPE and ASHA on one worker, with the same synthetic objective (a curve with a known
ceiling, 0.4 s an epoch), log to MLflow in an SQLite file, and are killed (SIGKILL, driver and all children) after the
same numbers of trained epochs, then continued: stock by ``Tuner.restore``, segbench by the same command.
"""

import argparse
import contextlib
import json
import logging
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

EPOCH_S = 0.4
MAX_EPOCHS = 9
GRACE, FACTOR = 1, 3
STUCK_S = 90

SWEEP = """
name: resume
train: resume:train
metric: {{name: score}}
parameters:
  lr: {{distribution: log_uniform_values, min: 1e-5, max: 1e-1}}
  width: {{min: 8, max: 96}}
search: {{seed: 1}}
scheduler: {{max_epochs: 9, grace_epochs: 1, reduction_factor: 3}}
budget: {{trials: {trials}, max_concurrent: 1}}
mlflow: {{experiment: resume}}
"""


def ceiling(config: Mapping[str, Any]) -> float:
    """Return what a trial tends to; at most 0.9."""
    return 0.9 - 0.15 * abs(math.log10(config["lr"]) + 3) - 0.1 * abs(config["width"] - 48) / 48


def score(config: Mapping[str, Any], epoch: int) -> float:
    """Return the score at an epoch: slow and fast learners cross, and the noise is a function of the settings."""
    noise = random.Random(f"{config['lr']:.6e} {config['width']} {epoch}").uniform(-0.01, 0.01)
    return ceiling(config) * (1 - math.exp(-(0.2 + config["width"] / 100) * epoch)) + noise


def train_epoch(log: Path, key: str, epoch: int) -> None:
    """Take the time of an epoch and leave a line."""
    time.sleep(EPOCH_S)
    with log.open("a") as file:
        file.write(f"{key} {epoch}\n")


def train(config: Mapping[str, Any], context: Any) -> Iterator[Any]:
    """Train under segbench's contract."""
    from segbench.core.records import EpochResult

    log = Path(context.output).parents[3] / "trained.log"
    for epoch in range(context.epoch + 1, MAX_EPOCHS + 1):
        train_epoch(log, str(context.trial_number), epoch)
        yield EpochResult(metrics={"score": score(config, epoch)}, state=lambda epoch=epoch: {"epoch": epoch})


def run_stock(folder: Path, trials: int) -> None:
    """Start or restore the stock sweep in ``folder``, and leave its rungs in ``rungs.json``."""
    os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0")
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    log = folder / "trained.log"

    def trainable(config: dict[str, Any]) -> None:
        checkpoint = tune.get_checkpoint()
        done = json.loads((Path(checkpoint.path) / "epoch.json").read_text()) if checkpoint else 0
        for epoch in range(done + 1, MAX_EPOCHS + 1):
            train_epoch(log, tune.get_context().get_trial_id(), epoch)
            kept = folder / "work" / tune.get_context().get_trial_id()
            kept.mkdir(parents=True, exist_ok=True)
            (kept / "epoch.json").write_text(str(epoch))
            tune.report({"score": score(config, epoch)}, checkpoint=tune.Checkpoint.from_directory(kept))

    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, num_cpus=1)
    path = folder / "ray" / "stock"
    scheduler = ASHAScheduler(
        time_attr="training_iteration", max_t=MAX_EPOCHS, grace_period=GRACE, reduction_factor=FACTOR
    )
    if tune.Tuner.can_restore(str(path)):
        tuner = tune.Tuner.restore(str(path), trainable=trainable, resume_errored=True)
        scheduler = tuner._local_tuner._tune_config.scheduler
    else:
        space = {"lr": tune.loguniform(1e-5, 1e-1), "width": tune.randint(8, 97)}
        mlflow = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="resume")
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                num_samples=trials,
                search_alg=OptunaSearch(seed=1),
                scheduler=scheduler,
                max_concurrent_trials=1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name="stock", storage_path=str(folder / "ray"), callbacks=[mlflow], verbose=0),
        )
    results = tuner.fit()
    known = {milestone: recorded for bracket in scheduler._brackets for milestone, recorded in bracket._rungs}
    rungs = {rung: dict(known.get(rung, {})) for rung in (1, 3)}
    trials_seen = [
        {"id": result.metrics["trial_id"], "config": result.config, "epochs": result.metrics["training_iteration"]}
        for result in results
    ]
    best = results.get_best_result().config
    document = {"rungs": rungs, "trials": trials_seen, "winner": ceiling(best)}
    (folder / "result.json").write_text(json.dumps(document))


@dataclass(frozen=True)
class Outcome:
    """What is left after a sweep."""

    trials: int
    epochs_trained: int
    epochs_wasted: int
    """Trained, and not part of the result: repeated, or of trials that were forgotten."""
    rung_scores_right: float
    """Share of the trials that passed a rung whose score there the scheduler still knows, and knows rightly."""
    mlflow_runs: int
    mlflow_running: int
    """Left RUNNING for ever."""
    regret: float
    """0.9 minus the winner's ceiling."""
    seconds: float
    restarts_from_scratch: int


def drive(kind: str, folder: Path, trials: int, kills: list[int]) -> tuple[Outcome, list[Any]]:
    """Run a sweep of one kind, killed after so many trained epochs each."""
    folder.mkdir(parents=True)
    file = folder / "resume.yaml"
    file.write_text(SWEEP.format(trials=trials))
    here = Path(__file__).resolve().parent
    stock = [sys.executable, __file__, "--stock", str(folder), "--trials", str(trials)]
    ours = [sys.executable, "-m", "segbench.sweep", str(file), "--out", str(folder / "sweep")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    log = folder / "trained.log"
    started, scratch = time.monotonic(), 0
    for limit in [*kills, None]:
        with (folder / "driver.log").open("ab") as out:
            command = stock if kind == "stock" else ours
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        heard, lines = time.monotonic(), count(log)
        while process.poll() is None and (limit is None or count(log) < limit):
            time.sleep(0.05)
            if count(log) > lines:
                heard, lines = time.monotonic(), count(log)
            if time.monotonic() - heard > STUCK_S:  # an unreadable snapshot: Tuner.restore waits for ever
                kill_tree(process.pid)
                scratch += 1
                (folder / "ray" / "stock").rename(folder / f"broken-{scratch}")
                with (folder / "driver.log").open("ab") as out:
                    process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
                heard = time.monotonic()
        if limit is not None:
            kill_tree(process.pid)
        elif process.returncode != 0:
            raise SystemExit(f"{kind}: the sweep failed; see {folder}/driver.log")
    seconds = time.monotonic() - started
    return (summarize_stock if kind == "stock" else summarize_ours)(folder, seconds, scratch)


def summarize_stock(folder: Path, seconds: float, scratch: int) -> tuple[Outcome, list[Any]]:
    """Read what the stock sweep left."""
    document = json.loads((folder / "result.json").read_text())
    reached = [
        (recorded.get(trial["id"]), score(trial["config"], int(rung)))
        for rung, recorded in document["rungs"].items()
        for trial in document["trials"]
        if trial["epochs"] >= int(rung)
    ]
    trials = [(trial["config"], trial["epochs"]) for trial in document["trials"]]
    uri = f"sqlite:///{folder}/mlflow.db"
    outcome = outcome_of(folder, trials, share_right(reached), uri)
    return Outcome(**outcome, regret=0.9 - document["winner"], seconds=seconds, restarts_from_scratch=scratch), trials


def summarize_ours(folder: Path, seconds: float, scratch: int) -> tuple[Outcome, list[Any]]:
    """Read what segbench left."""
    from segbench.core.ledger import read_ledger
    from segbench.core.paths import SweepPaths
    from segbench.final.selection import rank_trials
    from segbench.search.rungs import Rungs
    from segbench.spec.schema import rung_epochs

    paths = SweepPaths(folder / "sweep")
    records = read_ledger(paths.ledger("search"))
    rungs = Rungs(rung_epochs(GRACE, MAX_EPOCHS, FACTOR), FACTOR, "maximize", records)
    reached = [
        (scores.get(record.number), max(score(record.assignment.config, epoch) for epoch in range(1, rung + 1)))
        for rung, scores in rungs.scores.items()
        for record in records
        if record.epochs_done >= rung
    ]
    winner = rank_trials(records, "maximize")[0].assignment.config
    trials = [(dict(record.assignment.params), record.epochs_done) for record in records]
    outcome = outcome_of(folder, trials, share_right(reached), f"sqlite:///{paths.mlflow_db}")
    return Outcome(**outcome, regret=0.9 - ceiling(winner), seconds=seconds, restarts_from_scratch=scratch), trials


def share_right(pairs: list[tuple[float | None, float]]) -> float:
    """Return the share of rung entries that are there and have the score that the trial had at that rung."""
    return sum(known is not None and abs(known - true) < 1e-9 for known, true in pairs) / max(len(pairs), 1)


def outcome_of(folder: Path, trials: list[Any], rungs: float, uri: str) -> dict[str, Any]:
    """Return what is counted in the same way for both."""
    import mlflow

    lines = (folder / "trained.log").read_text().split("\n")[:-1]
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("resume")
    runs = client.search_runs([experiment.experiment_id], max_results=5000)
    children = [run for run in runs if run.data.tags.get("segbench.stage") != "sweep"]
    children = [run for run in children if "mlflow.parentRunId" in run.data.tags] or children
    return {
        "trials": len(trials),
        "epochs_trained": len(lines),
        "epochs_wasted": len(lines) - sum(epochs for _, epochs in trials),
        "rung_scores_right": rungs,
        "mlflow_runs": len(children),
        "mlflow_running": sum(run.info.status == "RUNNING" for run in children),
    }


def count(log: Path) -> int:
    """Return the number of trained epochs."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


def kill_tree(pid: int) -> None:
    """SIGKILL a process and its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=10)


def differing(calm: list[Any], killed: list[Any]) -> int:
    """Return the number of trials whose configuration or length differs from the calm sweep's."""
    pairs = zip(calm, killed, strict=False)
    return sum(a != b for a, b in pairs) + abs(len(calm) - len(killed))


def main() -> None:
    """Run all four sweeps and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["stock", "segbench"], help="run one of the two")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-resume"))
    parser.add_argument("--stock", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stock is not None:
        run_stock(options.stock.resolve(), options.trials)
        return
    out = options.out.resolve() / time.strftime("%Y%m%d-%H%M%S")
    draw = random.Random(options.seed)
    kills = sorted(draw.sample(range(5, 2 * options.trials), options.kills))
    print(f"trials {options.trials}, killed after so many trained epochs: {kills}\n")
    columns: dict[str, dict[str, Any]] = {}
    for kind in [options.only] if options.only else ["stock", "segbench"]:
        calm, calm_trials = drive(kind, out / f"{kind}-calm", options.trials, [])
        killed, killed_trials = drive(kind, out / f"{kind}-killed", options.trials, kills)
        columns[f"{kind}, calm"] = {**asdict(calm), "trials_that_differ": 0}
        columns[f"{kind}, killed"] = {**asdict(killed), "trials_that_differ": differing(calm_trials, killed_trials)}
    print("| | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for name in next(iter(columns.values())):
        cells = [f"{column[name]:.4g}" for column in columns.values()]
        print(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
