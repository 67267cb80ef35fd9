"""The confusion matrix of a batch, and the whole tail of a validation: segbench, torchmetrics, HuggingFace's algorithm.

    python benchmarks/metric.py

*update* takes predictions and truth as each library's users have them (ours: uint8 label ids; the others: int64
classes) and adds to the counts. *tail* begins at logits of 1/4 size: upsample, class of each pixel, count, mean IoU.
HuggingFace's `mean_iou` is a script that `evaluate` downloads; its algorithm (three numpy histograms an image) is
written down here from its description. All that count over the whole set must agree on the mean IoU, or this fails.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import measure
import numpy as np
import peers
import torch
from torch import Tensor
from torch.nn import functional as F

from segbench.data.labels import IGNORE_INDEX, build_lut
from segbench.training.confusion import count_pixels, predict_classes
from segbench.training.metrics import NUM_LABELS, class_iou, group_rows, mean_of_present

Score = Callable[[], float]
"""Does the work and returns the mean IoU."""


class Samples:
    """Label ids in blocks, and logits of 1/4 size that are mostly right; all ids count, because MeanIoU rejects 255."""

    def __init__(self, batch_size: int, size: int, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        groups, _, self.lut = build_lut(None)
        self.num_classes = len(groups)
        self.size = size
        blocks = torch.randint(0, 34, (batch_size, size // 32, size // 32), generator=generator)
        ids = blocks.repeat_interleave(32, dim=1).repeat_interleave(32, dim=2)
        self.label_ids = ids.to(device, torch.uint8)
        self.classes = torch.from_numpy(self.lut.astype(np.int64)).to(device)[ids.to(device)]
        truth = F.one_hot(self.classes[:, ::4, ::4], self.num_classes).permute(0, 3, 1, 2)
        noise = torch.randn(truth.shape, generator=generator).to(device)
        self.logits = (3 * truth + noise).contiguous()
        self.prediction = self.upsample().argmax(1)

    def upsample(self) -> Tensor:
        """Return full-size logits."""
        return F.interpolate(self.logits, size=(self.size, self.size), mode="bilinear", align_corners=False)


class Counts:
    """Our confusion matrix by label id."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.total = torch.zeros(NUM_LABELS, samples.num_classes, dtype=torch.int64, device=samples.logits.device)

    def update(self, prediction: Tensor) -> None:
        """Count a batch."""
        self.total += count_pixels(prediction, self.samples.label_ids, self.samples.num_classes)

    def score(self) -> float:
        """Return the mean IoU and start again."""
        miou = mean_of_present(class_iou(group_rows(self.total.cpu().numpy(), self.samples.lut)))
        self.total.zero_()
        return miou


class HistogramIoU:
    """HuggingFace's algorithm: per image, histograms of prediction, truth, and their intersection."""

    def __init__(self, num_classes: int) -> None:
        self.bins, self.limits = num_classes, (0, num_classes - 1)
        self.reset()

    def reset(self) -> None:
        """Start again."""
        self.intersection, self.union = np.zeros(self.bins), np.zeros(self.bins)

    def update(self, predictions: Sequence[Any], truths: Sequence[Any]) -> None:
        """Count a batch, image by image."""
        for prediction, truth in zip(predictions, truths, strict=True):
            valid = truth != IGNORE_INDEX
            predicted, true = prediction[valid], truth[valid]
            areas = [
                np.histogram(pixels, bins=self.bins, range=self.limits)[0]
                for pixels in (predicted[predicted == true], predicted, true)
            ]
            self.intersection += areas[0]
            self.union += areas[1] + areas[2] - areas[0]

    def score(self) -> float:
        """Return the mean IoU and start again."""
        with np.errstate(invalid="ignore"):
            miou = float(np.nanmean(self.intersection / self.union))
        self.reset()
        return miou


def updates(samples: Samples) -> dict[str, tuple[Callable[[], object], Score]]:
    """Return for each variant its update, and its score, which must be called after one update."""
    counts, histogram = Counts(samples), HistogramIoU(samples.num_classes)
    small = samples.prediction.to(torch.uint8)
    predictions, truths = samples.prediction.cpu().numpy(), samples.classes.cpu().numpy()
    found: dict[str, tuple[Callable[[], object], Score]] = {
        "ours": (lambda: counts.update(small), counts.score),
        "HF mean_iou": (lambda: histogram.update(predictions, truths), histogram.score),
    }
    for name, metric in torchmetrics(samples).items():
        update = partial(metric.update, samples.prediction, samples.classes)
        found[name] = (update, partial(finish, metric))
    return found


