"""Which switches a training gets, and that it keeps them."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.errors import CheckpointError
from segbench.core.records import TrainContext
from segbench.final.model import load_model
from segbench.training import checkpoint
from segbench.training.loop import train
from segbench.training.switches import DeviceFacts, Switches, read_facts, resolve_switches, switches_for

TINY = TrialConfig(width=4, depth=2, batch_size=4)
CPU = DeviceFacts(kind="cpu", has_bf16=False)
NEW_CPU = DeviceFacts(kind="cpu", has_bf16=True)
OLD_GPU = DeviceFacts(kind="cuda", has_bf16=False)
NEW_GPU = DeviceFacts(kind="cuda", has_bf16=True)


@pytest.mark.parametrize(
    ("facts", "precision", "channels_last"),
    [(CPU, "fp32", True), (NEW_CPU, "bf16", True), (OLD_GPU, "fp32", False), (NEW_GPU, "bf16", True)],
)
def test_what_is_left_open_follows_the_device(facts: DeviceFacts, precision: str, channels_last: bool) -> None:
    assert resolve_switches(TINY, facts) == Switches(precision=precision, channels_last=channels_last)  # type: ignore[arg-type]


@pytest.mark.parametrize("facts", [CPU, NEW_CPU, OLD_GPU, NEW_GPU])
def test_what_the_settings_say_is_kept(facts: DeviceFacts) -> None:
    config = replace(TINY, precision="fp16", channels_last=False)
    assert resolve_switches(config, facts) == Switches(precision="fp16", channels_last=False)


def test_the_facts_of_this_machine_can_be_read() -> None:
    facts = read_facts(torch.device("cpu"))
    assert facts.kind == "cpu"
    assert switches_for(TINY, torch.device("cpu")).precision == ("bf16" if facts.has_bf16 else "fp32")


@pytest.fixture
def context(tmp_path: Path) -> TrainContext:
    return TrainContext(max_epochs=2, data=DataConfig(size=(16, 32), num_images=(6, 3, 3), cache_dir=str(tmp_path)))


def test_a_continued_training_keeps_its_switches_and_says_so(
    context: TrainContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A state that began with other switches, as on another machine, goes on exactly like a training that has them."""
    here = switches_for(TINY, torch.device("cpu"))
    there = replace(here, precision="bf16" if here.precision == "fp32" else "fp32")
    elsewhere = replace(TINY, precision=there.precision)
    whole = [result for result in train(elsewhere, context)]
    first = next(train(elsewhere, context))
    assert first.state is not None
    checkpoint.save(first.state(), tmp_path / "last")
    state = checkpoint.load(tmp_path / "last")
    with caplog.at_level(logging.WARNING):
        (second,) = train(TINY, replace(context, epoch=1, state=state))
    assert second.metrics["train/loss"] == whole[1].metrics["train/loss"]
    assert f"precision='{there.precision}'" in caplog.text
    assert f"precision='{here.precision}'" in caplog.text


def test_a_state_without_switches_is_refused(context: TrainContext) -> None:
    first = next(train(TINY, context))
    assert first.state is not None
    state = {key: value for key, value in first.state().items() if key != "switches"}
    with pytest.raises(CheckpointError, match="another version of segbench"):
        next(train(TINY, replace(context, epoch=1, state=state)))


def test_a_model_is_used_with_the_switches_that_it_was_validated_with(context: TrainContext, tmp_path: Path) -> None:
    there = Switches(precision="fp32", channels_last=False)
    result = next(train(replace(TINY, precision="fp32", channels_last=False), context))
    assert result.save_model is not None
    result.save_model(tmp_path / "model")
    assert load_model(tmp_path / "model").switches == there
