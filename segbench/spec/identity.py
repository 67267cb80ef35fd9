"""Which sections of a sweep file change its results, and which only how it is run.

A folder continues only the sweep that it holds: a changed result-relevant section is refused, a changed runtime one is
accepted. A test fails until each section stands in one of the two lists.
"""

from collections.abc import Mapping
from typing import Any

from segbench.spec.schema import SweepSpec

RUNTIME = frozenset({"budget", "resources", "mlflow", "storage", "description"})
IDENTITY = frozenset(
    {
        "name",
        "train",
        "metric",
        "data",
        "training",
        "parameters",
        "baselines",
        "search",
        "scheduler",
        "retrain",
    }
)


def changed_keys(old: SweepSpec, new: SweepSpec) -> list[str]:
    """Return ``key: old -> new`` for each result-relevant value that differs."""
    before, after = (_flatten(spec.model_dump(mode="json", include=set(IDENTITY))) for spec in (old, new))
    keys = sorted(before.keys() | after.keys())
    missing = "(absent)"
    return [
        f"{key}: {before.get(key, missing)} -> {after.get(key, missing)}"
        for key in keys
        if before.get(key, missing) != after.get(key, missing)
    ]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat.update(_flatten(item, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = item
    return flat
