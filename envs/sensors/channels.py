"""From a task's readings to channels: copies and noise are added, some channels stick or are lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import UserError
from ..snapshots import Kept
from .senses import Senses

BLOCK = 64
"""Steps whose random numbers a row draws at once: calling thousands of generators each step would cost
more than the task."""


class Draws(Kept):
    """Random numbers for every step of many rows, from a generator of each row's own.

    So what a row draws depends neither on the other rows nor on how many there are.

    Args:
        num_envs: B.
        size: numbers of a row in a step.
        draw: from a generator and a shape to that many numbers.
    """

    kept = ("_block", "_last", "_next")

    def __init__(
        self, num_envs: int, size: int, draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    ) -> None:
        self._draw, self._size, self._all = draw, size, np.arange(num_envs)
        self._block = np.zeros((num_envs, BLOCK, size), np.float32)
        self._last = np.zeros((num_envs, size), np.float32)
        self._next = np.full(num_envs, BLOCK)

    def restart(self, rows: np.ndarray) -> None:
        """Draw anew at the next step of ``rows``: their generators have been seeded."""
        self._next[rows] = BLOCK

    def next(self, rngs: Sequence[np.random.Generator], rows: np.ndarray | None = None) -> np.ndarray:
        """(B, size) float32 for the next step of ``rows`` (None: of all), for the others those of their last.

        Args:
            rngs: one generator for each row.
            rows: indices of rows.
        """
        if self._size == 0:
            return self._last
        rows = self._all if rows is None else rows
        for row in rows[self._next[rows] == BLOCK]:
            self._block[row] = self._draw(rngs[row], (BLOCK, self._size))
            self._next[row] = 0
        self._last[rows] = self._block[rows, self._next[rows]]
        self._next[rows] += 1
        return self._last


class Channels(Kept):
    """Channels of B rows: first the sensors, then their copies, then noise.

    Args:
        senses: what is added and taken away.
        num_envs: B.
        n_sensors: S.
        reading_shape: of a reading, as in `Source`.

    Attributes:
        n: C, channels.
        sensor: (C,), which of the task's sensors each shows, S for noise.

    Raises:
        UserError: more shall stick than there are, or so small a share be lost that it is none.
    """

    kept = ("_exists", "_stuck", "_held", "_is_new", "_noise", "_blinks")

    def __init__(
        self, senses: Senses, num_envs: int, n_sensors: int, reading_shape: tuple[int, ...] = ()
    ) -> None:
        self.senses = senses
        self.n_real = n_sensors * (1 + senses.duplicates)
        self.n_lost = round(senses.missing * self.n_real)
        if senses.stuck > self.n_real:
            raise UserError(
                f"env.senses.stuck is {senses.stuck}, but the sensors have {self.n_real} channels"
            )
        if senses.missing and not self.n_lost:
            raise UserError(
                f"env.senses.missing={senses.missing:g} is less than half a channel: the sensors have "
                f"{self.n_real}; {1 / self.n_real:.2g} is one of them"
            )
        self.n = senses.n_channels(n_sensors)
        kinds = [*range(n_sensors)] * (1 + senses.duplicates) + [n_sensors] * senses.most_noise
        self.sensor = np.array(kinds, np.int32)
        self._shape = reading_shape
        kind = np.uint8 if reading_shape else np.float32
        self._values = np.zeros((num_envs, self.n, *reading_shape), kind)
        self._exists = np.ones((num_envs, self.n), bool)  # drawn for each episode
        self._stuck = np.zeros((num_envs, self.n), bool)
        self._held = np.zeros_like(self._values if senses.stuck else self._values[:0])
        self._is_new = np.ones(num_envs, bool)
        numbers = (self.n - self.n_real) * math.prod(reading_shape)
        self._noise = Draws(num_envs, numbers, _grey_levels if reading_shape else _normal)
        self._blinks = Draws(num_envs, self.n if senses.blinking else 0, lambda rng, shape: rng.random(shape))

    @property
    def draws(self) -> bool:
        """Whether anything here is random."""
        s = self.senses
        return bool(s.most_noise or s.missing or s.blinking or s.stuck)

    def restart(self, rows: np.ndarray) -> None:
        """The generators of ``rows`` have been seeded."""
        self._noise.restart(rows)
        self._blinks.restart(rows)

    def start(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """Draw what is lost, what sticks and how much noise there is in the episodes that start in ``rows``.

        Args:
            rows: indices of rows.
            rngs: the generators of these rows.
        """
        self._is_new[rows] = True
        senses, lost = self.senses, self.n_lost
        if not (lost or senses.stuck or senses.least_noise < senses.most_noise):
            return
        for row, rng in zip(rows, rngs, strict=True):
            self._exists[row] = True
            noise = rng.integers(senses.least_noise, senses.most_noise + 1)
            self._exists[row, self.n_real + noise :] = False
            self._exists[row, rng.permutation(self.n_real)[:lost]] = False
            self._stuck[row] = False
            self._stuck[row, rng.permutation(self.n_real)[: senses.stuck]] = True

    def read(
        self, readings: np.ndarray, rngs: Sequence[np.random.Generator], rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values (B, C, *reading_shape) and whether each channel is there (B, C) bool.

        Args:
            readings: (B, S, *reading_shape) of the task.
            rngs: one generator for each row; none needed where nothing is random.
            rows: those that have just been reset, in the midst of a step of the others; None: all step.
        """
        values, senses = self._values, self.senses
        values[:, : self.n_real] = np.concatenate([readings] * (1 + senses.duplicates), 1)
        if self.n > self.n_real:
            noise = self._noise.next(rngs, rows)
            scale = 1.0 if self._shape else senses.noise_std
            values[:, self.n_real :] = (noise * np.float32(scale)).reshape(len(noise), -1, *self._shape)
        if senses.stuck:
            self._held[self._is_new] = values[self._is_new]
            values[self._stuck] = self._held[self._stuck]
            self._is_new[:] = False
        if senses.blinking:
            return values, self._exists & (self._blinks.next(rngs, rows) >= senses.blinking)
        return values, self._exists


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.standard_normal(shape)


def _grey_levels(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.integers(0, 256, shape)
