"""What a population has reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

CHECK_EVERY = 8
"""Steps between looks at which rows still run; looking is cheap, but not free."""

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Scores:
    """What P candidates have reached on M bodies in E episodes of each.

    Attributes:
        returns: (P, M, E).
        lengths: (P, M, E), steps.
        diverged: (P, M, E) bool, episodes that ended because their simulation diverged.
    """

    returns: np.ndarray
    lengths: np.ndarray
    diverged: np.ndarray


def joined(scores: Sequence[Scores]) -> Scores:
    """Scores of all candidates from those of shards, in order."""
    return Scores(*(np.concatenate([getattr(s, f.name) for s in scores]) for f in fields(Scores)))
