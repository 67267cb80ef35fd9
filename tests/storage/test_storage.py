"""A bucket instead of a folder: leases, ledgers of objects, checkpoints that are whole or not there."""

import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from buckets import serve_s3
from hypothesis import given
from hypothesis import strategies as st
from objectives import curve
from running import decisions, run, synthetic

from segbench.cli import main
from segbench.core.address import sweep_paths, what_is_wrong
from segbench.core.errors import StateError, StorageError
from segbench.core.ledger import Ledger, read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import Assignment, EpochRecord, EpochReport, TrialRecord
from segbench.storage.bucket import Bucket
from segbench.storage.lease import CLAIMS, Lease, is_running, read_claims
from segbench.storage.mirror import Mirror, fetch_sweep
from segbench.storage.segments import GROUP, Publisher, Segment, join, list_segments, read_lines, select
from segbench.storage.workspace import open_workspace
from segbench.sweep.run import Run, run_sweep
from segbench.training import checkpoint
from segbench.training.trial import TrialJob, load_newest, run_trial

assert curve  # named by the jobs below


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    with serve_s3() as environment:
        yield environment


@pytest.fixture(params=["s3", "file"])
def address(
    request: pytest.FixtureRequest, store: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """An empty place in a mock of S3, and the same on a disk."""
    for key, value in store.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    if request.param == "file":
        return f"file://{tmp_path}/bucket/with space/sweep"
    return f"s3://segbench-test/{tmp_path.name}/sweep"


def test_a_large_object_comes_in_parts_and_whole(address: str, tmp_path: Path) -> None:
    content = random.Random(0).randbytes(20_000_001)  # three parts, the last one smaller
    (tmp_path / "before").write_bytes(content)
    sent: list[int] = []
    came: list[int] = []
    bucket = Bucket(address)
    bucket.upload(tmp_path / "before", "packed/large", sent.append)
    (tmp_path / "after").write_bytes(b"longer" * 10_000_000)
    bucket.download_parts("packed/large", tmp_path / "after", came.append)
    assert (tmp_path / "after").read_bytes() == content
    assert sum(sent) == sum(came) == len(content)
    assert len(came) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("s3://bucket/runs", None),
        ("gs://bucket", None),
        ("s3://", "names no bucket"),
        ("s3:/bucket/runs", "one slash after 's3:'; write s3://bucket/prefix"),
        ("s3://AKIAKEY:hunter2@bucket/runs", "an address with a user, a password"),
        ("s3://bucket/runs?access_key=hunter2", "an address with a user, a password"),
        ("s3://My_Bucket/x", "cannot be a bucket"),
        ("s3://bucket//x", "has an empty part"),
        ("ftp://host/x", "unknown scheme 'ftp'"),
    ],
)
def test_addresses(text: str, problem: str | None) -> None:
    said = what_is_wrong(text)
    assert (said is None) if problem is None else (problem in str(said))
    assert "hunter2" not in str(said)


