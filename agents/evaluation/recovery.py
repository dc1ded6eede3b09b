"""How long an agent takes to find its way back after something has happened to it."""

from __future__ import annotations

import numpy as np

WINDOW = 25
"""Steps whose mean reward tells whether it has."""

BEFORE = 100
"""Steps before, whose mean reward it has to come back to."""

SHARE = 0.9
"""Of that reward."""

NEVER = -1
"""Recovery of an episode in which it does not."""


def recovery_steps(rewards: np.ndarray, lengths: np.ndarray, at: int, until: int) -> np.ndarray:
    """Steps from ``at`` until the reward of the next `WINDOW` steps is again `SHARE` of what it was.

    Where the reward before was negative, the shortfall allowed is `SHARE`'s complement of its size.

    Args:
        rewards: (E, T) of each step; 0 after an episode's end.
        lengths: (E,) of the episodes.
        at: step before which it happens.
        until: step before which the next thing happens, T at most.

    Returns:
        (E,) float: steps; `NEVER`; NaN for an episode that ended before ``at``, and for all where fewer than
        `BEFORE` steps lie before it or fewer than two windows behind it: there is nothing to compare.
    """
    n, steps = rewards.shape
    until = min(until, steps)
    if at < BEFORE or until - at < 2 * WINDOW:
        return np.full(n, np.nan)
    level = rewards[:, at - BEFORE : at].mean(1)
    wanted = level - (1 - SHARE) * np.abs(level)  # (E,)
    sums = np.concatenate((np.zeros((n, 1)), rewards[:, at:until].cumsum(1)), 1)
    means = (sums[:, WINDOW:] - sums[:, :-WINDOW]) / WINDOW  # (E, until - at - WINDOW + 1), of the next steps
    # A window that reaches beyond an episode's end counts nothing there: falling is no recovery.
    good = means >= wanted[:, None]
    last_start = lengths - at - WINDOW
    good &= np.arange(means.shape[1]) <= last_start[:, None]
    return np.where(lengths <= at, np.nan, np.where(good.any(1), good.argmax(1), NEVER))
