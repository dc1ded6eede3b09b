"""Ranges as a configuration gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import UserError

Interval = tuple[float, float]


def read_range(name: str, value: Any, minimum: float = -math.inf) -> Interval | None:
    """``[low, high]`` as two floats; None for null.

    Raises:
        UserError: no two numbers in order, or one below ``minimum``.
    """
    if value is None:
        return None
    numbers = _numbers(value)
    if numbers is None or len(numbers) != 2 or not minimum <= numbers[0] <= numbers[1] < math.inf:
        least = "" if minimum == -math.inf else f" of at least {minimum:g}"
        raise UserError(f"{name} must be [low, high]{least}, low <= high, or null; not {value!r}")
    return numbers[0], numbers[1]


def read_factors(name: str, value: Any) -> tuple[Interval, ...]:
    """``[low, high]``, or several of these, of factors above 0; nothing for null.

    Raises:
        UserError: anything else.
    """
    if value is None:
        return ()
    several = isinstance(value, Sequence) and len(value) > 0 and isinstance(value[0], Sequence)
    intervals = []
    for one in value if several else [value]:
        numbers = _numbers(one)
        if numbers is None or len(numbers) != 2 or not 0 < numbers[0] <= numbers[1] < math.inf:
            raise UserError(
                f"{name} must be [low, high], factors above 0 with low <= high, a list of these, or null; "
                f"not {value!r}"
            )
        intervals.append((numbers[0], numbers[1]))
    return tuple(intervals)


def log_uniform(intervals: Sequence[Interval], uniform: np.ndarray) -> np.ndarray:
    """Factors, of equal density in their logarithm over all ``intervals``, of draws from [0, 1).

    Returns:
        As many as ``uniform`` has; ones where there is no interval.
    """
    if not intervals:
        return np.ones_like(uniform)
    if len(intervals) == 1:
        low, high = intervals[0]
        return np.clip(low * (high / low) ** uniform, low, high)
    lows, highs = np.log(np.array(intervals)).T
    widths = highs - lows
    if not widths.any():  # points, equally likely
        widths = np.ones(len(intervals))
    ends = np.cumsum(widths)
    place = uniform * ends[-1]
    chosen = np.minimum(np.searchsorted(ends, place, side="right"), len(intervals) - 1)
    share = (place - (ends - widths)[chosen]) / widths[chosen]
    return np.exp(lows[chosen] + np.clip(share, 0, 1) * (highs - lows)[chosen])


def _numbers(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in value):
        return None
    return tuple(float(number) for number in value)
