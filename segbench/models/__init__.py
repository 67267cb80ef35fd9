"""A FAMILY A FILE: the registry of model families.

May import core only. Importing this package imports neither torch nor transformers; a family's module is imported when
one of its models is built. A new family is one module with a function ``build(config, num_classes)``, one entry in
:data:`FAMILIES`, and one line in ``tests/models/test_families.py`` (docs/adding-a-model.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from segbench.core.config import TrialConfig
from segbench.core.errors import CheckpointError
from segbench.models import pretrained

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Family:
    """What is known of a family without importing it."""

    module: str
    """Dotted name of the module that has ``build(config, num_classes)``."""
    variants: tuple[str, ...]
    """Names of the sizes, the smallest first; empty where numbers in the configuration set the size."""
    fields: tuple[str, ...]
    """Fields of TrialConfig that the family reads, apart from ``model``."""


FAMILIES: dict[str, Family] = {
    "unet": Family(
        module="segbench.models.unet",
        variants=(),
        fields=("width", "depth", "norm", "dropout"),
    ),
    "segformer": Family(
        module="segbench.models.segformer",
        variants=("mit-b0", "mit-b1", "mit-b2", "mit-b3", "mit-b4", "mit-b5"),
        fields=("variant", "pretrained", "dropout", "drop_path"),
    ),
    "upernet": Family(
        module="segbench.models.upernet",
        variants=("convnext-atto", "convnext-tiny", "convnext-small", "convnext-base"),
        fields=("variant", "pretrained", "dropout", "drop_path"),
    ),
}


def find_family(name: str) -> Family:
    """Return the family of this name; an unknown name is a ValueError that lists the names."""
    if name not in FAMILIES:
        raise ValueError(f"unknown model {name!r}; {_choice(name, tuple(FAMILIES))}")
    return FAMILIES[name]


def check_config(config: TrialConfig) -> None:
    """Check, without torch, that :func:`build_model` knows this family, variant and weights folder.

    Raises:
        ValueError: Says what was given, what is allowed and the nearest name.
    """
    family = find_family(config.model)
    if config.variant is not None and not family.variants:
        raise ValueError(
            f"variant={config.variant!r}: {config.model} has no variants; leave variant out "
            f"(its size is set by {' and '.join(name for name in family.fields if name in _SIZE_FIELDS)})"
        )
    if config.variant is not None and config.variant not in family.variants:
        raise ValueError(
            f"unknown variant {config.variant!r} of {config.model}; {_choice(config.variant, family.variants)}"
        )
    if config.pretrained is None:
        return
    if "pretrained" not in family.fields:
        raise ValueError(
            f"pretrained={config.pretrained!r}: {config.model} has no pretrained weights; leave pretrained out"
        )
    try:
        pretrained.find_folder(config.pretrained)
    except CheckpointError as error:
        raise ValueError(str(error)) from error


def build_model(config: TrialConfig, num_classes: int) -> "nn.Module":
    """Build the model of a trial, with random weights from torch's current seed or with pretrained ones.

    The model maps a normalised image, float32 (N, 3, H, W) of any H and W, to logits (N, K, H, W). Its attribute
    ``encoder`` is the module that pretrained weights are made for: everything else is the decode head, which
    ``head_lr_multiplier`` applies to. The parameters' names and shapes depend on everything but ``pretrained``,
    so a trained model is rebuilt with ``replace(config, pretrained=None)`` and its own weights.

    Args:
        config: The fields that the family reads stand in ``FAMILIES[config.model].fields``.
        num_classes: K, at least 1.

    Raises:
        ValueError: The family or variant is unknown.
        CheckpointError: The pretrained weights are missing, damaged, or of another variant.
    """
    check_config(config)
    build = import_module(find_family(config.model).module).build
    model: nn.Module = build(config, num_classes)
    return model


_SIZE_FIELDS = ("width", "depth")


def _choice(given: str, allowed: Sequence[str]) -> str:
    nearest = get_close_matches(given, allowed, n=1, cutoff=0)[0]
    return f"choose one of {', '.join(allowed)} (nearest: {nearest})"
