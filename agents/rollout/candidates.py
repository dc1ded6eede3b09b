"""What candidates of a search are drawn from. Its name stands in saved searches."""

from __future__ import annotations

import numpy as np


class Normal:
    """Normally distributed numbers, as pycma asks for them, from a generator of its own.

    If ``mirrored``, the second half of a sample is the first with the opposite sign.
    """

    def __init__(self, seed: int, mirrored: bool = False) -> None:
        self.rng, self.mirrored = np.random.default_rng(seed), mirrored

    def __call__(self, rows: int, n: int) -> np.ndarray:
        """(rows, n) numbers; a row takes one number of the generator, its seed, however long it is."""
        drawn = rows // 2 if self.mirrored and rows > 1 else rows
        values = np.empty((drawn, n))
        seeds = self.rng.integers(2**64, size=drawn, dtype=np.uint64)
        for row, seed in zip(values, seeds, strict=True):
            np.random.Generator(np.random.SFC64(int(seed))).standard_normal(n, out=row)
        return np.concatenate((values, -values)) if drawn < rows else values
