import math
import statistics

import pytest
from sweep_ledgers import GROUPS, SweepWriter, segmentation_metrics, write_demo

from segbench.core.ledger import Records, read_ledger, read_records
from segbench.core.paths import SweepPaths
from segbench.core.records import TrialState
from segbench.results.leaderboard import config_hash, leaderboard_table, trials_table

METRIC = "val/miou"


def leaderboard(paths: SweepPaths, **options: object):
    return leaderboard_table(read_records(paths, METRIC, "maximize"), **options)


def test_trials_have_a_row_each_with_every_parameter_and_empty_cells_where_inactive(writer: SweepWriter) -> None:
    write_demo(writer)
    table = trials_table(read_records(writer.paths, METRIC, "maximize"))
    assert list(table.columns) == [
        *("number", "name", "origin", "state", "reason", "epochs", "attempts", "audited_rung"),
        *("params.model", "params.lr"),
        *("best val/miou", "last val/miou", "best_epoch", "seconds", "started_at", "ended_at"),
    ]
    assert table["state"].tolist() == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    assert table["reason"].tolist() == ["", "rung 1", "nan", ""]
    assert table["params.lr"].tolist() == [None, 0.01, 0.009, 0.002]
    assert table["best val/miou"].tolist() == [0.35, 0.1, 0.3, 0.45]
    assert table["best_epoch"].tolist() == [2, 1, 1, 3]
    assert math.isnan(table["last val/miou"][2])
    assert table["seconds"].tolist() == [6.0, 2.0, 4.0, 6.0]
    assert table["started_at"][0] == "2023-11-14T22:13:21+00:00"
    assert table["ended_at"][0] == "2023-11-14T22:13:25+00:00"


def test_csv_keeps_integers_and_every_digit(writer: SweepWriter) -> None:
    writer.trial("search", 0, "trial-0000", [0.1 + 0.2], params={"width": 8})
    writer.trial("search", 1, "trial-0001", [0.5], params={"lr": 1e-05})
    text = trials_table(read_records(writer.paths, METRIC, "maximize")).to_csv(index=False)
    assert "0,trial-0000,search,COMPLETE,,1,,,8,,0.30000000000000004,0.30000000000000004,1,2.0," in text
    assert "1,trial-0001,search,COMPLETE,,1,,,,1e-05,0.5,0.5,1,2.0," in text


def test_finalists_are_ranked_by_their_mean_validation_score_over_seeds(writer: SweepWriter) -> None:
    write_demo(writer)
    table = leaderboard(writer.paths, num_parameters={"trial-0003": 12}, run_ids={"retrain/trial-0003-seed-1": "abc"})
    first, second = table.iloc[0], table.iloc[1]
    assert table["name"].tolist() == ["trial-0003", "baseline-unet"]
    assert table["rank"].tolist() == [1, 2]
    assert (first["origin"], second["origin"]) == ("search", "baseline")
    assert (first["model"], second["model"]) == ("segformer", "unet")
    assert first["seeds"] == 2
    assert first["val/miou mean"] == pytest.approx((0.5 + 0.46) / 2)
    assert first["val/miou std"] == pytest.approx(statistics.stdev([0.5, 0.46]))
    assert first["search val/miou"] == 0.45
    assert first["test/miou mean"] == pytest.approx((0.42 + 0.44) / 2)
    assert first["test/miou std"] == pytest.approx(0.02 / math.sqrt(2))
    assert first["test/miou_official mean"] == pytest.approx(0.33)
    assert [first[f"test/iou/{group}"] for group in GROUPS] == pytest.approx([0.43 + 0.01 * i for i in range(8)])
    assert (first["epochs"], first["seconds"], first["search_seconds"]) == (2, 12.0, 6.0)
    assert (first["parameters"], second["parameters"]) == (
        12,
        1_000_000,
    )  # counted in the model folder; else what the test reported
    assert (first["mlflow_runs"], second["mlflow_runs"]) == ("abc", "")
    assert first["params.lr"] == 0.002


def test_a_better_test_score_does_not_lift_a_configuration(writer: SweepWriter) -> None:
    writer.trial("search", 0, "trial-0000", [0.5])
    writer.trial("search", 1, "trial-0001", [0.4])
    for number, score in enumerate([0.5, 0.4]):
        writer.trial("retrain", number, f"trial-000{number}-seed-0", [score], source=number)
        writer.test(number, f"trial-000{number}-seed-0", 1 - score, source=number)
    table = leaderboard(writer.paths)
    assert table["name"].tolist() == ["trial-0000", "trial-0001"]
    assert table["val/miou std"].tolist() == [None, None]
    assert table["test/miou mean"].tolist() == [0.5, 0.6]


