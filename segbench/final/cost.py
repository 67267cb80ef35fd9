"""What a model costs to run, measured on the device that tests it: weights, multiply-adds, latency, memory."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from segbench.training.switches import Switches

MAX_RUNS, MIN_RUNS, MAX_SECONDS = 30, 3, 1.0
"""A latency is the median of so many runs after a warm-up; fewer, at least three, where they take over a second."""
MIB = 2**20


class Runnable(Protocol):
    """A model that can be run; :class:`segbench.final.model.LoadedModel` is one."""

    @property
    def module(self) -> nn.Module:
        """In eval mode, without gradients."""
        ...

    @property
    def switches(self) -> Switches:
        """How it computes."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...


@torch.inference_mode()
def measure_cost(model: Runnable, batch_size: int) -> dict[str, Any]:
    """Return ``model/...``: what one forward pass takes, images already on the device and normalised.

    ``parameters`` (trained weights), ``gmacs`` (10^9 multiply-adds for one image), ``latency_ms`` (one image),
    ``latency_batch_ms`` (``batch_size`` images), ``peak_mib`` (weights, and the most that the pass for one image holds
    at once), ``batch_size``, ``device``.

    Precision and memory layout are those of the training. Other trials that share the machine slow it down.
    """
    one, batch = (_images(model, count) for count in (1, batch_size))

    def run(images: Tensor) -> None:
        with model.switches.autocast(model.device):
            model.module(images)

    return {
        "model/parameters": sum(parameter.numel() for parameter in model.module.parameters()),
        "model/gmacs": _flops(lambda: run(one)) / 2e9,
        "model/latency_ms": _latency_ms(lambda: run(one), model.device),
        "model/latency_batch_ms": _latency_ms(lambda: run(batch), model.device),
        "model/peak_mib": (_weight_bytes(model) + _peak_bytes(lambda: run(one), model.device)) / MIB,
        "model/batch_size": batch_size,
        "model/device": describe_device(model.device),
    }


def describe_device(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor with the number of threads that a pass uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _images(model: Runnable, count: int) -> Tensor:
    images = torch.zeros((count, 3, *model.size), device=model.device)
    return images.contiguous(memory_format=model.switches.memory_format)


def _flops(run: Callable[[], None]) -> int:
    """Count as torch does, two per multiply-add; fused attention is taken apart, since it is not counted everywhere."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _latency_ms(run: Callable[[], None], device: torch.device) -> float:
    run()
    times: list[float] = []
    while len(times) < MAX_RUNS and (len(times) < MIN_RUNS or sum(times) < MAX_SECONDS):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - started)
    return round(1000 * statistics.median(times), 4)


def _weight_bytes(model: Runnable) -> int:
    tensors = (*model.module.parameters(), *model.module.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _peak_bytes(run: Callable[[], None], device: torch.device) -> int:
    """Return the most bytes that torch's allocator has handed out at once during ``run``, weights not counted."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler says on the terminal that it starts and stops
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    results = profiled.profiler.kineto_results
    events = [(event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"]
    held = peak = 0
    for _, num_bytes in sorted(events, key=lambda event: event[0]):
        held += num_bytes
        peak = max(peak, held)
    return peak


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    """Return the processor's name; Linux knows a better one than Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine() or "CPU")
