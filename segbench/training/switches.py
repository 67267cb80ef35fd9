"""How a training runs on a device: the switches that change its speed, chosen where the settings say "auto".

A switch is on where it was measured to pay (docs/speed.md) and does not cost mIoU (benchmarks/quality.py). What was
chosen is part of a training's state: continued on another machine it keeps its switches, since other arithmetic would
give other numbers.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from segbench.core.config import TrialConfig

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What the choice depends on."""

    kind: str
    """``cpu``, ``cuda``, ..."""
    has_bf16: bool
    """Whether it multiplies bfloat16 matrices in hardware; emulation is slower than float32."""


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What was chosen; the names are those of the settings."""

    precision: Precision
    channels_last: bool
    compile: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images and of the weights of convolutions."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context in which a model's forward pass runs."""
        return torch.autocast(device.type, DTYPES[self.precision], enabled=self.precision != "fp32")

    def place(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return ``model`` on the device, in the chosen layout."""
        placed: nn.Module = model.to(device, memory_format=self.memory_format)  # type: ignore[call-overload]
        return placed


def resolve_switches(config: TrialConfig, facts: DeviceFacts, compiled_pays: bool = False) -> Switches:
    """Return the switches of a training: what the settings say, and what pays on the device where they leave it open.

    fp16 is never chosen: its range needs a scaled loss, which bf16 does not.
    """
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if facts.has_bf16 else "fp32"
    channels_last = config.channels_last
    if channels_last is None:
        # Accelerators multiply half-precision channels-last images without a copy; in float32 it is the other way.
        channels_last = facts.kind == "cpu" or precision != "fp32"
    compiled = facts.kind != "cpu" and compiled_pays if config.compile == "auto" else config.compile
    return Switches(precision=precision, channels_last=channels_last, compile=compiled)


def switches_for(config: TrialConfig, device: torch.device, compiled_pays: bool = False) -> Switches:
    """Return the switches of a training that begins on ``device``."""
    return resolve_switches(config, read_facts(device), compiled_pays)


def keep_compiled_code(cache: Path) -> None:
    """Let all trainings of this machine share one cache of compiled code, unless the user named one."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "compiled"))


def read_facts(device: torch.device) -> DeviceFacts:
    """Ask torch about a device."""
    if device.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        has_bf16 = (
            device.type == "cpu"
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_tile"))
        )
    return DeviceFacts(kind=device.type, has_bf16=has_bf16)
