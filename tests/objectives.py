"""Training functions with a known curve, for tests of the orchestration: cheap, deterministic, no torch."""

import csv
import errno
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from segbench.core.records import EpochResult, TrainContext
from segbench.core.seeding import derive_seed


def score_at(config: Mapping[str, Any], seed: int, epoch: int) -> float:
    """Rise towards a ceiling that depends on the parameters, with noise that depends on (seed, epoch)."""
    distance = abs(math.log10(config["lr"]) + 3) + 0.3 * abs(config.get("width", 32) - 48) / 48
    ceiling = 0.9 - 0.15 * distance - (0.05 if config.get("family") == "b" else 0.0)
    noise = (derive_seed(seed, "noise", epoch) / 2**31 - 0.5) * 0.02
    return ceiling * (1 - math.exp(-0.5 * epoch)) + noise


def curve(config: Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """Train without faults; its state counts epochs, so that a wrong resume is seen."""
    state = context.state or {"epochs": 0, "sum": 0.0}
    epochs, total = state["epochs"], state["sum"]
    assert epochs == context.epoch
    for epoch in range(epochs + 1, context.max_epochs + 1):
        score = score_at(config, context.seed, epoch)
        epochs, total = epoch, total + score
        kept = {"epochs": epochs, "sum": total}
        yield EpochResult(metrics={"score": score, "sum": total}, state=lambda kept=kept: kept)  # type: ignore[misc]


def recorded(config: Mapping[str, Any], context: TrainContext) -> Iterator[dict[str, float]]:
    """Replay a learning curve of a real training (benchmarks/full_curves.py)."""
    scores = full_curves()[context.trial_number]
    for epoch in range(context.epoch, context.max_epochs):
        yield {"score": scores[epoch]}


@cache
def full_curves() -> list[list[float]]:
    """Return val/miou after each of nine epochs, of 150 trainings."""
    with (Path(__file__).parent / "search" / "full_curves.csv").open() as file:
        return [[float(row[f"epoch {epoch}"]) for epoch in range(1, 10)] for row in csv.DictReader(file)]


def plain(config: Mapping[str, Any], context: TrainContext) -> Iterator[dict[str, float]]:
    """Yield plain mappings: what a user writes who has never seen segbench."""
    for epoch in range(context.epoch + 1, context.max_epochs + 1):
        yield {"score": score_at(config, context.seed, epoch)}


def in_process(config: Mapping[str, Any], context: TrainContext) -> Iterator[dict[str, float]]:
    """Say in which process it trains; slow enough that two do."""
    for epoch in range(context.epoch + 1, context.max_epochs + 1):
        time.sleep(0.05)
        yield {"score": score_at(config, context.seed, epoch), "pid": os.getpid()}


def faulty(config: Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """``curve``, but some trials break at epoch 2: NaN, inf, exception, missing metric, text, dead worker."""
    fault = fault_of(context.trial_number)
    for epoch, result in enumerate(curve(config, context), start=context.epoch + 1):
        if epoch == 2 and fault == "exit":
            os._exit(3)
        if epoch == 2 and fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if epoch == 2 and fault == "exception":
            raise ValueError("the optimiser exploded")
        if epoch == 2 and fault in WRONG_METRICS:
            yield EpochResult(metrics=WRONG_METRICS[fault])
            return
        if epoch == 1 and fault == "early":
            yield result
            return
        yield result


WRONG_METRICS: dict[str, Any] = {
    "nan": {"score": math.nan},
    "inf": {"score": math.inf},
    "missing": {"loss": 1.0},
    "text": {"score": "good"},
    "none": {"score": None},
}
FAULTS = ("nan", "exception", "exit", "inf", "missing", "text", "none", "kill", "early")


def fault_of(number: int) -> str | None:
    """Return the fault of a trial: every third has one, in turn."""
    return FAULTS[number // 3 % len(FAULTS)] if number % 3 == 2 else None


def slow(config: Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """``curve`` with a pause per epoch, so that there is time to interrupt it."""
    for result in curve(config, context):
        time.sleep(0.2)
        yield result


def stumbling(config: Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """``curve``, but at its first run each trial has the accident in ``config["accident"]`` in epoch 3.

    Every epoch that is trained leaves a line in ``trained``.
    """
    assert context.output is not None
    folder = Path(context.output)
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "stumbled"
    for epoch, result in enumerate(curve(config, context), start=context.epoch + 1):
        with (folder / "trained").open("a") as file:
            file.write(f"{epoch}\n")
        if epoch == 3 and not mark.exists():
            mark.touch()
            accident(config["accident"])
            if config["accident"] in WRONG_METRICS:
                yield EpochResult(metrics=WRONG_METRICS[config["accident"]])
                return
        yield result


def accident(kind: str) -> None:
    """Raise, die, or hang."""
    if kind == "exception":
        raise ConnectionError("the network file system blinked")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "memory":
        raise MemoryError("no more")
    if kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if kind == "hang":
        time.sleep(3600)


def logged(config: Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """``stumbling`` without an accident, at 0.4 s an epoch."""
    for result in stumbling({**config, "accident": "none at all"}, context):
        time.sleep(0.4)
        yield result


def trail(config: Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """``curve`` at ``config["epoch_s"]`` an epoch; leaves a line when it begins and when an epoch ends, see Step."""
    assert context.output is not None
    path = Path(context.output) / "trail"
    path.parent.mkdir(parents=True, exist_ok=True)
    place = f"{socket.gethostname()} {node_id()}"

    def leave(epoch: int) -> None:
        with path.open("a") as file:
            file.write(f"{time.time():.2f} {place} {epoch}\n")

    leave(context.epoch)
    results = curve(config, context)
    while True:
        time.sleep(config.get("epoch_s", 0.4))
        result = next(results, None)
        if result is None:
            return
        leave(int(result.state()["epochs"]) if result.state else 0)
        yield result


def gathering(config: Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """``trail`` whose epochs wait until trials have begun on three nodes, however long these take to start."""
    assert context.output is not None
    stage = Path(context.output).parent
    for result in trail(config, context):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if len({path.read_text().split()[2] for path in stage.glob("*/trail")}) >= 3:
                break
            time.sleep(0.1)
        yield result


def overlapping(config: Mapping[str, Any], context: TrainContext) -> Iterator[EpochResult]:
    """``curve``, but the search's trial 2 goes on only when a retraining has begun."""
    assert context.output is not None
    folder = Path(context.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "begun").touch()
    waits = folder.parent.name == "search" and context.trial_number == 2
    for result in curve(config, context):
        deadline = time.monotonic() + 120
        while waits and time.monotonic() < deadline and not list(folder.parents[1].glob("retrain/*/begun")):
            time.sleep(0.1)
        yield result


def node_id() -> str:
    """Return Ray's id of the node that this process runs on."""
    ray = sys.modules.get("ray")
    return str(ray.get_runtime_context().get_node_id()) if ray is not None and ray.is_initialized() else "none"


class Step(NamedTuple):
    """A line of a trail: when, where, after how many epochs."""

    at: float
    host: str
    node: str
    epoch: int


def read_trail(folder: Path) -> list[Step]:
    """Return what ``trail`` has left in a trial's folder."""
    lines = [line.split() for line in (folder / "trail").read_text().splitlines()]
    return [Step(float(at), host, node, int(epoch)) for at, host, node, epoch in lines]
