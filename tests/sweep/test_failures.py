"""Each class of failure has one policy: the pure decision, and the sweep that lives through it."""

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from running import SYNTHETIC, decisions, local, on_ray, outcome, run, synthetic

from segbench.core.errors import NonFiniteError, SegbenchError, TrialError
from segbench.core.failures import GiveUp, Retry, StopSweep, classify, respond
from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import Assignment, Attempt, Cause, EpochRecord, Failure, TrialRecord, TrialState
from segbench.models.unet import UNet
from segbench.spec.load import LoadedSpec, load_spec
from segbench.spec.schema import Resources
from segbench.training import checkpoint
from segbench.training.trial import load_newest
from segbench.tune.cluster import connect


def record(*attempts: Attempt, epochs: int = 0, **config: object) -> TrialRecord:
    assignment = Assignment(
        number=0, name="trial-0000", origin="search", params={}, config=config, seed=0, max_epochs=9
    )
    reported = tuple(EpochRecord(epoch=epoch, score=0.5, metrics={}) for epoch in range(1, epochs + 1))
    return TrialRecord(assignment=assignment, attempts=attempts, epochs=reported)


def attempt(cause: Cause, epoch: int = 0) -> Attempt:
    return Attempt(epoch=epoch, cause=cause, reason="x")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("boom"), Cause.ERROR),
        (TrialError("boom"), Cause.ERROR),
        (NonFiniteError("nan: train/loss at epoch 1"), Cause.NON_FINITE),
        (torch.OutOfMemoryError("CUDA out of memory"), Cause.MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), Cause.MEMORY),
        (MemoryError(), Cause.MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), Cause.DISK),
        (FileNotFoundError("gone"), Cause.ERROR),
    ],
)
def test_exceptions_are_classified(error: Exception, cause: Cause) -> None:
    assert classify(error).cause is cause


def test_an_error_is_retried_so_often_and_then_fails_with_its_last_line() -> None:
    failure = classify(ValueError("bad\nthing"))
    assert respond(record(), failure, max_failures=1) == Retry()
    assert respond(record(attempt(Cause.ERROR)), failure, 1) == GiveUp("error: ValueError: bad thing")
    assert respond(record(), failure, 0) == GiveUp("error: ValueError: bad thing")


def test_a_dead_worker_counts_only_where_it_always_dies() -> None:
    failure = Failure(Cause.WORKER, "its process ended")
    deaths = [attempt(Cause.WORKER, epoch) for epoch in (0, 1, 2, 3)]
    assert respond(record(*deaths, epochs=4), failure, 0) == Retry()
    twice = [attempt(Cause.WORKER, 2), attempt(Cause.WORKER, 2)]
    assert respond(record(*twice, epochs=2), failure, 0) == GiveUp(
        "worker died: its process ended (3 times after epoch 2)"
    )


@pytest.mark.parametrize(("batch_size", "parts", "then"), [(8, 1, 2), (8, 4, 8), (6, 2, 6), (12, 2, 4), (9, 1, 3)])
def test_out_of_memory_splits_the_batch(batch_size: int, parts: int, then: int) -> None:
    failure = Failure(Cause.MEMORY, "out of memory")
    smaller = respond(record(batch_size=batch_size, accumulation_steps=parts), failure, 0)
    assert smaller == Retry({"accumulation_steps": then})


def test_one_image_at_a_time_is_the_end() -> None:
    response = respond(record(batch_size=4, accumulation_steps=4), Failure(Cause.MEMORY, "x"), 5)
    assert response == GiveUp("oom: even with one image at a time (batch_size=4)")


def test_a_full_disk_stops_the_sweep() -> None:
    assert isinstance(respond(record(), classify(OSError(errno.ENOSPC, "No space left")), 5), StopSweep)


# --- sweeps that live through it


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connect(None, Resources(cpu=1)):
        yield


def stumbling(folder: Path, kind: str, *overrides: str) -> LoadedSpec:
    path = folder / f"{kind}.yaml"
    text = SYNTHETIC.format(function="stumbling", trials=3, retrain="")
    text = text.replace("parameters:\n", f"parameters:\n  accident: {kind}\n", 1)
    path.write_text(text)
    return load_spec(path, overrides)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("kind", "cause"),
    [("kill", Cause.WORKER), ("exception", Cause.ERROR), ("memory", Cause.MEMORY), ("hang", Cause.HANG)],
)
def test_a_stumbling_trial_goes_on_from_its_checkpoint_with_the_same_scores(
    kind: str, cause: Cause, tmp_path: Path
) -> None:
    patience = ["budget.trial_timeout_s=5"] if kind == "hang" else []  # the start of a process may take longer
    overrides = ("scheduler.type=none", "scheduler.max_epochs=4", *patience)
    loaded = stumbling(tmp_path, kind, *overrides)
    expected = run(stumbling(tmp_path, "nothing", *overrides), tmp_path / "calm", local)
    paths = run(loaded, tmp_path / "rough", on_ray(loaded, tmp_path / "rough"))
    assert outcome(paths) == outcome(expected)
    for trial in read_ledger(paths.ledger("search")):
        assert [(a.cause, a.epoch) for a in trial.attempts] == [(cause, 2)]
        assert [epoch.epoch for epoch in trial.epochs] == [1, 2, 3, 4]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_full_disk_stops_cleanly_and_the_same_command_continues(executor: str, tmp_path: Path) -> None:
    loaded = stumbling(tmp_path, "disk", "scheduler.type=none")
    execute = local if executor == "local" else on_ray(loaded, tmp_path / "a")
    for _ in range(4):  # each of the four trials meets it once
        with pytest.raises(SegbenchError, match="free some space"):
            run(loaded, tmp_path / "a", execute)
    paths = run(loaded, tmp_path / "a", execute)
    assert outcome(paths) == outcome(run(stumbling(tmp_path, "nothing", "scheduler.type=none"), tmp_path / "calm"))


