"""A trained model in the formats of other tools: a HuggingFace folder, ONNX, torch.export.

Each is read back by the tool that it is for, and its logits compared with the model's own, before it takes its place.
"""

import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segbench.core.errors import SegbenchError, UserError
from segbench.final.model import LoadedModel, Pixels, load_model
from segbench.models.pretrained import quiet
from segbench.training.batches import MEAN, STD, normalise, to_images
from segbench.training.confusion import predict_classes

ModelFormat = Literal["huggingface", "onnx", "torch-export"]
Logits = npt.NDArray[np.float32]
Run = Callable[[Pixels], Logits]
"""Pixels (N, H, W, 3) uint8 to logits (N, K, H, W), by the tool that reads the exported files."""

TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit where that is above 1."""

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    files: tuple[str, ...]
    difference: float
    """Largest difference of a logit from the model's own."""


def export_model(source: str | Path, format_: ModelFormat, out: Path) -> Exported:
    """Write the model folder ``source`` to the folder ``out`` in another format, checked.

    Raises:
        UserError: no model folder, a model that the format cannot hold, or a package that is missing.
        SegbenchError: the exported model computes something else.
    """
    write = {"huggingface": write_huggingface, "onnx": write_onnx, "torch-export": write_torch_export}[format_]
    model = load_model(source, precision="fp32")
    model.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        run = write(model, Path(temporary))
        difference = largest_difference(model, run)
        if not difference <= TOLERANCE:
            raise SegbenchError(
                f"{source} as {format_}: its logits differ by {difference:.2g} from the model's own, more than "
                f"{TOLERANCE}; nothing was written"
            )
        files = tuple(sorted(path.name for path in Path(temporary).iterdir()))
        out.mkdir(exist_ok=True)
        for name in files:
            (Path(temporary) / name).chmod(0o644)
            (Path(temporary) / name).replace(out / name)
    return Exported(out, files, difference)


def largest_difference(model: LoadedModel, run: Run) -> float:
    """Return how far logits are apart on noise, for one image and for three, relative to the largest if above 1."""
    differences = []
    for num_images in (1, 3):
        images = np.random.default_rng(num_images).integers(0, 256, (num_images, *model.size, 3), np.uint8)
        with torch.inference_mode():
            expected = Deployable(model.module)(torch.from_numpy(images))[1].numpy()
        scale = max(1.0, float(np.abs(expected).max()))
        differences.append(float(np.abs(run(images) - expected).max()) / scale)
    return max(differences)


class Deployable(nn.Module):
    """A model with what stands around it: pixels in, classes and logits out."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return classes, uint8 (N, H, W), and logits, float32 (N, K, H, W), of RGB pixels, uint8 (N, H, W, 3)."""
        logits = self.module(normalise(to_images(images)))
        return predict_classes(logits), logits


def write_torch_export(model: LoadedModel, folder: Path) -> Run:
    """Write ``model.pt2`` and ``config.json``; the batch size is free, height and width are those of the training."""
    path = folder / "model.pt2"
    torch.export.save(_trace(model), path)
    _write_card(model, folder)
    program = torch.export.load(path).module()

    def run(images: Pixels) -> Logits:
        with torch.inference_mode():
            logits: Logits = program(torch.from_numpy(images))[1].numpy()
        return logits

    return run


def write_onnx(model: LoadedModel, folder: Path) -> Run:
    """Write ``model.onnx`` and ``config.json``; the batch size is free, height and width are those of the training."""
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX export needs {', '.join(missing)}: pip install 'segbench[export]'")
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # says four times that there is no torchvision
    path = folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's, about its own code
        program = torch.onnx.export(
            _trace(model),
            input_names=["images"],
            output_names=["classes", "logits"],
            dynamic_shapes={"images": {0: "batch"}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update({"groups": json.dumps(model.groups), "colors": json.dumps(model.colors)})
    program.save(path, external_data=False)
    _write_card(model, folder)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Pixels) -> Logits:
        logits: Logits = session.run(["logits"], {"images": images})[0]
        return logits

    return run


def write_huggingface(model: LoadedModel, folder: Path) -> Run:
    """Write what ``from_pretrained`` reads: network, class names, and the image processor's settings."""
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    with quiet():
        _library_network(model).save_pretrained(folder)
    height, width = model.size
    processor = {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "do_reduce_labels": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    with quiet():
        read_network = AutoModelForSemanticSegmentation.from_pretrained(folder, local_files_only=True).eval()
        read_processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)

    def run(images: Pixels) -> Logits:
        inputs = read_processor(list(images), return_tensors="pt")
        with torch.inference_mode():
            coarse = read_network(**inputs).logits
            full = nn.functional.interpolate(coarse, size=images.shape[1:3], mode="bilinear", align_corners=False)
        logits: Logits = full.numpy()
        return logits

    return run


def _library_network(model: LoadedModel) -> Any:
    """Return the network as transformers' own class, which a family of ours is a subclass of."""
    library = next(
        (cls for cls in type(model.module).__mro__ if cls.__module__.startswith("transformers.models.")), None
    )
    if library is None:
        raise UserError(
            f"{model.config.model} is no architecture of transformers, so there is no HuggingFace folder of it; "
            "use --format onnx or torch-export"
        )
    config: Any = model.module.config
    config.id2label = dict(enumerate(model.groups))
    config.label2id = {group: index for index, group in enumerate(model.groups)}
    network = library(config)
    network.load_state_dict(model.module.state_dict())
    return network.eval()


def _trace(model: LoadedModel) -> torch.export.ExportedProgram:
    height, width = model.size
    images = torch.full((2, height, width, 3), 127, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(Deployable(model.module), (images,), dynamic_shapes={"images": {0: batch}})


def _write_card(model: LoadedModel, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(model.card, indent=2) + "\n")
