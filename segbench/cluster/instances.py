"""GPU machines of AWS: cores, GPUs, and which this project's torch can use."""

import re
from dataclasses import dataclass

_SIZES = {"xlarge": (4, 1), "2xlarge": (8, 1), "4xlarge": (16, 1), "8xlarge": (32, 1), "16xlarge": (64, 1)}
_LARGE = {"12xlarge": (48, 4), "24xlarge": (96, 4), "48xlarge": (192, 8)}
_GPU_TYPES: dict[str, tuple[str, dict[str, tuple[int, int]]]] = {
    "g4dn": ("T4", {**_SIZES, "12xlarge": (48, 4), "metal": (96, 8)}),
    "g5": ("A10G", {**_SIZES, **_LARGE}),
    "g6": ("L4", {**_SIZES, **_LARGE}),
    "g6e": ("L40S", {**_SIZES, **_LARGE}),
    "gr6": ("L4", {"4xlarge": (16, 1), "8xlarge": (32, 1)}),
    "p3": ("V100", {"2xlarge": (8, 1), "8xlarge": (32, 4), "16xlarge": (64, 8)}),
    "p3dn": ("V100", {"24xlarge": (96, 8)}),
    "p4d": ("A100", {"24xlarge": (96, 8)}),
    "p4de": ("A100", {"24xlarge": (96, 8)}),
    "p5": ("H100", {"4xlarge": (16, 1), "48xlarge": (192, 8)}),
    "p5e": ("H200", {"48xlarge": (192, 8)}),
    "p5en": ("H200", {"48xlarge": (192, 8)}),
    "p6-b200": ("B200", {"48xlarge": (192, 8)}),
}
"""Family -> (GPU, size -> (cores, GPUs)), as AWS lists them (DescribeInstanceTypes)."""

TOO_OLD = frozenset({"V100"})
"""CUDA 13, which the locked torch is built for, begins with Turing (T4)."""


@dataclass(frozen=True)
class Instance:
    """A GPU machine."""

    cpu: int
    gpu: int
    model: str


def find_instance(name: str) -> Instance | None:
    """Return what AWS's instance type ``name`` has, if it is one with NVIDIA GPUs that is known here."""
    family, _, size = name.partition(".")
    model, sizes = _GPU_TYPES.get(family, ("", {}))
    return Instance(*sizes[size], model) if size in sizes else None


def is_arm(name: str) -> bool:
    """Whether AWS's instance type ``name`` has ARM cores: a ``g`` after the number of its generation."""
    return re.match(r"[a-z]+\d+g[a-z]*\.|a1\.", name) is not None


def family_sizes(name: str) -> list[str]:
    """Return the sizes of the GPU family that ``name`` belongs to; empty for others."""
    family = name.partition(".")[0]
    return [f"{family}.{size}" for size in _GPU_TYPES.get(family, ("", {}))[1]]
