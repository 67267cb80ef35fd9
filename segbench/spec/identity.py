"""Which sections of a sweep file change its results, and which only how it is run.

A folder continues only the sweep that it holds. A test fails until each section stands in one of the lists.
"""

from dataclasses import dataclass

from segbench.spec.schema import SweepSpec
from segbench.spec.space import flatten

RUNTIME = frozenset({"budget", "resources", "mlflow", "storage", "description"})
"""May change at any time: more trials, more workers, another tracking server."""

GROWING = frozenset({"scheduler.max_epochs"})
"""May grow, when asked for: a trial keeps the length that it was started with."""

CHANGING = frozenset({"parameters"})
"""May change, when asked for: trials that do not lie in the new space stay in the tables, unseen by the sampler."""

PLACES = frozenset({"data.cache_dir", "data.packed"})
"""Where the data are, not which: may change at any time."""

IDENTITY = frozenset(
    {
        "name",
        "train",
        "metric",
        "require",
        "data",
        "training",
        "parameters",
        "baselines",
        "search",
        "scheduler",
        "retrain",
    }
)


@dataclass(frozen=True)
class Changes:
    """What differs between the sweep in a folder and the file, as ``key: old -> new``."""

    refused: tuple[str, ...]
    """Would make other results: another sweep."""
    on_request: tuple[str, ...]
    """Continue the sweep in another way: accepted with ``--resume``."""

    @property
    def has_new_space(self) -> bool:
        """Whether ``parameters:`` differs."""
        return any(line.split(".")[0] in CHANGING for line in self.on_request)


def compare(old: SweepSpec, new: SweepSpec, is_retrained: bool) -> Changes:
    """Return the result-relevant differences.

    Args:
        old: what the folder holds.
        new: what is asked for.
        is_retrained: retraining has begun, so that its settings are fixed.
    """
    before, after = (flatten(spec.model_dump(mode="json", include=set(IDENTITY))) for spec in (old, new))
    refused: list[str] = []
    on_request: list[str] = []
    for key in sorted((before.keys() | after.keys()) - PLACES):
        was, now = before.get(key, "(absent)"), after.get(key, "(absent)")
        if was == now:
            continue
        is_growth = key in GROWING and isinstance(was, int) and isinstance(now, int) and now > was
        section = key.split(".")[0]
        is_later = section == "retrain" and not is_retrained
        (on_request if is_growth or is_later or section in CHANGING else refused).append(f"{key}: {was} -> {now}")
    return Changes(tuple(refused), tuple(on_request))
