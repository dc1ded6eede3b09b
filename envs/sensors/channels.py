"""From a task's readings to channels: copies and noise are added, some channels stick or are lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .senses import Senses

BLOCK = 64
"""Steps whose random numbers a row draws at once: calling thousands of generators each step would cost
more than the task."""


class Draws:
    """Random numbers for every step of many rows, from a generator of each row's own.

    So what a row draws depends neither on the other rows nor on how many there are.

    Args:
        num_envs: B.
        size: numbers of a row in a step.
        draw: from a generator and a shape to that many numbers.
    """

    def __init__(
        self, num_envs: int, size: int, draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    ) -> None:
        self._draw, self._size = draw, size
        self._block = np.zeros((BLOCK, num_envs, size), np.float32)
        self._next = BLOCK

    def restart(self) -> None:
        """Draw anew at the next step: the generators have been seeded."""
        self._next = BLOCK

    def next(self, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """(B, size) float32 for the next step."""
        if self._size == 0:
            return self._block[0]
        if self._next == BLOCK:
            for row, rng in enumerate(rngs):
                self._block[:, row] = self._draw(rng, (BLOCK, self._size))
            self._next = 0
        self._next += 1
        return self.last

    @property
    def last(self) -> np.ndarray:
        """(B, size) float32, those of the last step again."""
        return self._block[self._next - 1]


class Channels:
    """Channels of B rows: first the sensors, then their copies, then noise.

    Args:
        senses: what is added and taken away.
        num_envs: B.
        n_sensors: S.
    """

    def __init__(self, senses: Senses, num_envs: int, n_sensors: int) -> None:
        self.senses = senses
        self.n_real = n_sensors * (1 + senses.duplicates)
        self.n = senses.n_channels(n_sensors)
        self._values = np.zeros((num_envs, self.n), np.float32)
        self._exists = np.ones((num_envs, self.n), bool)  # drawn for each episode
        self._stuck = np.zeros((num_envs, self.n), bool)
        self._held = np.zeros((num_envs, self.n), np.float32)
        self._is_new = np.ones(num_envs, bool)
        self._noise = Draws(num_envs, self.n - self.n_real, lambda rng, shape: rng.standard_normal(shape))
        self._blinks = Draws(num_envs, self.n, lambda rng, shape: rng.random(shape))

    @property
    def draws(self) -> bool:
        """Whether anything here is random."""
        s = self.senses
        return bool(s.most_noise or s.missing or s.blinking or s.stuck)

    def restart(self) -> None:
        """The generators have been seeded."""
        self._noise.restart()
        self._blinks.restart()

    def start(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """Draw what is lost, what sticks and how much noise there is in the episodes that start in ``rows``.

        Args:
            rows: indices of rows.
            rngs: the generators of these rows.
        """
        self._is_new[rows] = True
        senses = self.senses
        lost = round(senses.missing * self.n_real)
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
        self, readings: np.ndarray, rngs: Sequence[np.random.Generator], again: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values (B, C) float32 and whether each channel is there (B, C) bool.

        Args:
            readings: (B, S) of the task.
            rngs: one generator for each row; none needed where nothing is random.
            again: in the same step as before (of rows that have been reset), with its random numbers.
        """
        values, senses = self._values, self.senses
        values[:, : self.n_real] = np.tile(readings, 1 + senses.duplicates)
        if self.n > self.n_real:
            noise = self._noise.last if again else self._noise.next(rngs)
            np.multiply(noise, senses.noise_std, out=values[:, self.n_real :])
        if senses.stuck:
            self._held[self._is_new] = values[self._is_new]
            np.copyto(values, self._held, where=self._stuck)
            self._is_new[:] = False
        if senses.blinking:
            drawn = self._blinks.last if again else self._blinks.next(rngs)
            return values, self._exists & (drawn >= senses.blinking)
        return values, self._exists
