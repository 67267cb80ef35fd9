"""How many trials share a GPU, and whether compiled code pays there: pure decisions on what was measured."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.errors import UserError
from segbench.core.paths import atomic_write
from segbench.data import cache_folder, open_data
from segbench.training.feed import RESERVED_SHARE
from segbench.training.probe import Measurement, Request, look_up, make_request

SAFETY = 1.15
"""Augmentation, validation and fragments come on top of what the probe's steps took."""
MAX_TRIALS = 8
"""On one GPU, however small they are: each is a process with threads and a context of its own."""
WORTH_ASKING_S = 600.0
"""Compiling is not even measured for trials that train for less: the measurement takes minutes itself."""
MARGIN = 2.0
"""Compiled code must win back so many times what it costs: most trials of a sweep are stopped early."""

Probe = Callable[[TrialConfig, bool], tuple[Request, Measurement]]
"""Measures a configuration, with compiled code or without."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """What was decided for the trials of a sweep, and why; kept in its folder."""

    gpu: float
    """Part of a GPU that one trial gets."""
    device: str
    """Name of the GPU; empty if there is none."""
    reason: str
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    """By the request's key."""

    def save(self, path: Path) -> None:
        """Write it beside, then rename."""
        atomic_write(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Sharing | None":
        """Return what was decided before; None if nothing was."""
        if not path.is_file():
            return None
        tree = json.loads(path.read_text(encoding="utf-8"))
        measurements = {key: Measurement(**values) for key, values in tree.pop("measurements").items()}
        return cls(measurements=measurements, **tree)


def no_gpu(reason: str) -> Sharing:
    """Return the decision for trials that train on cores."""
    return Sharing(gpu=0.0, device="", reason=reason)


def strictest(decisions: Sequence[Sharing]) -> Sharing:
    """Return the decision of the machine whose GPU fewest trials can share, with the measurements of all.

    A machine without a usable GPU has no say, unless all are.
    """
    first = max(decisions, key=lambda decided: decided.gpu)
    return replace(first, measurements={key: m for decided in decisions for key, m in decided.measurements.items()})


def fraction(peak_bytes: int, device_bytes: int, safety: float = SAFETY) -> float:
    """Return the part of a GPU for a trial that takes ``peak_bytes`` of its ``device_bytes``: 1/n, at most 1.

    It is cut to four decimals, as finely as Ray counts, so that n of them surely fit into one.
    """
    trials = min(MAX_TRIALS, max(1, int(device_bytes / (peak_bytes * safety))))
    return int(10_000 / trials) / 10_000


def pays(eager_step_s: float, compiled_step_s: float, compile_s: float, steps: int) -> bool:
    """Whether compiled code saves, over ``steps`` steps, clearly more than compiling costs."""
    return (eager_step_s - compiled_step_s) * steps > MARGIN * compile_s


def decide(
    configs: Iterable[TrialConfig], probe: Probe, set_bytes: int, num_steps: Callable[[TrialConfig], int]
) -> Sharing:
    """Return the share of a GPU that suffices for each of ``configs``.

    Args:
        configs: the most demanding ones of a sweep.
        probe: measures one on the GPU.
        set_bytes: of the splits that a trial puts on the device where they leave most of it free.
        num_steps: optimiser steps of a full trial of a configuration.

    Raises:
        UserError: a configuration does not fit on the GPU; the message has a batch size that would.
    """
    measurements: dict[str, Measurement] = {}
    needs: list[tuple[int, int, str]] = []
    name = ""
    for config in configs:
        request, measured = probe(config, config.compile is True)
        if not measured.fits or measured.peak_bytes is None or measured.device_bytes is None:
            raise UserError(_does_not_fit(config, request, probe))
        name = request.device_name
        measurements[request.key] = measured
        total = measured.device_bytes
        resident = set_bytes if set_bytes <= (1 - RESERVED_SHARE) * total else 0
        needs.append((measured.peak_bytes + resident, total, describe(config)))
        is_long = (measured.step_s or 0.0) * num_steps(config) >= WORTH_ASKING_S
        if config.compile == "auto" and is_long:
            request, measured = probe(config, True)
            measurements[request.key] = measured
    peak, total, which = max(needs)
    gpu = fraction(peak, total)
    return Sharing(
        gpu=gpu,
        device=name,
        reason=f"{which} needs {peak / 1e9:.2f} of {total / 1e9:.1f} GB, so {int(1 / gpu)} to a GPU",
        measurements=measurements,
    )


def _does_not_fit(config: TrialConfig, request: Request, probe: Probe) -> str:
    batch_size = config.batch_size // 2
    while batch_size and not probe(replace(config, batch_size=batch_size, accumulation_steps=1), False)[1].fits:
        batch_size //= 2
    fault = f"resources.gpu: auto: {describe(config)} does not fit on {request.device_name}"
    if not batch_size:
        return f"{fault}, not even with batch_size=1; take a smaller model, or a smaller data.size"
    parts = next(
        n
        for n in range(1, config.batch_size + 1)
        if config.batch_size % n == 0 and config.batch_size // n <= batch_size
    )
    return (
        f"{fault}; batch_size={batch_size} does, and so does batch_size={config.batch_size} with "
        f"accumulation_steps={parts}, which gives the same results"
    )


def describe(config: TrialConfig) -> str:
    """Return what of a configuration its memory depends on most, in words."""
    size = config.variant or (f"width={config.width} depth={config.depth}" if config.model == "unet" else "")
    parts = f" accumulation_steps={config.accumulation_steps}" if config.accumulation_steps > 1 else ""
    return f"{config.model}{f' {size}' if size else ''} batch_size={config.batch_size}{parts}"


def decide_here(configs: Sequence[TrialConfig], data: DataConfig, max_epochs: int) -> Sharing:
    """Measure on this machine's GPU, or take what was measured there before, and decide.

    Raises:
        UserError: a configuration does not fit on it.
    """
    if not torch.cuda.is_available():
        return no_gpu("there is no GPU that torch can use")
    device, cache = torch.device("cuda"), cache_folder(data)
    opened = open_data(data)
    splits = (opened.train, opened.val)

    def probe(config: TrialConfig, compiled: bool) -> tuple[Request, Measurement]:
        request = make_request(config, len(opened.groups), data.size, device, compiled=compiled)
        return request, look_up(request, cache)

    def num_steps(config: TrialConfig) -> int:
        return max_epochs * len(opened.train.images) // config.batch_size

    set_bytes = sum(split.images.nbytes + split.labels.nbytes for split in splits)
    return decide(configs, probe, set_bytes, num_steps)


def compiled_pays(
    file: str | None, config: TrialConfig, num_classes: int, size: tuple[int, int], device: torch.device, steps: int
) -> bool:
    """Whether what was measured for a sweep says that this training should run compiled; without it: no.

    Args:
        file: of the sweep's :class:`Sharing`.
        config: of the training.
        num_classes: K.
        size: height and width in pixels.
        device: where it runs.
        steps: optimiser steps of the whole training.
    """
    sharing = Sharing.load(Path(file)) if file is not None and device.type == "cuda" else None
    if sharing is None:
        return False
    eager, compiled = (
        sharing.measurements.get(make_request(config, num_classes, size, device, compiled=flag).key)
        for flag in (False, True)
    )
    if eager is None or compiled is None or not (eager.step_s and compiled.step_s and compiled.first_step_s):
        return False
    return pays(eager.step_s, compiled.step_s, compiled.first_step_s, steps)
