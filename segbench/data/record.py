"""Which data a sweep has begun with: written in its folder, and compared when it goes on."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from segbench.core.config import DataConfig
from segbench.core.errors import StateError
from segbench.core.paths import atomic_write
from segbench.data.dataset import DataFacts, describe_data
from segbench.data.packed import SUFFIX
from segbench.data.shelf import Shelf


def read_record(path: Path) -> dict[str, object]:
    """Return what ``state/data.json`` says; nothing where a sweep has not begun."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def recorded_key(path: Path) -> str | None:
    """Return the key of the packed set that a sweep has begun with."""
    key = read_record(path).get("key")
    return None if key is None else str(key)


def as_recorded(path: Path, config: DataConfig) -> DataConfig:
    """Return the settings by which the very set is found that a sweep has begun with, where nodes share it."""
    key = recorded_key(path)
    if key is None or config.packed is None or config.packed.endswith(SUFFIX):
        return config
    return replace(config, packed=Shelf(config.packed).address(key))


def keep_record(path: Path, config: DataConfig) -> DataFacts | None:
    """Write which data a sweep trains on, or check that they are those that it has begun with.

    Returns:
        What is known of the data; None before they are packed.

    Raises:
        StateError: they are others.
    """
    facts = describe_data(config)
    if facts is None:
        return None
    before = read_record(path)
    if before and before["digest"] != facts.digest:
        raise StateError(
            f"the data have changed since this sweep began: {_words(before)} then, {_words(asdict(facts))} now. Put "
            "them back as they were to continue it, or give this sweep another name or --out"
        )
    if before.get("key") != facts.key:
        atomic_write(path, json.dumps(asdict(facts), indent=1) + "\n")
    return facts


def _words(facts: dict[str, object]) -> str:
    counts = facts["num_images"]
    assert isinstance(counts, dict)
    return f"{sum(counts.values())} images with digest {facts['digest']}"
