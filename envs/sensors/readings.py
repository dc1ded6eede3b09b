"""The last readings of many rows that were finite: a source may break, but nobody reads what is no number."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from ..snapshots import Kept
from .source import Source

logger = logging.getLogger(__name__)

MOST_STARTS = 10
"""Starts that are drawn for an episode until its first reading is a finite number."""


class Readings(Kept):
    """What B rows read last that was finite.

    Args:
        source: the task.

    Attributes:
        values: (B, S, *reading_shape).
        state: (B, P), what critics and teachers may see.
    """

    kept = ("values", "state")

    def __init__(self, source: Source) -> None:
        self._source, b = source, source.num_envs
        self._have_told = False
        kind = np.uint8 if source.reading_shape else np.float32
        self.values = np.zeros((b, len(source.sensor_names), *source.reading_shape), kind)
        self.state = np.zeros((b, len(source.state_names)), np.float32)

    def read(self, goes: np.ndarray) -> np.ndarray:
        """Take the readings of the rows that ``goes`` (B,) names; the others keep their last.

        Returns:
            (B,) bool, those of them that read what is not a finite number: they keep their last, too.
        """
        values = self._source.read()
        state = self._source.read_state(values)
        broken = np.zeros_like(goes)
        if not (sums_up(values) and (state is values or sums_up(state))):
            broken = goes & ~(_are_finite(values) & _are_finite(state))
            goes = goes & ~broken
        if goes.all():
            self.values, self.state = values, state
        else:
            rows = np.flatnonzero(goes)
            self.values[rows] = values[rows]
            if state is values:
                self.state = self.values
            else:
                self.state[rows] = state[rows]
        return broken

    def read_starts(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """Take the first readings of ``rows``. An episode that begins with none is started again.

        Args:
            rows: indices.
            rngs: one generator for each row of the environment.

        Raises:
            UserError: it never begins with one.
        """
        name = self._source.name
        for _ in range(MOST_STARTS):
            goes = np.zeros(len(self.values), bool)
            goes[rows] = True
            rows = np.flatnonzero(self.read(goes))
            if not len(rows):
                return
            logger.warning("%s: %d first readings are not finite; another start", name, len(rows))
            self._source.start(rows, [rngs[row] for row in rows])
        raise UserError(f"{MOST_STARTS} episodes of {name} in a row began with readings that are not finite")

    def tell(self, diverged: np.ndarray) -> None:
        """Say, the first time only, that rows have ``diverged`` (B,) bool; learners count them."""
        if not self._have_told:
            self._have_told = True
            name, rows = self._source.name, np.flatnonzero(diverged).tolist()
            logger.warning(
                "%s: rows %s diverged, and end their episodes; later ones are not told", name, rows
            )


def sums_up(values: np.ndarray) -> bool:
    """Whether all of them are finite. False if some are not, or so large that each is to be looked at."""
    return values.dtype == np.uint8 or math.isfinite(np.vdot(values, values))


def _are_finite(values: np.ndarray) -> np.ndarray:
    """(B,) bool, of (B, ...)."""
    if values.dtype == np.uint8:
        return np.ones(len(values), bool)
    return np.isfinite(values).all(tuple(range(1, values.ndim)))
