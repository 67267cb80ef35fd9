"""How long until the first word: from each way in, and until a finished sweep's leaderboard stands in Python.

    python benchmarks/startup.py

Each run is a process of its own; files are in the page cache after the first round. The reference is Python itself.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import measure

OBJECTIVE = """
def train(config, context):
    for epoch in range(context.epoch, context.max_epochs):
        yield {"score": config["lr"]}
"""
SWEEP = """
name: startup
train: objective:train
metric: {name: score, goal: maximize}
parameters: {lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-1}}
scheduler: {max_epochs: 3, grace_epochs: 1}
budget: {trials: 12}
mlflow: {enabled: false}
"""
WAYS = {
    "segbench sweep": [str(Path(sys.executable).with_name("segbench")), "sweep"],
    "python -m segbench sweep": [sys.executable, "-m", "segbench", "sweep"],
    "python -m segbench.sweep": [sys.executable, "-m", "segbench.sweep"],
}
RUN = "import sys, segbench\ntry: segbench.run(sys.argv[1])\nexcept segbench.UserError: sys.exit(2)"
LOAD = "import segbench; segbench.load('done').leaderboard"
LIMITS_S = {"--help": 0.6, "a mistake in the file": 0.6, "--dry-run without models": 0.6, "load(...).leaderboard": 2.0}


def variants(case: str) -> dict[str, list[str]]:
    """Return what is started in a case, by the way in."""
    words = {
        "--help": ["--help"],
        "a mistake in the file": ["bad.yaml"],
        "--dry-run without models": ["good.yaml", "--dry-run"],
    }
    bare = {"python -c pass": [sys.executable, "-c", "pass"]}
    if case == "load(...).leaderboard":
        return {**bare, "segbench.load": [sys.executable, "-c", LOAD]}
    found = {name: [*command, *words[case]] for name, command in WAYS.items()}
    if case == "a mistake in the file":
        found["segbench.run"] = [sys.executable, "-c", RUN, "bad.yaml"]
    return {**bare, **found}


def main() -> None:
    """Measure every case."""
    options = measure.set_up(measure.parser(__doc__).parse_args())
    bench = measure.Benchmark("startup", options)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for case, limit_s in LIMITS_S.items():
            if not bench.wants(case):
                continue
            seconds = measure.alternate(
                {name: lambda command=command: start(command, folder) for name, command in variants(case).items()},
                options,
            )
            bench.add(case, seconds, "s", reference="python -c pass")
            for name in list(seconds)[1:]:
                figure = statistics.median(seconds[name])
                bench.targets.append(
                    measure.Target(
                        case=case, what=f"{name}, s", figure=figure, bound=f"<= {limit_s:g}", met=figure <= limit_s
                    )
                )
    bench.finish()


def prepare(folder: Path) -> None:
    """Write the files, and run a small sweep whose leaderboard is loaded."""
    (folder / "objective.py").write_text(OBJECTIVE)
    (folder / "good.yaml").write_text(SWEEP)
    (folder / "bad.yaml").write_text(SWEEP.replace("metric", "metrik"))
    start([*WAYS["segbench sweep"], "good.yaml", "--executor", "local", "--out", "done"], str(folder))


def start(command: Sequence[str], folder: str) -> None:
    """Run a command to its end."""
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, env={**os.environ, "COLUMNS": "100"})
    if done.returncode not in (0, 2):
        raise RuntimeError(done.stderr.decode())


if __name__ == "__main__":
    main()
