"""What AWS says to an instance becomes a drain notice to Ray; that trials then leave is in tests/tune/test_drain.py."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from metadata import serve

SCRIPT = Path(__file__).parents[2] / "cluster" / "drain_on_notice.py"
PROGRAMS = {
    "ray": '[ ! -e "$HOME/broken" ] || exit 1; echo "$@" >>"$HOME/asked"',
    "pgrep": 'test -e "$HOME/has-trials"',
    "sudo": 'echo "sudo $*" >>"$HOME/ended"',
}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give the environment on an instance whose metadata are the files in ``metadata/``; programs only write down."""
    (tmp_path / "bin").mkdir()
    for name, text in PROGRAMS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    with serve(0, tmp_path / "metadata") as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield {
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "DRAIN_POLL_S": "0.1",
        }
        server.shutdown()


def give_notice(folder: Path, path: str, text: str) -> None:
    file = folder / "metadata" / path
    file.parent.mkdir(parents=True)
    file.write_text(text)


def wait_for(file: Path) -> list[str]:
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline, f"no {file.name}"
        time.sleep(0.05)
    return file.read_text().splitlines()


def test_the_notice_two_minutes_before_drains_with_its_deadline(instance: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    (tmp_path / "has-trials").touch()
    watcher = subprocess.Popen([sys.executable, str(SCRIPT)], env=instance, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    assert not (tmp_path / "asked").exists()
    again = subprocess.run([sys.executable, str(SCRIPT)], env=instance, check=False, timeout=30)
    assert again.returncode == 0, "a second one ends at once"

    end = datetime.now(UTC) + timedelta(seconds=120)
    give_notice(tmp_path, "spot/instance-action", f'{{"action": "terminate", "time": "{end:%Y-%m-%dT%H:%M:%SZ}"}}')
    time.sleep(0.5)
    (tmp_path / "broken").unlink()  # Ray did not hear at first
    (asked,) = wait_for(tmp_path / "asked")
    time.sleep(0.5)
    assert not (tmp_path / "ended").exists()
    (tmp_path / "has-trials").unlink()
    assert watcher.wait(30) == 0
    assert wait_for(tmp_path / "ended") == ["sudo -n shutdown -h now"]
    rest, _, deadline = asked.rpartition(" ")
    assert rest == (
        "drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message AWS: terminate --deadline-remaining-seconds"
    )
    assert 60 < int(deadline) <= 120
    assert watcher.stderr is not None
    assert "AWS: terminate: drained" in watcher.stderr.read()


def test_a_recommendation_drains_without_a_deadline(instance: dict[str, str], tmp_path: Path) -> None:
    give_notice(tmp_path, "events/recommendations/rebalance", '{"noticeTime": "2026-11-24T10:00:00Z"}')
    subprocess.run([sys.executable, str(SCRIPT)], env=instance, stderr=subprocess.DEVNULL, check=True, timeout=30)
    assert wait_for(tmp_path / "asked") == [
        "drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message AWS: rebalance recommendation"
    ]
    assert wait_for(tmp_path / "ended") == ["sudo -n shutdown -h now"]
