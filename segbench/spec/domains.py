"""What a parameter can be: one frozen class per kind of domain.

Every domain has the same two methods, on which samplers build. ``value_at(u)`` turns a number uniform in (0, 1) into a
draw of the domain's own distribution; ``position(value)`` is a ``u`` in (0, 1) that gives this value, for a value that
the domain contains: of several the one in the middle.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import accumulate
from statistics import NormalDist
from typing import Any, Literal

from segbench.core.records import Scalar
from segbench.spec.beta import beta_cdf, beta_quantile

Number = int | float

TAIL = 1e-6
"""Normal distributions are cut at these quantiles (4.75 sigma), so that every domain has known ends."""

_LEAST = 2.0**-53
"""Positions keep this distance from 0 and 1, so that any other distribution's quantile function can take them."""


def is_number(value: object) -> bool:
    """Whether ``value`` is an int or float; booleans are not numbers here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_same(a: Scalar, b: Scalar) -> bool:
    """Whether two scalars are the same value of the sweep file: 1 and 1.0 are, 1 and true are not."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


class Structure(str):
    """A list or mapping that is one value of a parameter, as its JSON text.

    Ledgers, samplers, conditions and tables treat it as the text that it is; only the configuration of a trial has the
    list or mapping itself.
    """

    __slots__ = ()

    @classmethod
    def of(cls, content: object) -> "Structure":
        """Return a list or mapping of the file as a value."""
        return cls(json.dumps(content, ensure_ascii=False, sort_keys=True))

    @property
    def content(self) -> Any:
        """The list or mapping, made anew."""
        return json.loads(self)


def as_scalar(value: Any) -> Scalar:
    """Return a value of the file as one value of a parameter."""
    return Structure.of(value) if isinstance(value, list | Mapping) else value


