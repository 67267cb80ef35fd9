"""What a sweep learns from earlier ones: read once, at its first start, and kept in its own folder.

So an old sweep may grow, move or go: the new one goes on as it began.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

from segbench.core.address import sweep_paths
from segbench.core.config import DataConfig
from segbench.core.errors import UserError
from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths, atomic_write
from segbench.core.records import Assignment, EpochRecord, TrialRecord, TrialState
from segbench.data import describe_data, read_record
from segbench.search.warm_start import OldTrials, is_usable
from segbench.spec.load import load_spec
from segbench.spec.schema import OldSweep, SweepSpec
from segbench.spec.source import listed
from segbench.storage.mirror import fetch_sweep
from segbench.sweep.folder import has_begun

_PLACES = ("cache_dir", "packed")
"""Keys of ``data:`` that say where the data are, not which."""


def find_old(paths: SweepPaths, spec: SweepSpec) -> tuple[OldTrials, ...]:
    """Return the trials of earlier sweeps that a sweep learns from: those in its folder, else those named in its file.

    Args:
        paths: the sweep's folder.
        spec: its file.

    Raises:
        UserError: a folder holds no sweep, or one whose scores do not compare with this sweep's.
    """
    if has_begun(paths) and paths.prior.exists():
        return tuple(_from_plain(entry) for entry in json.loads(paths.prior.read_text(encoding="utf-8"))["sweeps"])
    facts = _facts(paths, spec)
    return tuple(_read_old(old, spec, facts) for old in spec.search.warm_start)


def take_old(paths: SweepPaths, spec: SweepSpec) -> tuple[OldTrials, ...]:
    """Return what :func:`find_old` does, and keep it in the sweep's folder before the first trial begins.

    Raises:
        UserError: as of :func:`find_old`.
    """
    old = find_old(paths, spec)
    if spec.search.warm_start and not (has_begun(paths) and paths.prior.exists()):
        atomic_write(paths.prior, json.dumps({"sweeps": [_plain(each) for each in old]}) + "\n")
    return old


def _facts(paths: SweepPaths, spec: SweepSpec) -> Mapping[str, object]:
    """Return which data a sweep has; nothing where that is not known before they are packed."""
    found = read_record(paths.data)
    if found or not spec.is_segmentation:
        return found
    described = describe_data(spec.data)
    return {} if described is None else asdict(described)


def _read_old(old: OldSweep, spec: SweepSpec, facts: Mapping[str, object]) -> OldTrials:
    paths = sweep_paths(old.path, "views")
    if paths.uri is not None:
        fetch_sweep(paths, with_results=False)
    if not paths.spec.is_file():
        raise UserError(f"search.warm_start: {old.path} is not a sweep's folder (no sweep.yaml in it)")
    theirs = load_spec(paths.spec, is_remote=True).spec
    if theirs.metric != spec.metric:
        raise UserError(
            f"search.warm_start: {old.path} was searched for {theirs.metric.name} ({theirs.metric.goal}), this sweep "
            f"for {spec.metric.name} ({spec.metric.goal}); leave the folder out"
        )
    different = list(differences(theirs, read_record(paths.data), spec, facts))
    if different and not old.by_rank:
        raise UserError(
            f"search.warm_start: scores in {old.path} do not compare with this sweep's ({listed(different)}); write "
            f"{{path: {old.path}, by_rank: true}} to learn from their order alone, or leave the folder out"
        )
    records = read_ledger(paths.ledger("search"))
    usable = tuple(record for record in records if is_usable(record, spec.metric.goal))
    return OldTrials(old.path, usable, len(records) - len(usable), old.by_rank)


def differences(
    old: SweepSpec, old_facts: Mapping[str, object], new: SweepSpec, new_facts: Mapping[str, object]
) -> Iterator[str]:
    """Yield why scores of one sweep do not compare with another's: what trains, for how long, on which data.

    Args:
        old: one sweep.
        old_facts: which data it has, as :func:`segbench.data.keep_record` wrote it; empty where that is not known.
        new: the other sweep.
        new_facts: of its data; empty before they are packed: then what the files say is compared, but for the folder.
    """
    if old.train != new.train:
        yield f"train: {old.train} there, {new.train} here"
    if old.scheduler.max_epochs != new.scheduler.max_epochs:
        yield f"scheduler.max_epochs: {old.scheduler.max_epochs} there, {new.scheduler.max_epochs} here"
    if not (old.is_segmentation and new.is_segmentation):
        return
    if old_facts and new_facts and _identity(old_facts) == _identity(new_facts):
        return
    places = _PLACES if new_facts else (*_PLACES, "root")
    keys = [field.name for field in fields(DataConfig) if field.name not in places]
    named = [key for key in keys if getattr(old.data, key) != getattr(new.data, key)]
    for key in named:
        yield f"data.{key}: {_said(getattr(old.data, key))} there, {_said(getattr(new.data, key))} here"
    if not named and old_facts and new_facts:
        yield f"the pictures: digest {old_facts['digest']} there, {new_facts['digest']} here"


def _identity(facts: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    return facts["digest"], tuple(facts["groups"])


def _said(value: object) -> str:
    return json.dumps(value, default=str)


def _plain(old: OldTrials) -> dict[str, Any]:
    trials = [
        {
            **asdict(record.assignment),
            "state": record.state.value,
            "scores": [[epoch.epoch, epoch.score] for epoch in record.epochs],
        }
        for record in old.records
    ]
    return {"folder": old.folder, "by_rank": old.by_rank, "num_unusable": old.num_unusable, "trials": trials}


def _from_plain(entry: Mapping[str, Any]) -> OldTrials:
    records = []
    for trial in entry["trials"]:
        known = {key: trial[key] for key in Assignment.__dataclass_fields__ if key in trial}
        epochs = tuple(EpochRecord(epoch=epoch, score=score, metrics={}) for epoch, score in trial["scores"])
        records.append(TrialRecord(assignment=Assignment(**known), state=TrialState(trial["state"]), epochs=epochs))
    return OldTrials(entry["folder"], tuple(records), entry["num_unusable"], entry["by_rank"])
