"""Packed sets in a bucket: put there once, fetched once by each node, and the very same data as at home."""

import json
import logging
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from buckets import serve_s3
from cityscapes_files import write_pair
from running import decisions

from segbench.cli import main
from segbench.core.address import sweep_paths
from segbench.core.config import DataConfig
from segbench.core.errors import DataError
from segbench.core.paths import SweepPaths
from segbench.data import dataset, open_data, share_data
from segbench.data.packed import packed_path
from segbench.data.recipes import set_name
from segbench.storage.bucket import Bucket

SWEEP = """
name: photos
data: {{dataset: cityscapes, root: {root}, size: [24, 32], split: official}}
training: {{model: unet, depth: 2, batch_size: 4}}
parameters:
  width: {{values: [4, 6]}}
  lr: {{distribution: log_uniform_values, min: 1e-3, max: 1e-1}}
scheduler: {{max_epochs: 2}}
budget: {{trials: 2, max_concurrent: 1}}
retrain: {{top_k: 1, seeds: 1}}
mlflow: {{enabled: false}}
"""


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    with serve_s3() as environment:
        yield environment


@pytest.fixture
def place(store: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty storage in a mock of S3; this process is a laptop with photographs."""
    for key, value in store.items():
        monkeypatch.setenv(key, value)
    move_to("laptop", tmp_path, monkeypatch)
    return f"s3://segbench-test/{tmp_path.name}/runs"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for city, split, count in (("aachen", "train", 8), ("bochum", "train", 4), ("lindau", "val", 4)):
        for frame in range(count):
            write_pair(folder, split, city, frame)
    return folder


def move_to(machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go on as if on another machine, which has nothing in its cache; return its cache."""
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / machine))
    dataset._open.cache_clear()
    return tmp_path / machine


def write_sweep(root: Path) -> Path:
    file = root.parent / "photos.yaml"
    file.write_text(SWEEP.format(root=root))
    return file


def config_of(root: Path, place: str | None, **changes: object) -> DataConfig:
    settings = {"size": (24, 32), "split": "official", **changes}
    return DataConfig(dataset="cityscapes", root=str(root), packed=place and f"{place}/packed", **settings)


def sweep(file: Path, storage: str) -> SweepPaths:
    main(["sweep", str(file), "--executor", "local", "--set", f"storage={storage}"])
    return sweep_paths(f"{storage}/photos")


