"""Every fault, as it really happens: what was done about it and what was lost. Makes the table in docs/faults.md.

    python benchmarks/faults.py [--only WORD] [--json FILE] [--write]

Each row is a sweep of four trials x four epochs on Ray with one worker; each trial meets the fault once, in epoch 3.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from chaos.killing import count_events  # noqa: E402
from chaos.test_cluster_chaos import HEALTH  # noqa: E402
from chaos.test_mlflow_outage import assert_all_points, free_port, server  # noqa: E402
from fault_sweeps import TIMEOUT_S, FaultySweep, Row, Scores, faulty_sweep, first_line  # noqa: E402

DOCUMENT = ROOT / "docs" / "faults.md"
MARKS = ("<!-- measured -->", "<!-- /measured -->")
HANG_S = 15

Measure = Callable[[str, Scores], Row]
"""Runs one sweep; given the row's name and the scores of the sweep that meets nothing."""

UNET = """
name: unet
train: small_device:train
metric: {name: val/miou, goal: maximize}
parameters:
  model: unet
  width: 4
  depth: 2
  norm: group
  batch_size: 8
  accumulation_steps: 1
  room: ROOM
  lr: {distribution: log_uniform_values, min: 1e-3, max: 1e-2}
resources: {cpu: 1}
budget: {max_concurrent: 1}
mlflow: {enabled: false}
"""


def meet(fault: str, calm: Scores, accident: str) -> Row:
    """Each trial has its accident."""
    with faulty_sweep(accident, f"budget.trial_timeout_s={HANG_S if accident == 'hang' else TIMEOUT_S}") as sweep:
        sweep.finish()
        return sweep.row(fault, calm)


def interrupt(fault: str, calm: Scores, number: int) -> Row:
    """The driver gets a signal after seven events; SIGKILL goes to the whole family."""
    with faulty_sweep() as sweep:
        while count_events(sweep.paths) < 7:
            assert sweep.process.poll() is None
            time.sleep(0.01)
        if number == signal.SIGKILL:
            sweep.kill()
            sweep.happened.append("killed")
            sweep.start()
        else:
            sweep.process.send_signal(number)
        sweep.finish()
        return sweep.row(fault, calm)


def lose_node(fault: str, calm: Scores) -> Row:
    """Each trial hangs in epoch 3 until the node that it runs on is removed; a new node takes its place."""
    with worker_nodes(2) as cluster, faulty_sweep("hang", arguments=["--address", cluster.address]) as sweep:
        for count in range(1, 5):
            sweep.wait_for_accidents(count)
            (busy,) = [node for node in cluster.worker_nodes if trial_processes(node)]
            cluster.remove_node(busy, allow_graceful=False)
            cluster.add_node(num_cpus=1)
        sweep.finish()
        return sweep.row(fault, calm)


@contextlib.contextmanager
def worker_nodes(count: int) -> Iterator[Cluster]:
    """Run a cluster of a head without CPUs and so many nodes with one each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": HEALTH})
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


def trial_processes(node: object) -> list[psutil.Process]:
    """Return the processes of a node that run trials."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)  # type: ignore[attr-defined]
    return [child for child in raylet.children(recursive=True) if "Trainable" in " ".join(child.cmdline())]


def damage_checkpoint(fault: str, calm: Scores) -> Row:
    """In epoch 3 of each trial all is killed and its newest checkpoint overwritten."""
    with faulty_sweep("hang") as sweep:
        for count in range(1, 5):
            sweep.wait_for_accidents(count)
            sweep.kill()
            states = sweep.paths.root.glob("trials/search/*/last/[01]/state.json")
            max(states, key=lambda state: state.stat().st_mtime_ns).write_bytes(b"\x00garbage")
            sweep.start()
        sweep.finish()
        for epochs in sweep.begun:
            after = epochs[epochs.index(3) + 1]
            sweep.happened.append(f"killed in epoch 3, checkpoint of epoch 2 overwritten, continued with epoch {after}")
        return sweep.row(fault, calm)


