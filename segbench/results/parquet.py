"""``trials.parquet``, ``metrics.parquet``: all that the ledgers know, typed, for other programs (docs/results.md)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from segbench.core.ledger import Records
from segbench.core.records import Confusion
from segbench.training.class_tables import group_names

_TIME = pa.timestamp("ms", tz="UTC")


def trials_parquet(records: Records) -> pa.Table:
    """Return a row per trial of every stage: what was asked of it and how it ended.

    A parameter's column is whole numbers, numbers, truth values or texts, whichever fits all trials.
    """
    rows = [(stage, record, record.best(records.goal)) for stage, record in records]
    trials = [record for _, record, _ in rows]
    columns = {
        "stage": pa.array([stage for stage, _, _ in rows], pa.string()),
        "number": pa.array([record.number for record in trials], pa.int64()),
        "name": pa.array([record.assignment.name for record in trials], pa.string()),
        "origin": pa.array([record.assignment.origin for record in trials], pa.string()),
        "source": pa.array([record.assignment.source for record in trials], pa.int64()),
        "seed": pa.array([record.assignment.seed for record in trials], pa.int64()),
        "state": pa.array([record.state.value for record in trials], pa.string()),
        "reason": pa.array([record.reason for record in trials], pa.string()),
        "audited_rung": pa.array([record.audited_rung for record in trials], pa.int64()),
        "max_epochs": pa.array([record.assignment.max_epochs for record in trials], pa.int64()),
        "epochs": pa.array([record.epochs_done for record in trials], pa.int64()),
        "best_score": pa.array([best.score if best else None for _, _, best in rows], pa.float64()),
        "best_epoch": pa.array([best.epoch if best else None for _, _, best in rows], pa.int64()),
        "last_score": pa.array([record.last_score for record in trials], pa.float64()),
        "seconds": pa.array([record.seconds for record in trials], pa.float64()),
        "started_at": pa.array([_time(record.started_at) for record in trials], _TIME),
        "ended_at": pa.array([_time(record.ended_at) for record in trials], _TIME),
        "attempts": pa.array([len(record.attempts) for record in trials], pa.int64()),
        "config": pa.array([json.dumps(record.assignment.config) for record in trials], pa.string()),
    }
    for name in _names(record.assignment.params for record in trials):
        columns[f"params.{name}"] = _typed([record.assignment.params.get(name) for record in trials])
    return pa.table(columns)


def metrics_parquet(records: Records) -> pa.Table:
    """Return a row per epoch of every trial: a column per metric, and ``confusion`` as K*K counts, row by row.

    The names of the K groups, in order, stand in the file's metadata under ``groups``, separated by newlines.
    """
    rows = [(stage, record, epoch) for stage, record in records for epoch in record.epochs]
    epochs = [epoch for _, _, epoch in rows]
    columns = {
        "stage": pa.array([stage for stage, _, _ in rows], pa.string()),
        "number": pa.array([record.number for _, record, _ in rows], pa.int64()),
        "name": pa.array([record.assignment.name for _, record, _ in rows], pa.string()),
        "epoch": pa.array([epoch.epoch for epoch in epochs], pa.int64()),
        "score": pa.array([epoch.score for epoch in epochs], pa.float64()),
        "seconds": pa.array([epoch.seconds for epoch in epochs], pa.float64()),
        "at": pa.array([_time(epoch.at) for epoch in epochs], _TIME),
    }
    for name in _names(epoch.metrics for epoch in epochs):
        columns.setdefault(name, _typed([epoch.metrics.get(name) for epoch in epochs]))
    num_groups = max((len(epoch.confusion) for epoch in epochs if epoch.confusion is not None), default=0)
    if not num_groups:
        return pa.table(columns)
    fitting = [epoch.confusion if len(epoch.confusion or ()) == num_groups else None for epoch in epochs]
    # not of Arrow's fixed-size type, whose missing entries cannot be read back from Parquet (pyarrow 25)
    columns["confusion"] = pa.array([_flat(counts) for counts in fitting], pa.list_(pa.int64()))
    groups = next(group_names(epoch) for epoch in epochs if len(epoch.confusion or ()) == num_groups)
    return pa.table(columns).replace_schema_metadata({"groups": "\n".join(groups)})


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return a table for pandas whose whole numbers, truth values and texts stay what they are beside missing ones."""
    nullable = {
        pa.bool_(): pd.BooleanDtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.string(): pd.StringDtype(),
    }
    frame: pd.DataFrame = table.to_pandas(types_mapper=nullable.get)
    return frame


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the union of keys, in order of appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _typed(values: Sequence[Any]) -> pa.Array:
    """Return a column of the narrowest type that holds every value; texts of JSON where they are mixed."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return pa.array(values, pa.bool_())
    if kinds <= {int}:
        return pa.array(values, pa.int64())
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([value if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flat(counts: Confusion | None) -> list[int] | None:
    return None if counts is None else [count for row in counts for count in row]


def _time(timestamp: float | None) -> datetime | None:
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)
