"""A sweep is followed as it runs; servers, crashes and settings that stand in the way."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sweep_ledgers import SweepWriter, make_spec
from tracked import Server, wait_for

from segbench.tracking import delivery as mlflow_delivery
from segbench.tracking.tracker import Tracker, tracking_uri


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


@pytest.mark.parametrize("ends_first", [False, True])
def test_an_unreachable_server_is_warned_about_once_and_its_share_can_be_delivered_later(
    server: Server, monkeypatch: pytest.MonkeyPatch, ends_first: bool
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings: list[str] = []
    writer = server.writer
    writer.trial("search", 0, "trial-0000", [0.5])
    nobody = make_spec(mlflow={"tracking_uri": "http://127.0.0.1:9"})
    with Tracker(writer.paths, nobody, warn=warnings.append, interval_s=0.01) as tracker:
        wait_for(lambda: bool(warnings))
        writer.trial("search", 1, "trial-0001", [0.6])
        if ends_first:
            tracker.finish()
            wait_for(lambda: not tracker._thread.is_alive())
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
    assert not server.writer.paths.mlflow_state.exists()


def test_the_address_is_the_files_then_the_environments_then_a_database_in_the_folder(
    writer: SweepWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_uri(writer.paths, make_spec()) == f"sqlite:///{writer.paths.mlflow_db.resolve()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env")
    assert tracking_uri(writer.paths, make_spec()) == "http://env"
    assert tracking_uri(writer.paths, make_spec(mlflow={"tracking_uri": "http://file"})) == "http://file"


@pytest.mark.slow
def test_after_kill_9_in_the_middle_the_next_delivery_completes_without_duplicates(server: Server) -> None:
    writer = server.writer
    for number in range(12):
        writer.trial("search", number, f"trial-{number:04d}", [step / 10 for step in range(1, 6)])
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from sweep_ledgers import make_spec\n"
        "from segbench.core.paths import SweepPaths; from segbench.tracking.tracker import sync\n"
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


@pytest.mark.slow
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
                    writer.paths.mlflow_state.unlink(missing_ok=True)
        server.sync(final=True)
        assert set(server.runs()) == {"demo", "trial-0000", "trial-0000-seed-0"}
        assert {run.info.status for run in server.runs().values()} == {"FINISHED"}
        assert server.history("trial-0000", "val/miou") == [(1, 0.5), (2, 0.6)]
        assert server.history("trial-0000-seed-0", "test/miou") == [(1, 0.4)]
        assert server.runs()["trial-0000"].data.params["lr"] == "0.001"
        writer.paths.mlflow_state.unlink()
        shutil.copy(empty_database, writer.paths.mlflow_db)
        num_calls += 1
    assert num_calls > 15
