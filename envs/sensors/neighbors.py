"""Which patches lie side by side: found out from their edges, as the pieces of a jigsaw puzzle that moves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..in_place import clear, replace
from ..snapshots import Kept

SIDES = ("right", "left", "below", "above")
"""Of a patch, where a neighbour may lie; each but one stands beside its opposite."""

SMALLEST = 1e-5
"""Variances of an edge (summed over its pixels, grey levels from 0 to 1) below it are taken for it."""

LEAST = 0.1
"""Edges that correlate less than this fit by accident, and are not taken for neighbours."""

EVERY, YOUNG = 4, 16
"""Steps after which neighbours are looked for anew, which costs more than keeping the covariances; in the
first `YOUNG` steps of an episode they are looked for in each."""


class Neighbors(Kept):
    """For each of B environments of N slots, which slot shows what lies to each side of what a slot shows.

    Edges that touch in the picture change alike. So every environment keeps the covariance, over the last
    steps, of each slot's right edge with each slot's left edge, pixel by pixel, and of each lower edge with
    each upper one; the neighbour is the slot that correlates most. Two slots that are each other's best are
    almost always right, as Pomeranz, Shemesh and Ben-Shahar found for still pictures ("A fully automated
    greedy square jigsaw puzzle solver", CVPR 2011, best buddies).

    Of slots that fit equally well, as copies of each other do, and several in an episode's first steps, one
    is taken: there, and nowhere else, the order of the slots decides.

    The covariances are exponentially weighted, as those of `Traces`. Work and memory grow with N².

    Args:
        length: steps in which a weight falls to 1/e.
        num_envs, n_slots: B, N.
        n_pixels: D, numbers of a square patch, grey or in three colours.

    Attributes:
        neighbors: (B, N, 4) int32, slots to the `SIDES`; the slot itself where none fits.
        matches: (B, N, 8) float32, correlation with each of them (0 where none fits), and whether that one's
            neighbour on the other side is this slot, 0 or 1.
    """

    kept = ("_age", "_weight", "_mean", "_variance", "_covariance", "neighbors", "matches")

    size = 8
    """Numbers that `matches` tells of a slot."""

    told = "correlation of edges with the neighbour's to the right, left, below and above; whether mutual"

    def __init__(self, length: float, num_envs: int, n_slots: int, n_pixels: int) -> None:
        colors = 1 if math.isqrt(n_pixels) ** 2 == n_pixels else 3
        self._side = math.isqrt(n_pixels // colors)
        self._decay = math.exp(-1 / length)
        self._own = torch.arange(n_slots, dtype=torch.int32)
        self._age, self._weight = torch.zeros(num_envs, dtype=torch.int64), torch.zeros(num_envs)
        self._mean = torch.zeros(num_envs, 4, n_slots, self._side * colors)
        self._variance = torch.zeros(num_envs, 4, n_slots)
        # Of right edges (first) with left ones (second), and of lower with upper.
        self._covariance = torch.zeros(num_envs, 2, n_slots, n_slots)
        self.neighbors = self._own[:, None].repeat(num_envs, 1, 4)
        self.matches = torch.zeros(num_envs, n_slots, self.size)

    def start(self, where: Tensor) -> None:
        """Begin anew in the environments that ``where`` (B,) names."""
        for kept in (self._age, self._weight, self._mean, self._variance, self._covariance, self.matches):
            clear(kept, where)
        replace(self.neighbors, where, self._own[:, None])

    def enter(self, patches: Tensor, there: Tensor) -> None:
        """Take in a step.

        Args:
            patches: (B, N, D) uint8; rows, columns, colours.
            there: (B, N) bool, slots that show something; the others stay at their mean.
        """
        self._age += 1
        self._weight.mul_(self._decay).add_(1)
        rates = (1 / self._weight).reshape(-1, 1, 1, 1)
        apart = torch.where(there[:, None, :, None], self._edges(patches) - self._mean, 0.0)
        self._mean.addcmul_(rates, apart)  # apart: (B, 4, N, pixels)
        rate = rates.squeeze(-1)
        self._variance.addcmul_(rate, apart.square().sum(-1)).mul_(1 - rate)
        first, second = rates * (1 - rates) * apart[:, 0::2], apart[:, 1::2].mT
        # One environment after the other, whose matrices fit into the cache.
        for covariance, keeps, one, other in zip(self._covariance, 1 - rate, first, second, strict=True):
            covariance.mul_(keeps).baddbmm_(one, other)
        for row in ((self._age < YOUNG) | (self._age % EVERY == 0)).nonzero().flatten().tolist():
            self._look(row)

    def _edges(self, patches: Tensor) -> Tensor:
        """(B, 4, N, pixels) of 0 to 1: right, left, lower and upper edges."""
        pixels = patches.unflatten(-1, (self._side, self._side, -1))
        edges = (pixels[:, :, :, -1], pixels[:, :, :, 0], pixels[:, :, -1], pixels[:, :, 0])
        return torch.stack(edges, 1).flatten(3) / 255

    def _look(self, row: int) -> None:
        """Who fits best in an environment."""
        inverse = self._variance[row].clamp(min=SMALLEST).rsqrt()  # inverse: (4, N)
        neighbors, matches = self.neighbors[row], self.matches[row]
        for axis, covariance in enumerate(self._covariance[row]):
            ahead, back = 2 * axis, 2 * axis + 1
            fit = (covariance * inverse[ahead].unsqueeze(1)).mul_(inverse[back])
            fit.fill_diagonal_(-1)
            for side, fits in ((ahead, fit), (back, fit.mT)):
                correlation, best = fits.max(1)
                none = correlation < LEAST
                neighbors[:, side] = torch.where(none, self._own, best.int())
                matches[:, side] = correlation.masked_fill(none, 0)
            to, fro = neighbors[:, ahead].long(), neighbors[:, back].long()
            for side, there, again in ((ahead, to, fro), (back, fro, to)):
                matches[:, 4 + side] = ((again[there] == self._own) & (there != self._own)).float()
