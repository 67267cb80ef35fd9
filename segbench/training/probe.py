"""What a training needs of a device: a few real optimiser steps, measured once and written down.

    python -m segbench.training.probe < request.json

A measurement runs in a process of its own, so its memory is the whole of what that process took, an out-of-memory
error leaves nothing behind, and compiled code starts as cold as in a trial.
"""

import hashlib
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock

from segbench.core.config import TrialConfig
from segbench.core.errors import SegbenchError
from segbench.core.failures import classify
from segbench.core.paths import atomic_write
from segbench.core.records import Cause
from segbench.training.learner import Learner
from segbench.training.switches import Switches, keep_compiled_code, switches_for

WARM_UP_STEPS = 3
"""Libraries choose their kernels, and ask for their workspaces, in the first ones."""
TIMED_STEPS = 7
# fmt: off
FREE = frozenset((
    "pretrained", "dropout", "drop_path", "lr", "head_lr_multiplier", "momentum", "weight_decay", "schedule",
    "poly_power", "warmup_epochs", "clip_norm", "patience", "class_weights", "label_smoothing", "focal_gamma",
    "flip", "scale_min", "scale_max", "color", "blur", "precision", "channels_last", "compile",
))
# fmt: on
"""Settings that change neither memory nor time of a step to speak of, or stand in the switches; others are in the key,
so that a new setting is."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is measured."""

    config: TrialConfig
    num_classes: int
    size: tuple[int, int]
    """Height and width in pixels."""
    switches: Switches
    device: str
    """``cuda`` or ``cpu``."""
    device_name: str
    torch_version: str

    @property
    def key(self) -> str:
        """A name for the measurement: equal for requests that need the same of the same device."""
        settings = {name: value for name, value in asdict(self.config).items() if name not in FREE}
        settings["ema_decay"] = settings["ema_decay"] is not None
        rest = {name: value for name, value in asdict(self).items() if name != "config"}
        text = json.dumps({"config": settings, **rest}, sort_keys=True)
        return f"{self.config.model}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was seen."""

    fits: bool
    """False: the memory did not suffice, and nothing else is known."""
    peak_bytes: int | None = None
    """CUDA: of the whole process on the device, its context included. CPU: growth of the process; None if the system
    does not tell."""
    step_s: float | None = None
    """Median of the steps after the first ones."""
    first_step_s: float | None = None
    """The first one; with compiled code, this is what compiling costs once others have filled the cache."""
    device_bytes: int | None = None
    """All of the device's memory; None for a CPU."""


def make_request(
    config: TrialConfig, num_classes: int, size: tuple[int, int], device: torch.device, *, compiled: bool = False
) -> Request:
    """Return the request for a configuration on a device of this machine."""
    return Request(
        config=config,
        num_classes=num_classes,
        size=size,
        switches=replace(switches_for(config, device), compile=compiled),
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        torch_version=torch.__version__,
    )


def look_up(request: Request, cache: Path, run: Callable[[Request, Path], Measurement] | None = None) -> Measurement:
    """Return the measurement from the cache folder; measured first, by one process of the node, if it is not there.

    With compiled code it is measured twice: the first run fills the cache of compiled code, and trials find it filled.

    Raises:
        SegbenchError: the steps failed for another reason than memory.
    """
    run = run or run_in_process
    path = cache / "probes" / f"{request.key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.is_file():
            return Measurement(**json.loads(path.read_text(encoding="utf-8"))["measurement"])
        measured = run(request, cache)
        if request.switches.compile and measured.fits:
            measured = run(request, cache)
        document = {"request": asdict(request), "measurement": asdict(measured)}
        atomic_write(path, json.dumps(document, indent=1) + "\n")
    return measured


def run_in_process(request: Request, cache: Path) -> Measurement:
    """Measure in a new process.

    Raises:
        SegbenchError: it failed for another reason than memory.
    """
    _log.info("measuring %s on %s", request.key, request.device_name)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "segbench.training.probe", str(cache)],
        input=json.dumps(asdict(request)),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode == 0:
        return Measurement(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode == -9:  # the system's answer to a process that takes too much of the host's memory
        return Measurement(fits=False)
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    raise SegbenchError(
        f"the probe of {request.key} on {request.device_name} failed ({last[:300]}); mend it, or give resources.gpu a "
        "number"
    )


def measure(request: Request) -> Measurement:
    """Train a few steps in this process and return what they took."""
    device = torch.device(request.device)
    before = _peak_rss()
    try:
        first, rest = _time_steps(request, device)
    except (RuntimeError, MemoryError) as error:
        if classify(error).cause is not Cause.MEMORY:
            raise
        return Measurement(fits=False)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        besides = total - free - torch.cuda.memory_reserved(device)  # the context, and libraries' own memory
        peak: int | None = torch.cuda.max_memory_reserved(device) + besides
    else:
        after, total = _peak_rss(), None
        peak = after - before if after is not None and before is not None else None
    return Measurement(
        fits=True, peak_bytes=peak, step_s=statistics.median(rest), first_step_s=first, device_bytes=total
    )


def _time_steps(request: Request, device: torch.device) -> tuple[float, list[float]]:
    config = replace(request.config, pretrained=None, class_weights="none")
    num_steps = WARM_UP_STEPS + TIMED_STEPS
    torch.manual_seed(0)
    learner = Learner(config, request.num_classes, None, num_steps, 1, device, request.switches)
    learner.model.train()
    shape = (config.batch_size, *request.size)
    images = torch.rand(shape[0], 3, *request.size, device=device)
    masks = torch.randint(request.num_classes, shape, device=device)
    seconds = []
    for _ in range(num_steps):
        started = time.perf_counter()
        learner.step(images, masks)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[WARM_UP_STEPS:]


def _peak_rss() -> int | None:
    """Return the most memory that this process has had, in bytes.

    Not by getrusage: its figure survives exec, so a child begins with its parent's.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def _read_request(text: str) -> Request:
    tree = json.loads(text)
    return Request(
        **{
            **tree,
            "config": TrialConfig(**tree["config"]),
            "switches": Switches(**tree["switches"]),
            "size": tuple(tree["size"]),
        }
    )


if __name__ == "__main__":
    keep_compiled_code(Path(sys.argv[1]))
    sys.stdout.write(json.dumps(asdict(measure(_read_request(sys.stdin.read())))) + "\n")
