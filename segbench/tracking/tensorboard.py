"""TensorBoard event files as a view of the ledgers: a folder per trial, hyperparameters included."""

import shutil
import tempfile
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from segbench.core.ledger import Records
from segbench.core.records import Goal, Scalar, TrialRecord


def write_events(records: Records, out: Path) -> int:
    """Write ``<out>/<stage>/<trial>/`` for every trial that reported an epoch; return how many.

    Steps are epochs and times those of the ledger. The page HPARAMS has a row per trial: the parameters that were
    drawn, and the best score. What an earlier call wrote of a trial is replaced.
    """
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    with tempfile.TemporaryDirectory(prefix=".events-", dir=out) as temporary:
        for stage, record in records:
            if not record.epochs:
                continue
            name = f"{stage}/{record.assignment.name}"
            _write_trial(record, records.metric, records.goal, Path(temporary) / name)
            shutil.rmtree(out / name, ignore_errors=True)
            (out / name).parent.mkdir(exist_ok=True)
            (Path(temporary) / name).replace(out / name)
            count += 1
    return count


def _write_trial(record: TrialRecord, metric: str, goal: Goal, folder: Path) -> None:
    with SummaryWriter(str(folder)) as writer:
        best = record.best(goal)
        if best is not None:
            score = f"best {metric}"
            params = {name: _hparam(value) for name, value in record.assignment.params.items()}
            for summary in hparams(params, {score: best.score}):
                writer.file_writer.add_summary(summary)
            writer.add_scalar(score, best.score, best.epoch, walltime=best.at)
        for epoch in record.epochs:
            for key, value in epoch.metrics.items():
                if isinstance(value, int | float):
                    writer.add_scalar(key, value, epoch.epoch, walltime=epoch.at)


def _hparam(value: Scalar) -> bool | int | float | str:
    return "null" if value is None else value
