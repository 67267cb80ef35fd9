"""What a parameter can be: one frozen class per kind of domain."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist

from segbench.core.records import Scalar

Number = int | float

TAIL = 1e-6
"""Normal distributions are cut at these quantiles (4.75 sigma), so that every domain has known ends."""


def is_number(value: object) -> bool:
    """Whether ``value`` is an int or float; booleans are not numbers here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_same(a: Scalar, b: Scalar) -> bool:
    """Whether two scalars are the same value of the sweep file: 1 and 1.0 are, 1 and true are not."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


@dataclass(frozen=True)
class Constant:
    """Always the same value."""

    value: Scalar

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
    """One of a few values, without order."""

    values: tuple[Scalar, ...]

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` can be drawn."""
        return any(is_same(own, value) for own in self.values)

    def choices(self) -> tuple[Scalar, ...]:
        """Return every value."""
        return self.values

    def probes(self) -> tuple[Scalar, ...]:
        """Return values that are enough to check what can be drawn: all, or the ends."""
        return self.values


@dataclass(frozen=True)
class Integer:
    """``low, low + step, ..., high``, both ends included; ``log`` only with step 1 and ``low >= 1``."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` can be drawn."""
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
            and (value - self.low) % self.step == 0
        )

    def choices(self) -> range:
        """Return every value."""
        return range(self.low, self.high + 1, self.step)

    def probes(self) -> tuple[Scalar, ...]:
        """Return values that are enough to check what can be drawn: the first two and the last."""
        return tuple(dict.fromkeys((self.low, min(self.low + self.step, self.high), self.high)))


@dataclass(frozen=True)
class Real:
    """Uniform over ``[low, high]``, or uniform in the logarithm (``log``, low above 0)."""

    low: float
    high: float
    log: bool = False

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` can be drawn."""
        return isinstance(value, int | float) and is_number(value) and self.low <= value <= self.high

    def choices(self) -> None:
        """Return None: there is no list of the values."""

    def probes(self) -> tuple[Scalar, ...]:
        """Return values that are enough to check what can be drawn: the ends."""
        return (self.low, self.high)

    def quantile(self, u: float) -> float:
        """Return the value below which a share ``u`` of the draws lies."""
        if self.log:
            exponent = math.log(self.low) + u * (math.log(self.high) - math.log(self.low))
            return min(max(math.exp(exponent), self.low), self.high)
        return self.low + u * (self.high - self.low)

    def share_below(self, value: float) -> float:
        """Return the share of the draws below ``value``, the inverse of :meth:`quantile`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Normal:
    """Normal with mean ``mu`` and deviation ``sigma``, or its exponential (``log``)."""

    mu: float
    sigma: float
    log: bool = False

    def quantile(self, u: float) -> float:
        """Return the value below which a share ``u`` of the draws lies."""
        x = NormalDist(self.mu, self.sigma).inv_cdf(min(max(u, TAIL), 1 - TAIL))
        return math.exp(x) if self.log else x

    def share_below(self, value: float) -> float:
        """Return the share of the draws below ``value``, the inverse of :meth:`quantile`."""
        if self.log and value <= 0:
            return 0.0
        return NormalDist(self.mu, self.sigma).cdf(math.log(value) if self.log else value)


@dataclass(frozen=True)
class Transformed:
    """A function of a uniform number: what samplers have no distribution for.

    Args:
        base: distribution before rounding.
        q: values are multiples of it (an int gives ints); None: no rounding. Multiples of a ``Real`` base stay
            within its ends.
    """

    base: Real | Normal
    q: Number | None = None

    def value(self, u: float) -> Number:
        """Return the value for ``u`` in (0, 1), increasing in ``u``."""
        x = self.base.quantile(u)
        if self.q is None:
            return x
        if isinstance(self.base, Normal):
            return _multiple(round(x / self.q), self.q)
        low, high = multiples_within(self.base.low, self.base.high, self.q)
        if not self.base.log:  # all multiples equally likely, unlike rounding, which halves the ends
            return _multiple(min(low + int(u * (high - low + 1)), high), self.q)
        return _multiple(min(max(round(x / self.q), low), high), self.q)

    def position(self, value: Number) -> float:
        """Return a ``u`` with ``self.value(u) == value``, for a value that the domain contains."""
        if self.q is not None and isinstance(self.base, Real) and not self.base.log:
            low, high = multiples_within(self.base.low, self.base.high, self.q)
            return (round(value / self.q) - low + 0.5) / (high - low + 1)
        return min(max(self.base.share_below(value), TAIL), 1 - TAIL)

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` can be drawn."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        low, high = self.value(0.0), self.value(1.0)
        if not low <= value <= high:
            return False
        return self.q is None or _multiple(round(value / self.q), self.q) == value

    def choices(self) -> tuple[Scalar, ...] | None:
        """Return every value; None where there is no list of them."""
        if self.q is None or isinstance(self.base, Normal):
            return None
        low, high = multiples_within(self.base.low, self.base.high, self.q)
        return tuple(_multiple(k, self.q) for k in range(low, high + 1))

    def probes(self) -> tuple[Scalar, ...]:
        """Return values that are enough to check what can be drawn: the ends."""
        return (self.value(0.0), self.value(1.0))


Domain = Constant | Categorical | Integer | Real | Transformed


def multiples_within(low: Number, high: Number, q: Number) -> tuple[int, int]:
    """Return the first and last ``k`` with ``low <= k * q <= high``, in decimal arithmetic.

    The first is above the last when no multiple lies in the range.
    """
    step = Decimal(repr(q))
    return math.ceil(Decimal(repr(low)) / step), math.floor(Decimal(repr(high)) / step)


def _multiple(k: int, q: Number) -> Number:
    # 3 * 0.1 is 0.30000000000000004 in binary; users expect 0.3
    return k * q if isinstance(q, int) else float(k * Decimal(repr(q)))


DISTRIBUTIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "constant": (("value",), ()),
    "categorical": (("values",), ()),
    "uniform": (("min", "max"), ()),
    "int_uniform": (("min", "max"), ()),
    "log_uniform_values": (("min", "max"), ()),
    "log_uniform": (("min", "max"), ()),
    "q_uniform": (("min", "max"), ("q",)),
    "q_log_uniform_values": (("min", "max"), ("q",)),
    "normal": ((), ("mu", "sigma")),
    "log_normal": ((), ("mu", "sigma")),
    "q_normal": ((), ("mu", "sigma", "q")),
    "q_log_normal": ((), ("mu", "sigma", "q")),
}
"""Distribution -> the keys that it must have, and those that it may have."""
