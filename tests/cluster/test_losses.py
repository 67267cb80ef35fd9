"""Machines that go away in the middle of a sweep, on isolated hosts: nothing is lost, and how long it took is said."""

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from machines import ROOT, Machines, why_not
from objectives import Step, read_trail
from running import local, outcome, run

from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.spec.load import load_spec

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

SWEEP = "tests/cluster/steady.yaml"
REST = f"cluster/local.yaml {SWEEP}"
EPOCH_S, MAX_EPOCHS = 1.0, 20


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("hosts"), 6) as found:
        found.bring_checkout()
        found.laptop("ray get-auth-token --generate >/dev/null")
        found.laptop("ray up -y cluster/local.yaml")
        yield found
        found.laptop("ray down -y cluster/local.yaml", is_checked=False)


@dataclass(frozen=True)
class Loss:
    """What a machine's end has cost."""

    event: str
    trials: int
    epochs: int
    """Of the trial that lost most: begun on the lost machine, and begun again elsewhere."""
    seconds: float
    """Until the last of its trials ran elsewhere."""
    max_epochs: int
    max_s: float | None

    def row(self) -> str:
        """Return a line of the table."""
        limit = "" if self.max_s is None else f" (at most {self.max_s:g})"
        return (
            f"| {self.event} | {self.trials} | {self.epochs} (at most {self.max_epochs}) | {self.seconds:.1f}{limit} |"
        )


class Watch:
    """A running sweep, as its trials' trails show it."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self.machines = machines
        self.folder = folder

    def trails(self) -> dict[str, list[Step]]:
        """Return the steps of each trial that has begun, the newest stage last."""
        files = sorted(self.folder.glob("trials/*/*/trail"))
        return {f"{file.parts[-3]}/{file.parts[-2]}": read_trail(file.parent) for file in files}

    def running(self) -> dict[str, Step]:
        """Return the newest step of each trial that is running."""
        newest = {name: max(steps) for name, steps in self.trails().items() if steps}
        fresh = time.time() - 2.5 * EPOCH_S
        return {name: step for name, step in newest.items() if step.epoch < MAX_EPOCHS and step.at > fresh}

    def find_victim(self) -> str:
        """Return a machine in the middle of an epoch whose trials have come some epochs there, and have far to go."""
        while True:
            trails = self.trails()
            here = {name: [s for s in trails[name] if s.host == step.host] for name, step in self.running().items()}
            unfit = {steps[0].host for steps in here.values() if len(steps) < 4 or steps[-1].epoch > MAX_EPOCHS - 8}
            hosts = Counter(steps[0].host for steps in here.values() if steps[0].host not in unfit).most_common(1)
            if hosts:
                host = hosts[0][0]
                last = max(steps[-1].at for steps in here.values() if steps[0].host == host)
                if 0.3 * EPOCH_S < time.time() - last < 0.5 * EPOCH_S:
                    return host
            time.sleep(0.05)

    def lose(self, event: str, strike: Callable[[str], None], max_epochs: int = 1, max_s: float | None = None) -> Loss:
        """Let something happen to a machine with trials, and wait until they run elsewhere."""
        host = self.find_victim()
        victims = {name for name, step in self.running().items() if step.host == host}
        begun = time.time()
        print(f"\n{event}: {host}, which runs {sorted(victims)}", flush=True)
        strike(host)
        epochs, seconds = 0, 0.0
        for name in victims:
            elsewhere = self.wait(name, lambda step: step.at > begun and step.host != host)
            here = [step for step in self.trails()[name] if step.host == host and step.at < elsewhere.at]
            if max_epochs:
                last = max(step.epoch for step in here if step.at <= begun) + 1  # the one that was running
            else:
                last = max(step.epoch for step in here)  # it could be finished
            epochs, seconds = max(epochs, last - elsewhere.epoch), max(seconds, elsewhere.at - begun)
        loss = Loss(event, len(victims), epochs, seconds, max_epochs, max_s)
        print(loss.row(), flush=True)
        return loss

    def wait(self, name: str, is_it: Callable[[Step], bool], timeout_s: float = 60) -> Step:
        """Return the first step of a trial that is the one."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for step in sorted(self.trails().get(name, ())):
                if is_it(step):
                    return step
            time.sleep(0.05)
        now = {name: f"{time.time() - max(steps).at:.0f} s ago {max(steps)}" for name, steps in self.trails().items()}
        raise AssertionError(f"{name} does not go on elsewhere; {now}")

    def give_notice(self, host: str) -> None:
        """Let AWS say on a machine that it will be taken away, to the same script as on AWS."""
        notice = self.machines.shared / "metadata/spot/instance-action"
        notice.parent.mkdir(parents=True)
        end = datetime.now(UTC) + timedelta(seconds=120)
        notice.write_text(f'{{"action": "terminate", "time": "{end:%Y-%m-%dT%H:%M:%SZ}"}}')
        shutil.copy(ROOT / "tests/cluster/metadata.py", self.machines.shared)
        shutil.copy(ROOT / "cluster/drain_on_notice.py", self.machines.shared)
        self.machines.run(
            host,
            "setsid -f python /shared/metadata.py 1338 /shared/metadata </dev/null >/dev/null 2>&1; "
            "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1338 RAY_AUTH_MODE=token DRAIN_POLL_S=1 "
            "setsid -f python /shared/drain_on_notice.py </dev/null >/shared/drain.log 2>&1",
        )

    def restart_head(self) -> Loss:
        """Power the head off and on, and do what its owner does."""
        victims = self.running()
        begun = time.time()
        print(f"\nthe head, while {sorted(victims)} run", flush=True)
        self.machines.power("kill", "h1")
        time.sleep(2)
        self.machines.power("start", "h1")
        self.machines.laptop("ray up -y cluster/local.yaml")
        again = time.time()
        self.machines.laptop(f"segbench cluster submit {REST}")
        steps = {name: self.wait(name, lambda step: step.at > again) for name in victims}
        epochs = max(victims[name].epoch + 1 - step.epoch for name, step in steps.items())
        seconds = max(step.at for step in steps.values()) - begun
        event = "head powered off and on, `ray up`, `segbench cluster submit`"
        loss = Loss(event, len(victims), epochs, seconds, 1, None)
        print(loss.row(), flush=True)
        return loss


