"""Candidates as they are sent: their numbers, or what they were drawn from where that is less."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..algorithms.cma_es import Recipe
from ..algorithms.normal import Draw

SEED_BYTES = 9
"""Of a row: its seed and its sign."""


@dataclass(frozen=True)
class Sent:
    """A shard's candidates.

    Attributes:
        values: (k, n), the first candidates, or all, in the policy's precision.
        drawn: how the others are drawn again; None: there are no others.
    """

    values: np.ndarray
    drawn: Draw | None = None

    @property
    def nbytes(self) -> int:
        """How much of it there is, but for a few bytes around it."""
        return self.values.nbytes + (0 if self.drawn is None else SEED_BYTES * len(self.drawn.seeds))


def whole(candidates: np.ndarray, shard: slice, dtype: np.dtype) -> Sent:
    """A shard as numbers, rounded to the precision that the policy computes in, as it would do itself."""
    return Sent(candidates[shard].astype(dtype))


def drawn_again(
    candidates: np.ndarray, shards: list[slice], recipe: Recipe, dtype: np.dtype
) -> list[Sent] | None:
    """All shards as seeds; None where the recipe does not give these very candidates.

    Args:
        candidates: (P, n).
        shards: of them.
        recipe: of the last of them.
        dtype: of the policy, for candidates that were made otherwise.
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
    again = Recipe(recipe.mean, recipe.sigma, recipe.scaling, sent.drawn)
    drawn = again.rows(slice(0, len(sent.drawn.seeds)))
    return np.concatenate((sent.values, drawn.astype(sent.values.dtype)))


def shared_bytes(recipe: Recipe) -> int:
    """Of what all shards drawn again have in common, once for each machine."""
    return recipe.mean.nbytes + recipe.scaling.nbytes + 8
