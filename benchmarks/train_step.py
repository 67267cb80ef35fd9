"""Training steps a second with data in memory: segbench, and the same networks in their users' loops.

    python benchmarks/train_step.py                       # the whole table, about half an hour on one core
    python benchmarks/train_step.py --only "segformer-b0 128"
    python benchmarks/train_step.py --device cuda         # 512x512, also in bf16; share of the device's peak

All have the same batch, AdamW, and gradient clipping. *plain loop* is transformers' SegFormer (for a UNet the same
network as ours, as a plain module) in float32. The trainers' logging and checkpoints are off, and their set-up is not
counted. smp's UNets are the nearest it has: compare GMAC (multiply-adds of forward and backward an image, in billions).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import measure
import peers
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from segbench.core.config import TrialConfig
from segbench.training.learner import Learner

NUM_CLASSES = 8
ROUND_S = 1.0
"""A round has as many steps as the plain loop makes in this time, at least two."""


@dataclass(frozen=True)
class Case:
    """A network, an image size and a batch."""

    network: str
    size: int
    batch_size: int
    at_least: float
    """Ours over the plain loop in float32."""
    at_least_float32: float

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.network} {self.size}² B{self.batch_size}"

    def config(self, **settings: Any) -> TrialConfig:
        """Return the settings of our training."""
        family, size = self.network.split("-")
        if family == "unet":
            settings |= {"model": "unet", "width": int(size)}
        else:
            settings |= {"model": "segformer", "variant": f"mit-{size}"}
        return TrialConfig(batch_size=self.batch_size, **settings)


CPU_CASES = (
    Case("unet-16", 128, 8, 1.8, 1.0),
    Case("unet-16", 256, 8, 1.8, 1.0),
    Case("unet-64", 128, 4, 1.8, 1.0),
    Case("unet-64", 256, 2, 1.8, 1.0),
    Case("segformer-b0", 128, 8, 2.2, 1.6),
    Case("segformer-b0", 256, 8, 2.2, 1.6),
    Case("segformer-b2", 128, 8, 3.0, 1.6),
    Case("segformer-b2", 256, 4, 3.0, 1.6),
)
CUDA_CASES = (
    Case("unet-16", 512, 16, 1.3, 1.0),
    Case("unet-64", 512, 16, 1.3, 1.0),
    Case("segformer-b0", 512, 16, 2.0, 1.0),
    Case("segformer-b2", 512, 16, 2.0, 1.0),
)
QUICK_CASES = (Case("unet-16", 32, 2, 1.8, 1.0), Case("segformer-b0", 32, 2, 2.2, 1.6))

Step = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True)
class Batch:
    """What a step takes: ours images in 0..1, the others normalised ones."""

    images: Tensor
    masks: Tensor


def main() -> None:
    """Measure all cases."""
    options = measure.set_up(measure.parser(__doc__).parse_args())
    bench = measure.Benchmark("train_step", options)
    cases = QUICK_CASES if options.quick else CUDA_CASES if options.device == "cuda" else CPU_CASES
    for case in cases:
        if bench.wants(case.name):
            run_case(bench, case)
    for package in ("transformers", "accelerate", "segmentation_models_pytorch", "lightning"):
        if not peers.has(package):
            bench.note(f"skipped: {package} is not installed")
    bench.finish()


def run_case(bench: measure.Benchmark, case: Case) -> None:
    """Measure one network at one size."""
    device = bench.options.device
    batch = make_batch(case, device)
    loop = peers.PlainLoop(peers.stock_model(case.config(), NUM_CLASSES), device)
    loop.step(batch.images, batch.masks)
    plain_s = measure.clock(lambda: repeat(loop.step, batch, 1), device)
    steps = 1 if bench.options.quick else max(2, round(ROUND_S / plain_s))

    variants: dict[str, measure.Work] = {}
    extra: dict[str, dict[str, Any]] = {}
    memory: dict[str, float] = {}
    for name, build in builders(case, device).items():
        before = torch.cuda.memory_allocated() if device == "cuda" else 0
        label, work, step = build(batch, steps)
        variants[label or name] = work
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            work()
            memory[label or name] = (torch.cuda.max_memory_allocated() - before) / 1e9
        extra[label or name] = {"GMAC": count_gmac(step, case, device)}
    seconds = measure.alternate(variants, bench.options)
    speeds = measure.rates(seconds, steps * case.batch_size)
    for name, columns in extra.items():
        rate = measure.spread(speeds[name]).median
        gflops = 2 * columns["GMAC"] * rate
        columns["GFLOP/s"] = round(gflops)
        if device == "cuda":
            peaks = measure.peak_tflops(torch.cuda.get_device_name())
            peak = peaks[0] if "bf16" in name or name == "ours" else peaks[1]
            columns["of peak"] = f"{gflops / peak / 10:.1f} %" if peak else "unknown"
            columns["memory (GB)"] = f"{memory[name]:.2f}"
        columns["GMAC"] = f"{columns['GMAC']:.2f}"
    bench.add(case.name, speeds, "images/s", reference="plain loop", extra=extra)
    bench.target(case.name, "ours float32", "plain loop", at_least=case.at_least_float32)
    if device == "cpu":
        bench.target(case.name, "ours", "plain loop", at_least=case.at_least)
    else:
        bench.target(case.name, "ours", "HF Trainer bf16", at_least=case.at_least)


Built = tuple[str | None, measure.Work, Step]
"""A label, if it is not the builder's name; the work of a round; one step, to count its arithmetic."""
Builder = Callable[[Batch, int], Built]