def tails(samples: Samples) -> dict[str, Score]:
    """Return for each variant all that happens to a batch's logits."""
    counts, histogram = Counts(samples), HistogramIoU(samples.num_classes)

    def ours() -> float:
        counts.update(predict_classes(samples.upsample()))
        return counts.score()

    def huggingface() -> float:
        prediction = samples.upsample().argmax(dim=1).cpu().numpy()
        histogram.update(prediction, samples.classes.cpu().numpy())
        return histogram.score()

    found: dict[str, Score] = {"ours": ours, "HF mean_iou": huggingface}
    for name, metric in torchmetrics(samples).items():
        found[name] = partial(tail_of, metric, samples)
    return found


def torchmetrics(samples: Samples) -> dict[str, Any]:
    """Return torchmetrics' metrics, if it is installed."""
    if not peers.has("torchmetrics"):
        return {}
    from torchmetrics import JaccardIndex
    from torchmetrics.segmentation import MeanIoU

    settings = {"task": "multiclass", "num_classes": samples.num_classes, "ignore_index": IGNORE_INDEX}
    metrics = {
        "JaccardIndex": JaccardIndex(**settings),
        "JaccardIndex, unvalidated": JaccardIndex(**settings, validate_args=False),
        "MeanIoU (per image)": MeanIoU(num_classes=samples.num_classes, input_format="index"),
    }
    return {name: metric.to(samples.logits.device) for name, metric in metrics.items()}


def tail_of(metric: Any, samples: Samples) -> float:
    """Return the mean IoU as torchmetrics' users get it from logits."""
    metric.update(samples.upsample().argmax(dim=1), samples.classes)
    return finish(metric)


def finish(metric: Any) -> float:
    """Return a torchmetrics score and start again."""
    score = float(metric.compute())
    metric.reset()
    return score


def check_agreement(scores: dict[str, float]) -> None:
    """Fail if those that count over the whole set differ."""
    for name, score in scores.items():
        if "per image" not in name and abs(score - scores["ours"]) > 1e-5:
            raise SystemExit(f"{name} has a mean IoU of {score}, ours is {scores['ours']}")


def main() -> None:
    """Measure both."""
    parser = measure.parser(__doc__)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=10, help="updates a round; the tail has a fifth")
    options = measure.set_up(parser.parse_args())
    if options.quick:
        options.size, options.repeats = 64, 1
    bench = measure.Benchmark("metric", options)
    samples = Samples(options.batch_size, options.size, options.device)
    shape = f"B{options.batch_size} {options.size}² {samples.num_classes} classes"

    case = f"update {shape}"
    if bench.wants(case):
        pairs = updates(samples)
        works = {name: times(update, options.repeats) for name, (update, _) in pairs.items()}
        for update, _ in pairs.values():
            update()
        check_agreement({name: score() for name, (_, score) in pairs.items()})
        seconds = measure.alternate(works, options)
        bench.add(case, measure.rates(seconds, options.repeats), "updates/s", reference="HF mean_iou")
        bench.target(case, "ours", "JaccardIndex", at_least=25)
        bench.target(case, "ours", "JaccardIndex, unvalidated", at_least=10)
        bench.target(case, "ours", "HF mean_iou", at_least=15)

    case = f"tail {shape}"
    if bench.wants(case):
        scores = tails(samples)
        check_agreement({name: score() for name, score in scores.items()})
        repeats = max(1, options.repeats // 5)
        seconds = measure.alternate({name: times(score, repeats) for name, score in scores.items()}, options)
        bench.add(case, measure.rates(seconds, repeats), "batches/s", reference="HF mean_iou")
        for other in ("JaccardIndex", "JaccardIndex, unvalidated", "MeanIoU (per image)", "HF mean_iou"):
            bench.target(case, "ours", other, at_least=4)
    if not peers.has("torchmetrics"):
        bench.note("skipped: torchmetrics is not installed")
    bench.finish()


def times(work: Callable[[], object], count: int) -> measure.Work:
    """Return a work that does ``work`` so many times."""

    def repeated() -> None:
        for _ in range(count):
            work()

    return repeated


if __name__ == "__main__":
    main()
