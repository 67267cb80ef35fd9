"""A sweep's runs in MLflow are what its ledgers say."""

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from sweep_ledgers import make_spec, write_demo
from tracked import Server, wait_for

from segbench.core.records import TrialState
from segbench.data import describe_data, open_data
from segbench.tracking.tracker import Tracker


def test_three_deliveries_make_one_run_per_trial_under_one_parent(server: Server) -> None:
    write_demo(server.writer)
    for final in (False, True, True):
        server.sync(final)
    runs = server.runs()
    assert set(runs) == {
        *("demo", "baseline-unet", "trial-0001", "trial-0002", "trial-0003"),
        *("baseline-unet-seed-0", "baseline-unet-seed-1", "trial-0003-seed-0", "trial-0003-seed-1"),
    }
    parent = runs.pop("demo")
    assert "mlflow.parentRunId" not in parent.data.tags
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert server.history("trial-0003", "val/miou") == [(1, 0.3), (2, 0.4), (3, 0.45)]
    assert server.history("trial-0003", "val/loss") == [(1, 0.7), (2, 0.6), (3, 0.55)]


def test_states_times_and_tags_are_the_ledgers(server: Server) -> None:
    write_demo(server.writer)
    server.sync(final=True)
    runs = server.runs()
    seen = {
        name: (run.info.status, run.data.tags.get("state"), run.data.tags.get("reason")) for name, run in runs.items()
    }
    assert seen["baseline-unet"] == ("FINISHED", "COMPLETE", "")
    assert seen["trial-0001"] == ("FINISHED", "PRUNED", "rung 1")
    assert seen["trial-0002"] == ("FAILED", "FAIL", "nan")
    assert seen["demo"] == ("FINISHED", None, None)
    baseline = runs["baseline-unet"]
    assert (baseline.info.start_time, baseline.info.end_time) == (1_700_000_001_000, 1_700_000_005_000)
    assert baseline.data.tags["mlflow.source.git.commit"] == "0123abc"
    assert baseline.data.tags["rank"] == "2"
    assert runs["trial-0003-seed-1"].data.tags["rank"] == "1"
    assert runs["trial-0003-seed-1"].data.tags["stage"] == "retrain"
    assert baseline.data.params["model"] == "unet"
    assert baseline.data.params["clip_norm"] == "1.0"
    assert baseline.data.params["variant"] == "null"
    assert runs["demo"].data.params["scheduler.reduction_factor"] == "3"


def test_names_say_rank_and_model_and_the_best_score_is_a_metric(server: Server) -> None:
    write_demo(server.writer)
    server.sync()
    assert server.runs()["trial-0003"].info.run_name == "segformer trial-0003"
    server.sync(final=True)
    runs = server.runs()
    assert runs["trial-0003"].info.run_name == "#01 segformer trial-0003"
    assert runs["baseline-unet-seed-1"].info.run_name == "#02 unet baseline-unet-seed-1"
    assert runs["trial-0001"].info.run_name == "unet trial-0001"
    stages = {name: run.data.tags["stage"] for name, run in runs.items()}
    assert (stages["demo"], stages["trial-0001"], stages["baseline-unet"]) == ("sweep", "trial", "baseline")
    assert server.history("trial-0003-seed-0", "best/val/miou") == [(1, 0.5)]
    assert server.history("baseline-unet", "best/val/miou") == [(2, 0.35)]


def test_the_data_set_is_an_input_of_every_run_once_it_is_packed(server: Server, tmp_path: Path) -> None:
    data = {"size": [16, 32], "num_images": [3, 1, 1], "cache_dir": str(tmp_path / "cache")}
    server.spec = make_spec(data=data)
    write_demo(server.writer)
    server.sync()
    assert server.runs()["trial-0003"].inputs.dataset_inputs == []
    open_data(server.spec.data)
    for final in (False, True, True):
        server.sync(final)
    inputs = [run.inputs.dataset_inputs for name, run in server.runs().items() if name != "demo"]
    assert {len(found) for found in inputs} == {1}
    (dataset,) = {found[0].dataset.digest: found[0].dataset for found in inputs}.values()
    facts = describe_data(server.spec.data)
    assert facts is not None
    assert (dataset.name, dataset.digest, dataset.source_type) == ("streets", facts.digest, "code")
    assert json.loads(dataset.profile)["images"] == {"train": 3, "val": 1, "test": 1}
    other = describe_data(make_spec(data={**data, "seed": 1}).data)
    assert other is None, "not packed"