@pytest.mark.timeout(900)
def test_whatever_goes_away_the_sweep_ends_as_if_nothing_had_happened(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.laptop(f"segbench cluster submit {REST}")
    watch = Watch(machines, machines.shared / "segbench/steady")
    gone = []

    def power_off(host: str) -> None:
        gone.append(host)
        machines.power("kill", host)

    def crash(host: str) -> None:
        gone.append(host)
        machines.power("crash", host)

    def cut(host: str) -> None:
        gone.append(host)
        machines.power("cut", host)

    losses = [watch.lose("worker powered off in silence", power_off, max_s=25)]
    losses.append(watch.lose("worker crashed (its connections close)", crash, max_s=10))
    losses.append(watch.lose("worker cut from the network, healed afterwards", cut, max_s=25))
    machines.power("heal", gone[-1])
    losses.append(watch.lose("worker drained two minutes before its end", watch.give_notice, max_epochs=0))
    print((machines.shared / "drain.log").read_text())
    for host in gone[:2]:
        machines.power("start", host)
    losses.append(watch.restart_head())
    followed = machines.laptop(f"segbench cluster logs --follow {REST}")
    assert "leaderboard  /shared/segbench/steady/leaderboard.csv" in followed

    table = ["| event | trials on it | epochs begun again | s until they run elsewhere |", "|---|---:|---:|---:|"]
    print("\n" + "\n".join([*table, *(loss.row() for loss in losses)]))
    paths = SweepPaths(watch.folder)
    for record in [*read_ledger(paths.ledger("search")), *read_ledger(paths.ledger("retrain"))]:
        print(record.assignment.name, record.state, [f"{a.reason} (after epoch {a.epoch})" for a in record.attempts])

    monkeypatch.syspath_prepend(ROOT)
    calm = load_spec(ROOT / SWEEP, ["parameters.epoch_s.values=[0.001]"])
    undisturbed = run(calm, tmp_path / "calm", local)
    for stage in ("search", "retrain"):
        assert outcome(paths, stage) == outcome(undisturbed, stage)
    expected, board = pd.read_csv(undisturbed.leaderboard), pd.read_csv(paths.leaderboard)
    same = [name for name in board if not re.search(r"hour|second|commit|path|folder|epoch_s|config|minute", name)]
    assert {"rank", "name", "score mean", "score std", "search score"} <= set(same)
    pd.testing.assert_frame_equal(board[same], expected[same])
    for loss in losses:
        assert loss.epochs <= loss.max_epochs, loss
        assert loss.max_s is None or loss.seconds <= loss.max_s, loss
