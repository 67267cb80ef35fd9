"""Sweeps as their ledgers tell them, written through the real ledger with a clock that the test moves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from simulated_segmentations import draw_images

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.ledger import Ledger
from segbench.core.paths import Stage, SweepPaths, atomic_write
from segbench.core.records import Assignment, Confusion, EpochRecord, TrialState
from segbench.data import open_data
from segbench.final.images import ImageResults, encode_label_map, write_image_results
from segbench.spec.load import dump_spec
from segbench.spec.schema import SweepSpec
from segbench.training.metrics import class_iou, mean_of_present

GROUPS = ("void", "flat", "construction", "object", "nature", "sky", "human", "vehicle")
START = 1_700_000_000.0


def make_spec(**changes: Any) -> SweepSpec:
    sections: dict[str, Any] = {
        "name": "demo",
        "parameters": {"lr": {"min": 1e-4, "max": 1e-2}},
        "baselines": [{"name": "unet", "parameters": {"model": "unet"}}],
        "retrain": {"top_k": 1, "seeds": 2},
    }
    return SweepSpec.model_validate({**sections, **changes})


@dataclass
class Clock:
    """Unix time that advances by ``step_s`` whenever it is read."""

    now: float = START
    step_s: float = 1.0

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


@dataclass
class SweepWriter:
    """Writes ledgers as a sweep would."""

    paths: SweepPaths
    clock: Clock = field(default_factory=Clock)
    ledgers: dict[Stage, Ledger] = field(default_factory=dict)

    def start(
        self,
        stage: Stage,
        number: int,
        name: str,
        *,
        source: int | None = None,
        params: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        origin: str = "search",
    ) -> None:
        assignment = Assignment(
            number=number,
            name=name,
            origin="baseline" if origin == "baseline" else "search",
            params=params or {},
            config=config if config is not None else asdict(TrialConfig(**(params or {}))),
            seed=number,
            max_epochs=9,
            source=source,
        )
        self._ledger(stage).start(assignment)

    def epoch(
        self, stage: Stage, number: int, epoch: int, score: float, metrics: Mapping[str, Any] | None = None
    ) -> None:
        record = EpochRecord(
            epoch=epoch,
            score=score,
            metrics=segmentation_metrics("val", score) if metrics is None else metrics,
            confusion=confusion(score) if metrics is None else None,
            seconds=2.0,
        )
        self._ledger(stage).epoch(number, record)

    def end(self, stage: Stage, number: int, state: TrialState = TrialState.COMPLETE, reason: str = "") -> None:
        self._ledger(stage).end(number, state, reason)

    def trial(
        self,
        stage: Stage,
        number: int,
        name: str,
        scores: Sequence[float],
        state: TrialState = TrialState.COMPLETE,
        reason: str = "",
        **start: Any,
    ) -> None:
        self.start(stage, number, name, **start)
        for epoch, score in enumerate(scores, start=1):
            self.epoch(stage, number, epoch, score)
        self.end(stage, number, state, reason)

    def audited(self, number: int, name: str, scores: Sequence[float], rung: int, **start: Any) -> None:
        """A trial that was to be stopped at ``rung`` and ran on."""
        self.start("search", number, name, **start)
        for epoch, score in enumerate(scores, start=1):
            self.epoch("search", number, epoch, score)
            if epoch == rung:
                self._ledger("search").audit(number, rung)
        self.end("search", number)

    def test(self, number: int, name: str, miou: float, source: int, **start: Any) -> None:
        self.start("test", number, name, source=source, **start)
        metrics = {**segmentation_metrics("test", miou), **costs(source)}
        record = EpochRecord(epoch=1, score=math.nan, metrics=metrics, confusion=confusion(miou), seconds=2.0)
        self._ledger("test").epoch(number, record)
        self.end("test", number)
        folder = self.paths.trial("test", name)
        atomic_write(folder / "confusion.csv", "truth,flat\nflat,3\n")
        atomic_write(folder / "examples" / "scene.png", "a picture")

    def close(self) -> None:
        for ledger in self.ledgers.values():
            ledger.close()

    def _ledger(self, stage: Stage) -> Ledger:
        if stage not in self.ledgers:
            self.ledgers[stage] = Ledger(self.paths.ledger(stage), self.clock)
        return self.ledgers[stage]


def segmentation_metrics(split: str, miou: float) -> dict[str, float]:
    return {
        f"{split}/loss": 1 - miou,
        f"{split}/miou": miou,
        **{f"{split}/iou/{group}": miou + 0.01 * index for index, group in enumerate(GROUPS)},
        f"{split}/miou_official": miou - 0.1,
    }


def costs(number: int) -> dict[str, Any]:
    """What the test stage measures of a model: seeds of a row, two after each other, differ only in the latency."""
    size = 1 + number // 2
    return {
        "model/parameters": 1_000_000 * size,
        "model/gmacs": 1.5 * size**2,
        "model/latency_ms": 10.0 * size + number % 2,
        "model/latency_batch_ms": 36.0 * size + number % 2,
        "model/peak_mib": 100.0 / size,
        "model/batch_size": 4,
        "model/device": "a processor, 1 thread",
    }


def confusion(score: float) -> Confusion:
    right = 0 if math.isnan(score) else round(100 * score)
    return tuple(tuple(right if row == column else 1 for column in range(8)) for row in range(8))


def write_demo(writer: SweepWriter) -> None:
    """A small whole sweep: a baseline, two trials of which one is pruned, a NaN; two seeds each, tested."""
    unet = {"params": {"model": "unet"}, "origin": "baseline"}
    winner = {"params": {"model": "segformer", "lr": 0.002}}
    writer.trial("search", 0, "baseline-unet", [0.2, 0.35, 0.3], **unet)
    writer.trial("search", 1, "trial-0001", [0.1], TrialState.PRUNED, "rung 1", params={"lr": 0.01})
    writer.trial("search", 2, "trial-0002", [0.3, math.nan], TrialState.FAIL, "nan", params={"lr": 0.009})
    writer.trial("search", 3, "trial-0003", [0.3, 0.4, 0.45], **winner)
    for number, (source, name, scores, start) in enumerate(
        [
            (0, "baseline-unet-seed-0", [0.3, 0.34], unet),
            (0, "baseline-unet-seed-1", [0.2, 0.38], unet),
            (3, "trial-0003-seed-0", [0.5, 0.44], winner),
            (3, "trial-0003-seed-1", [0.4, 0.46], winner),
        ]
    ):
        writer.trial("retrain", number, name, scores, source=source, **start)
        writer.test(number, name, scores[-1] - 0.02, source=number, **start)
    atomic_write(writer.paths.spec, dump_spec(make_spec()))
    atomic_write(writer.paths.versions, '{"commit":"old"}\n{"commit":"0123abc"}\n')


def write_tested(writer: SweepWriter, num_images: int = 40) -> None:
    """Three finalists with two seeds each; the first two are equally good, the third confuses a lot."""
    rng = np.random.default_rng(0)
    good = draw_images(rng, num_images, num_models=6)
    names = tuple(f"image {index}" for index in range(num_images))
    for number in range(3):
        writer.trial("search", number, f"trial-{number}", [0.5 - number / 10])
    for number, counts in enumerate(good):
        source = number // 2
        if source == 2:
            counts = counts // 2
            counts[:, :, 0] += good[number].sum(axis=2) - counts.sum(axis=2)
        name = f"trial-{source}-seed-{number % 2}"
        writer.trial("retrain", number, name, [0.5 - source / 10], source=source)
        writer.test(number, name, mean_of_present(class_iou(counts.sum(axis=0))), source=number)
        results = ImageResults(names, GROUPS, counts, (b"",) * num_images)
        write_image_results(results, writer.paths.trial("test", name))
    atomic_write(writer.paths.spec, dump_spec(make_spec()))


def write_searched(writer: SweepWriter, first: int = 3) -> None:
    """More trials of a search that has begun: twelve with parameters, some stopped, two audited, one failed."""
    rng = np.random.default_rng(1)
    for number in range(first, first + 12):
        name, lr = f"trial-{number}", round(float(10 ** rng.uniform(-4, -2)), 6)
        start = {"params": {"lr": lr}}
        scores = [round(float(value), 5) for value in np.sort(rng.uniform(0.05, 0.48, 9))]
        kind = (number - first) % 6
        if kind in (0, 1):
            writer.trial(
                "search", number, name, scores[: 1 + 2 * kind], TrialState.PRUNED, f"rung {1 + 2 * kind}", **start
            )
        elif kind == 2:
            writer.audited(number, name, scores, 1 if number < first + 6 else 3, **start)
        elif kind == 3 and number > first + 6:
            writer.trial("search", number, name, [scores[0], math.nan], TrialState.FAIL, "nan", **start)
        else:
            writer.trial("search", number, name, scores, **start)


def write_pictures(writer: SweepWriter, cache: Path) -> None:
    """Give the finalists of :func:`write_tested` predictions on nine street scenes, each wrong somewhere else."""
    settings = {"size": (32, 64), "num_images": (4, 2, 9), "cache_dir": str(cache)}
    data = open_data(DataConfig(**settings))
    truth = data.lut[data.test.labels]
    atomic_write(writer.paths.spec, dump_spec(make_spec(data=settings)))
    for source in range(3):
        for seed in range(2):
            wrong = truth.copy()
            for index in range(9):
                wrong[index, : (index + source) % 9 * 3] = 0
            counts = np.stack([
                np.bincount(t.ravel().astype(int) * 8 + w.ravel(), minlength=64).reshape(8, 8)
                for t, w in zip(truth, wrong, strict=True)
            ])  # fmt: skip
            maps = tuple(map(encode_label_map, wrong))
            results = ImageResults(data.test.names, GROUPS, counts, maps)
            write_image_results(results, writer.paths.trial("test", f"trial-{source}-seed-{seed}"))