def test_the_parent_shows_progress_and_the_leaderboard(server: Server) -> None:
    write_demo(server.writer)
    server.sync(final=True)
    parent = server.runs()["demo"]
    assert server.history("demo", "best/val/miou") == [(1, 0.35), (2, 0.35), (3, 0.35), (4, 0.45)]
    assert server.history("demo", "trials/pruned")[-1] == (4, 1)
    note = parent.data.tags["mlflow.note.content"]
    assert "4 trials (2 COMPLETE, 1 PRUNED, 1 FAIL), ranked by val/miou (maximize)." in note
    assert "| 1 | trial-0003 | segformer |" in note
    assert server.artifacts("demo") == ["leaderboard.csv", "sweep.yaml", "trials.csv", "versions.jsonl"]
    ids = ";".join(server.runs()[f"trial-0003-seed-{seed}"].info.run_id for seed in (0, 1))
    assert ids in server.writer.paths.leaderboard.read_text().splitlines()[1]


def test_test_metrics_stand_in_the_retraining_at_its_best_epoch(server: Server) -> None:
    write_demo(server.writer)
    server.sync(final=True)
    assert server.history("trial-0003-seed-0", "test/miou") == [(1, 0.42)]
    assert server.history("trial-0003-seed-1", "test/miou") == [(2, 0.44)]
    assert server.artifacts("trial-0003-seed-1") == ["test", "val"]
    assert server.artifacts("trial-0003-seed-1", "test") == ["test/confusion.csv", "test/examples"]
    assert server.artifacts("trial-0003-seed-1", "test/examples") == ["test/examples/scene.png"]
    text = Path(server.client.download_artifacts(server.runs()["trial-0003-seed-1"].info.run_id, "val/classes.csv"))
    lines = text.read_text().splitlines()
    assert lines[0] == "group,iou,precision,recall,f1,pixels"
    assert lines[1] == f"void,{46 / 60},{46 / 53},{46 / 53},{2 * 46 / 106},53"


def test_epochs_arrive_as_they_come_and_only_new_ones_are_sent(server: Server) -> None:
    writer = server.writer
    writer.start("search", 0, "trial-0000")
    assert server.sync().num_steps == 0
    assert server.runs()["trial-0000"].info.status == "RUNNING"
    writer.epoch("search", 0, 1, 0.1)
    writer.epoch("search", 0, 2, 0.2)
    assert server.sync().num_steps == 2
    assert server.sync().num_steps == 0
    writer.epoch("search", 0, 3, 0.3)
    writer.end("search", 0)
    assert server.sync().num_steps == 1
    assert server.history("trial-0000", "val/miou") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert server.runs()["trial-0000"].info.status == "FINISHED"
    assert server.runs()["demo"].info.status == "RUNNING"


def test_epochs_repeated_after_a_crash_stay_one_point_each(server: Server) -> None:
    writer = server.writer
    writer.start("search", 0, "trial-0000")
    for epoch in (1, 2, 3):
        writer.epoch("search", 0, epoch, epoch / 10)
    server.sync()
    writer.epoch("search", 0, 2, 0.2)  # continued from the checkpoint of epoch 1, at another time
    server.sync()
    for epoch in (3, 4):
        writer.epoch("search", 0, epoch, epoch / 10)
    server.sync()
    assert server.history("trial-0000", "val/miou") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]


def test_an_interrupted_sweep_is_killed_and_runs_again_when_continued(server: Server) -> None:
    writer = server.writer
    writer.trial("search", 0, "trial-0000", [0.1])
    writer.start("search", 1, "trial-0001")
    writer.epoch("search", 1, 1, 0.1)
    server.sync(final=True)
    assert [server.runs()[name].info.status for name in ("demo", "trial-0001")] == ["KILLED", "KILLED"]
    writer.epoch("search", 1, 2, 0.2)
    server.sync()
    assert [server.runs()[name].info.status for name in ("demo", "trial-0001")] == ["RUNNING", "RUNNING"]
    writer.end("search", 1)
    writer.trial("retrain", 0, "trial-0001-seed-0", [0.2], source=1)
    server.sync(final=True)
    assert [server.runs()[name].info.status for name in ("demo", "trial-0001")] == ["FINISHED", "FINISHED"]
    assert server.history("trial-0001", "val/miou") == [(1, 0.1), (2, 0.2)]