def test_failed_seeds_are_counted_and_named_and_a_row_without_a_finished_seed_comes_last(writer: SweepWriter) -> None:
    for number, score in enumerate([0.9, 0.5]):
        writer.trial("search", number, f"trial-000{number}", [score])
    writer.trial("retrain", 0, "trial-0000-seed-0", [0.9], TrialState.FAIL, "oom", source=0)
    writer.trial("retrain", 1, "trial-0001-seed-0", [0.4], source=1)
    writer.trial("retrain", 2, "trial-0001-seed-1", [0.8], TrialState.FAIL, "nan", source=1)
    table = leaderboard(writer.paths)
    assert table["name"].tolist() == ["trial-0001", "trial-0000"]
    assert table["state"].tolist() == ["FAIL", "FAIL"]
    assert table["reason"].tolist() == ["trial-0001-seed-1: nan", "trial-0000-seed-0: oom"]
    assert table["seeds"].tolist() == [1, 0]
    assert table["seeds_failed"].tolist() == [1, 1]
    assert table["val/miou mean"].tolist() == [0.4, None]


def test_without_validation_scores_the_search_score_ranks(writer: SweepWriter) -> None:
    for number, score in enumerate([0.4, 0.6]):
        writer.trial("search", number, f"trial-000{number}", [score])
        writer.start("retrain", number, f"trial-000{number}-seed-0", source=number)
        writer.epoch("retrain", number, 1, math.nan, {"train/loss": 0.1})
        writer.end("retrain", number)
    table = leaderboard(writer.paths)
    assert table["name"].tolist() == ["trial-0001", "trial-0000"]
    assert table["val/miou mean"].tolist() == [None, None]
    assert table["search val/miou"].tolist() == [0.6, 0.4]


def test_without_retraining_the_trials_are_ranked_complete_ones_first(writer: SweepWriter) -> None:
    for number, (score, state) in enumerate(
        [
            (0.9, TrialState.PRUNED),
            (0.5, TrialState.COMPLETE),
            (0.5, TrialState.COMPLETE),
            (0.6, TrialState.COMPLETE),
            (0.7, TrialState.FAIL),
        ]
    ):
        writer.trial("search", number, f"trial-000{number}", [score], state, "why" if number == 4 else "")
    table = leaderboard(writer.paths)
    assert [name[-1] for name in table["name"]] == ["3", "1", "2", "0", "4"]
    assert "seeds" not in table.columns
    assert "test/miou mean" not in table.columns
    assert table["reason"].tolist()[-1] == "why"


def test_a_minimised_metric_of_a_users_own_function_ranks_the_smallest_first(writer: SweepWriter) -> None:
    for number, loss in enumerate([3.0, 1.0, 2.0]):
        name = f"trial-000{number}"
        writer.start("search", number, name, params={"x": loss}, config={"x": loss, "net": {"depth": 2}})
        writer.epoch("search", number, 1, loss, {"loss": loss})
        writer.end("search", number)
    records = read_ledger(writer.paths.ledger("search"))
    table = leaderboard_table(Records("loss", "minimize", records))
    assert table["search loss"].tolist() == [1.0, 2.0, 3.0]
    assert table["model"].tolist() == [None, None, None]
    assert table["config_hash"].tolist()[0] == config_hash({"net": {"depth": 2}, "x": 1.0})


def test_an_absent_class_is_left_out_of_the_mean_over_seeds(writer: SweepWriter) -> None:
    writer.trial("search", 0, "trial-0000", [0.5])
    for number, human in enumerate([0.3, math.nan]):
        name = f"trial-0000-seed-{number}"
        writer.trial("retrain", number, name, [0.5], source=0)
        writer.start("test", number, name, source=number)
        writer.epoch("test", number, 1, math.nan, segmentation_metrics("test", 0.5) | {"test/iou/human": human})
        writer.end("test", number)
    assert leaderboard(writer.paths)["test/iou/human"].tolist() == [0.3]


def test_an_empty_sweep_has_empty_tables(writer: SweepWriter) -> None:
    assert trials_table(Records(METRIC, "maximize")).to_csv(index=False).startswith("number,name,")
    assert leaderboard(writer.paths).empty
