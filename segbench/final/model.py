"""A trained model read back from its folder: pictures in, classes out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from segbench.core.config import TrialConfig
from segbench.core.errors import CheckpointError
from segbench.data.labels import IGNORED_IDS, Color
from segbench.models import build_model
from segbench.training.batches import normalise, to_device, to_images
from segbench.training.checkpoint import MODEL_FILE, load_model_files
from segbench.training.confusion import predict_classes
from segbench.training.switches import Precision, Switches, switches_for

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A module in eval mode and what its outputs mean."""

    module: nn.Module
    """In eval mode, without gradients."""
    config: TrialConfig
    """All settings that it was trained with."""
    switches: Switches
    """Those that it was trained and validated with."""
    groups: tuple[str, ...]
    """Class names in class order."""
    colors: tuple[Color, ...]
    """RGB of each class."""
    size: tuple[int, int]
    """Height and width that it was trained at."""
    lut: Pixels
    """uint8[256], label id -> class, or 255."""
    card: Mapping[str, Any]
    """All that ``config.json`` says."""
    device: torch.device
    """Where it computes."""

    @property
    def num_parameters(self) -> int:
        """Number of trained weights."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @torch.inference_mode()
    def predict(self, images: Pixels, batch_size: int = 8) -> Pixels:
        """Return the class index of each pixel, uint8 (N, H, W).

        Args:
            images: uint8 (N, H, W, 3) RGB of any one size; best is the size of the training.
            batch_size: images at a time.
        """
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise ValueError(f"images are {images.dtype} {images.shape}; give uint8 (N, H, W, 3), RGB")
        predictions = [np.zeros((0, *images.shape[1:3]), np.uint8)]
        for start in range(0, len(images), batch_size):
            batch = to_images(to_device(np.array(images[start : start + batch_size]), self.device))
            with self.switches.autocast(self.device):
                logits = self.module(normalise(batch))
            predictions.append(predict_classes(logits).cpu().numpy())
        return np.concatenate(predictions)

    def predict_image(self, image: Pixels) -> Pixels:
        """Return the class index of each pixel of one picture of any size, uint8 (H, W).

        The picture (uint8 (H, W, 3) RGB) is resized to the size of the training; the classes are resized back by
        nearest neighbour.
        """
        height, width = self.size
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        classes = Image.fromarray(self.predict(np.asarray(resized)[None])[0])
        return np.asarray(classes.resize((image.shape[1], image.shape[0]), Image.Resampling.NEAREST))

    @property
    def label_ids(self) -> Pixels:
        """The label id that stands for each class in label PNGs, uint8 (K,).

        It is the smallest id of the group that counts in the official evaluation (flat: 7, road; vehicle: 26, car),
        or the smallest id if none does (void: 0).
        """
        ids = [np.flatnonzero(self.lut == index).tolist() for index in range(len(self.groups))]
        return np.array([min(i, key=lambda id_: (id_ in IGNORED_IDS, id_)) for i in ids], np.uint8)

    def colorize(self, classes: Pixels) -> Pixels:
        """Return RGB (..., 3) for class indices; black for 255."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self.colors)] = self.colors
        return palette[classes]


def load_model(folder: str | Path, device: str = "cpu", precision: Precision | None = None) -> LoadedModel:
    """Read a model folder (``model.safetensors`` and ``config.json``).

    Args:
        folder: that one.
        device: where it runs.
        precision: of its arithmetic; None: as in training, which is how it was validated and is tested. Predictions
            that leave segbench use fp32, so that every device and every exported format gives the same label map.

    Raises:
        CheckpointError: it is not a model folder, it is damaged, or of a version that this one does not know.
    """
    folder, target = Path(folder), torch.device(device)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give a model folder, such as runs/<name>/models/<model>")
    weights, card = load_model_files(folder)
    try:
        config = TrialConfig(**card["config"])
        switches = Switches(**card["switches"]) if "switches" in card else switches_for(config, target)
        switches = switches if precision is None else replace(switches, precision=precision)
        # random weights are drawn and overwritten: leave the caller's generator as it was
        with torch.random.fork_rng(devices=[]):
            module = build_model(replace(config, pretrained=None), len(card["groups"]))
        module.load_state_dict(weights)
        height, width = card["size"]
        colors = tuple((int(r), int(g), int(b)) for r, g, b in card["colors"])
        lut = np.array(card["lut"], np.uint8)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder / MODEL_FILE}: does not fit this version of segbench "
            f"({' '.join(str(error).split())[:200]}); use the version that wrote it"
        ) from error
    return LoadedModel(
        module=switches.place(module, target).eval().requires_grad_(False),
        config=config,
        switches=switches,
        groups=tuple(card["groups"]),
        colors=colors,
        size=(height, width),
        lut=lut,
        card=card,
        device=target,
    )