def test_a_sweep_without_retraining_and_one_that_failed_end_as_such(server: Server) -> None:
    server.spec = make_spec(retrain=None)
    server.writer.trial("search", 0, "trial-0000", [math.nan], TrialState.FAIL, "nan")
    server.sync(final=True)
    assert server.runs()["demo"].info.status == "FAILED"
    server.writer.trial("search", 1, "trial-0001", [0.5])
    server.sync(final=True)
    assert server.runs()["demo"].info.status == "FINISHED"
    assert server.runs()["trial-0001"].data.tags["rank"] == "1"


@pytest.mark.parametrize("loss", ["cache", "database"])
def test_a_lost_cache_or_database_duplicates_nothing(server: Server, loss: str, empty_database: Path) -> None:
    write_demo(server.writer)
    server.sync(final=True)
    before = {name: server.history(name, "val/loss") for name in ("baseline-unet", "trial-0003-seed-1")}
    if loss == "cache":
        server.writer.paths.mlflow_state.unlink()
    else:
        shutil.copy(empty_database, server.writer.paths.mlflow_db)
    server.sync(final=True)
    assert len(server.runs()) == 9
    assert {name: server.history(name, "val/loss") for name in before} == before
    assert server.history("trial-0003-seed-1", "test/miou") == [(2, 0.44)]


def test_nan_and_infinity_are_stored_and_odd_names_of_a_users_function_are_mended(server: Server) -> None:
    server.spec = make_spec(train="objectives:toy", retrain=None)
    writer = server.writer
    config = {"x": 1.5, "net": {"kind": "a b", "sizes": [1, 2]}, "none": None, "odd=name": True}
    writer.start("search", 0, "trial-0000", config=config)
    odd: dict[str, Any] = {"acc@1": 0.5, "../up": 1, "text": "no number", "ok": math.inf}
    writer.epoch("search", 0, 1, math.nan, odd | {"loss": math.nan})
    writer.end("search", 0, TrialState.FAIL, "error: " + "x" * 9000)
    server.sync()
    server.sync(final=True)
    run = server.runs()["trial-0000"]
    assert run.data.params == {"x": "1.5", "net.kind": "a b", "net.sizes": "[1, 2]", "none": "null", "odd_name": "true"}
    assert math.isnan(run.data.metrics.pop("loss"))
    assert run.data.metrics == {"acc_1": 0.5, "___up": 1.0, "ok": sys.float_info.max}
    assert "data.size" not in server.runs()["demo"].data.params


def test_many_epochs_go_in_few_batches(server: Server) -> None:
    writer = server.writer
    writer.trial("search", 0, "trial-0000", [number / 1000 for number in range(200)])
    assert server.sync().num_steps == 200
    assert [step for step, _ in server.history("trial-0000", "val/miou")] == list(range(1, 201))


def test_an_epoch_may_have_more_metrics_than_one_request_takes(server: Server) -> None:
    server.spec = make_spec(train="objectives:toy", retrain=None)
    server.writer.start("search", 0, "trial-0000", config={f"p{number}": number for number in range(150)})
    server.writer.epoch("search", 0, 1, 0.5, {f"m{number}": number for number in range(2000)})
    assert server.sync().num_steps == 1
    run = server.runs()["trial-0000"]
    assert (len(run.data.params), len(run.data.metrics)) == (150, 2000)


def test_a_parent_that_a_user_deleted_is_made_again_with_its_children(server: Server) -> None:
    write_demo(server.writer)
    server.sync(final=True)
    server.client.delete_run(server.runs()["demo"].info.run_id)
    server.sync(final=True)
    runs = server.runs()
    parent = runs.pop("demo").info.run_id
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent}
    assert len(runs) == 8


def test_a_run_that_a_user_deleted_is_made_again_and_the_others_are_not_held_up(server: Server) -> None:
    writer = server.writer
    writer.start("search", 0, "trial-0000")
    writer.start("search", 1, "trial-0001")
    with Tracker(writer.paths, server.spec, interval_s=0.01):
        wait_for(lambda: len(server.runs()) == 3)
        server.client.delete_run(server.runs()["trial-0000"].info.run_id)
        for number in (0, 1):
            writer.epoch("search", number, 1, 0.5)
            writer.end("search", number)
    server.sync(final=True)
    assert server.history("trial-0000", "val/miou") == [(1, 0.5)]
    assert server.history("trial-0001", "val/miou") == [(1, 0.5)]
