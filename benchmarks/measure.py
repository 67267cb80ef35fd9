"""Measure variants side by side: rounds in alternation, medians and quartiles, ratios from pairs of one round.

    options = measure.set_up(measure.parser(__doc__).parse_args())
    bench = measure.Benchmark("metric", options)
    seconds = measure.alternate({"ours": update, "torchmetrics": theirs}, options)
    bench.add("update", measure.rates(seconds, 8), "images/s", reference="torchmetrics")
    bench.target("update", "ours", "torchmetrics", at_least=25)
    bench.finish()

Work on one machine drifts (frequency, neighbours), so each round runs every variant once, every other round
in reverse order, and a ratio is the median over rounds of the ratio within a round.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Work = Callable[[], float | None]
"""Does a fixed amount of work. What it returns, if not None, are the seconds that count instead of the call's."""

PEAK_TFLOPS = {"H100": (989, 67), "H200": (989, 67), "A100": (312, 19.5), "L4": (121, 30.3), "V100": (None, 15.7)}
"""Dense peak in bf16 and float32 (CUDA cores) by a part of the device's name; from the vendor's data sheets."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks share."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--rounds", type=int, default=5, help="each runs every variant once")
    result.add_argument("--warmup", type=int, default=1, help="runs of each variant before the first round")
    result.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    result.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    result.add_argument("--only", action="append", metavar="TEXT", help="cases whose name holds TEXT; may be repeated")
    result.add_argument("--quick", action="store_true", help="smallest sizes, one round: does it run at all?")
    result.add_argument("--json", type=Path, help="write everything that was measured")
    return result


def set_up(options: argparse.Namespace) -> argparse.Namespace:
    """Apply ``--quick`` and ``--threads``; call it after parsing and before anything is computed."""
    if options.quick:
        options.rounds, options.warmup = 1, 0
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of libraries not yet loaded, and of child processes
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(options.threads)
    return options


def alternate(variants: Mapping[str, Work], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of each variant, one figure a round; on an accelerator its queue is waited for."""
    names = list(variants)
    for name in names:
        for _ in range(options.warmup):
            variants[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            seconds[name].append(clock(variants[name], options.device))
    return seconds


def clock(work: Work, device: str = "cpu") -> float:
    """Return the seconds that ``work`` takes, or says it took."""
    gc.collect()
    synchronize(device)
    started = time.perf_counter()
    own = work()
    synchronize(device)
    return time.perf_counter() - started if own is None else own


def synchronize(device: str) -> None:
    """Wait for an accelerator's queue."""
    if device == "cuda":
        sys.modules["torch"].cuda.synchronize()


def rates(seconds: Mapping[str, Sequence[float]], amount: float) -> dict[str, list[float]]:
    """Return amounts a second from the seconds that ``amount`` took."""
    return {name: [amount / value for value in values] for name, values in seconds.items()}


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    lower: float
    upper: float


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles; of one value, that value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper)


