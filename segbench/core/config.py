"""The complete settings of one training: frozen dataclasses that every stage reads.

Standard library only, so that a trial can run where there is no pydantic. Each field carries a
:class:`Setting` with its description and range; the sweep file's reader and ``segbench schema`` take
both from here, so a setting is described once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal


@dataclass(frozen=True)
class Setting:
    """Description and allowed range of a field, in the form that pydantic asks for."""

    description: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __get_pydantic_core_schema__(self, source: object, handler: Callable[[object], Any]) -> Any:
        """Add the range to the schema that pydantic made of the bare type."""
        schema = handler(source)
        inner = schema["schema"] if schema["type"] == "nullable" else schema
        bounds = {"ge": self.ge, "gt": self.gt, "le": self.le, "lt": self.lt}
        inner.update({key: bound for key, bound in bounds.items() if bound is not None})
        return schema

    def __get_pydantic_json_schema__(self, core: object, handler: Callable[[object], dict[str, Any]]) -> Any:
        """Add the description for editors."""
        return {**handler(core), "description": self.description}


Loss = Literal["ce", "dice", "focal", "ce+dice", "ce+focal", "dice+focal", "ce+dice+focal"]


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Everything that one training depends on, apart from data, seed and length.

    Any field can stand in the sweep file's ``training:`` section (same value for all trials) or under
    ``parameters:`` (searched).
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    # model
    model: Annotated[str, Setting("model family: a name in the registry (unet, segformer, upernet)")] = "unet"
    variant: Annotated[str | None, Setting("size within the family, such as mit-b0; null: the family's smallest")] = (
        None
    )
    pretrained: Annotated[
        str | None, Setting("hub name or local folder of pretrained encoder weights; null: random weights")
    ] = None
    width: Annotated[int, Setting("UNet: channels of the first stage", ge=1)] = 64
    depth: Annotated[int, Setting("UNet: number of times that the resolution is halved", ge=1, le=8)] = 4
    norm: Annotated[Literal["batch", "group", "none"], Setting("UNet: normalisation")] = "batch"
    dropout: Annotated[float, Setting("dropout before the classifier", ge=0, lt=1)] = 0.0
    drop_path: Annotated[float, Setting("stochastic depth of transformer encoders", ge=0, lt=1)] = 0.1

    # optimisation
    batch_size: Annotated[int, Setting("images per optimiser step", ge=1)] = 8
    accumulation_steps: Annotated[
        int, Setting("parts that a batch is split into to save memory; divides batch_size", ge=1)
    ] = 1
    optimizer: Annotated[Literal["adamw", "sgd"], Setting("optimiser")] = "adamw"
    lr: Annotated[float, Setting("peak learning rate", gt=0)] = 1e-3
    head_lr_multiplier: Annotated[
        float, Setting("learning rate of the decode head relative to the encoder's", gt=0)
    ] = 1.0
    momentum: Annotated[float, Setting("momentum (sgd) or beta1 (adamw)", ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Setting("decoupled for adamw; not for norms and biases", ge=0)] = 0.01
    schedule: Annotated[
        Literal["constant", "poly", "cosine", "one-cycle"], Setting("learning rate after the warm-up")
    ] = "constant"
    poly_power: Annotated[float, Setting("exponent of the poly schedule", gt=0)] = 1.0
    warmup_epochs: Annotated[float, Setting("linear warm-up; fractions allowed", ge=0)] = 0.0
    clip_norm: Annotated[float | None, Setting("largest gradient norm; null: no clipping", gt=0)] = 1.0
    patience: Annotated[
        int | None, Setting("epochs without a better score after which training ends; null: never", ge=1)
    ] = None
    ema_decay: Annotated[
        float | None, Setting("decay per step of averaged weights, used for validation", gt=0, lt=1)
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        Setting("autocast precision; auto: bf16 where the device has it, else fp32"),
    ] = "auto"
    channels_last: Annotated[
        bool | None, Setting("memory format NHWC of images and convolutions; null: where it is faster")
    ] = None

    compile: Annotated[
        Literal["auto", True, False],
        Setting("torch.compile; auto: where it was measured to pay (GPU with resources.gpu: auto, docs/speed.md)"),
    ] = "auto"

    # loss
    loss: Annotated[Loss, Setting("loss, or a sum of losses with equal weight")] = "ce"
    class_weights: Annotated[
        Literal["none", "inverse", "inverse-sqrt"],
        Setting("cross-entropy weights by the classes' frequency in the training split"),
    ] = "none"
    label_smoothing: Annotated[float, Setting("cross-entropy label smoothing", ge=0, lt=1)] = 0.0
    focal_gamma: Annotated[float, Setting("exponent of the focal loss", ge=0)] = 2.0

    # augmentation
    flip: Annotated[float, Setting("probability of a horizontal flip", ge=0, le=1)] = 0.0
    scale_min: Annotated[float, Setting("smallest random zoom; 1 = none", gt=0)] = 1.0
    scale_max: Annotated[float, Setting("largest random zoom; 1 = none", gt=0)] = 1.0
    color: Annotated[float, Setting("strength of brightness, contrast and saturation changes", ge=0, le=1)] = 0.0
    blur: Annotated[
        float, Setting("probability of a Gaussian blur of 0.1 to 2 pixels (standard deviation)", ge=0, le=1)
    ] = 0.0

    def __post_init__(self) -> None:
        if self.batch_size % self.accumulation_steps:
            raise ValueError(f"accumulation_steps={self.accumulation_steps} must divide batch_size={self.batch_size}")
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min={self.scale_min} is above scale_max={self.scale_max}; swap them")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, at which size, split how, with which groups of labels."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    dataset: Annotated[
        Literal["cityscapes", "streets"],
        Setting("cityscapes: a folder in the Cityscapes layout; streets: generated scenes, no files needed"),
    ] = "streets"
    root: Annotated[str | None, Setting("folder with leftImg8bit/ and gtFine/ (cityscapes only)")] = None
    size: Annotated[tuple[int, int], Setting("height and width in pixels after resizing")] = (512, 512)
    split: Annotated[
        Literal["official", "pooled", "by-city"], Setting("how train, val and test are made (docs/data.md)")
    ] = "pooled"
    seed: Annotated[int, Setting("seed of the split and of generated scenes", ge=0)] = 0
    limit: Annotated[int | None, Setting("use at most so many images in all, taken evenly; null: all", ge=3)] = None
    num_images: Annotated[tuple[int, int, int], Setting("streets only: number of train, val and test scenes")] = (
        240,
        60,
        60,
    )
    groups: Annotated[
        dict[str, tuple[int, ...]] | None,
        Setting("group name -> Cityscapes label ids, in class order; null: the 8 categories"),
    ] = None
    ignore: Annotated[tuple[str, ...], Setting("groups that are neither trained on nor scored (they become 255)")] = ()
    cache_dir: Annotated[
        str | None, Setting("where packed data sets are kept; null: $SEGBENCH_CACHE or ~/.cache/segbench")
    ] = None
    packed: Annotated[
        str | None,
        Setting(
            "bucket or folder that all nodes see, from which each fetches the packed set; null: `packed` in storage "
            "where that is a bucket, else none: each node packs its own"
        ),
    ] = None
