"""What a sweep asks of a model beside its score: requirements that it must meet, metrics that it trades."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Goal = Literal["maximize", "minimize"]

METRICS = ("val/miou", "val/loss", "val/pixel_accuracy", "val/fwiou", "val/f1", "val/miou_official", "train/loss")
"""What the built-in training function reports, beside ``val/iou/<group>``."""
COST_METRICS = ("model/parameters", "model/gmacs", "model/latency_ms", "model/latency_batch_ms", "model/peak_mib")
"""What a model costs to run, known of an architecture before training (``segbench.final.cost``); less is better."""

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_REQUIREMENT = re.compile(r"(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")


@dataclass(frozen=True)
class Objective:
    """A metric to improve."""

    name: str
    goal: Goal

    def loss(self, value: object) -> float:
        """Return what is to be minimised; infinite for what is no number."""
        if not isinstance(value, int | float) or value != value:
            return float("inf")
        return float(-value if self.goal == "maximize" else value)

    def value(self, loss: float) -> float:
        """Return the metric's value of a loss."""
        return -loss if self.goal == "maximize" else loss


def known_goal(metric: str) -> Goal | None:
    """Return in which direction a metric that segbench reports or measures is better; None for another one."""
    if metric in COST_METRICS:
        return "minimize"
    if metric in METRICS or metric.startswith("val/iou/"):
        return "minimize" if metric.endswith("loss") else "maximize"
    return None


@dataclass(frozen=True)
class Requirement:
    """A bound that a model must keep."""

    metric: str
    sign: str
    """``<``, ``<=``, ``>`` or ``>=``."""
    bound: float

    @property
    def is_known_before_training(self) -> bool:
        """Whether the architecture alone decides."""
        return self.metric in COST_METRICS

    def is_met(self, value: float) -> bool:
        """Whether ``value`` keeps the bound; NaN does not."""
        return _OPERATORS[self.sign](value, self.bound)

    def describe(self, value: object) -> str:
        """Return ``model/latency_ms 41.2, required < 30``."""
        given = f"{value:.6g}" if isinstance(value, int | float) else "not reported"
        return f"{self.metric} {given}, required {self.sign} {self.bound:.6g}"


def parse_requirement(metric: str, text: object) -> Requirement:
    """Return what ``require: {metric: text}`` asks for.

    Raises:
        ValueError: it is no operator and number.
    """
    found = _REQUIREMENT.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        shown = f"'{text}'" if isinstance(text, str) else text
        raise ValueError(f"must be <, <=, > or >= and a number, in quotes, such as '< 30', got {shown}")
    return Requirement(metric, found[1], float(found[2]))


def violation(requirements: Sequence[Requirement], values: Mapping[str, object]) -> str | None:
    """Return the first requirement that ``values`` do not meet, as a sentence; None when they meet all.

    Args:
        requirements: of the sweep.
        values: metric -> value; one that is not there, or no number, meets nothing.
    """
    for requirement in requirements:
        value = values.get(requirement.metric)
        if not isinstance(value, int | float) or not requirement.is_met(value):
            return requirement.describe(value)
    return None
