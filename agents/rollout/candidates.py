"""Candidates of a generation as what they were drawn from: seeds instead of numbers.

Normally distributed numbers of which every row has a seed of its own can be drawn again, elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SEED_BYTES = 9
"""Of a row: its seed and its sign."""


@dataclass(frozen=True)
class Draw:
    """Rows of a sample: ``seeds`` (rows,) uint64 and ``signs`` (rows,) int8, -1 for a row's opposite."""

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

    If ``mirrored``, the second half of a sample is the first with the opposite sign.
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
        """What the last sample of several rows was drawn from; None before the first."""
        return None if self._seeds is None else Draw(self._seeds, self._signs)


@dataclass(frozen=True)
class Recipe:
    """Candidates as what they were drawn from: mean + sigma * (scaling * z), where z has a seed for each row.

    Attributes:
        mean: (n,).
        sigma: the step size.
        scaling: (n,) or (), of each parameter's deviation.
        drawn: of the last rows; candidates before them were made otherwise.
    """

    mean: np.ndarray
    sigma: float
    scaling: np.ndarray
    drawn: Draw

    def rows(self, part: slice) -> np.ndarray:
        """(rows, n) candidates of a part of ``drawn``, in pycma's order of operations."""
        return self.mean + self.sigma * (self.scaling * self.drawn[part].rows(len(self.mean)))

    @property
    def nbytes(self) -> int:
        """Of what candidates of all parts have in common."""
        return self.mean.nbytes + self.scaling.nbytes + 8


@dataclass(frozen=True)
class Sent:
    """A shard's candidates: ``values`` (k, n), the first ones, and how the others are drawn again, if any."""

    values: np.ndarray
    drawn: Draw | None = None

    @property
    def nbytes(self) -> int:
        """How much of it there is, but for a few bytes around it."""
        return self.values.nbytes + (0 if self.drawn is None else SEED_BYTES * len(self.drawn.seeds))


def drawn_again(
    candidates: np.ndarray, shards: list[slice], recipe: Recipe, dtype: np.dtype
) -> list[Sent] | None:
    """All shards of candidates (P, n) as seeds; None where the recipe does not give these very candidates.

    ``dtype`` is the policy's, for those first candidates that were made otherwise.
    """
    first = len(candidates) - len(recipe.drawn.seeds)  # of those that were drawn
    found = []
    for shard in shards:
        begin = max(shard.start, first)
        part = slice(begin - first, max(begin, shard.stop) - first)
        if not np.array_equal(recipe.rows(part), candidates[begin : shard.stop]):
            return None
        values = candidates[shard.start : min(begin, shard.stop)].astype(dtype)
        found.append(Sent(values, recipe.drawn[part]))
    return found


def received(sent: Sent, recipe: Recipe | None) -> np.ndarray:
    """(S, n) candidates of a shard; the recipe's mean and deviations are the generation's."""
    if sent.drawn is None:
        return sent.values
    drawn = replace(recipe, drawn=sent.drawn).rows(slice(None))
    return np.concatenate((sent.values, drawn.astype(sent.values.dtype)))
