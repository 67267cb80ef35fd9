"""Every file and folder that a sweep writes, and the one way to write them: beside, then rename."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Stage = Literal["search", "retrain", "test"]
STAGES: tuple[Stage, ...] = ("search", "retrain", "test")


@dataclass(frozen=True)
class SweepPaths:
    """The folder of one sweep, ``runs/<name>`` unless ``--out`` says otherwise.

    sweep.yaml              the file as resolved
    versions.jsonl          versions, commit, hardware and command of each start
    report.html             all of it to look at
    trials.csv, .parquet    a row per search trial; per trial of any stage
    leaderboard.csv, .md    a row per finalist
    metrics.parquet         a row per epoch of every trial
    mlflow.db, mlartifacts/ MLflow, when no server is named
    optuna.log              the study, for optuna-dashboard
    state/<stage>.jsonl     the ledgers: all that decisions depend on
    state/data.json         which data exactly: key of the packed set, digest, images of each split, groups
    state/enqueued.jsonl    trials that were asked for while the sweep ran, or after
    state/prior.json        trials of earlier sweeps that this one learns from, as they were when it began
    state/costs.jsonl       what models cost to run, where the sweep asks for it: measured before training
    state/sharing.json      what trials need of a GPU: measured, and decided
    state/mlflow.json       what MLflow was given; a cache that can be deleted
    state/sweep_id          marks this sweep's runs in MLflow
    trials/<stage>/<name>/  last/ and best/ checkpoints, pictures
    models/<name>/          best checkpoint of each row of the leaderboard, hard links where there are such
    ray/                    Ray's own files; can be deleted
    """

    root: Path
    uri: str | None = None
    """The bucket's address of which ``root`` is this machine's working copy."""

    @property
    def place(self) -> str:
        """Where the folder is for everybody."""
        return self.uri or str(self.root)

    def address(self, path: Path) -> str:
        """Return what a worker on another node calls ``path``, a file or folder of this sweep."""
        return str(path.resolve()) if self.uri is None else f"{self.uri}/{path.relative_to(self.root).as_posix()}"

    @property
    def spec(self) -> Path:
        """The sweep file as resolved."""
        return self.root / "sweep.yaml"

    @property
    def versions(self) -> Path:
        """Versions, commit, hardware and command of each start, a JSON line each."""
        return self.root / "versions.jsonl"

    @property
    def trials(self) -> Path:
        """Table of search trials."""
        return self.root / "trials.csv"

    @property
    def leaderboard(self) -> Path:
        """Table of finalists."""
        return self.root / "leaderboard.csv"

    @property
    def metrics(self) -> Path:
        """Every epoch of every trial."""
        return self.root / "metrics.parquet"

    @property
    def report(self) -> Path:
        """The page that shows everything."""
        return self.root / "report.html"

    @property
    def mlflow_db(self) -> Path:
        """SQLite file used when no tracking server is named."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """Artifacts beside the SQLite file."""
        return self.root / "mlartifacts"

    @property
    def study(self) -> Path:
        """Optuna's journal file; a view, made again from the ledger at each start."""
        return self.root / "optuna.log"

    @property
    def ray(self) -> Path:
        """Where Ray Tune keeps its own files."""
        return self.root / "ray"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the sweep."""
        return self.root / "state" / "lock"

    @property
    def data(self) -> Path:
        """Which data exactly."""
        return self.root / "state" / "data.json"

    @property
    def enqueued(self) -> Path:
        """Trials that were asked for."""
        return self.root / "state" / "enqueued.jsonl"

    @property
    def prior(self) -> Path:
        """Trials of earlier sweeps, taken at the first start."""
        return self.root / "state" / "prior.json"

    @property
    def costs(self) -> Path:
        """What models cost to run, a JSON line per architecture."""
        return self.root / "state" / "costs.jsonl"

    @property
    def sharing(self) -> Path:
        """What trials need of a GPU."""
        return self.root / "state" / "sharing.json"

    @property
    def mlflow_state(self) -> Path:
        """What MLflow was given, and where; a cache that can be deleted."""
        return self.root / "state" / "mlflow.json"

    @property
    def sweep_id(self) -> Path:
        """Marks this sweep's runs in MLflow: they are found by it, and never made a second time."""
        return self.root / "state" / "sweep_id"

    def ledger(self, stage: Stage) -> Path:
        """Ledger of one stage."""
        return self.root / "state" / f"{stage}.jsonl"

    def trial(self, stage: Stage, name: str) -> Path:
        """Folder of one trial."""
        return self.root / "trials" / stage / name

    def last(self, stage: Stage, name: str) -> Path:
        """Checkpoint to continue a trial from."""
        return self.trial(stage, name) / "last"

    def best(self, stage: Stage, name: str) -> Path:
        """Weights of a trial's best epoch."""
        return self.trial(stage, name) / "best"

    def model(self, name: str) -> Path:
        """Exported best checkpoint of a row of the leaderboard."""
        return self.root / "models" / name


def is_safe_name(name: str) -> bool:
    """Whether ``name`` can be a folder, an MLflow experiment and a part of a URL."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name) is not None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; on success it replaces ``path`` in one step.

    A reader sees the old file, or the new one, never a part. The temporary file is removed on an error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of space; safetensors says so in an exception of its own, by its text."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def link_or_copy(source: Path, target: Path) -> None:
    """Give ``source`` a second name in place of what was there; copy it where the file system has no hard links."""
    if target.exists() and target.samefile(source):
        return  # renaming one name of a file over another would leave both
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:
        with atomic_path(target) as copy:
            shutil.copyfile(source, copy)
    else:
        temporary.replace(target)


def atomic_write(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
