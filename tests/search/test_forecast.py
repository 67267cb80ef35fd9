"""What a plan expects is what a search then does, and follows the rules of the scheduler."""

import csv
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from objectives import full_curves

from segbench.core.ledger import Ledger
from segbench.core.records import Decision, EpochReport
from segbench.search.forecast import Forecast, Interval, forecast
from segbench.search.policy import SearchPolicy
from segbench.search.queue import LedgerQueue
from segbench.spec.load import LoadedSpec, spec_from

TRIALS = 60
TYPES = ("auto", "asha", "asha-promote", "hyperband", "pasha", "median", "none")
PARAMETERS: dict[str, Any] = {
    "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1},
    "optimizer": {"values": ["adamw", "sgd"]},
    "width": {"values": [4, 6, 8]},
    "norm": {"values": ["none", "batch", "group"]},
    "loss": {"values": ["ce", "ce+dice", "dice", "focal"]},
}
"""Of the recorded trainings, as far as their likeness goes."""


def sweep(seed: int = 0, **sections: Any) -> LoadedSpec:
    base: dict[str, Any] = {
        "name": "s",
        "train": "objectives:curve",
        "metric": {"name": "score"},
        "parameters": PARAMETERS,
        "search": {"seed": seed},
        "scheduler": {"max_epochs": 9},
        "budget": {"trials": TRIALS, "max_concurrent": 1},
        "mlflow": {"enabled": False},
    }
    return spec_from({**base, **sections})


def told(loaded: LoadedSpec) -> Forecast:
    return forecast(loaded.spec, loaded.spec.budget.trials)


@cache
def recorded() -> list[tuple[dict[str, str], list[float]]]:
    with (Path(__file__).parent / "full_curves.csv").open() as file:
        return list(zip(csv.DictReader(file), full_curves(), strict=True))


def blended(config: Mapping[str, Any]) -> list[float]:
    """Return the mean curve of the five recorded trainings that are most like a configuration, by their distance.

    The nearest alone would be met again and again, and equals pass every rung.
    """

    def distance(row: Mapping[str, str]) -> float:
        others = sum(row[name] != str(config[name]) for name in PARAMETERS if name != "lr")
        return abs(math.log10(float(row["lr"]) / config["lr"])) + 0.5 * others

    near = sorted(((distance(row), curve) for row, curve in recorded()), key=lambda pair: pair[0])[:5]
    weights = [1 / (0.05 + away) for away, _ in near]
    weighted = list(zip(weights, (curve for _, curve in near), strict=True))
    return [sum(weight * curve[epoch] for weight, curve in weighted) / sum(weights) for epoch in range(9)]


def epochs_of_search(loaded: LoadedSpec, folder: Path) -> int:
    """Run the real search over the recorded curves."""
    folder.mkdir()
    ledger = Ledger(folder / "search.jsonl")
    queue = LedgerQueue(
        ledger, SearchPolicy(loaded.spec, loaded.space, folder / "optuna.log"), "score", loaded.spec.metric.goal
    )
    while (assignment := queue.next()) is not None:
        scores = blended(assignment.config)
        for epoch in range(queue.record(assignment.number).epochs_done + 1, assignment.max_epochs + 1):
            report = EpochReport(epoch=epoch, metrics={"score": scores[epoch - 1]})
            if queue.report(assignment.number, report) is Decision.STOP:
                break
        queue.end(assignment.number)
    ledger.close()
    return sum(record.epochs_done for record in ledger.records)


def test_real_searches_take_what_was_announced(tmp_path: Path) -> None:
    """Seven schedulers on one recorded task; four of five are promised, and a task is not all tasks."""
    inside = []
    for kind in TYPES:
        loaded = sweep(scheduler={"type": kind, "max_epochs": 9})
        epochs = told(loaded).epochs
        happened = epochs_of_search(loaded, tmp_path / kind)
        inside.append(math.floor(epochs.low) <= happened <= math.ceil(epochs.high))
    assert sum(inside) >= 0.7 * len(inside)


def test_without_a_scheduler_only_what_breaks_down_is_shorter() -> None:
    epochs = told(sweep(scheduler={"type": "none", "max_epochs": 9})).epochs
    assert epochs.high == TRIALS * 9
    assert epochs.low >= 0.75 * TRIALS * 9


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("trials", [1, 30, 200])
def test_a_forecast_is_an_interval_within_what_is_possible(kind: str, trials: int) -> None:
    baselines = [{"name": "a", "parameters": {"lr": 1e-3}}]
    found = told(
        sweep(
            scheduler={"type": kind, "max_epochs": 27},
            budget={"trials": trials, "max_concurrent": 4},
            baselines=baselines,
        )
    )
    assert 27 + trials <= found.epochs.high + 0.25 * trials
    assert found.epochs.low <= found.epochs.median <= found.epochs.high <= 27 * (trials + 1)
    counts = [count.median for _, count in found.reaching]
    assert counts == sorted(counts, reverse=True), "none comes to a later rung without the one before"
    assert [epoch for epoch, _ in found.reaching][-1] == 27


def test_the_seed_of_the_sweep_is_all_that_it_draws_from() -> None:
    assert told(sweep(3)) == told(sweep(3))
    assert told(sweep(3)) != told(sweep(4))


def test_a_sampler_that_learns_sends_more_trials_on() -> None:
    learning = told(sweep(scheduler={"max_epochs": 27}))
    random = told(sweep(scheduler={"max_epochs": 27}, search={"algorithm": "random"}))
    assert learning.epochs.median > 1.1 * random.epochs.median


def test_audited_trials_are_counted_at_full_length() -> None:
    everyone = told(sweep(scheduler={"max_epochs": 9, "audit": 1.0})).epochs
    assert everyone.high == TRIALS * 9


def test_an_interval_is_printed_in_whole_numbers() -> None:
    assert str(Interval(210.2, 335.4, 480.0)) == "335 (210 to 480)"
    assert str(Interval(540, 540, 540)) == "540"
    assert str(Interval(0.0, 1.0, 3.0).plus(90)) == "91 (90 to 93)"