def miss_mlflow(fault: str, calm: Scores) -> Row:
    """Nothing listens at the server's address before the sweep has ended."""
    port = free_port()
    overrides = ("mlflow.enabled=true", f"mlflow.tracking_uri=http://127.0.0.1:{port}")
    with faulty_sweep("nothing", *overrides) as sweep:
        sweep.finish()
        sweep.happened.append(sweep.said[sweep.said.index("Nothing is lost") :])
        with server(sweep.folder, port):
            command = [sys.executable, "-m", "segbench", "mlflow", "sync", str(sweep.paths.root)]
            synced = subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
            assert_all_points(sweep.paths, port)
        sweep.happened.append(f"then `segbench mlflow sync`: {first_line(synced.stdout)}: all points there")
        return sweep.row(fault, calm)


def exhaust_memory(fault: str, calm: Scores) -> Row:
    """From epoch 3 on four images fit, not eight; compared with a sweep in which eight always fit."""
    del calm
    with unet_sweep(room=8) as undisturbed:
        undisturbed.finish()
        scores = undisturbed.scores
    with unet_sweep(room=4) as sweep:
        sweep.finish()
        parts = sorted({record.assignment.config["accumulation_steps"] for record in sweep.records})
        sweep.happened.append(f"no retries allowed, parts of a batch 1 -> {', '.join(map(str, parts))}")
        return sweep.row(fault, scores)


def unet_sweep(room: int) -> contextlib.AbstractContextManager[FaultySweep]:
    """Return a sweep of real training on a device with room for so many images from epoch 3 on."""
    return faulty_sweep("", "budget.trials=4", "budget.max_failures=0", text=UNET.replace("ROOM", str(room)))


def fail_alike(fault: str, calm: Scores) -> Row:
    """Five of eight trials raise; then the cause is mended for the others."""
    with faulty_sweep("exception", "budget.trials=7", "budget.max_failures=0") as sweep:
        sweep.end()
        assert len(sweep.records) == 5
        for number in range(5, 8):
            trial = sweep.paths.trial("search", f"trial-{number:04d}")
            trial.mkdir(parents=True)
            (trial / "stumbled").touch()
        sweep.start()
        sweep.finish()
        return sweep.row(fault, calm)


ROWS: dict[str, Measure] = {
    "exception in the training function": partial(meet, accident="exception"),
    "NaN score": partial(meet, accident="nan"),
    "infinite score": partial(meet, accident="inf"),
    "metric missing": partial(meet, accident="missing"),
    "the first five trials fail alike (of eight), then the cause is mended, then the same command": fail_alike,
    "worker killed (SIGKILL)": partial(meet, accident="kill"),
    "node of the running trial removed without grace (head and two worker nodes)": lose_node,
    "out of memory in a real training (UNet, `torch.OutOfMemoryError`)": exhaust_memory,
    "out of memory in a user's function": partial(meet, accident="memory"),
    f"hanging trial ({HANG_S} s)": partial(meet, accident="hang"),
    "disk full": partial(meet, accident="disk"),
    "driver and all children killed, newest checkpoint damaged, then the same command": damage_checkpoint,
    "Ctrl-C, then the same command": partial(interrupt, number=signal.SIGINT),
    "SIGTERM, then the same command": partial(interrupt, number=signal.SIGTERM),
    "driver and all children killed (SIGKILL), then the same command": partial(interrupt, number=signal.SIGKILL),
    "MLflow server down during the whole sweep, started afterwards": miss_mlflow,
}


def render(rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    names = list(asdict(rows[0]))
    lines = [[name.replace("_", " ") for name in names], ["---"] * 3 + ["---:"] * (len(names) - 3)]
    lines += [
        [f"{cell:.0f}" if isinstance(cell, float) else str(cell) for cell in asdict(row).values()] for row in rows
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Measure the rows, print them, and write them into the document if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="rows whose name contains it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--write", action="store_true", help=f"replace the table in {DOCUMENT.name}; not with --only")
    options = parser.parse_args()
    if options.write and options.only:
        parser.error("--write needs all rows; leave --only out")
    with faulty_sweep() as undisturbed:
        undisturbed.finish()
        calm = undisturbed.scores
        rows = [undisturbed.row("none", calm)]
    for fault, measure in ROWS.items():
        if options.only in fault:
            rows.append(measure(fault, calm))
            print(render(rows[-1:]).splitlines()[-1], flush=True)
    table = render(rows)
    print(f"\n{table}")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))
    if options.write:
        head, rest = DOCUMENT.read_text().split(MARKS[0])
        DOCUMENT.write_text(f"{head}{MARKS[0]}\n{table}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main()
