"""Augmented 512x512 samples a second and core from 2048x1024 PNGs: segbench, PIL, cv2 + albumentations, torchvision.

    python benchmarks/data_path.py

Every variant ends at the same thing: batches of 8 float32 images in 0..1 and int64 class masks, flipped (0.5), cropped
and enlarged (1x to 2x) and recoloured. Ours reads its packed file, which was made once before; the others decode the
PNGs, as their users' loaders do in every epoch of every trial. *albumentations, packed* gives its transforms our packed
bytes, so that the two gains can be told apart; *ours, batched* runs the accelerator's tensor code on the CPU. Streets
with sensor noise stand in for photographs.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import measure
import numpy as np
import peers
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from segbench.core.config import DataConfig, TrialConfig
from segbench.data import SegmentationData, open_data
from segbench.data.streets import make_street
from segbench.training.batches import Samples

Batch = tuple[Tensor, Tensor]
Pair = tuple[Path, Path]
BATCH_SIZE, ZOOM, COLOR = 8, 2.0, 0.2
"""COLOR: brightness, contrast and saturation change by at most this factor."""
AUGMENTATION = TrialConfig(batch_size=BATCH_SIZE, flip=0.5, scale_max=ZOOM, color=2 * COLOR)


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument("--scenes", type=int, default=16, help="different PNGs")
    options = measure.set_up(parser.parse_args())
    bench = measure.Benchmark("data_path", options)
    size = 128 if options.quick else 512
    with tempfile.TemporaryDirectory() as folder:
        root = write_pngs(Path(folder), options.scenes, (2 * size, 4 * size))
        data = open_data(DataConfig(dataset="cityscapes", root=str(root), size=(size, size), cache_dir=folder))
        loaders = variants(data, pngs(root, data), size, options)
        # so many batches a round that each variant takes some tenths of a second
        counts = {name: {"ours": 16, "ours, batched": 4}.get(name, 1) for name in loaders}
        work = {name: take(loader, counts[name]) for name, loader in loaders.items()}
        seconds = measure.alternate(work, options)
    rates = {name: [BATCH_SIZE * counts[name] / value for value in values] for name, values in seconds.items()}
    reference = "cv2 + albumentations" if "cv2 + albumentations" in rates else "PIL"
    bench.add(f"{size}x{size}", rates, "samples/s", reference=reference)
    bench.target(f"{size}x{size}", "ours", "cv2 + albumentations", at_least=33)
    for package in ("albumentations", "torchvision"):
        if not peers.has(package):
            bench.note(f"{package} is not installed: left out (benchmarks/README.md).")
    bench.finish()


def variants(
    data: SegmentationData, files: list[Pair], size: int, options: argparse.Namespace
) -> dict[str, Iterator[Batch]]:
    """Return endless loaders by name."""
    device = torch.device(options.device)
    found = {
        "ours": ours(data, device, batched=None),
        "ours, batched": ours(data, device, batched=True),
        "PIL": batches(files, with_pil(data.lut, size)),
    }
    if peers.has("albumentations"):
        transform = albumentations_pipeline(size)
        found["cv2 + albumentations"] = batches(files, with_cv2(data.lut, transform))
        packed = list(zip(data.train.images, data.lut[data.train.labels], strict=True))
        found["albumentations, packed"] = batches(packed, lambda sample: as_tensors(transform, *sample))
    if peers.has("torchvision"):
        found["torchvision v2"] = batches(files, with_torchvision(data.lut, size))
    return found


def take(loader: Iterator[Batch], count: int) -> Callable[[], None]:
    """Return work that takes ``count`` batches."""

    def work() -> None:
        for images, masks in islice(loader, count):
            assert images.shape[:2] == (BATCH_SIZE, 3)
            assert (images.dtype, masks.dtype) == (torch.float32, torch.int64)

    return work


def ours(data: SegmentationData, device: torch.device, batched: bool | None) -> Iterator[Batch]:
    """Yield the batches of one epoch after another, whole ones only."""
    samples, epoch = Samples((data.train,), data.lut, device), 0
    while True:
        for images, masks in samples.epoch(AUGMENTATION, seed=0, epoch=epoch, batched=batched):
            if len(images) == BATCH_SIZE:
                yield images, masks
        epoch += 1


def batches(items: list[Any], load: Callable[[Any], Batch]) -> Iterator[Batch]:
    """Yield batches of random items, as a loader without workers makes them."""
    rng = np.random.default_rng(0)
    while True:
        samples = [load(items[place]) for place in rng.integers(len(items), size=BATCH_SIZE)]
        yield torch.stack([image for image, _ in samples]), torch.stack([mask for _, mask in samples])


def with_pil(lut: Any, size: int) -> Callable[[Pair], Batch]:
    """Return a loader of a sample that uses PIL for everything."""
    rng = np.random.default_rng(0)

    def load(pair: Pair) -> Batch:
        image: Any = Image.open(pair[0]).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        label: Any = Image.open(pair[1]).resize((size, size), Image.Resampling.NEAREST)
        part = size / ZOOM ** rng.random()
        left, top = rng.random(2) * (size - part)
        box = (left, top, left + part, top + part)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box)
        label = label.resize((size, size), Image.Resampling.NEAREST, box)
        if rng.random() < 0.5:
            image, label = ImageOps.mirror(image), ImageOps.mirror(label)
        for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = change(image).enhance(rng.uniform(1 - COLOR, 1 + COLOR))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
        return pixels, torch.from_numpy(lut[np.asarray(label)]).long()

    return load


def albumentations_pipeline(size: int) -> Any:
    """Return the transforms; images that are already of this size pass the first one by."""
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)
    transform = A.Compose(
        [
            A.Resize(size, size),
            A.RandomSizedCrop((round(size / ZOOM), size), (size, size), p=1),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter((1 - COLOR, 1 + COLOR), (1 - COLOR, 1 + COLOR), (1 - COLOR, 1 + COLOR), (0, 0), p=1),
            A.ToFloat(255),
            A.ToTensorV2(),
        ]
    )
    transform.set_random_seed(0)
    return transform


def with_cv2(lut: Any, transform: Any) -> Callable[[Pair], Batch]:
    """Return a loader of a sample that decodes by cv2."""
    import cv2

    def load(pair: Pair) -> Batch:
        image = cv2.cvtColor(cv2.imread(str(pair[0])), cv2.COLOR_BGR2RGB)
        label = cv2.imread(str(pair[1]), cv2.IMREAD_GRAYSCALE)
        return as_tensors(transform, image, lut[label])

    return load


def as_tensors(transform: Any, image: Any, mask: Any) -> Batch:
    """Return what albumentations makes of a sample."""
    result = transform(image=image, mask=mask)
    return result["image"], result["mask"].long()


def with_torchvision(lut: Any, size: int) -> Callable[[Pair], Batch]:
    """Return a loader of a sample that decodes by PIL and transforms tensors of bytes by torchvision."""
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.Resize((size, size), antialias=True),
            v2.RandomResizedCrop((size, size), scale=(ZOOM**-2, 1), ratio=(1, 1), antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(COLOR, COLOR, COLOR),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        ]
    )

    def load(pair: Pair) -> Batch:
        image = tv_tensors.Image(v2.functional.pil_to_tensor(Image.open(pair[0])))
        mask = tv_tensors.Mask(torch.from_numpy(lut[np.asarray(Image.open(pair[1]))]))
        image, mask = transform(image, mask)
        return image.as_subclass(Tensor), mask.as_subclass(Tensor).long()

    return load


def write_pngs(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write streets in the Cityscapes layout: ``count`` to train on, and what the other splits need."""
    root = folder / "scenes"
    for place in range(count + 3):
        split, city = ("train", "street") if place <= count else ("val", "lane")
        image, labels = make_street(0, place, size)
        stem = f"{city}_{place:06d}_000000"
        for kind, suffix, array in (("leftImg8bit", "leftImg8bit", image), ("gtFine", "gtFine_labelIds", labels)):
            path = root / kind / split / city / f"{stem}_{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return root


def pngs(root: Path, data: SegmentationData) -> list[Pair]:
    """Return image and label map of every training scene."""
    images: Iterable[Path] = sorted((root / "leftImg8bit").rglob("*.png"))
    pairs = ((path, Path(str(path).replace("leftImg8bit/", "gtFine/"))) for path in images)
    named = ((path, label.with_name(label.name.replace("leftImg8bit", "gtFine_labelIds"))) for path, label in pairs)
    return [pair for pair in named if pair[0].name.removesuffix("_leftImg8bit.png") in data.train.names]


if __name__ == "__main__":
    main()
