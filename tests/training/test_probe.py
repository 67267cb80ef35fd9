"""What a training needs is measured once, and decides how many share a GPU and whether compiled code pays."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.errors import UserError
from segbench.core.records import TrainContext
from segbench.training import checkpoint, probe, sharing
from segbench.training.learner import Learner
from segbench.training.loop import train
from segbench.training.probe import Measurement, Request, look_up, make_request, measure
from segbench.training.sharing import Sharing, decide, fraction, pays
from segbench.training.switches import DeviceFacts, Switches, resolve_switches

CPU = torch.device("cpu")
TINY = TrialConfig(width=4, depth=1, batch_size=2)
GB = 10**9


def request(config: TrialConfig = TINY, *, compiled: bool = False) -> Request:
    return make_request(config, 8, (16, 32), CPU, compiled=compiled)


def test_a_probe_measures_real_steps_once_per_node(tmp_path: Path) -> None:
    first = look_up(request(), tmp_path)
    assert first.fits
    assert first.step_s is not None
    assert first.first_step_s is not None
    assert first.step_s > 0 < first.first_step_s
    assert first.peak_bytes is None or first.peak_bytes > 0

    def again(request: Request, cache: Path) -> Measurement:
        raise AssertionError("measured twice")

    assert look_up(request(replace(TINY, lr=0.5, flip=0.5)), tmp_path, again) == first
    assert len(list((tmp_path / "probes").glob("*.json"))) == 1


def test_compiled_code_is_measured_with_its_cache_filled(tmp_path: Path) -> None:
    runs = iter([Measurement(fits=True, first_step_s=60.0), Measurement(fits=True, first_step_s=6.0)])
    assert look_up(request(compiled=True), tmp_path, lambda *_: next(runs)).first_step_s == 6.0


@pytest.mark.parametrize(
    "other",
    [
        replace(request(), config=replace(TINY, batch_size=4)),
        replace(request(), config=replace(TINY, width=8)),
        replace(request(), config=replace(TINY, ema_decay=0.9)),
        replace(request(), size=(32, 32)),
        replace(request(), switches=Switches(precision="fp16", channels_last=True)),
        replace(request(), device_name="NVIDIA T4"),
        replace(request(), torch_version="3.0"),
    ],
)
def test_what_needs_something_else_has_another_key(other: Request) -> None:
    assert other.key != request().key


def test_settings_left_out_of_the_key_exist() -> None:
    assert {field.name for field in fields(TrialConfig)} >= probe.FREE


def test_memory_that_does_not_suffice_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Learner, "step", step)
    assert measure(request()) == Measurement(fits=False)


@pytest.mark.parametrize(
    ("peak_gb", "expected"), [(9, 1.0), (7, 1.0), (4, 0.5), (2.8, 0.3333), (2, 0.25), (0.01, 0.125), (20, 1.0)]
)
def test_the_share_of_a_gpu_is_one_of_n_with_room_to_spare(peak_gb: float, expected: float) -> None:
    assert fraction(int(peak_gb * GB), 10 * GB) == expected


def test_shares_fill_a_gpu_as_ray_counts() -> None:
    for trials in range(1, sharing.MAX_TRIALS + 1):
        share = fraction(GB, int(trials * GB * 1.16))
        assert int(1 / share) == trials
        assert round(share * 10_000) * trials <= 10_000


@pytest.mark.parametrize(
    ("eager", "compiled", "compile_s", "steps", "expected"),
    [(0.10, 0.07, 8, 5_000, True), (0.10, 0.07, 8, 500, False), (0.10, 0.11, 1, 10**6, False)],
)
def test_compiled_code_pays_when_it_wins_back_twice_its_cost(
    eager: float, compiled: float, compile_s: float, steps: int, expected: bool
) -> None:
    assert pays(eager, compiled, compile_s, steps) is expected


class FakeGpu:
    """A GPU of 10 GB where each image of a part takes 1 GB, and compiled steps take ``speed`` of the time."""

    def __init__(self, speed: float = 0.5) -> None:
        self.speed = speed
        self.asked: list[tuple[int, bool]] = []

    def __call__(self, config: TrialConfig, compiled: bool) -> tuple[Request, Measurement]:
        self.asked.append((config.batch_size, compiled))
        part = config.batch_size // config.accumulation_steps
        seconds = 0.1 * (self.speed if compiled else 1)
        fits = Measurement(fits=True, peak_bytes=part * GB, step_s=seconds, first_step_s=8.0, device_bytes=10 * GB)
        wanted = replace(request(config, compiled=compiled), device="cuda", device_name="Fake 10")
        return wanted, fits if part <= 10 else Measurement(fits=False)


def test_the_most_demanding_configuration_decides() -> None:
    configs = [replace(TINY, batch_size=batch_size) for batch_size in (1, 4, 2)]
    decided = decide(configs, FakeGpu(), set_bytes=0, num_steps=lambda _: 10)
    assert (decided.gpu, decided.device) == (0.5, "Fake 10")
    assert decided.reason == "unet width=4 depth=1 batch_size=4 needs 4.00 of 10.0 GB, so 2 to a GPU"


def test_a_data_set_that_lives_on_the_device_counts() -> None:
    assert decide([TINY], FakeGpu(), set_bytes=0, num_steps=lambda _: 10).gpu == 0.25
    assert decide([TINY], FakeGpu(), set_bytes=2 * GB, num_steps=lambda _: 10).gpu == 0.5
    assert decide([TINY], FakeGpu(), set_bytes=9 * GB, num_steps=lambda _: 10).gpu == 0.25  # it stays on the host


def test_a_configuration_that_does_not_fit_is_refused_with_one_that_does() -> None:
    big = replace(TINY, batch_size=48)
    with pytest.raises(UserError, match=r"batch_size=48 does not fit on Fake 10; batch_size=6 does, and so does .*=8"):
        decide([TINY, big], FakeGpu(), set_bytes=0, num_steps=lambda _: 10)


def test_compiling_is_measured_only_for_long_trials() -> None:
    short, long = FakeGpu(), FakeGpu()
    decide([TINY], short, set_bytes=0, num_steps=lambda _: 100)
    decide([TINY], long, set_bytes=0, num_steps=lambda _: 10_000)
    assert [compiled for _, compiled in short.asked] == [False]
    assert [compiled for _, compiled in long.asked] == [False, True]


def test_a_decision_survives_its_file(tmp_path: Path) -> None:
    decided = decide([TINY], FakeGpu(), set_bytes=0, num_steps=lambda _: 10_000)
    assert Sharing.load(tmp_path / "sharing.json") is None
    decided.save(tmp_path / "sharing.json")
    assert Sharing.load(tmp_path / "sharing.json") == decided


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("measured", [True, False])
def test_compile_auto_needs_a_gpu_and_a_measurement(kind: str, measured: bool) -> None:
    facts = DeviceFacts(kind=kind, has_bf16=True)
    assert resolve_switches(TINY, facts, measured).compile is (kind == "cuda" and measured)
    for said in (True, False):
        assert resolve_switches(replace(TINY, compile=said), facts, measured).compile is said


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace the model as torch.compile does, without minutes of C++."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **kwargs: compiler(model, backend="aot_eager", **kwargs))


@pytest.mark.usefixtures("traced")
def test_a_compiled_training_has_the_weights_and_keys_of_one_that_is_not() -> None:
    def trained(*, compiled: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        config = replace(TINY, precision="fp32", compile=compiled, ema_decay=0.5, optimizer="sgd")
        learner = Learner(config, 8, None, 2, 1, CPU)
        assert learner.switches.compile is compiled
        for num_images in (2, 1):  # the last batch of an epoch is smaller
            learner.step(torch.rand(num_images, 3, 16, 32), torch.randint(8, (num_images, 16, 32)))
        return learner.state_dict()["model"]

    eager, compiled = trained(compiled=False), trained(compiled=True)
    assert list(eager) == list(compiled)
    torch.testing.assert_close(compiled, eager)


@pytest.mark.usefixtures("traced")
def test_a_continued_training_stays_compiled(tmp_path: Path) -> None:
    context = TrainContext(max_epochs=2, data=DataConfig(size=(16, 32), num_images=(4, 3, 3), cache_dir=str(tmp_path)))
    config = replace(TINY, compile=True)
    whole = [result.metrics["train/loss"] for result in train(config, context)]
    first = next(train(config, context))
    assert first.state is not None
    checkpoint.save(first.state(), tmp_path / "last")
    state = checkpoint.load(tmp_path / "last")
    assert state["switches"]["compile"] is True
    (second,) = train(replace(TINY, compile="auto"), replace(context, epoch=1, state=state))
    assert second.metrics["train/loss"] == whole[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine: its memory cannot be measured")
def test_a_probe_measures_a_gpu(tmp_path: Path) -> None:
    wanted = make_request(TrialConfig(width=8, depth=2, batch_size=4), 8, (64, 64), torch.device("cuda"))
    measured = look_up(wanted, tmp_path)
    assert measured.peak_bytes is not None
    assert measured.device_bytes is not None
    assert 0 < measured.peak_bytes < measured.device_bytes