def test_a_sweep_in_which_all_fail_alike_stops_early(tmp_path: Path) -> None:
    loaded = synthetic(tmp_path, trials=50, overrides=["metric.name=acuracy"])
    with pytest.raises(SegbenchError, match="the first 5 trials all failed in the same way: metric 'acuracy'"):
        run(loaded, tmp_path / "a")
    assert len(read_ledger(SweepPaths(tmp_path / "a").ledger("search"))) == 5


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        checkpoint.save({"epoch": epoch, "state": {"weights": np.full(3, epoch)}}, tmp_path / str(epoch % 2))
    assert load_newest(tmp_path)["epoch"] == 3
    newest = next((tmp_path / "1").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-2])
    assert load_newest(tmp_path)["epoch"] == 2
    (tmp_path / "0" / "state.json").write_text("{")
    assert load_newest(tmp_path) == {}


OUT_OF_MEMORY = """
name: oom
data: {{size: [32, 64], num_images: [16, 4, 4], cache_dir: {cache}}}
training: {{width: 4, depth: 2, batch_size: 8, norm: group, accumulation_steps: {parts}}}
parameters: {{lr: {{values: [1e-3]}}}}
scheduler: {{max_epochs: 2}}
budget: {{trials: 1}}
"""


def test_a_trial_too_large_for_memory_gets_smaller_parts_and_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allocator that fails above a size is the only fake."""

    def load(parts: int) -> LoadedSpec:
        path = tmp_path / f"{parts}.yaml"
        path.write_text(OUT_OF_MEMORY.format(cache=tmp_path / "cache", parts=parts))
        return load_spec(path)

    expected = read_ledger(run(load(4), tmp_path / "small").ledger("search"))[0]
    forward = UNet.forward

    def limited(self: UNet, image: torch.Tensor) -> torch.Tensor:
        if image.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return forward(self, image)

    monkeypatch.setattr(UNet, "forward", limited)
    actual = read_ledger(run(load(1), tmp_path / "large").ledger("search"))[0]
    assert actual.state is TrialState.COMPLETE
    assert [a.cause for a in actual.attempts] == [Cause.MEMORY, Cause.MEMORY]
    assert actual.assignment.config["accumulation_steps"] == 4
    assert [epoch.score for epoch in actual.epochs] == [epoch.score for epoch in expected.epochs]

    monkeypatch.setattr(UNet, "forward", lambda self, image: limited(self, image.repeat(3, 1, 1, 1)))
    with pytest.raises(SegbenchError, match=r"oom: even with one image at a time \(batch_size=8\)"):
        run(load(1), tmp_path / "hopeless")


SMALL_DISK = """
name: small
data: {{size: [32, 64], num_images: [4, 2, 2], cache_dir: {cache}}}
training: {{width: 16, depth: 3, batch_size: 4}}
parameters: {{lr: {{values: [1e-3]}}}}
scheduler: {{max_epochs: 3}}
budget: {{trials: 1}}
mlflow: {{enabled: false}}
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system: needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_really_full_disk_names_what_is_needed_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_DISK.format(cache=tmp_path / "cache"))
    loaded = load_spec(path)
    with pytest.raises(SegbenchError, match=r"needs \d+\.\d MB, \d\.\d MB are free\); free some space"):
        run(loaded, small_disk / "sweep")
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    trial = read_ledger(run(loaded, small_disk / "sweep").ledger("search"))[0]
    expected = read_ledger(run(loaded, tmp_path / "calm").ledger("search"))[0]
    assert [epoch.score for epoch in trial.epochs] == [epoch.score for epoch in expected.epochs]
    assert trial.state is TrialState.COMPLETE


def test_a_ledger_that_cannot_grow_stops_the_sweep_and_stays_whole(small_disk: Path, tmp_path: Path) -> None:
    paths = SweepPaths(small_disk / "sweep")
    loaded = synthetic(tmp_path, trials=10)
    paths.root.mkdir()
    (paths.root / "ballast").write_bytes(b"x" * (4 * 2**20 - 40_000))
    with pytest.raises((SegbenchError, OSError)):
        run(loaded, paths.root)
    (paths.root / "ballast").unlink()
    assert decisions(run(loaded, paths.root)) == decisions(run(loaded, tmp_path / "calm"))
