"""Do 95 % intervals contain the truth, and how often are two equal models called different?

    python benchmarks/coverage.py --repetitions 1000 --json coverage.json

Simulated segmentations (tests/simulated_segmentations.py) of a world whose mIoU is known; segbench's own interval and
paired test, beside the percentile method on the same resamples.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from simulated_segmentations import draw_images, true_miou

from segbench.results import statistics


def repeat(num_images: int, num_seeds: int, repetitions: int, resamples: int, truth: float) -> dict[str, float]:
    """Return shares of the repetitions, by what happened in them."""
    rng = np.random.default_rng(num_images)
    counts = {"covered": 0, "covered by percentiles": 0, "called different": 0}
    for repetition in range(repetitions):
        models = draw_images(rng, num_images, num_models=2 * num_seeds)
        draws = statistics.Resamples.draw(num_images, repetition, resamples)
        first, second = (statistics.bootstrap_miou(models[part::2], draws) for part in (0, 1))
        interval, difference = statistics.interval(first, draws), statistics.compare(first, second, draws)
        assert interval is not None
        assert difference is not None
        counts["covered"] += interval.low <= truth <= interval.high
        low, high = np.quantile(first.values, [0.025, 0.975])
        counts["covered by percentiles"] += bool(low <= truth <= high)
        counts["called different"] += difference.p_value < 0.05
    return {name: count / repetitions for name, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--images", type=int, nargs="+", default=[20, 50, 200])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    truth = true_miou()
    rows = []
    print(f"true mIoU {truth:.4f}; {options.repetitions} repetitions\n")
    print("| images | seeds | covered | covered by percentiles | called different |\n|---:|---:|---:|---:|---:|")
    for num_images in options.images:
        for num_seeds in options.seeds:
            shares = repeat(num_images, num_seeds, options.repetitions, options.resamples, truth)
            rows.append({"images": num_images, "seeds": num_seeds, **shares})
            print(f"| {num_images} | {num_seeds} | " + " | ".join(f"{100 * v:.1f} %" for v in shares.values()) + " |")
    if options.json:
        options.json.write_text(json.dumps({"truth": truth, "repetitions": options.repetitions, "rows": rows}))


if __name__ == "__main__":
    main()
