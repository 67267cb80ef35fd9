"""The beta distribution function and its inverse, in plain Python: reading a sweep file needs no scipy."""

import math

_MAX_LOGIT = 700.0
"""Of x: beyond it x or 1 - x is below the smallest float."""
_MAX_TERMS = 10_000
_MAX_STEPS = 200
_TINY = 1e-300


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the share of beta(a, b) below ``x``: the regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    return _share_below(math.log(x), math.log1p(-x), a, b)


def beta_quantile(u: float, a: float, b: float) -> float:
    """Return the ``x`` with ``beta_cdf(x, a, b) == u``, for ``u`` from 0 to 1.

    Newton's method on the logit of x, kept between two bounds that close in: shapes below 1 have their quantiles
    within 1e-100 of an end.
    """
    if u <= 0 or u >= 1:
        return float(u >= 1)
    low, high = -_MAX_LOGIT, _MAX_LOGIT
    at = math.log(a / b)
    for _ in range(_MAX_STEPS):
        log_x, log_rest = _logs(at)
        excess = _share_below(log_x, log_rest, a, b) - u
        low, high = (low, at) if excess > 0 else (at, high)
        density = math.exp(a * log_x + b * log_rest - _log_beta(a, b))
        step = excess / density if density > _TINY else math.inf
        following = at - step
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - at) <= 1e-14 * max(1.0, abs(at)):
            break
        at = following
    return math.exp(_logs(at)[0])


def _logs(logit: float) -> tuple[float, float]:
    """Return the logarithms of x and of 1 - x, both exact where either is tiny."""
    if logit < 0:
        rest = -math.log1p(math.exp(logit))
        return logit + rest, rest
    log_x = -math.log1p(math.exp(-logit))
    return log_x, log_x - logit


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _share_below(log_x: float, log_rest: float, a: float, b: float) -> float:
    front = math.exp(a * log_x + b * log_rest - _log_beta(a, b))
    if math.exp(log_x) < (a + 1) / (a + b + 2):
        return front * _continued_fraction(math.exp(log_x), a, b) / a
    return 1 - front * _continued_fraction(math.exp(log_rest), b, a) / b


def _continued_fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        factor = 1.0
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            factor = c * d
            value *= factor
        if abs(factor - 1) < 1e-15:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