def ratio(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """Return median and quartiles of the ratios within each round."""
    return spread([value / other for value, other in zip(values, reference, strict=True)])


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant of one case."""

    case: str
    variant: str
    unit: str
    values: list[float]
    """One a round."""
    value: Spread
    reference: str
    ratio: Spread
    """To the reference of the case."""
    extra: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a ratio should be, and is."""

    case: str
    what: str
    figure: float
    bound: str
    met: bool


@dataclass
class Benchmark:
    """Collects rows and targets; prints one table, writes one JSON file."""

    name: str
    options: argparse.Namespace
    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = describe_machine(self.options.device)

    def wants(self, case: str) -> bool:
        """Whether ``--only`` lets this case through."""
        return not self.options.only or any(text in case for text in self.options.only)

    def add(
        self,
        case: str,
        values: Mapping[str, Sequence[float]],
        unit: str,
        *,
        reference: str,
        extra: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Add a case: the values of each variant, one a round, and further columns by variant."""
        for variant, measured in values.items():
            row = Row(
                case=case,
                variant=variant,
                unit=unit,
                values=list(measured),
                value=spread(measured),
                reference=reference,
                ratio=ratio(measured, values[reference]),
                extra=dict((extra or {}).get(variant, {})),
            )
            self.rows.append(row)
        print(f"{self.name}: {case} measured", file=sys.stderr, flush=True)

    def target(
        self, case: str, variant: str, other: str, *, at_least: float | None = None, at_most: float | None = None
    ) -> None:
        """Hold the ratio of two variants of a case against its bound; nothing if one was not measured, or quickly."""
        found = {row.variant: row.values for row in self.rows if row.case == case}
        if self.options.quick or variant not in found or other not in found:
            return
        figure = ratio(found[variant], found[other]).median
        if at_least is not None:
            bound, met = f">= {at_least:g}", figure >= at_least
        else:
            assert at_most is not None
            bound, met = f"<= {at_most:g}", figure <= at_most
        self.targets.append(Target(case=case, what=f"{variant} / {other}", figure=figure, bound=bound, met=met))

    def note(self, text: str) -> None:
        """Say under the table what a reader must know, such as a peer that is not installed."""
        self.notes.append(text)

    def finish(self) -> None:
        """Print the table; write the JSON file if asked for."""
        print(f"# {self.name}\n\n{describe(self.machine)}; medians of {self.options.rounds} rounds in alternation\n")
        print(table(self.rows))
        if self.targets:
            cells = [(t.case, t.what, f"{t.figure:.3g}", t.bound, "met" if t.met else "MISSED") for t in self.targets]
            print("\n" + markdown(("case", "ratio", "measured", "target", ""), cells))
        for text in self.notes:
            print(f"\n{text}")
        if self.options.json is not None:
            write_json(self.options.json, self.document())

    def document(self) -> dict[str, Any]:
        """Return all that was measured, as JSON data."""
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(self.options).items()}
        return {
            "benchmark": self.name,
            "command": sys.argv,
            "options": settings,
            "machine": self.machine,
            "rows": [asdict(row) for row in self.rows],
            "targets": [asdict(target) for target in self.targets],
            "notes": self.notes,
        }


def table(rows: Sequence[Row]) -> str:
    """Return rows as an aligned Markdown table."""
    extras = list(dict.fromkeys(key for row in rows for key in row.extra))
    cells = []
    for row in rows:
        value = f"{row.value.median:.4g} {row.unit}"
        quartiles = f"{row.value.lower:.4g} to {row.value.upper:.4g}"
        times = f"{row.ratio.median:.3g} ({row.ratio.lower:.3g} to {row.ratio.upper:.3g})"
        ratio_cell = "1" if row.variant == row.reference else times
        cells.append(
            (row.case, row.variant, value, quartiles, ratio_cell, *(str(row.extra.get(k, "")) for k in extras))
        )
    references = sorted({row.reference for row in rows})
    heading = f"x {references[0]}" if len(references) == 1 else "x the case's 1"
    return markdown(("case", "variant", "median", "quartiles", heading, *extras), cells)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are aligned as plain text too."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(header), rule, *(line(cells) for cells in rows)])


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Return what the figures depend on: processor, versions, commit, load at the start."""
    machine: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or None,
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": _versions("torch", "transformers", "numpy", "pyarrow"),
        "commit": _commit(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S%z"),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        machine["threads"] = torch.get_num_threads()
    if device == "cuda":
        assert torch is not None
        machine["gpu"] = torch.cuda.get_device_name()
        machine["gpu_memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1)
        machine["peak_tflops_bf16_fp32"] = peak_tflops(machine["gpu"])
    return machine


def describe(machine: Mapping[str, Any]) -> str:
    """Return one line of :func:`describe_machine`."""
    parts = [f"{machine['cpu']}, {machine['cores']} cores", f"{machine['threads']} threads"]
    if "gpu" in machine:
        parts.append(machine["gpu"])
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return "; ".join([*parts, versions, f"commit {machine['commit']}", f"load {machine['load_at_start']}"])


def peak_tflops(name: str) -> tuple[float | None, float | None]:
    """Return a device's peak in bf16 and float32 by its name; None where it is not known."""
    return next((peaks for part, peaks in PEAK_TFLOPS.items() if part in name), (None, None))


def write_json(path: Path, document: Any) -> None:
    """Write beside, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(document, indent=1) + "\n")
    beside.replace(path)


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