@dataclass(frozen=True)
class Constant:
    """Always the same value."""

    value: Scalar

    def value_at(self, u: float) -> Scalar:
        """Return the value, whatever ``u``."""
        return self.value

    def position(self, value: Scalar) -> float:
        """Return the middle."""
        return 0.5

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` can be drawn."""
        return is_same(self.value, value)

    def choices(self) -> tuple[Scalar, ...]:
        """Return every value."""
        return (self.value,)

    def probes(self) -> tuple[Scalar, ...]:
        """Return values that are enough to check what can be drawn: all, or the ends."""
        return (self.value,)


@dataclass(frozen=True)
class Categorical:
    """One of a few values, without order.

    Args:
        values: no two the same.
        probabilities: of each value, summing to 1; None: all equally likely. A value of probability 0 belongs to the
            domain (a baseline may have it) and is never drawn.
    """

    values: tuple[Scalar, ...]
    probabilities: tuple[float, ...] | None = None

    @cached_property
    def _bounds(self) -> tuple[float, ...]:
        """The ``u`` at which each value begins, and 1."""
        weights = self.probabilities or (1.0,) * len(self.values)
        total = math.fsum(weights)
        return (0.0, *(min(bound / total, 1.0) for bound in accumulate(weights)))

    def index(self, value: Scalar) -> int:
        """Return the place of ``value`` in the list."""
        return next(index for index, own in enumerate(self.values) if is_same(own, value))

    def value_at(self, u: float) -> Scalar:
        """Return the value in whose share of (0, 1) ``u`` lies."""
        bounds = self._bounds
        likely = [index for index in range(len(self.values)) if bounds[index] < bounds[index + 1]]
        return self.values[next((index for index in likely if u < bounds[index + 1]), likely[-1])]

    def position(self, value: Scalar) -> float:
        """Return the middle of the value's share of (0, 1)."""
        index = self.index(value)
        return _inside((self._bounds[index] + self._bounds[index + 1]) / 2)

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` is one of the list."""
        return any(is_same(own, value) for own in self.values)

    def choices(self) -> tuple[Scalar, ...]:
        """Return every value."""
        return self.values

    def probes(self) -> tuple[Scalar, ...]:
        """Return values that are enough to check what can be drawn: all, or the ends."""
        return self.values


@dataclass(frozen=True)
class Integer:
    """``low, low + 1, ..., high``, both ends included, all equally likely."""

    low: int
    high: int

    def value_at(self, u: float) -> int:
        """Return the value in whose share of (0, 1) ``u`` lies; all shares are equal."""
        choices = self.choices()
        return choices[min(int(u * len(choices)), len(choices) - 1)]

    def position(self, value: Number) -> float:
        """Return the middle of the value's share of (0, 1)."""
        return (int(value) - self.low + 0.5) / len(self.choices())

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` can be drawn."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def choices(self) -> range:
        """Return every value."""
        return range(self.low, self.high + 1)

    def probes(self) -> tuple[Scalar, ...]:
        """Return values that are enough to check what can be drawn: the first two and the last."""
        return tuple(dict.fromkeys((self.low, min(self.low + 1, self.high), self.high)))


@dataclass(frozen=True)
class Real:
    """Uniform over ``[low, high]``, or uniform in the logarithm (``log``, low above 0)."""

    low: float
    high: float
    log: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return self.low, self.high

    def value_at(self, u: float) -> float:
        """Return the value below which a share ``u`` of the draws lies."""
        if self.log:
            value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + u * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def position(self, value: Number) -> float:
        """Return the share of the draws below ``value``."""
        if value <= self.low or value >= self.high:
            return _inside(float(value >= self.high))
        if self.log:
            return _inside(math.log(value / self.low) / math.log(self.high / self.low))
        return _inside((value - self.low) / (self.high - self.low))

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` can be drawn."""
        return isinstance(value, int | float) and is_number(value) and self.low <= value <= self.high

    def choices(self) -> None:
        """Return None: there is no list of the values."""

    def probes(self) -> tuple[Scalar, ...]:
        """Return values that are enough to check what can be drawn: the ends."""
        return self.ends


@dataclass(frozen=True)
class Normal:
    """Normal with mean ``mu`` and deviation ``sigma``, or its exponential (``log``); cut at :data:`TAIL`."""

    mu: float
    sigma: float
    log: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return self.value_at(0.0), self.value_at(1.0)

    def value_at(self, u: float) -> float:
        """Return the value below which a share ``u`` of the draws lies."""
        x = NormalDist(self.mu, self.sigma).inv_cdf(min(max(u, TAIL), 1 - TAIL))
        return math.exp(x) if self.log else x

    def position(self, value: Number) -> float:
        """Return the share of the draws below ``value``."""
        if self.log and value <= 0:
            return _inside(0.0)
        return _inside(NormalDist(self.mu, self.sigma).cdf(math.log(value) if self.log else value))


@dataclass(frozen=True)
class Beta:
    """The beta distribution over ``[0, 1]`` with shapes ``a`` and ``b``, both above 0."""

    a: float
    b: float

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return 0.0, 1.0

    def value_at(self, u: float) -> float:
        """Return the value below which a share ``u`` of the draws lies."""
        return beta_quantile(u, self.a, self.b)

    def position(self, value: Number) -> float:
        """Return the share of the draws below ``value``."""
        return _inside(beta_cdf(value, self.a, self.b))


@dataclass(frozen=True)
class Transformed:
    """A distribution that samplers do not know, drawn as a function of a uniform number; with ``q`` rounded.

    Args:
        base: distribution before rounding.
        q: values are the nearest multiple of it (an int gives ints) that lies within the ends of the base; None: no
            rounding.
    """

    base: Real | Normal | Beta
    q: Number | None = None

    def value_at(self, u: float) -> Number:
        """Return the value for ``u``, increasing in ``u``."""
        x = self.base.value_at(u)
        if self.q is None:
            return x
        first, last = self._multiples
        return _multiple(min(max(round(x / self.q), first), last), self.q)

    def position(self, value: Number) -> float:
        """Return the share of the draws below ``value``; of a rounded value the middle of its share of (0, 1)."""
        if self.q is None:
            return self.base.position(value)
        first, last = self._multiples
        k = round(value / self.q)
        below = 0.0 if k <= first else self.base.position((k - 0.5) * self.q)
        above = 1.0 if k >= last else self.base.position((k + 0.5) * self.q)
        return _inside((below + above) / 2)

    @property
    def _multiples(self) -> tuple[int, int]:
        """The first and the last multiple of ``q`` that can be drawn."""
        assert self.q is not None
        low, high = self.base.ends
        if isinstance(self.base, Normal):  # its ends are where it was cut, nothing that anybody asked for
            return round(low / self.q), round(high / self.q)
        return multiples_within(low, high, self.q)

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` can be drawn."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        low, high = self.value_at(0.0), self.value_at(1.0)
        if not low <= value <= high:
            return False
        return self.q is None or _multiple(round(value / self.q), self.q) == value

    def choices(self) -> tuple[Scalar, ...] | None:
        """Return every value; None where there is no list of them."""
        if self.q is None or isinstance(self.base, Normal):
            return None
        first, last = self._multiples
        return tuple(_multiple(k, self.q) for k in range(first, last + 1))

    def probes(self) -> tuple[Scalar, ...]:
        """Return values that are enough to check what can be drawn: the ends."""
        return (self.value_at(0.0), self.value_at(1.0))


Confidence = Literal["low", "medium", "high"]
"""How sure a guess at the best value is."""

Domain = Constant | Categorical | Integer | Real | Transformed


def multiples_within(low: Number, high: Number, q: Number) -> tuple[int, int]:
    """Return the first and last ``k`` with ``low <= k * q <= high``, in decimal arithmetic.

    The first is above the last when no multiple lies in the range.
    """
    step = Decimal(repr(q))
    return math.ceil(Decimal(repr(low)) / step), math.floor(Decimal(repr(high)) / step)


def _inside(u: float) -> float:
    return min(max(u, _LEAST), 1 - _LEAST)


def _multiple(k: int, q: Number) -> Number:
    # 3 * 0.1 is 0.30000000000000004 in binary; users expect 0.3
    return k * q if isinstance(q, int) else float(k * Decimal(repr(q)))


DISTRIBUTIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "constant": (("value",), ()),
    "categorical": (("values",), ("probabilities",)),
    "categorical_w_probabilities": (("values", "probabilities"), ()),
    "uniform": (("min", "max"), ()),
    "int_uniform": (("min", "max"), ()),
    "log_uniform_values": (("min", "max"), ()),
    "log_uniform": (("min", "max"), ()),
    "inv_log_uniform_values": (("min", "max"), ()),
    "inv_log_uniform": (("min", "max"), ()),
    "q_uniform": (("min", "max"), ("q",)),
    "q_log_uniform_values": (("min", "max"), ("q",)),
    "q_log_uniform": (("min", "max"), ("q",)),
    "normal": ((), ("mu", "sigma")),
    "log_normal": ((), ("mu", "sigma")),
    "q_normal": ((), ("mu", "sigma", "q")),
    "q_log_normal": ((), ("mu", "sigma", "q")),
    "beta": ((), ("a", "b")),
    "q_beta": ((), ("a", "b", "q")),
}
"""Distribution -> the keys that it must have, and those that it may have."""
