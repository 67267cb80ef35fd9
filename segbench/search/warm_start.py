"""What a new sweep can learn from an old one: its trials, as far as they lie in the new space.

The rule, for each parameter that is active in the new space, with the value that the old trial had (drawn or fixed):

- a value that can be drawn is kept;
- a number beyond a range by at most a tenth of its width (in the logarithm for log ranges) is clipped to the bound;
- anything else drops the trial.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from segbench.core.records import Goal, Scalar, TrialRecord, TrialState
from segbench.spec.domains import Domain, is_number
from segbench.spec.space import Integer, Real, Space, Transformed

CLIP_SHARE = 0.1


@dataclass(frozen=True)
class WarmStart:
    """Old trials in terms of the new space."""

    records: tuple[TrialRecord, ...]
    num_kept: int
    num_clipped: int
    num_dropped: int

    def describe(self) -> str:
        """Return one line."""
        return f"{self.num_kept} trials kept, {self.num_clipped} clipped, {self.num_dropped} dropped"


def warm_start(old: Sequence[TrialRecord], space: Space, goal: Goal) -> WarmStart:
    """Return the COMPLETE and PRUNED trials of an old sweep that the new space can hold."""
    records: list[TrialRecord] = []
    num_clipped = num_dropped = 0
    for record in old:
        adapted = _adapt(record, space) if _is_usable(record, goal) else None
        if adapted is None:
            num_dropped += 1
            continue
        records.append(adapted[0])
        num_clipped += adapted[1]
    return WarmStart(tuple(records), len(records) - num_clipped, num_clipped, num_dropped)


def _is_usable(record: TrialRecord, goal: Goal) -> bool:
    return record.state in (TrialState.COMPLETE, TrialState.PRUNED) and record.best(goal) is not None


def _adapt(record: TrialRecord, space: Space) -> tuple[TrialRecord, bool] | None:
    had: Mapping[str, Scalar] = {**record.assignment.config, **record.assignment.params}
    params: dict[str, Scalar] = {}
    draws: dict[str, Scalar] = {}
    is_clipped = False
    for parameter in space.parameters:
        if not space.is_active(parameter, params):
            continue
        if parameter.name not in had:
            return None
        value = had[parameter.name]
        if not parameter.contains(value):
            clipped = _clip(value, parameter.domain)
            if clipped is None:
                return None
            value, is_clipped = clipped, True
        params[parameter.name] = value
        if isinstance(parameter.domain, Transformed):
            draws[parameter.name] = parameter.domain.position(value)  # type: ignore[arg-type]
    assignment = replace(record.assignment, params=params, draws=draws)
    return replace(record, assignment=assignment, audited_rung=None), is_clipped  # all that is known of it counts


def _clip(value: Scalar, domain: Domain) -> Scalar:
    """Return the bound that ``value`` is just beyond; None when it is too far away or no number."""
    base = domain.base if isinstance(domain, Transformed) else domain
    if not isinstance(base, Integer | Real) or not is_number(value):
        return None
    assert isinstance(value, int | float)
    is_log = isinstance(base, Real) and base.log
    if is_log and value <= 0:
        return None
    low, high, at = (math.log(v) if is_log else v for v in (base.low, base.high, value))
    margin = CLIP_SHARE * (high - low)
    if low - margin <= at < low:
        return domain.probes()[0]
    if high < at <= high + margin:
        return domain.probes()[-1]
    return None