def builders(case: Case, device: str) -> dict[str, Builder]:
    """Return how to build each variant whose packages are installed."""
    found: dict[str, Builder] = {
        "ours": lambda batch, steps: ours(case, device, batch, steps),
        "ours float32": lambda batch, steps: ours(case, device, batch, steps, precision="fp32"),
    }
    for precision in ("fp32", "bf16") if device == "cuda" else ("fp32",):
        suffix = " bf16" if precision == "bf16" else ""
        makers: dict[str, tuple[str, Callable[..., Built]]] = {
            "plain loop": ("transformers", plain),
            "HF Trainer": ("accelerate", hf_trainer),
            "Lightning": ("lightning", lightning),
            "smp": ("segmentation_models_pytorch", smp_loop),
        }
        for name, (package, make) in makers.items():
            if peers.has(package):
                found[name + suffix] = lambda batch, steps, make=make, precision=precision, suffix=suffix: make(
                    case, device, batch, steps, precision, suffix
                )
    return found


def ours(case: Case, device: str, batch: Batch, steps: int, **settings: Any) -> Built:
    """Our training step, with our defaults but for ``settings``."""
    config = case.config(**settings)
    torch.manual_seed(0)
    learner = Learner(config, NUM_CLASSES, None, steps_per_epoch=1000, max_epochs=1000, device=torch.device(device))
    learner.model.train()
    return None, lambda: repeat(learner.step, batch, steps), learner.step


def plain(case: Case, device: str, batch: Batch, steps: int, precision: str, suffix: str) -> Built:
    """The stock model in a plain loop."""
    loop = peers.PlainLoop(peers.stock_model(case.config(), NUM_CLASSES), device, precision)
    return None, lambda: repeat(loop.step, batch, steps), loop.step


def smp_loop(case: Case, device: str, batch: Batch, steps: int, precision: str, suffix: str) -> Built:
    """The nearest model of segmentation_models_pytorch in a plain loop."""
    name, model = peers.smp_model(case.config(), NUM_CLASSES)
    loop = peers.PlainLoop(model, device, precision)
    return name + suffix, lambda: repeat(loop.step, batch, steps), loop.step


def hf_trainer(case: Case, device: str, batch: Batch, steps: int, precision: str, suffix: str) -> Built:
    """The stock model in HuggingFace's Trainer."""
    model = peers.stock_model(case.config(), NUM_CLASSES)
    images, masks = batch.images.cpu(), batch.masks.cpu()
    samples = [{"pixel_values": image, "labels": mask} for image, mask in zip(images, masks, strict=True)]
    run = peers.trainer_run(model, samples * (steps + 1), steps, case.batch_size, device=device, precision=precision)
    return None, run, lambda images, masks: model(pixel_values=images, labels=masks)["loss"].backward()


def lightning(case: Case, device: str, batch: Batch, steps: int, precision: str, suffix: str) -> Built:
    """The stock model in Lightning."""
    model = peers.stock_model(case.config(), NUM_CLASSES)
    batches = [(batch.images.cpu(), batch.masks.cpu())] * (steps + 1)
    run = peers.lightning_run(model, batches, steps, device=device, precision=precision)
    return None, run, lambda images, masks: model(pixel_values=images, labels=masks)["loss"].backward()


def repeat(step: Step, batch: Batch, steps: int) -> None:
    """Make ``steps`` steps."""
    for _ in range(steps):
        step(batch.images, batch.masks)


def count_gmac(step: Step, case: Case, device: str) -> float:
    """Return the multiply-adds of one step an image, in billions, forward and backward."""
    batch = make_batch(case, device, count=2)
    with FlopCounterMode(display=False) as counter:
        step(batch.images, batch.masks)
    return counter.get_total_flops() / 2e9 / len(batch.images)


def make_batch(case: Case, device: str, count: int | None = None) -> Batch:
    """Return images and masks with a tenth of the pixels ignored."""
    torch.manual_seed(0)
    count = count or case.batch_size
    masks = torch.randint(0, NUM_CLASSES, (count, case.size, case.size))
    masks[:, : case.size // 10] = 255
    return Batch(torch.rand(count, 3, case.size, case.size).to(device), masks.to(device))


if __name__ == "__main__":
    main()
