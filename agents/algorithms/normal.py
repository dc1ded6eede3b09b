"""Normally distributed numbers of which every row has a seed of its own, so that a row can be drawn again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Draw:
    """Rows of a sample, each as its seed and its sign.

    Attributes:
        seeds: (rows,) uint64.
        signs: (rows,) int8, -1 where a row is the opposite of what its seed gives.
    """

    seeds: np.ndarray
    signs: np.ndarray

    def rows(self, n: int) -> np.ndarray:
        """(rows, n) numbers; a row is the same whichever others are drawn with it."""
        out = np.empty((len(self.seeds), n))
        for row, seed, sign in zip(out, self.seeds, self.signs, strict=True):
            np.random.Generator(np.random.SFC64(int(seed))).standard_normal(n, out=row)
            if sign < 0:
                np.negative(row, out=row)
        return out

    def __getitem__(self, part: slice) -> Draw:
        return Draw(self.seeds[part], self.signs[part])


class Normal:
    """Normally distributed numbers, as pycma asks for them, from a generator of its own.

    Args:
        seed: of the generator.
        mirrored: the second half of a sample is the first with the opposite sign.

    Attributes:
        last: what the last sample of several rows was drawn from; None before the first.
    """

    def __init__(self, seed: int, mirrored: bool = False) -> None:
        self.rng, self.mirrored = np.random.default_rng(seed), mirrored
        self._seeds = self._signs = None

    def __call__(self, rows: int, n: int) -> np.ndarray:
        """(rows, n) numbers."""
        drawn = rows // 2 if self.mirrored and rows > 1 else rows
        seeds = self.rng.integers(2**64, size=drawn, dtype=np.uint64)
        signs = np.ones(drawn, np.int8)
        values = Draw(seeds, signs).rows(n)
        if drawn < rows:
            values = np.concatenate((values, -values))
            seeds, signs = np.concatenate((seeds, seeds)), np.concatenate((signs, -signs))
        if rows > 1:  # pycma asks for one row more where it scales a direction
            self._seeds, self._signs = seeds, signs
        return values

    @property
    def last(self) -> Draw | None:
        """Seeds and signs of the last sample."""
        return None if self._seeds is None else Draw(self._seeds, self._signs)
