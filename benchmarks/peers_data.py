"""The peers' own ways to read PNGs, and a folder of full-size street scenes to read."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import peers  # noqa: F401  (before torchvision)
import torch
from PIL import Image

from segbench.core.config import DataConfig
from segbench.data import SegmentationData
from segbench.data.cityscapes import index_folder
from segbench.data.streets import make_street

FULL_SIZE = (1024, 2048)
FLIP, SCALE_MIN, SCALE_MAX, COLOR = 0.5, 1.0, 1.5, 0.4
"""Augmentation of all variants but HuggingFace's, which has the colours of its tutorial alone."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Files = Sequence[tuple[str, str]]
"""Image and label map of each scene."""


def street_folder(count: int, size: tuple[int, int] = FULL_SIZE) -> Path:
    """Return a folder in the Cityscapes layout with ``count`` generated scenes; made once, kept in the temp folder."""
    root = Path(gettempdir()) / "segbench-benchmarks" / f"streets-{size[0]}x{size[1]}-{count}"
    if not (root / "done").exists():
        with ProcessPoolExecutor() as pool:
            list(pool.map(_write_street, [root] * count, range(count), [size] * count))
        (root / "done").touch()
    return root


def _write_street(root: Path, index: int, size: tuple[int, int]) -> None:
    image, labels = make_street(0, index, size)
    for kind, array, suffix in (("leftImg8bit", image, "leftImg8bit"), ("gtFine", labels, "gtFine_labelIds")):
        path = root / kind / "train" / "streets" / f"streets_{index:06d}_000000_{suffix}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def training_files(config: DataConfig, data: SegmentationData) -> Files:
    """Return the files of train and val, which all variants train on."""
    assert config.root is not None
    pair_of = {pair.scene.name: pair for pair in index_folder(Path(config.root))}
    pairs = [pair_of[name] for name in (*data.train.names, *data.val.names)]
    return [(str(pair.image), str(pair.label)) for pair in pairs]


class AlbumentationsDataset(torch.utils.data.Dataset[Any]):
    """cv2 reads, albumentations does the rest: (image, mask) as tensors."""

    def __init__(self, files: Files, lut: Any, size: tuple[int, int]) -> None:
        import albumentations as A
        import cv2
        from albumentations.pytorch import ToTensorV2

        cv2.setNumThreads(torch.get_num_threads())
        self.files, self.lut, self.cv2 = files, lut, cv2
        self.transform = A.Compose(
            [
                A.RandomResizedCrop(size=size, scale=(SCALE_MAX**-2, SCALE_MIN), ratio=(size[1] / size[0],) * 2),
                A.HorizontalFlip(p=FLIP),
                A.ColorJitter(brightness=COLOR / 2, contrast=COLOR / 2, saturation=COLOR / 2, hue=0, p=1),
                A.Normalize(MEAN, STD),
                ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image_path, label_path = self.files[index]
        image = self.cv2.cvtColor(self.cv2.imread(image_path), self.cv2.COLOR_BGR2RGB)
        mask = self.lut[self.cv2.imread(label_path, self.cv2.IMREAD_GRAYSCALE)]
        sample = self.transform(image=image, mask=mask)
        return sample["image"], sample["mask"].long()


class ProcessorDataset(torch.utils.data.Dataset[Any]):
    """PIL reads, torchvision jitters, SegformerImageProcessor resizes and normalises, as in HuggingFace's tutorial."""

    def __init__(self, files: Files, lut: Any, size: tuple[int, int]) -> None:
        from torchvision.transforms import v2
        from transformers import SegformerImageProcessor

        self.files, self.lut = files, lut
        self.jitter = v2.ColorJitter(brightness=COLOR / 2, contrast=COLOR / 2, saturation=COLOR / 2)
        self.processor = SegformerImageProcessor(size={"height": size[0], "width": size[1]}, do_reduce_labels=False)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image_path, label_path = self.files[index]
        with Image.open(image_path) as image, Image.open(label_path) as label:
            jittered, mask = self.jitter(image.convert("RGB")), self.lut[np.asarray(label)]
        sample = self.processor(jittered, segmentation_maps=mask, return_tensors="pt")
        return {"pixel_values": sample["pixel_values"][0], "labels": sample["labels"][0]}
