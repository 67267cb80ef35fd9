import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sweep_ledgers import SweepWriter, make_spec, write_demo

from segbench.data import describe_data, open_data
from segbench.records import TrialState
from segbench.report import mlflow_delivery
from segbench.report.folder import mlflow_state
from segbench.report.tracking import SyncResult, Tracker, sync, tracking_uri
from segbench.spec.schema import SweepSpec


class Server:
    """What MLflow holds of a sweep, read back through its own client."""

    def __init__(self, writer: SweepWriter, spec: SweepSpec) -> None:
        self.writer = writer
        self.spec = spec

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=tracking_uri(self.writer.paths, self.spec))

    def sync(self, final: bool = False) -> SyncResult:
        result = sync(self.writer.paths, self.spec, final)
        assert result.error is None
        return result

    def runs(self) -> dict[str, Run]:
        """All runs by the name of the trial, the parent by the sweep's; fails when one is there twice."""
        experiment = self.client.get_experiment_by_name("demo")
        if experiment is None:
            return {}
        found = self.client.search_runs([experiment.experiment_id], max_results=1000)
        names = [run.data.tags.get("trial", run.info.run_name) for run in found]
        assert len(set(names)) == len(names), names
        return dict(zip(names, found, strict=True))

    def history(self, name: str, key: str) -> list[tuple[int, float]]:
        points = self.client.get_metric_history(self.runs()[name].info.run_id, key)
        return [(point.step, point.value) for point in points]

    def artifacts(self, name: str, folder: str | None = None) -> list[str]:
        return [file.path for file in self.client.list_artifacts(self.runs()[name].info.run_id, folder)]


@pytest.fixture
def server(writer: SweepWriter, empty_database: Path) -> Server:
    writer.paths.root.mkdir(parents=True)
    shutil.copy(empty_database, writer.paths.mlflow_db)
    return Server(writer, make_spec())


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
    assert text.read_text().splitlines()[1] == f"void,{46 / 60},53"


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
        mlflow_state(server.writer.paths).unlink()
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


def test_nothing_is_made_before_the_first_trial(server: Server) -> None:
    assert server.sync(final=True).num_runs == 0
    assert server.client.get_experiment_by_name("demo") is None


def test_the_tracker_follows_a_sweep_and_ends_it(server: Server) -> None:
    warnings: list[str] = []
    writer = server.writer
    with Tracker(writer.paths, server.spec, warn=warnings.append, interval_s=0.01) as tracker:
        writer.start("search", 0, "trial-0000")
        writer.epoch("search", 0, 1, 0.5)
        wait_for(lambda: "trial-0000" in server.runs())
        writer.epoch("search", 0, 2, 0.6)
        writer.end("search", 0)
    result = tracker.close()
    assert result is not None
    assert result.is_complete
    assert warnings == []
    assert server.history("trial-0000", "val/miou") == [(1, 0.5), (2, 0.6)]


def test_an_unreachable_server_is_warned_about_once_and_its_share_can_be_delivered_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings: list[str] = []
    writer = server.writer
    writer.trial("search", 0, "trial-0000", [0.5])
    nobody = make_spec(mlflow={"tracking_uri": "http://127.0.0.1:9"})
    with Tracker(writer.paths, nobody, warn=warnings.append, interval_s=0.01) as tracker:
        wait_for(lambda: bool(warnings))
        writer.trial("search", 1, "trial-0001", [0.6])
    result = tracker.close()
    assert result is not None
    assert not result.is_complete
    assert len(warnings) == 2
    assert "training goes on" in warnings[0]
    assert f"segbench mlflow sync {writer.paths.root}" in warnings[1]
    server.sync(final=True)
    assert len(server.runs()) == 3


def test_disabled_means_that_nothing_is_done(server: Server) -> None:
    server.writer.trial("search", 0, "trial-0000", [0.5])
    with Tracker(server.writer.paths, make_spec(mlflow={"enabled": False})) as tracker:
        pass
    assert tracker.close() is None
    assert not mlflow_state(server.writer.paths).exists()


def test_the_address_is_the_files_then_the_environments_then_a_database_in_the_folder(
    writer: SweepWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_uri(writer.paths, make_spec()) == f"sqlite:///{writer.paths.mlflow_db.resolve()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env")
    assert tracking_uri(writer.paths, make_spec()) == "http://env"
    assert tracking_uri(writer.paths, make_spec(mlflow={"tracking_uri": "http://file"})) == "http://file"


def test_after_kill_9_in_the_middle_the_next_delivery_completes_without_duplicates(server: Server) -> None:
    writer = server.writer
    for number in range(12):
        writer.trial("search", number, f"trial-{number:04d}", [step / 10 for step in range(1, 6)])
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from sweep_ledgers import make_spec\n"
        "from segbench.paths import SweepPaths; from segbench.report.tracking import sync\n"
        "print(sync(SweepPaths(Path(sys.argv[1])), make_spec(), final=True))"
    )
    command = [sys.executable, "-c", code, str(writer.paths.root), str(Path(__file__).parent.parent)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(lambda: len(server.runs()) >= 4)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 4 <= len(server.runs()) < 13
    server.sync(final=True)
    assert len(server.runs()) == 13
    for number in range(12):
        steps = [step for step, _ in server.history(f"trial-{number:04d}", "val/miou")]
        assert steps == [1, 2, 3, 4, 5]
    assert [step for step, _ in server.history("demo", "best/val/miou")] == list(range(1, 13))
    assert {run.info.status for name, run in server.runs().items() if name != "demo"} == {"FINISHED"}


class DyingClient(MlflowClient):
    """The real client, whose process ends before its n-th call from outside."""

    calls_left = 0

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and sys._getframe(1).f_globals["__name__"] == mlflow_delivery.__name__:
            if DyingClient.calls_left == 0:
                raise KeyboardInterrupt
            DyingClient.calls_left -= 1
        return super().__getattribute__(name)


def test_whichever_call_is_the_last_before_a_crash_the_next_delivery_completes(
    server: Server, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = server.writer
    writer.trial("search", 0, "trial-0000", [0.5, 0.6])
    writer.trial("retrain", 0, "trial-0000-seed-0", [0.5], source=0)
    writer.test(0, "trial-0000-seed-0", 0.4, source=0)
    num_calls = 0
    while True:
        with monkeypatch.context() as patch:
            patch.setattr(mlflow_delivery, "MlflowClient", DyingClient)
            DyingClient.calls_left = num_calls
            try:
                server.sync(final=True)
                break
            except KeyboardInterrupt:
                if num_calls % 2:
                    mlflow_state(writer.paths).unlink(missing_ok=True)
        server.sync(final=True)
        assert set(server.runs()) == {"demo", "trial-0000", "trial-0000-seed-0"}
        assert {run.info.status for run in server.runs().values()} == {"FINISHED"}
        assert server.history("trial-0000", "val/miou") == [(1, 0.5), (2, 0.6)]
        assert server.history("trial-0000-seed-0", "test/miou") == [(1, 0.4)]
        assert server.runs()["trial-0000"].data.params["lr"] == "0.001"
        mlflow_state(writer.paths).unlink()
        shutil.copy(empty_database, writer.paths.mlflow_db)
        num_calls += 1
    assert num_calls > 15


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited two minutes"
        time.sleep(0.02)
