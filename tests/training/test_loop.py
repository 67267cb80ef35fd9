"""The training function: what it yields, when it ends, and what goes wrong clearly."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.errors import CheckpointError, NonFiniteError, UserError
from segbench.core.records import TrainContext
from segbench.data import open_data
from segbench.training import checkpoint
from segbench.training.batches import Samples, epoch_batches, normalise, split_batches
from segbench.training.ema import AveragedModel
from segbench.training.learner import Learner
from segbench.training.loop import Patience, train
from segbench.training.metrics import metrics_from_confusion
from segbench.training.validation import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = TrialConfig(model="unet", width=4, depth=2, norm="group", batch_size=4, lr=3e-3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data_config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    cache = tmp_path_factory.mktemp("cache")
    return DataConfig(size=(32, 64), num_images=(12, 4, 4), ignore=("void",), cache_dir=str(cache))


@pytest.fixture(scope="module")
def context(data_config: DataConfig) -> TrainContext:
    return TrainContext(max_epochs=2, seed=1, data=data_config)


def test_every_epoch_reports_all_metrics_and_a_confusion_matrix(context: TrainContext) -> None:
    assert context.data is not None
    data = open_data(context.data)
    results = list(train(TINY, context))
    assert len(results) == 2
    for result in results:
        assert {f"val/iou/{group}" for group in data.groups} < set(result.metrics)
        for key in ("miou", "pixel_accuracy", "fwiou", "f1", "miou_official", "loss"):
            assert math.isfinite(result.metrics[f"val/{key}"])
        assert {"train/loss", "lr", "time/epoch_s", "time/images_per_s"} < set(result.metrics)
        assert all(type(value) is float for value in result.metrics.values())
        confusion = np.array(result.confusion)
        assert confusion.shape == (7, 7)
        assert confusion.sum() == (data.lut[data.val.labels] != 255).sum()
        ious = confusion.diagonal() / np.maximum(confusion.sum(0) + confusion.sum(1) - confusion.diagonal(), 1)
        present = (confusion.sum(0) + confusion.sum(1)) > 0
        assert result.metrics["val/miou"] == pytest.approx(ious[present].mean(), abs=1e-12)


def test_training_learns(context: TrainContext) -> None:
    config = replace(TINY, width=8, norm="batch", lr=1e-2, schedule="cosine")
    results = list(train(config, replace(context, max_epochs=12)))
    assert results[-1].metrics["train/loss"] < 0.7 * results[0].metrics["train/loss"]
    assert results[-1].metrics["val/miou"] > results[0].metrics["val/miou"]


@pytest.mark.parametrize("family", ["segformer", "upernet"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_transformer_families_train_in_every_precision(context: TrainContext, family: str, precision: str) -> None:
    assert context.data is not None
    data = replace(context.data, num_images=(4, 2, 1))  # one step: a processor without fp16 takes seconds for it
    config = TrialConfig(model=family, batch_size=4, precision=precision, lr=1e-4)  # type: ignore[arg-type]
    (result,) = train(config, replace(context, data=data, max_epochs=1))
    assert math.isfinite(result.metrics["train/loss"])


def test_train_and_val_together_report_no_validation(context: TrainContext) -> None:
    config = replace(TINY, patience=1)
    results = list(train(config, replace(context, train_on="train+val", max_epochs=3)))
    assert len(results) == 3
    for result in results:
        assert result.confusion is None
        assert set(result.metrics) == {"train/loss", "lr", "time/epoch_s", "time/images_per_s"}


def test_training_without_data_is_refused() -> None:
    with pytest.raises(UserError, match="needs a data set"):
        next(train(TINY, TrainContext(max_epochs=1)))


def test_a_loss_that_is_not_finite_ends_the_trial(context: TrainContext) -> None:
    config = replace(TINY, norm="none", lr=1e30, clip_norm=None, optimizer="sgd")
    with pytest.raises(NonFiniteError, match=r"^(nan|inf): (train|val)/loss at epoch \d+"):
        list(train(config, context))


def test_a_state_of_other_settings_is_refused(context: TrainContext) -> None:
    result = next(train(TINY, context))
    assert result.state is not None
    state = result.state()
    for other in (replace(TINY, width=8), replace(TINY, ema_decay=0.9), replace(TINY, model="segformer")):
        with pytest.raises(CheckpointError, match="other settings"):
            next(train(other, replace(context, epoch=1, state=state)))


def test_patience_ends_the_training_also_after_a_restart(context: TrainContext) -> None:
    config = replace(TINY, lr=1e-12, patience=2)
    long = replace(context, max_epochs=20, metric="val/pixel_accuracy")
    states = []
    for result in train(config, long):
        assert result.state is not None
        states.append(result.state()["patience"])
        last = result.state()
    assert len(states) == 3
    assert states[-1]["num_epochs"] == 2
    assert list(train(config, replace(long, epoch=3, state=last))) == []


@pytest.mark.parametrize(("goal", "scores"), [("maximize", [1, 3, 2, 3, 1]), ("minimize", [3, 1, 2, 1, 3])])
def test_patience_counts_epochs_without_a_better_score(goal: str, scores: list[float]) -> None:
    patience = Patience(3, goal)  # type: ignore[arg-type]
    exhausted = []
    for score in scores:
        patience.update(score)
        exhausted.append(patience.is_exhausted)
    assert exhausted == [False, False, False, False, True]
    patience.update(None)
    assert patience.is_exhausted
    assert not Patience(None, "maximize").is_exhausted


def test_nan_scores_are_no_improvement() -> None:
    patience = Patience(1, "maximize")
    patience.update(0.5)
    patience.update(math.nan)
    assert patience.is_exhausted


@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize("loss", ["ce", "focal"])
def test_a_batch_in_parts_gives_the_step_of_the_whole_batch(norm: str, loss: str) -> None:
    images = torch.rand(5, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    masks = torch.randint(0, 7, (5, 16, 32), generator=torch.Generator().manual_seed(1))
    masks[0, :12] = 255
    masks[3] = 255
    frequencies = torch.arange(1.0, 8.0) / 28
    losses, weights = [], []
    for accumulation_steps in (1, 2, 6):
        torch.manual_seed(0)
        config = TrialConfig(
            model="unet", width=8, depth=2, norm=norm, loss=loss, batch_size=6, optimizer="sgd", lr=1e-2,  # type: ignore[arg-type]
            accumulation_steps=accumulation_steps, class_weights="inverse-sqrt", precision="fp32",
        )  # fmt: skip
        learner = Learner(config, 7, frequencies, steps_per_epoch=1, max_epochs=1, device=CPU)
        losses.append(learner.step(images, masks).item())
        weights.append(torch.cat([p.detach().flatten() for p in learner.model.parameters()]))
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-5)
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=1e-4, atol=1e-6)


def test_a_batch_of_ignored_pixels_does_no_harm() -> None:
    learner = Learner(replace(TINY, norm="batch"), 7, None, steps_per_epoch=1, max_epochs=1, device=CPU)
    loss = learner.step(torch.rand(4, 3, 16, 32), torch.full((4, 16, 32), 255))
    assert loss.item() == 0
    assert all(p.isfinite().all() for p in learner.model.parameters())


def test_order_depends_on_seed_and_epoch_alone_and_uses_each_sample_once() -> None:
    batches = epoch_batches(10, 4, seed=3, epoch=1)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(np.concatenate(batches).tolist()) == list(range(10))
    again = epoch_batches(10, 4, seed=3, epoch=1)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    assert np.array_equal(np.concatenate(epoch_batches(10, 5, seed=3, epoch=1)), np.concatenate(batches))
    for other in (epoch_batches(10, 4, seed=3, epoch=2), epoch_batches(10, 4, seed=4, epoch=1)):
        assert not np.array_equal(np.concatenate(other), np.concatenate(batches))


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "sizes"),
    [(9, 4, [4, 4]), (8, 4, [4, 4]), (1, 4, [1]), (3, 1, [1, 1, 1]), (3, 8, [3]), (7, 4, [4, 3])],
)
def test_the_last_batch_is_kept_unless_it_is_a_single_sample(
    num_samples: int, batch_size: int, sizes: list[int]
) -> None:
    assert [len(batch) for batch in epoch_batches(num_samples, batch_size, 0, 0)] == sizes


def test_class_frequencies_are_shares_of_the_pixels_that_count(data_config: DataConfig) -> None:
    data = open_data(data_config)
    frequencies = Samples((data.train,), data.lut, CPU).class_frequencies(7)
    masks = data.lut[data.train.labels]
    expected = np.bincount(masks[masks != 255], minlength=7) / (masks != 255).sum()
    np.testing.assert_allclose(frequencies.numpy(), expected, rtol=1e-6)


def test_validation_does_not_depend_on_the_batch_size_and_leaves_weights_and_generators_alone(
    data_config: DataConfig,
) -> None:
    data = open_data(data_config)
    torch.manual_seed(0)
    learner = Learner(replace(TINY, dropout=0.5), 7, None, steps_per_epoch=1, max_epochs=1, device=CPU)
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    generator = torch.get_rng_state()
    results = [
        evaluate(
            learner.model,
            data.val,
            data.lut,
            7,
            batch_size=size,
            switches=learner.switches,
            device=CPU,
            loss=learner.loss,
        )
        for size in (1, 3, 4)
    ]
    for result in results[1:]:
        assert np.array_equal(result.by_label, results[0].by_label)
        assert result.loss == pytest.approx(results[0].loss, rel=1e-5)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())


def test_averaged_weights_follow_the_formula() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = AveragedModel(model, decay=0.5)
    expected = model[0].weight.detach().clone()
    for step in range(12):
        with torch.no_grad():
            model[0].weight.add_(1.0)
        model.train()(torch.rand(4, 2))
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    torch.testing.assert_close(average.module[0].weight, expected)
    assert average.module[1].num_batches_tracked == 12
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


def test_the_saved_model_is_the_validated_one(context: TrainContext, tmp_path: Path) -> None:
    assert context.data is not None
    data = open_data(context.data)
    for result in train(replace(TINY, ema_decay=0.5), context):
        assert result.save_model is not None
        assert result.state is not None
        result.save_model(tmp_path)
        weights, card = checkpoint.load_model_files(tmp_path)
        averaged = result.state()["ema"]["weights"]
        assert all(torch.equal(weights[name], averaged[name]) for name in averaged)
        assert card["score"] == result.metrics["val/miou"]
    assert card["epoch"] == 2
    assert card["groups"] == list(data.groups)
    assert card["size"] == [32, 64]
    assert TrialConfig(**card["config"]) == replace(TINY, ema_decay=0.5)


def test_validation_batches_cover_the_split_in_order(data_config: DataConfig) -> None:
    split = open_data(data_config).val
    batches = list(split_batches(split, 3, CPU))
    assert [len(images) for images, _ in batches] == [3, 1]
    assert np.array_equal(torch.cat([labels for _, labels in batches]).numpy(), split.labels)


def test_normalised_images_have_the_fixed_mean_and_deviation() -> None:
    grey = torch.full((1, 3, 1, 1), 0.5)
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    assert normalise(grey).flatten().tolist() == pytest.approx(expected)


def test_the_reported_metrics_are_those_of_the_reported_counts(context: TrainContext) -> None:
    (result, _) = train(TINY, context)
    by_class = np.zeros((35, 7), np.int64)
    by_class[:7] = np.array(result.confusion)  # label ids 0..6 stand for the classes here
    lut = np.full(256, 255, np.uint8)
    lut[:7] = np.arange(7)
    names = [key.removeprefix("val/iou/") for key in result.metrics if key.startswith("val/iou/")]
    for key, value in metrics_from_confusion(by_class, lut, names).items():
        assert result.metrics[key] == value
