"""Two concurrent SegFormer-b0 trainings at 128x128 on two cores, from disk, as real processes.

    python benchmarks/pair.py

*ours* trains on packed data with one thread each. The others read 2048x1024 PNGs through a DataLoader (cv2,
albumentations) and train the stock model in float32, with one thread each, and with torch's default number. Each round
starts one epoch in both processes of a variant and waits for both; the others sleep.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import measure

HERE = Path(__file__).resolve().parent
PEERS = ("albumentations", "opencv-python-headless")
NUM_PROCESSES = 2
NETWORK = "segformer-b0"


class Pair:
    """Two processes that train an epoch each when told to."""

    def __init__(self, kind: str, threads: int | None, options: argparse.Namespace) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent)])
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        command = [sys.executable, __file__, "--worker", kind, "--images", str(options.images)]
        command += ["--quick"] if options.quick else []
        self.processes = [
            subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(NUM_PROCESSES)
        ]

    def wait(self) -> None:
        """Wait until both have set up, or have trained the epoch that they were told to."""
        for process in self.processes:
            expect(process.stdout)

    def epoch(self) -> None:
        """Train one epoch in both."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        self.wait()

    def close(self) -> None:
        """End both."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def expect(stream: IO[bytes] | None) -> None:
    """Wait for a worker's ``done``; libraries may print before it."""
    assert stream is not None
    while (line := stream.readline()) != b"done\n":
        if not line:
            raise SystemExit("a worker died; its message stands above")


def work(options: argparse.Namespace) -> None:
    """Be one of the two processes: set up, train an epoch, then one for each line on standard input."""
    import epoch
    import torch

    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    options.workers = 0
    config = epoch.data_config(make_folder(options), 32 if options.quick else 128)
    train_epoch = (epoch.ours if options.worker == "ours" else epoch.png_loop)(NETWORK, config, options)
    if options.worker != "ours":
        train_epoch()  # ours has made its first epoch
    print("done", flush=True)
    for _ in sys.stdin:
        train_epoch()
        print("done", flush=True)


def make_folder(options: argparse.Namespace) -> Path:
    """Return the folder of PNGs, made on first use."""
    from peers_data import street_folder

    return street_folder(6, (64, 128)) if options.quick else street_folder(options.images)


def main() -> None:
    """Measure the three pairs."""
    parser = measure.parser(__doc__)
    parser.add_argument("--images", type=int, default=24, help="full-size scenes, test split included")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    measure.set_up(options)
    import peers

    make_folder(options)
    bench = measure.Benchmark("pair", options)
    pairs = {"ours": Pair("ours", 1, options)}
    missing = [name for name in PEERS if not peers.has(name)]
    if not missing:
        pairs["png loader, 1 thread"] = Pair("png", 1, options)
        pairs["png loader, default threads"] = Pair("png", None, options)
    for name in missing:
        bench.note(f"skipped: {name} is not installed")
    for pair in pairs.values():
        pair.wait()
    try:
        seconds = measure.alternate({name: pair.epoch for name, pair in pairs.items()}, options)
    finally:
        for pair in pairs.values():
            pair.close()
    case = f"2 x {NETWORK} 128²"
    per_hour = measure.rates(seconds, 3600 * NUM_PROCESSES)
    bench.add(case, per_hour, "epochs/h", reference=list(pairs)[-1])
    bench.target(case, "ours", "png loader, 1 thread", at_least=3.5)
    bench.target(case, "ours", "png loader, default threads", at_least=10)
    bench.finish()


if __name__ == "__main__":
    main()