def test_objects_come_and_go(address: str, tmp_path: Path) -> None:
    bucket = Bucket(address, patience_s=0)
    assert bucket.entries() == {}
    bucket.write("a/one", b"1")
    bucket.write("a/two", b"22")
    bucket.write("a/one", b"111")
    assert {name: entry.size for name, entry in bucket.entries("a").items()} == {"a/one": 3, "a/two": 2}
    bucket.download("a/one", tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == bucket.read("a/one") == b"111"
    bucket.delete(["a/one", "a/never"])
    assert list(bucket.entries()) == ["a/two"]
    with pytest.raises(FileNotFoundError):
        bucket.read("a/one")


# the lease


def test_one_driver_at_a_time(address: str) -> None:
    bucket = Bucket(address, patience_s=0)
    with Lease(bucket, lease_s=12) as first:  # renewed six times as often, so also where threads wait for a core
        assert first.generation == 1
        assert is_running(bucket)
        with (
            pytest.raises(StateError, match=r"is in use: process \d+ on .* runs this sweep"),
            Lease(bucket, lease_s=12),
        ):
            pass
        first.check()
    assert not is_running(bucket)
    with Lease(bucket, last_generation=7, lease_s=3) as second:
        assert second.generation == 8
    assert read_claims(bucket) == []


def test_of_many_that_start_at_once_one_goes_on(address: str) -> None:
    # as patient as in use: the mock stumbles over an object that is taken back while it is read
    bucket = Bucket(address, patience_s=60)
    held: list[int] = []
    together: list[int] = []
    refused: list[str] = []

    def drive(number: int) -> None:
        try:
            with Lease(bucket, lease_s=12, tell=lambda text: None):
                held.append(number)
                together.append(len(held))
                until(lambda: len(refused) == 2)
                held.remove(number)
        except StateError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=drive, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [1]
    assert len(refused) == 2


def until(condition: Callable[[], bool]) -> None:
    """Wait for ``condition``, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def claim(bucket: Bucket, generation: int, **changes: object) -> None:
    content = {"host": "elsewhere", "pid": 1, "machine": "another", "at": 0.0, **changes}
    bucket.write(f"{CLAIMS}/{generation:05d}-abc.json", json.dumps(content).encode())


def test_a_driver_that_shows_no_life_loses_the_sweep_and_hears_of_it(address: str) -> None:
    bucket = Bucket(address, patience_s=0)
    claim(bucket, 4)
    said: list[str] = []
    with Lease(bucket, lease_s=1.5, tell=said.append) as lease:
        assert lease.generation == 5
        assert "elsewhere ran this sweep a moment ago" in said[0]
        lease.check()
        claim(bucket, 6)
        lease._renew()
        with pytest.raises(StorageError, match="taken over by process 1 on elsewhere"):
            lease.check()
        assert lease.is_lost


def test_a_process_that_is_gone_need_not_be_waited_for(address: str) -> None:
    bucket = Bucket(address, patience_s=0)
    with Lease(bucket) as old:
        own = json.loads(bucket.read(old._name))
    claim(bucket, 3, machine=own["machine"], pid=2**22 + 1)
    waits: list[str] = []
    with Lease(bucket, tell=waits.append) as lease:
        assert lease.generation == 4
    assert waits == []


# ledgers of objects


def test_select_takes_each_line_once_and_only_of_the_newest_driver() -> None:
    old = [Segment(1, 1, 1), Segment(1, 2, 2), Segment(1, 3, 3)]
    assert select([]) == []
    assert select(old) == old
    assert select([*old, Segment(1, 1, 2)]) == [Segment(1, 1, 2), Segment(1, 3, 3)]
    assert select([*old, Segment(2, 1, 2)]) == [Segment(2, 1, 2)]
    with pytest.raises(StateError, match="line 2 of a ledger in the bucket is missing"):
        select([old[0], old[2]])


@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_a_crash_at_any_instant_of_joining_leaves_every_line(count: int, group: int, data: st.DataObject) -> None:
    """Objects after any prefix of the steps: write singles, write the joined one, delete singles in any order."""
    there = {Segment(1, number, number) for number in range(1, count + 1)}
    for first in range(1, count - group + 2, group):
        there.add(Segment(1, first, first + group - 1))
        singles = [Segment(1, number, number) for number in range(first, first + group)]
        gone = data.draw(st.sets(st.sampled_from(singles)))
        there -= gone if group > 1 else set()
    lines = [line for segment in select(there) for line in range(segment.first, segment.last + 1)]
    assert lines == list(range(1, count + 1))


def test_lines_are_joined_while_the_sweep_runs_and_when_it_ends(address: str) -> None:
    bucket = Bucket(address, patience_s=0)
    publish = Publisher(bucket, "search", 1, 0, lambda: None)
    lines = [f'{{"line":{number}}}\n' for number in range(GROUP + 3)]
    for line in lines[:2]:
        publish(line)
    assert read_lines(bucket, "search").decode() == "".join(lines[:2])
    for line in lines[2:]:
        publish(line)
    publish.close()
    assert list_segments(bucket, "search") == [
        Segment(1, 1, GROUP),
        *(Segment(1, number, number) for number in range(GROUP + 1, GROUP + 4)),
    ]
    assert join(bucket, "search", 2).decode() == "".join(lines)
    assert list_segments(bucket, "search") == [Segment(2, 1, GROUP + 3)]


def assignment(name: str = "t") -> Assignment:
    return Assignment(number=0, name=name, origin="search", params={}, config={"lr": 1e-3}, seed=1, max_epochs=4)


def epoch_record(epoch: int) -> EpochRecord:
    return EpochRecord(epoch=epoch, score=0.5, metrics={"score": 0.5}, confusion=None, seconds=1.0)


def test_an_event_is_in_the_bucket_before_it_is_in_the_ledger(tmp_path: Path) -> None:
    seen: list[str] = []

    def publish(line: str) -> None:
        assert line not in (tmp_path / "search.jsonl").read_text()
        if len(seen) == 2:
            raise StorageError("s3://bucket: the store cannot be reached")
        seen.append(line)

    ledger = Ledger(tmp_path / "search.jsonl", publish=publish)
    ledger.start(assignment())
    ledger.epoch(0, epoch_record(1))
    with pytest.raises(StorageError):
        ledger.epoch(0, epoch_record(2))
    assert ledger.record(0).epochs_done == 1
    ledger.close()
    assert (tmp_path / "search.jsonl").read_text() == "".join(seen)


def test_what_a_driver_writes_that_was_given_up_does_not_count(address: str) -> None:
    bucket = Bucket(address, patience_s=0)
    old = Publisher(bucket, "search", 1, 0, lambda: None)
    old('{"line":1}\n')
    assert join(bucket, "search", 2) == b'{"line":1}\n'
    old('{"line":"late"}\n')
    new = Publisher(bucket, "search", 2, 1, lambda: None)
    new('{"line":2}\n')
    assert read_lines(bucket, "search") == b'{"line":1}\n{"line":2}\n'


# trials


def job(address: str, **changes: object) -> TrialJob:
    return TrialJob(assignment=assignment(), train="objectives:curve", folder=f"{address}/trials/search/t", **changes)


def test_a_trial_goes_on_on_another_node(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [learned(report) for report in run_trial(job(str(tmp_path / "here")))]
    first = run_trial(job(address))
    begun = [learned(next(first)) for _ in range(3)]
    first.close()
    assert not list((tmp_path / "cache/scratch").iterdir()), "nothing is left on a node"
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "another node"))
    rest = [learned(report) for report in run_trial(job(address))]
    assert [*begun[:2], *rest] == whole


def learned(report: EpochReport) -> dict[str, object]:
    """Return what a training reported, without what its process took of the machine."""
    return {key: value for key, value in report.metrics.items() if not key.startswith("system/")}


def test_a_checkpoint_torn_in_its_upload_does_not_count(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(address)
    upload = Bucket.upload

    def die_before_the_manifest(self: Bucket, file: Path, name: str) -> None:
        if name == "last/1/state.json":
            raise StorageError("killed here")
        upload(self, file, name)

    import torch

    with open_workspace(address) as workspace, monkeypatch.context() as patch:
        for epoch in (1, 2):
            checkpoint.save({"epoch": epoch, "x": torch.full([4], epoch)}, workspace.folder / f"last/{epoch % 2}")
            workspace.keep(f"last/{epoch % 2}")
        checkpoint.save({"epoch": 3, "x": torch.full([4], 3)}, workspace.folder / "last/1")
        patch.setattr(Bucket, "upload", die_before_the_manifest)
        with pytest.raises(StorageError):
            workspace.keep("last/1")
    assert len([name for name in bucket.entries("last") if name.startswith("last/1/tensors")]) == 2
    with open_workspace(address) as workspace:
        assert load_newest(workspace.folder / "last")["epoch"] == 2
        checkpoint.save({"epoch": 3, "x": torch.full([4], 3)}, workspace.folder / "last/1")
        workspace.keep("last/1")
    assert len(bucket.entries("last")) == 4, "two checkpoints of two files, nothing stale"


# the driver's copy


def test_the_copy_is_made_again_and_read_elsewhere(address: str, tmp_path: Path) -> None:
    paths = sweep_paths(address)
    with Mirror(paths, lease_s=5) as mirror:
        mirror.on_stage("search", 1, 4)
        ledger = Ledger(paths.ledger("search"), publish=mirror.publisher("search"))
        ledger.start(assignment())
        for report in run_trial(job(address)):
            ledger.epoch(0, epoch_record(report.epoch))
        paths.trials.write_text("name\nt\n")
        (paths.root / "optuna.log").write_text("a view")
    names = set(Bucket(address).entries())
    assert {"trials.csv", "state/sweep_id", "state/search/00001-00000001-00000005.jsonl"} <= names
    assert not {name for name in names if "optuna" in name or CLAIMS in name}
    elsewhere = sweep_paths(address, "views")
    fetch_sweep(elsewhere)
    assert elsewhere.root != paths.root
    assert elsewhere.trials.read_text() == "name\nt\n"
    assert read_ledger(elsewhere.ledger("search")) == read_ledger(paths.ledger("search"))


@pytest.mark.parametrize(
    ("storage", "variables", "said"),
    [
        ("s3://no-such-bucket/x", {}, "storage: s3://no-such-bucket/x/synthetic: there is no such bucket"),
        ("s3://segbench-test/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached at 127.0.0.1:9"),
        ("s3://me:hunter2@bucket/x", {}, "an address with a user, a password or options"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_told_before_the_sweep(
    storage: str,
    variables: dict[str, str],
    said: str,
    store: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from running import synthetic

    for key, value in {**store, **variables, "SEGBENCH_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(key, value)
    file = synthetic(tmp_path).path
    file.write_text(f"{file.read_text()}\nstorage: {storage}\n")
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(file), "--executor", "local"])
    assert ended.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert said in told
    assert "hunter2" not in told
    assert "Traceback" not in told


class Looking:
    """An observer that notes what was in a bucket when the first trial began."""

    def __init__(self, address: str) -> None:
        self.bucket = Bucket(address)
        self.found: set[str] = set()

    def on_stage(self, stage: str, num_trials: int, max_epochs: int) -> None:
        pass

    def on_trial(self, record: TrialRecord, stage: str) -> None:
        self.found = self.found or set(self.bucket.entries())


def test_what_a_sweep_learns_from_earlier_ones_is_in_its_bucket_before_a_trial_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    run(synthetic(tmp_path, trials=15), tmp_path / "old")
    place = f"file://{tmp_path}/bucket/new"
    changes = [f"search.warm_start=[{tmp_path}/old]", "search.seed=11"]
    looking = Looking(place)
    run_sweep(synthetic(tmp_path, trials=4, overrides=changes), place, Run(executor="local"), [looking])
    assert {"sweep.yaml", "state/prior.json"} <= looking.found
    whole = decisions(run(synthetic(tmp_path, trials=9, overrides=changes), tmp_path / "calm"))
    for gone in ("cache", "old"):  # another machine
        shutil.rmtree(tmp_path / gone)
    run_sweep(synthetic(tmp_path, trials=9, overrides=changes), place, Run(executor="local"))
    assert decisions(sweep_paths(place)) == whole


def test_a_folder_is_its_own_address(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path)
    assert paths.address(paths.last("search", "t")) == str(tmp_path.resolve() / "trials/search/t/last")
    paths = sweep_paths("s3://bucket/x")
    assert paths.address(paths.sharing) == "s3://bucket/x/state/sharing.json"
