"""The files for other programs hold all that the ledgers know, and the tables can be made again from them."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sweep_ledgers import GROUPS, SweepWriter, make_spec, write_demo, write_searched, write_tested

from segbench.core.ledger import read_ledger, read_records
from segbench.core.paths import STAGES
from segbench.core.records import TrialState
from segbench.results.folder import read_results, write_tables
from segbench.results.parquet import metrics_parquet, trials_parquet
from segbench.tracking.runs import trial_views

METRIC = "val/miou"


def test_every_epoch_of_every_stage_is_there_with_its_confusion_matrix(writer: SweepWriter) -> None:
    write_demo(writer)
    write_tables(read_results(writer.paths))
    table = pq.read_table(writer.paths.metrics)
    assert table.schema.metadata[b"groups"].decode().split("\n") == list(GROUPS)
    rows = {(row["stage"], row["number"], row["epoch"]): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    for stage in STAGES:
        for record in read_ledger(writer.paths.ledger(stage)):
            for epoch in record.epochs:
                row = rows.pop((stage, record.number, epoch.epoch))
                assert row["name"] == record.assignment.name
                assert repr(row["score"]) == repr(epoch.score)
                assert all(repr(row[key]) == repr(value) for key, value in epoch.metrics.items())
                if epoch.confusion is None:
                    assert row["confusion"] is None
                else:
                    assert np.array_equal(np.reshape(row["confusion"], (8, 8)), epoch.confusion)
    assert not rows


def test_parameters_are_typed_and_the_settings_complete(writer: SweepWriter) -> None:
    first_params = {"lr": 0.1, "width": 8, "model": "unet", "mix": True}
    writer.trial("search", 0, "trial-0000", [0.5], params=first_params, config={"width": 8})
    writer.trial("search", 1, "trial-0001", [0.6], TrialState.FAIL, "oom", params={"lr": 1, "mix": "auto"}, config={})
    table = trials_parquet(read_records(writer.paths, METRIC, "maximize"))
    types = {name: str(table.schema.field(f"params.{name}").type) for name in ("lr", "width", "model", "mix")}
    assert types == {"lr": "double", "width": "int64", "model": "string", "mix": "string"}
    first, second = table.to_pylist()
    assert (first["params.lr"], first["params.width"], first["params.mix"]) == (0.1, 8, "true")
    assert (second["params.lr"], second["params.width"], second["params.mix"]) == (1.0, None, "auto")
    assert (second["state"], second["reason"], second["best_score"], second["ended_at"].year) == (
        "FAIL",
        "oom",
        0.6,
        2023,
    )
    assert json.loads(first["config"])["width"] == 8


def test_audited_trials_are_marked_in_every_table_and_in_mlflow(writer: SweepWriter) -> None:
    write_tested(writer)
    write_searched(writer)
    write_tables(read_results(writer.paths))
    expected = {"trial-5": 1, "trial-11": 3}
    for table in (pd.read_csv(writer.paths.trials), pd.read_parquet(writer.paths.root / "trials.parquet")):
        marked = table[table["audited_rung"].notna()]
        assert dict(zip(marked["name"], marked["audited_rung"], strict=True)) == expected
    views = trial_views(writer.paths, read_records(writer.paths, METRIC, "maximize"), {}, final=True)
    tags = {view.key: view.tags["audited_rung"] for view in views if "audited_rung" in view.tags}
    assert tags == {f"search/{name}": str(rung) for name, rung in expected.items()}


def test_a_function_without_confusion_matrices_has_no_such_column(writer: SweepWriter) -> None:
    writer.start("search", 0, "trial-0000", params={"x": 1}, config={"x": 1})
    writer.epoch("search", 0, 1, 0.5, {"accuracy": 0.5})
    table = metrics_parquet(read_records(writer.paths, METRIC, "maximize"))
    assert table["accuracy"].to_pylist() == [0.5]
    assert "confusion" not in table.column_names


def test_the_leaderboard_says_how_sure_it_is_and_which_rows_cannot_be_told_apart(writer: SweepWriter) -> None:
    write_tested(writer)
    table = read_results(writer.paths, make_spec()).board
    assert table["tied_with"].tolist() == ["2", "1", ""]
    assert (table["test/miou low"] < table["test/miou mean"]).all()
    assert (table["test/miou mean"] < table["test/miou high"]).all()
    middle = (table["test/miou low"] + table["test/miou high"]) / 2
    assert middle.tolist() == pytest.approx(table["test/miou mean"].tolist())


def test_too_few_images_or_none_leave_the_columns_empty(writer: SweepWriter, tmp_path: Path) -> None:
    write_tested(writer, num_images=5)
    table = read_results(writer.paths, make_spec()).board
    assert table["test/miou low"].tolist() == [None] * 3
    other = SweepWriter(type(writer.paths)(tmp_path / "other"))
    write_demo(other)
    assert read_results(other.paths, make_spec()).board["test/miou high"].tolist() == [None] * 2


def test_scores_of_the_leaderboard_follow_from_the_parquet_files(writer: SweepWriter) -> None:
    write_tested(writer)
    write_tables(read_results(writer.paths))
    trials, metrics = (pd.read_parquet(writer.paths.root / f"{name}.parquet") for name in ("trials", "metrics"))
    board = pd.read_csv(writer.paths.leaderboard).set_index("name")
    names = trials[trials["stage"] == "search"].set_index("number")["name"]
    retrained = trials[(trials["stage"] == "retrain") & (trials["state"] == "COMPLETE")]
    scores = retrained.groupby(retrained["source"].map(names))["best_score"]
    assert scores.mean().to_dict() == pytest.approx(board["val/miou mean"].to_dict())
    assert scores.std().to_dict() == pytest.approx(board["val/miou std"].to_dict())
    epochs = metrics[metrics["stage"] == "retrain"].groupby("number")["score"].max()
    assert epochs.loc[retrained["number"]].tolist() == retrained["best_score"].tolist()
    tests = metrics[metrics["stage"] == "test"].set_index("number")
    parent = (
        trials[trials["stage"] == "test"].set_index("number")["source"].map(retrained.set_index("number")["source"])
    )
    tested = tests["test/miou"].groupby(parent.map(names)).mean()
    assert tested.to_dict() == pytest.approx(board["test/miou mean"].to_dict())
    assert not math.isnan(tested.sum())
