"""What models cost is measured once per architecture, before training, and decides the same for ever."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from running import local, run

from segbench.core.config import TrialConfig
from segbench.core.ledger import read_ledger
from segbench.core.objectives import COST_METRICS
from segbench.core.records import Cause
from segbench.report.build import all_charts
from segbench.results.folder import read_results
from segbench.spec.load import LoadedSpec, load_spec, spec_from
from segbench.sweep import costs
from segbench.sweep.costs import CostBook, architecture_fields, architectures, measure_architecture
from segbench.sweep.result import load

pytestmark = pytest.mark.usefixtures("one_thread")


def sweep(folder: Path, **sections: Any) -> LoadedSpec:
    return spec_from(
        {
            "name": "costs",
            "data": {"size": [32, 64], "num_images": [8, 4, 4], "cache_dir": str(folder / "cache")},
            "training": {"depth": 2, "batch_size": 4},
            "parameters": {
                "width": {"values": [4, 6, 8]},
                "lr": {"distribution": "log_uniform_values", "min": 1e-3, "max": 1e-2},
            },
            "require": {"model/parameters": "<= 1e4", "model/latency_ms": "< 1e4"},
            "scheduler": {"max_epochs": 1},
            "budget": {"trials": 4},
            "search": {"startup_trials": 3},
            "mlflow": {"enabled": False},
            **sections,
        }
    )


def test_every_cost_can_be_asked_for_and_counts_the_weights(tmp_path: Path) -> None:
    loaded = sweep(tmp_path, require={name: "> 0" for name in COST_METRICS})
    small, large = (measure_architecture(loaded.spec, TrialConfig(width=width, depth=2)) for width in (4, 8))
    assert set(COST_METRICS) < small.keys()
    assert small["model/parameters"] < large["model/parameters"]
    assert small["model/gmacs"] < large["model/gmacs"]


def test_an_architecture_is_measured_once_whatever_else_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[TrialConfig] = []

    def measure(spec: object, config: TrialConfig) -> dict[str, float]:
        measured.append(config)
        return {name: float(config.width) for name in COST_METRICS}

    monkeypatch.setattr(costs, "measure_architecture", measure)
    loaded = sweep(tmp_path)
    book = CostBook(tmp_path / "costs.jsonl", loaded.spec)
    for width, lr, batch_size in ((4, 1e-3, 4), (4, 1e-2, 8), (8, 1e-3, 4), (4, 1e-4, 2)):
        found = book.of(asdict(TrialConfig(width=width, lr=lr, batch_size=batch_size)))
        assert found == {"model/parameters": width, "model/latency_ms": width}
    assert len(measured) == 2
    again = CostBook(tmp_path / "costs.jsonl", loaded.spec)
    assert again.of(asdict(TrialConfig(width=8))) == {"model/parameters": 8, "model/latency_ms": 8}
    assert len(measured) == 2, "read back"


def test_a_line_that_a_kill_has_torn_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "measure_architecture", lambda spec, config: dict.fromkeys(COST_METRICS, 7.0))
    (tmp_path / "costs.jsonl").write_text('\n{"costs": {"model/par')
    config = asdict(TrialConfig())
    for _ in range(2):
        assert CostBook(tmp_path / "costs.jsonl", sweep(tmp_path).spec).of(config)["model/parameters"] == 7.0


def test_architectures_are_those_of_the_space_and_the_baselines(tmp_path: Path) -> None:
    loaded = sweep(
        tmp_path,
        parameters={
            "model": {"values": ["unet", "segformer"]},
            "width": {"values": [4, 8], "when": {"model": "unet"}},
            "lr": {"min": 0.1, "max": 1.0},
        },
        baselines=[{"name": "wide", "parameters": {"width": 99}}],
    )
    found = [(config["model"], config["width"]) for config in architectures(loaded.spec, loaded.space)]
    assert found == [("unet", 99), ("unet", 4), ("unet", 8), ("segformer", 64)]
    many = sweep(tmp_path, parameters={"width": {"min": 4, "max": 400}})
    assert list(architectures(many.spec, many.space)) == [], "measured as they are proposed"


def test_settings_that_change_no_forward_pass_make_no_architecture() -> None:
    assert architecture_fields("unet") == ("model", "width", "depth", "norm", "precision", "channels_last")
    assert "batch_size" in architecture_fields("unet", with_batch=True)


def test_a_sweep_with_requirements_trains_only_what_meets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file to the leaderboard, with real training; continued, it measures nothing."""
    loaded = sweep(tmp_path)
    paths = run(loaded, tmp_path / "a", local)
    records = read_ledger(paths.ledger("search"))
    sizes = {r.assignment.config["width"]: r.assignment.costs["model/parameters"] for r in records}
    trained = [record for record in records if record.epochs]
    refused = [record for record in records if record.cause is Cause.REQUIREMENT]
    assert len(trained) == 4
    assert len(refused) + len(trained) == len(records)
    assert all(sizes[record.assignment.config["width"]] <= 10_000 for record in trained)
    assert all(sizes[record.assignment.config["width"]] > 10_000 for record in refused)
    assert len([line for line in paths.costs.read_text().splitlines() if line]) == 3, "one per width"
    assert all("model/device" in json.loads(line)["costs"] for line in paths.costs.read_text().splitlines() if line)
    board = read_results(paths).board
    assert board["breaks"].isna().all(), "nothing that was trained breaks a requirement"

    assert load(str(paths.root)).status == "finished", "what was refused is not missing"

    def never(*args: object) -> dict[str, Any]:
        raise AssertionError("measured again")

    monkeypatch.setattr(costs, "measure_architecture", never)
    before = paths.ledger("search").read_bytes()
    run(loaded, tmp_path / "a", local)
    assert paths.ledger("search").read_bytes() == before
    book = CostBook(tmp_path / "lost.jsonl", loaded.spec, records)
    for record in records:  # trials know the costs of their models
        assert book.of(record.assignment.config) == record.assignment.costs


@pytest.mark.slow
def test_a_sweep_for_two_metrics_goes_from_the_file_to_the_front(tmp_path: Path) -> None:
    loaded = sweep(
        tmp_path,
        metric=["val/miou", "model/parameters"],
        require={},
        baselines=[{"name": "plain", "parameters": {"width": 4, "lr": 1e-3}}],
        scheduler={"max_epochs": 2, "reduction_factor": 2},
        retrain={"top_k": 2, "seeds": 1},
    )
    paths = run(loaded, tmp_path / "a", local)
    results = read_results(paths)
    weights = {r.assignment.name: r.assignment.costs["model/parameters"] for r in results.records.search}
    assert results.board["search model/parameters"].tolist() == [weights[name] for name in results.board["name"]]
    assert results.board["search model/parameters"].tolist() == results.board["parameters"].tolist(), "as tested"
    assert results.board["front"].any()
    assert results.front is not None
    assert results.front.hypervolume >= 0
    assert "front-1" in {chart.name for chart in all_charts(results)}
    before = paths.ledger("search").read_bytes()
    run(loaded, tmp_path / "a", local)
    assert paths.ledger("search").read_bytes() == before
    assert load_spec(paths.spec).spec.metric == loaded.spec.metric