def refusal(file: Path, storage: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the sentence with which a sweep is refused as its user's mistake."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        sweep(file, storage)
    told = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2, told
    assert "Traceback" not in told
    return told


def results(paths: SweepPaths) -> list[object]:
    return [decisions(paths, stage) for stage in ("search", "retrain", "test")]


@contextmanager
def requests() -> Iterator[list[str]]:
    """Yield what the store is asked, request by request."""
    asked: list[str] = []
    logger = logging.getLogger("werkzeug")

    class Listen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            asked.append(record.getMessage())

    handler, level = Listen(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield asked
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_a_sweep_without_photographs_is_the_sweep_at_home(
    place: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_sweep(root)
    at_home = results(sweep(file, str(tmp_path / "runs")))
    pack = ["data", "pack", str(file), "--to", f"{place}/packed"]
    main(pack)
    assert "packed set uploaded to s3://" in capsys.readouterr().out
    bucket = Bucket(f"{place}/packed")
    before = bucket.entries()
    assert {Path(name).suffix for name in before} == {".arrow", ".json"}
    with requests() as asked:
        main(pack)
    assert "is there already, nothing was uploaded: s3://" in capsys.readouterr().out
    assert not [line for line in asked if "PUT" in line or "POST" in line]
    assert bucket.entries() == before

    move_to("head", tmp_path, monkeypatch)
    root.rename(tmp_path / "gone")
    with requests() as asked:
        paths = sweep(file, place)
    assert results(paths) == at_home
    assert len([line for line in asked if "GET" in line and ".arrow" in line]) == 1
    told = capsys.readouterr().out
    assert "packed data at s3://" in told
    assert f"elsewhere    segbench report {place}/photos\n" in told
    move_to("another head", tmp_path, monkeypatch)
    assert results(sweep(file, place)) == at_home


def test_the_driver_uploads_what_nobody_has_packed(
    place: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_sweep(root)
    first = results(sweep(file, place))
    assert "packed data uploaded to s3://" in capsys.readouterr().out
    record = json.loads(sweep_paths(f"{place}/photos").data.read_text())
    assert f"{record['key']}.arrow" in Bucket(f"{place}/packed").entries()
    cache = move_to("another laptop", tmp_path, monkeypatch)
    monkeypatch.setattr(dataset, "open_packed", None)  # with the same photographs: they are not decoded again
    share = share_data(config_of(root, place))
    assert not share.is_uploaded
    assert len(open_data(share.config).train.names) == 11
    assert len(list(cache.glob("*.arrow"))) == 1
    assert first[0]


FETCH = """
import sys
from segbench.core.config import DataConfig
from segbench.data import open_data
data = open_data(DataConfig(dataset="cityscapes", root="nowhere", size=(24, 32), split="official", packed=sys.argv[1]))
print(data.train.images.shape[0])
"""


def test_of_several_processes_of_a_node_one_fetches(
    place: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = share_data(config_of(root, place)).config.packed
    move_to("worker", tmp_path, monkeypatch)
    command = [sys.executable, "-c", FETCH, str(address)]
    with requests() as asked:
        processes = [subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE) for _ in range(3)]
        assert [process.communicate(timeout=120)[0] for process in processes] == [b"11\n"] * 3
    assert len([line for line in asked if "GET" in line and ".arrow" in line]) == 1


def test_what_a_node_has_fetched_is_not_asked_for_again(
    place: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = share_data(config_of(root, place)).config
    move_to("worker", tmp_path, monkeypatch)
    open_data(config)
    dataset._open.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the store is out of reach
    assert len(open_data(config).test.names) == 4


def flip_a_pixel(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [flip_a_pixel, lambda content: bytes(len(content))])
def test_a_damaged_set_is_refused(
    place: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, damage
) -> None:
    file = write_sweep(root)
    address = str(share_data(config_of(root, place)).config.packed)
    bucket, name = Bucket(f"{place}/packed"), address.rpartition("/")[2]
    bucket.write(name, damage(bucket.read(name)))
    cache = move_to("head", tmp_path, monkeypatch)
    root.rename(tmp_path / "gone")
    told = refusal(file, place, capsys)
    assert f"{address}: damaged (its content does not fit its checksum); delete it, then where the pictures are" in told
    assert f"segbench data pack FILE --to {place}/packed" in told
    assert not list(cache.glob("*.arrow"))


def test_a_set_that_is_cut_off_is_put_there_again(
    place: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(root, place)
    address = str(share_data(config).config.packed)
    bucket, name = Bucket(f"{place}/packed"), address.rpartition("/")[2]
    bucket.write(name, bucket.read(name)[:1000])
    move_to("head", tmp_path, monkeypatch)
    with pytest.raises(DataError, match="no packed set in s3://"):
        share_data(config_of(tmp_path / "gone" / "photos", place))
    assert share_data(config).is_uploaded
    assert not share_data(config).is_uploaded


def test_neither_photographs_nor_a_packed_set(
    place: str, root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = write_sweep(root)
    share_data(config_of(root, place, size=(48, 64)))  # another size is another set
    root.rename(tmp_path / "gone")
    told = refusal(file, place, capsys)
    assert f"photos.yaml:3 data: there is no data.root {root} here, and no packed set in {place}/packed" in told
    assert "(photos-24x32-official-seed0-v3.json); where the pictures are, run: segbench data pack FILE --to" in told


def test_changed_photographs_do_not_change_a_sweep_that_has_begun(
    place: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_sweep(root)
    before = results(sweep(file, place))
    key = json.loads(sweep_paths(f"{place}/photos").data.read_text())["key"]
    at_home = sweep(file, str(tmp_path / "runs"))
    write_pair(root, "val", "lindau", 9)
    dataset._open.cache_clear()
    told = refusal(file, str(tmp_path / "runs"), capsys)
    assert "the data have changed since this sweep began: 16 images with digest" in told
    assert results(at_home) == before

    assert results(sweep(file, place)) == before
    printed = capsys.readouterr()
    assert f"the files in {root} have changed since this sweep began; it goes on with the data as they" in printed.err
    assert f"/{key}.arrow" in printed.out
    main(["data", "pack", str(file), "--to", f"{place}/packed"])  # others see the new set, this sweep its own
    move_to("head", tmp_path, monkeypatch)
    root.rename(tmp_path / "gone")
    assert results(sweep(file, place)) == before
    assert "has a newer set of this name since this sweep began" in capsys.readouterr().err


def test_a_shared_folder_serves_as_well(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move_to("laptop", tmp_path, monkeypatch)
    shared = share_data(config_of(root, str(tmp_path / "shared disk")))
    assert shared.is_uploaded
    cache = move_to("worker", tmp_path, monkeypatch)
    root.rename(tmp_path / "gone")
    data = open_data(config_of(root, str(tmp_path / "shared disk")))
    assert len(data.train.names) == 11
    key = Path(str(shared.config.packed)).stem
    assert packed_path(key, cache).is_file()


def test_the_name_says_what_the_set_is() -> None:
    assert set_name(config_of(Path("data/camvid"), None, limit=400)) == "camvid-24x32-official-seed0-limit400-v3"
    assert set_name(DataConfig(size=(32, 64), num_images=(4, 2, 1))) == "streets-32x64-4+2+1-seed0-v3"


@contextmanager
def rights_are_checked(endpoint: str) -> Iterator[None]:
    """Let the mock ask who may do what; else it allows everything to everybody."""

    def count_free_requests(number: str) -> None:
        data, headers = number.encode(), {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data, headers, method="POST"))

    count_free_requests("0")
    try:
        yield
    finally:
        count_free_requests("inf")


def test_permission_denied_is_said(
    place: str, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3 = pytest.importorskip("boto3")
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    iam = boto3.client("iam", endpoint_url=endpoint)
    iam.create_user(UserName="stranger")
    key = iam.create_access_key(UserName="stranger")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    file = write_sweep(root)
    denied = "permission denied; allow this machine to list, get, put and delete objects there"
    with rights_are_checked(endpoint):
        assert f"storage: {place}/photos: {denied}" in refusal(file, place, capsys)
        with pytest.raises(SystemExit) as ended:
            main(["data", "pack", str(file), "--to", f"{place}/packed"])
    assert ended.value.code == 2
    assert f"data.packed: {place}/packed: {denied}" in " ".join(capsys.readouterr().err.split())


def test_no_secret_is_repeated(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = "s3://me:hunter2/x@bucket/runs"
    file = write_sweep(root)
    for setting in (f"storage={address}", f"data.packed={address}", f"storag={address}", f"{address}"):
        with pytest.raises(SystemExit) as ended:
            main(["sweep", str(file), "--set", setting])
        assert ended.value.code == 2
    for command in (["sweep", str(file), "--out"], ["data", "pack", str(file), "--to"], ["status"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, address])
        assert ended.value.code == 2
    told = capsys.readouterr()
    assert "hunter2" not in told.err + told.out
    assert "--set storage=s3://***@bucket/runs storage: an address with a user, a password" in " ".join(
        told.err.split()
    )
