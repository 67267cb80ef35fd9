"""Which runs are compared, and the addresses that show them."""

import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from sweep_ledgers import SweepWriter, write_demo

from segbench.cli import main
from segbench.core.ledger import read_records
from segbench.tracking.comparison import MAX_RUNS, choose_runs, compare_runs, table_columns


def test_seeds_of_the_best_rows_come_before_the_best_trials(writer: SweepWriter) -> None:
    write_demo(writer)
    records = read_records(writer.paths, "val/miou", "maximize")
    seeds = [f"retrain/trial-0003-seed-{seed}" for seed in (0, 1)]
    assert choose_runs(records, 1) == [*seeds, "search/trial-0003"]
    everything = choose_runs(records, 10)
    assert everything[:4] == [*seeds, "retrain/baseline-unet-seed-0", "retrain/baseline-unet-seed-1"]
    assert everything[4:6] == ["search/trial-0003", "search/baseline-unet"]
    assert len(everything) == 8
    assert choose_runs(replace(records, goal="minimize", retrain=[], test=[]), 1) == ["search/baseline-unet"]
    assert len(choose_runs(replace(records, search=[*records.search] * 40), 150)) == MAX_RUNS


def test_addresses_name_exactly_the_chosen_runs(writer: SweepWriter) -> None:
    write_demo(writer)
    records = read_records(writer.paths, "val/miou", "maximize")
    columns = table_columns(records)
    assert columns == [
        *("tags.`stage`", "tags.`rank`", "tags.`state`", "tags.`reason`"),
        *("metrics.`best/val/miou`", "metrics.`test/miou`", "params.`model`", "params.`lr`", "attributes.`Duration`"),
    ]
    comparison = compare_runs("7", ["a1", "b2"], records)
    query = parse_qs(urlsplit(comparison.compare[1:]).query)
    assert json.loads(query["runs"][0]) == ["a1", "b2"]
    assert json.loads(query["experiments"][0]) == ["7"]
    view = json.loads(comparison.view)
    assert view["searchFilter"] == "attributes.run_id IN ('a1', 'b2')"
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`best/val/miou`", False)
    key = comparison.view_key.removeprefix("mlflow.sharedViewState.")
    assert comparison.table == f"#/experiments/7/runs?viewStateShareKey={key}"
    assert len(comparison.view) < 5000, "MLflow takes no longer tag of an experiment"
    assert len(compare_runs("7", ["0" * 32] * MAX_RUNS, records).view) < 5000


def test_without_runs_in_mlflow_it_says_how_to_deliver_them(
    writer: SweepWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    write_demo(writer)
    with pytest.raises(SystemExit) as caught:
        main(["compare", str(writer.paths.root)])
    assert caught.value.code == 2
    assert f"segbench mlflow sync {writer.paths.root}" in " ".join(capsys.readouterr().err.split("\n"))
