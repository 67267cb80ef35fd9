"""What `segbench cluster` does on the head, in the folder of the code that it has brought there.

python -m segbench.cluster.head start NAME [--mlflow MLFLOW STORAGE] -- SWEEP-ARGUMENTS...
python -m segbench.cluster.head tunnel DASHBOARD-PORT MLFLOW-PORT
python -m segbench.cluster.head pack FOLDER TARGET
"""

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from filecmp import cmp
from pathlib import Path
from typing import Literal

from segbench.cluster.mlflow_head import head_server
from segbench.cluster.tracking import is_on_head
from segbench.cluster.tunnel import tunnel
from segbench.core.address import is_bucket, sweep_paths
from segbench.core.errors import SegbenchError, StateError, UserError
from segbench.core.paths import SweepPaths, atomic_path
from segbench.storage.mirror import fetch_sweep

DASHBOARD = "http://127.0.0.1:8265"
SETUP = Path("~/.segbench/requirements.lock")
"""What `ray up` has set the nodes up with."""


def job_id(name: str) -> str:
    """Return the Ray job's id of the sweep ``name``: one sweep is one job at a time."""
    return f"segbench-{name}"


def start(name: str, arguments: Sequence[str], mlflow: tuple[str, str] | None = None) -> None:
    """Start the sweep as a Ray job, which outlives this connection.

    Args:
        name: of the sweep.
        arguments: of `python -m segbench.sweep`.
        mlflow: what ``metadata.mlflow`` says, and the cluster's storage.

    Raises:
        UserError: the nodes have other packages than the code asks for, or the tracking server cannot be used.
        StateError: the sweep is running already.
    """
    lock = Path("requirements.lock")
    if lock.is_file() and SETUP.expanduser().is_file() and not cmp(lock, SETUP.expanduser(), shallow=False):
        raise UserError("the nodes were set up from another requirements.lock than this checkout has; `ray up` again")
    state = job_state(name)
    if state == "running":
        raise StateError(f"the sweep {name} is running already; `segbench cluster logs` follows it, `stop` stops it")
    if state == "ended":
        _ray_job("delete", job_id(name))
    variables = {"PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    if commit := os.environ.get("SEGBENCH_COMMIT"):
        variables["SEGBENCH_COMMIT"] = commit
    if mlflow is not None:
        variables["MLFLOW_TRACKING_URI"] = _tracking_uri(*mlflow)
        sys.stdout.write(f"MLflow at {variables['MLFLOW_TRACKING_URI']}\n")
    result = _ray_job(
        "submit", "--no-wait", "--submission-id", job_id(name), "--working-dir", ".",
        "--runtime-env-json", json.dumps({"env_vars": variables}),
        "--", sys.executable, "-m", "segbench.sweep", *arguments,
    )  # fmt: skip
    if result.returncode:
        raise SegbenchError(f"Ray did not take the job:\n{result.stdout}{result.stderr}")


def _tracking_uri(mlflow: str, storage: str) -> str:
    if is_on_head(mlflow):
        return head_server(mlflow, storage, SETUP.expanduser().parent)
    return mlflow


def job_state(name: str) -> Literal["running", "ended"] | None:
    """Return the state of the sweep's job; None if there is no such job."""
    job = re.escape(job_id(name))
    printed = _ray_job("status", job_id(name)).stdout
    if re.search(rf"Status for job '{job}'", printed):  # pending or running
        return "running"
    return "ended" if re.search(rf"Job '{job}' (succeeded|failed|was stopped)", printed) else None


def pack(folder: str, target: Path) -> None:
    """Write what a laptop needs of the sweep in ``folder`` to a tar file: tables, ledgers, models; no checkpoints.

    May be called while the sweep runs: ledgers only grow, and every other file is replaced in one step.
    """
    paths = sweep_paths(folder if is_bucket(folder) else str(Path(folder).expanduser()), "views")
    if paths.uri is not None:
        fetch_sweep(paths)
    if not paths.spec.is_file():
        raise StateError(f"{folder} holds no sweep yet (no sweep.yaml in it)")
    with atomic_path(target.expanduser()) as temporary, tarfile.open(temporary, "w:gz") as archive:
        for path in _results(paths):
            archive.add(path, path.relative_to(paths.root))


def _results(paths: SweepPaths) -> Iterator[Path]:
    """Yield the files to fetch. MLflow's database is not one: `segbench mlflow sync` makes it from the ledgers.

    Where the runs are on a server, `segbench compare` shows them there.
    """
    yield from (path for path in paths.root.glob("*") if path.suffix in (".yaml", ".jsonl", ".csv", ".parquet"))
    yield from (paths.root / "state").glob("*.jsonl")
    yield from (path for path in (paths.root / "models").rglob("*") if path.is_file())
    others = [paths.study, paths.sweep_id, *([] if paths.mlflow_db.exists() else [paths.mlflow_state])]
    yield from (path for path in others if path.is_file())


def _ray_job(verb: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    ray = Path(sys.executable).parent / "ray"
    command = [str(ray), "job", verb, "--address", DASHBOARD, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def main(arguments: Sequence[str]) -> None:
    """Run the command line; the laptop's side of it is :mod:`segbench.cluster.commands`."""
    try:
        match list(arguments):
            case ["start", name, "--", *rest]:
                start(name, rest)
            case ["start", name, "--mlflow", mlflow, storage, "--", *rest]:
                start(name, rest, (mlflow, storage))
            case ["tunnel", dashboard_port, mlflow_port]:
                tunnel(int(dashboard_port), int(mlflow_port), SETUP.expanduser().parent)
            case ["pack", folder, target]:
                pack(folder, Path(target))
            case _:
                raise UserError(__doc__ or "")
    except SegbenchError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
