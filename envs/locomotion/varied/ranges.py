"""Ranges as a configuration gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...numbers import NULL, between, listed, real, whole

Interval = tuple[float, float]


FACTOR = between(real(0, 1000, above=True))
FACTORS = (FACTOR | listed(FACTOR, 1) | NULL).told(f"{FACTOR.wanted}, a list of these, or null")
"""``[low, high]``, or several of these; null: not varied."""

VARIANTS = whole(1, 1000)


def intervals_of(factors: Any) -> tuple[Interval, ...]:
    """What `FACTORS` lets through, as one, several or no intervals."""
    if factors is None:
        return ()
    return tuple(factors) if isinstance(factors[0], Sequence) else (tuple(factors),)


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
