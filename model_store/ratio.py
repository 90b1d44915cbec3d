"""Eq. (2) and (3): the one ratio by which the shares of the exits fall, and the budget it meets.

Source: Huang et al. 2018, "Multi-Scale Dense Networks", arXiv 1703.09844 v1, §4, eq. (2) and (3).
The share of exit k is proportional to r^(k-1), with r = 1 - q. The paper has 0 < q <= 1; any r > 0
is meant here, so that every budget between the first and the last exit is met exactly.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, repeat
from typing import Final

_MAX_STEPS: Final = 60
_TOLERANCE: Final = 1e-13  # of ln((mean - C_1) / (C_K - mean)), in units of max(1, its size)


def solve_log_ratio(cumulative_macs: Sequence[int], num_images: int, budget_macs: int) -> float:
    """Return ln r such that the exits' shares cost the budget exactly: eq. (3).

    Only differences of the costs matter, so the first may be 0.

    Args:
        cumulative_macs: C_1 < … < C_K of one image, at least two.
        num_images: M, positive.
        budget_macs: B of all images together, with M·C_1 < B < M·C_K.
    """
    first, last = cumulative_macs[0], cumulative_macs[-1]
    surplus = budget_macs * len(cumulative_macs) - num_images * sum(cumulative_macs)
    if surplus == 0:
        return 0.0
    # Integers inside the logarithms: the differences cancel at either end of the range.
    target = math.log(budget_macs - num_images * first) - math.log(num_images * last - budget_macs)
    above_first = [float(macs - first) for macs in cumulative_macs[1:]]
    below_last = [float(last - macs) for macs in cumulative_macs[:-1]]
    if surplus < 0:
        return _solve_falling(above_first, below_last, target)
    # Seen from the last exit, shares that rise with r are shares that fall with 1 / r.
    return -_solve_falling(below_last[::-1], above_first[::-1], -target)


def exit_shares(log_ratio: float, num_exits: int) -> tuple[float, ...]:
    """Share of the images leaving at each exit: eq. (2), normalised.

    Args:
        log_ratio: ln r, any; minus infinity gives all to the first exit.
        num_exits: K.

    Returns:
        K shares that add up to 1.
    """
    # The largest weight is 1 on either side of r = 1, so nothing overflows.
    weights = list(
        accumulate(repeat(math.exp(-abs(log_ratio)), num_exits - 1), _product, initial=1.0)
    )
    if log_ratio > 0:
        weights.reverse()
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def exit_hazards(ratio: float, num_exits: int) -> tuple[float, ...]:
    """Share of those that reach an exit that leaves there, 1 / (1 + r + … + r^(K-k)).

    Args:
        ratio: r >= 0.
        num_exits: K.

    Returns:
        K hazards, rising; the last is 1.
    """
    series = accumulate(repeat(1.0, num_exits), lambda total, one: one + ratio * total)
    return tuple(1.0 / total for total in series)[::-1]


def _product(left: float, right: float) -> float:
    return left * right


def _solve_falling(rising: Sequence[float], falling: Sequence[float], target: float) -> float:
    """Return the x < 0 with x + ln P(e^x) - ln Q(e^x) = target, by Newton within a bracket.

    The slope lies between 1 and the number of coefficients, hence the root is unique and the
    tolerance on the value bounds the error of x.

    Args:
        rising: Coefficients of P from the constant up: costs above the cheapest exit.
        falling: Coefficients of Q likewise: costs below the dearest exit.
        target: Of the equation; the root must be negative.
    """
    span = rising[-1]
    low = target - math.log(span / falling[-1])
    high = min(0.0, target + math.log(span / rising[0]))
    tolerance = _TOLERANCE * max(1.0, abs(target))
    log_ratio = (low + high) / 2
    for _ in range(_MAX_STEPS):
        ratio = math.exp(log_ratio)
        p, p_slope = _evaluate(rising, ratio)
        q, q_slope = _evaluate(falling, ratio)
        miss = log_ratio + math.log(p / q) - target
        if abs(miss) <= tolerance:
            break
        if miss > 0:
            high = log_ratio
        else:
            low = log_ratio
        log_ratio -= miss / (1.0 + ratio * (p_slope / p - q_slope / q))
        if not low < log_ratio < high:
            log_ratio = (low + high) / 2
    return log_ratio


def _evaluate(coefficients: Sequence[float], at: float) -> tuple[float, float]:
    """Value and derivative of a polynomial, by Horner's rule."""
    value = slope = 0.0
    for coefficient in reversed(coefficients):
        slope = slope * at + value
        value = value * at + coefficient
    return value, slope
