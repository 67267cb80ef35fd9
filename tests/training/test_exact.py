"""Training is exact: stopped after epoch k and continued gives the numbers of a training that never stopped."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.records import EpochResult, TrainContext
from segbench.data import open_data
from segbench.data.augment import augment
from segbench.training import checkpoint
from segbench.training.feed import feed
from segbench.training.loop import train

pytestmark = pytest.mark.usefixtures("one_thread")

EVERYTHING = TrialConfig(
    batch_size=4,
    accumulation_steps=2,
    lr=3e-3,
    head_lr_multiplier=2.0,
    schedule="one-cycle",
    ema_decay=0.9,
    precision="bf16",
    dropout=0.2,
    drop_path=0.2,
    clip_norm=1.0,
    class_weights="inverse-sqrt",
    label_smoothing=0.1,
    loss="ce+dice",
    flip=0.5,
    scale_min=0.8,
    scale_max=1.5,
    color=0.4,
    blur=0.3,
    patience=10,
)
UNET = replace(EVERYTHING, model="unet", width=8, depth=2)
SEGFORMER = replace(EVERYTHING, model="segformer", variant="mit-b0")
MAX_EPOCHS = 3


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> TrainContext:
    cache = tmp_path_factory.mktemp("cache")
    data = DataConfig(size=(32, 64), num_images=(11, 3, 3), cache_dir=str(cache))
    return TrainContext(max_epochs=MAX_EPOCHS, seed=5, data=data)


def numbers(result: EpochResult) -> Any:
    """Return all that must repeat exactly: everything but times."""
    metrics = {key: repr(value) for key, value in result.metrics.items() if not key.startswith("time/")}
    return metrics, result.confusion


def flatten(state: Any, path: str = "") -> dict[str, Any]:
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flatten(value, f"{path}/{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for key, value in enumerate(state) for k, v in flatten(value, f"{path}/{key}").items()}
    return {path: state}


def assert_same_state(left: Any, right: Any) -> None:
    left, right = flatten(left), flatten(right)
    assert left.keys() == right.keys()
    for path, value in left.items():
        same = torch.equal(value, right[path]) if torch.is_tensor(value) else value == right[path]
        assert same, path


def uninterrupted(config: TrialConfig, context: TrainContext, folder: Path) -> list[Any]:
    """Train to the end and return each epoch's numbers; leaves each epoch's state in ``folder/<epoch>``."""
    history = []
    for epoch, result in enumerate(train(config, context), start=1):
        assert result.state is not None
        checkpoint.save(result.state(), folder / str(epoch))
        history.append(numbers(result))
    return history


@pytest.mark.parametrize(
    "config",
    [
        UNET,
        SEGFORMER,
        replace(UNET, norm="group", optimizer="sgd", schedule="cosine", warmup_epochs=0.5, channels_last=True),
        # narrow: a processor without fp16 takes its time
        replace(UNET, width=4, precision="fp16", accumulation_steps=1, channels_last=True, schedule="poly"),
    ],
    ids=["unet", "segformer", "unet sgd channels-last", "unet fp16"],
)
def test_continued_equals_uninterrupted_bit_for_bit(config: TrialConfig, context: TrainContext, tmp_path: Path) -> None:
    history = uninterrupted(config, context, tmp_path / "whole")
    assert len(history) == MAX_EPOCHS
    for stop in range(1, MAX_EPOCHS):
        torch.rand(stop)  # another process has another global generator
        state = checkpoint.load(tmp_path / "whole" / str(stop))
        rest = []
        for result in train(config, replace(context, epoch=stop, state=state)):
            rest.append(numbers(result))
            last_state = result.state() if result.state is not None else None
        assert rest == history[stop:]
        assert_same_state(last_state, checkpoint.load(tmp_path / "whole" / str(MAX_EPOCHS)))


def test_continued_after_every_epoch_equals_uninterrupted(context: TrainContext, tmp_path: Path) -> None:
    history = uninterrupted(UNET, context, tmp_path / "whole")
    pieces, state = [], None
    for epoch in range(MAX_EPOCHS):
        training = train(UNET, replace(context, epoch=epoch, state=state))
        result = next(training)
        assert result.state is not None
        checkpoint.save(result.state(), tmp_path / "last")
        training.close()  # type: ignore[attr-defined]
        state = checkpoint.load(tmp_path / "last")
        pieces.append(numbers(result))
    assert pieces == history
    assert_same_state(state, checkpoint.load(tmp_path / "whole" / str(MAX_EPOCHS)))


def test_killed_and_continued_in_another_process_equals_uninterrupted(context: TrainContext, tmp_path: Path) -> None:
    history = uninterrupted(UNET, context, tmp_path / "whole")
    code = (
        "import os, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from segbench.core.config import DataConfig, TrialConfig\n"
        "from segbench.core.records import TrainContext\n"
        "from segbench.training import checkpoint\n"
        "from segbench.training.loop import train\n"
        "torch.set_num_threads(1)\n"
        f"context = {context!r}\n"
        f"for epoch, result in enumerate(train({UNET!r}, context), start=1):\n"
        "    if epoch == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"    checkpoint.save(result.state(), Path({str(tmp_path / 'last')!r}))\n"
    )
    child = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert child.returncode == -signal.SIGKILL
    state = checkpoint.load(tmp_path / "last")
    rest = [numbers(result) for result in train(UNET, replace(context, epoch=1, state=state))]
    assert rest == history[1:]


def test_the_same_seed_twice_is_identical_and_another_seed_is_not(context: TrainContext) -> None:
    first = [numbers(result) for result in train(UNET, context)]
    torch.rand(3)
    assert [numbers(result) for result in train(UNET, context)] == first
    assert numbers(next(train(UNET, replace(context, seed=6)))) != first[0]


def test_augmentation_does_not_depend_on_the_order_or_the_size_of_batches(context: TrainContext) -> None:
    assert context.data is not None
    data = open_data(context.data)
    (whole,) = feed((data.train,), [np.arange(11)], torch.device("cpu"))
    images, labels = augment(*whole, list(range(11)), UNET, seed=5, epoch=2)
    plain, _ = augment(*whole, list(range(11)), TrialConfig(), seed=5, epoch=2)
    assert not torch.equal(images, plain)
    for order in ([3], [7, 3, 0, 10], list(range(10, -1, -1))):
        (some,) = feed((data.train,), [np.array(order)], torch.device("cpu"))
        some_images, some_labels = augment(*some, order, UNET, seed=5, epoch=2)
        assert torch.equal(some_images, images[order])
        assert torch.equal(some_labels, labels[order])
