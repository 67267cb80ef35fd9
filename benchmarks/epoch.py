"""One epoch from files on disk: segbench, and the loaders of its users, beside a step whose tensors are in memory.

    python benchmarks/epoch.py                              # 2048x1024 PNGs to 512x512
    python benchmarks/epoch.py --camvid data/camvid         # and CamVid at 128x128

Validation is left out everywhere. *ours* is `train()` on packed data, augmentation included; *limit* is the same
network with the same switches, stepping over tensors in memory. The first epoch (packing, imports, warm-up) is not
counted. The others train the stock model in float32 from PNGs, with `--workers` loader processes.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import measure
import numpy as np
import peers
import torch
from peers_data import (
    COLOR,
    FLIP,
    SCALE_MAX,
    SCALE_MIN,
    AlbumentationsDataset,
    ProcessorDataset,
    street_folder,
    training_files,
)

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.records import TrainContext
from segbench.data import open_data
from segbench.training.learner import Learner
from segbench.training.loop import train

BATCH_SIZE = 8
MANY_EPOCHS = 1000
NETWORKS: dict[str, dict[str, Any]] = {
    "unet-16": {"model": "unet", "width": 16},
    "segformer-b0": {"model": "segformer", "variant": "mit-b0"},
}


def trial_config(network: str, **settings: Any) -> TrialConfig:
    """Return our settings."""
    augmentation = {"flip": FLIP, "scale_min": SCALE_MIN, "scale_max": SCALE_MAX, "color": COLOR}
    return TrialConfig(batch_size=BATCH_SIZE, **NETWORKS[network], **augmentation, **settings)


def data_config(root: Path, size: int, limit: int | None = None) -> DataConfig:
    """Return our data settings."""
    cache = Path(gettempdir()) / "segbench-benchmarks" / "packed"
    return DataConfig(dataset="cityscapes", root=str(root), size=(size, size), limit=limit, cache_dir=str(cache))


def ours(network: str, config: DataConfig, options: argparse.Namespace) -> measure.Work:
    """Our whole epoch, by our training function."""
    context = TrainContext(max_epochs=MANY_EPOCHS, device=options.device, data=config, train_on="train+val")
    epochs = train(trial_config(network), context)
    next(epochs)
    return lambda: discard(next(epochs))


def limit(network: str, config: DataConfig, options: argparse.Namespace) -> measure.Work:
    """The steps of the same epoch over tensors in memory."""
    data = open_data(config)
    images = np.concatenate([data.train.images, data.val.images])
    labels = np.concatenate([data.train.labels, data.val.labels])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div_(255).to(options.device)
    masks = torch.from_numpy(data.lut[labels].astype(np.int64)).to(options.device)
    batches = [batch for batch in zip(pixels.split(BATCH_SIZE), masks.split(BATCH_SIZE), strict=True)]
    if len(batches) > 1 and len(batches[-1][0]) == 1:  # as in training: batch norm needs two
        batches.pop()
    torch.manual_seed(0)
    learner = Learner(
        trial_config(network),
        len(data.groups),
        None,
        steps_per_epoch=len(batches),
        max_epochs=MANY_EPOCHS,
        device=torch.device(options.device),
    )
    learner.model.train()

    def epoch() -> None:
        losses = torch.zeros((), device=options.device)
        for batch in batches:
            losses += learner.step(*batch)
        losses.item()

    epoch()
    return epoch


def png_loop(network: str, config: DataConfig, options: argparse.Namespace) -> measure.Work:
    """A plain loop over a DataLoader of PNGs, by cv2 and albumentations."""
    data = open_data(config)
    dataset = AlbumentationsDataset(training_files(config, data), data.lut, config.size)
    loader = torch.utils.data.DataLoader(
        dataset, BATCH_SIZE, shuffle=True, num_workers=options.workers, persistent_workers=options.workers > 0
    )
    loop = peers.PlainLoop(peers.stock_model(trial_config(network), len(data.groups)), options.device)

    def epoch() -> None:
        for images, masks in loader:
            loop.step(images.to(options.device), masks.to(options.device)).item()

    return epoch


def hf_trainer(network: str, config: DataConfig, options: argparse.Namespace) -> measure.Work:
    """HuggingFace's Trainer over PNGs; one step more is made before the epoch's, which are counted."""
    data = open_data(config)
    dataset = ProcessorDataset(training_files(config, data), data.lut, config.size)
    model = peers.stock_model(trial_config(network), len(data.groups))
    steps = -(-len(dataset) // BATCH_SIZE)
    return peers.trainer_run(model, dataset, steps, BATCH_SIZE, device=options.device, workers=options.workers)


def discard(result: object) -> None:
    """Forget a result: it is not a time."""


Maker = Callable[[str, DataConfig, argparse.Namespace], measure.Work]
MAKERS: dict[str, tuple[tuple[str, ...], Maker]] = {
    "limit": ((), limit),
    "ours": ((), ours),
    "png loader": (("albumentations", "opencv-python-headless"), png_loop),
    "HF Trainer": (("accelerate", "torchvision"), hf_trainer),
}
"""Packages that a variant needs, and how to make its epoch."""


def main() -> None:
    """Measure both data sets."""
    parser = measure.parser(__doc__)
    parser.add_argument("--images", type=int, default=24, help="full-size scenes, test split included")
    parser.add_argument("--camvid", type=Path, help="CamVid in the Cityscapes layout")
    parser.add_argument("--camvid-images", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0, help="loader processes of the peers")
    options = measure.set_up(parser.parse_args())
    sources = {"streets 512²": (lambda: street_folder(options.images), 512, None)}
    if options.quick:
        sources = {"streets 32²": (lambda: street_folder(6, (64, 128)), 32, None)}
    if options.camvid is not None:
        sources["camvid 128²"] = (lambda: options.camvid, 128, options.camvid_images)
    bench = measure.Benchmark("epoch", options)
    for source, (folder, size, count) in sources.items():
        for network in NETWORKS:
            case = f"{network} {source}"
            if bench.wants(case):
                run_case(bench, case, network, data_config(folder(), size, count))
    for package in sorted({name for needed, _ in MAKERS.values() for name in needed if not peers.has(name)}):
        bench.note(f"skipped: {package} is not installed")
    bench.finish()


def run_case(bench: measure.Benchmark, case: str, network: str, config: DataConfig) -> None:
    """Measure one network on one data set."""
    started = time.perf_counter()
    data = open_data(config)
    opened_s = time.perf_counter() - started
    count = len(data.train.names) + len(data.val.names)
    works = {
        name: make(network, config, bench.options)
        for name, (needed, make) in MAKERS.items()
        if all(map(peers.has, needed))
    }
    seconds = measure.alternate(works, bench.options)
    bench.add(case, measure.rates(seconds, count), "images/s", reference="limit")
    bench.target(case, "ours", "limit", at_least=0.97)
    bench.note(f"{case}: {count} images an epoch; opening the data (packed on first use) took {opened_s:.1f} s")


if __name__ == "__main__":
    main()
