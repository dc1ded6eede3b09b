"""The last readings of many rows that were finite: a source may break, but nobody reads what is no number."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from ..errors import EnvironmentFault
from ..snapshots import Kept
from .source import Source

logger = logging.getLogger(__name__)

LARGEST_REWARD = 1e18
"""What is larger is as good as infinite: learners compute in float32, which cannot hold its square."""

LARGEST_READING = 1e30
"""Likewise: differences of readings are taken and scaled in float32."""

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
        self._broken: np.ndarray | None = None  # readings of the last step in which some were not finite
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
            self._broken = values
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
            EnvironmentFault: it never begins with one.
        """
        name = self._source.name
        for anew in range(MOST_STARTS):
            goes = np.zeros(len(self.values), bool)
            goes[rows] = True
            rows = np.flatnonzero(self.read(goes))
            if not len(rows):
                if anew:
                    logger.warning("%s: first readings were not finite; started anew %d times", name, anew)
                return
            self._source.start(rows, [rngs[row] for row in rows])
        raise EnvironmentFault(
            f"{MOST_STARTS} episodes of {name} in a row began with readings that are not finite: it gave "
            f"{self._wrong_reading(rows[0])}"
        )

    def _wrong_reading(self, row: int) -> str:
        """The first reading of a row that is no number, or too large a one, and which sensor's it is."""
        if self._broken is None or _fits(self._broken[row]).all():
            return "a state that is not finite"
        place = int(np.argmin(_fits(self._broken[row])))
        return f"{_told(self._broken[row][place])} as observation ({self._source.sensor_names[place]})"

    def tell(self, diverged: np.ndarray, undefined: np.ndarray, rewards: np.ndarray) -> None:
        """Say, the first time only, that rows have diverged, and why the first one did; learners count them.

        Args:
            diverged: (B,) bool.
            undefined: (B,) bool, rows whose action was NaN.
            rewards: (B,), those that are not finite, or too large; 0 elsewhere.
        """
        if self._have_told:
            return
        self._have_told = True
        rows = np.flatnonzero(diverged)
        name, first = self._source.name, rows[0]
        if undefined[first]:
            why = f"{name}: rows {rows.tolist()} got NaN as action"
        elif rewards[first] != 0:
            why = f"{name} gave {_told(rewards[first])} as reward in rows {rows.tolist()}"
        elif self._source.diverged[first]:
            pictures = "gave pictures that hold NaN or infinite numbers"
            why = f"{name}: rows {rows.tolist()} {pictures if self._source.reading_shape else 'diverged'}"
        else:
            why = f"{name} gave {self._wrong_reading(first)} in rows {rows.tolist()}"
        logger.warning("%s, which ends their episodes; later ones are not told", why)


def _told(value: float) -> str:
    """A number that is none, or too large a one."""
    return "NaN" if math.isnan(value) else "an infinite number" if math.isinf(value) else f"{value:g}"


def sums_up(values: np.ndarray) -> bool:
    """Whether all of them are finite. False if some are not, or so large that each is to be looked at."""
    return values.dtype == np.uint8 or math.isfinite(np.vdot(values, values))


def _are_finite(values: np.ndarray) -> np.ndarray:
    """(B,) bool, of (B, ...)."""
    if values.dtype == np.uint8:
        return np.ones(len(values), bool)
    return _fits(values).all(tuple(range(1, values.ndim)))


def _fits(values: np.ndarray) -> np.ndarray:
    """Where readings are numbers that can be computed with; NaN is none."""
    return np.abs(values) <= LARGEST_READING
