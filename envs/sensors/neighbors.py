"""Which patches lie side by side: found out from their edges, as the pieces of a jigsaw puzzle that moves."""

from __future__ import annotations

import math

import numpy as np

from ..snapshots import Kept

SIDES = ("right", "left", "below", "above")
"""Of a patch, where a neighbour may lie; each but one stands beside its opposite."""

SMALLEST = 1e-5
"""Variances of an edge (summed over its pixels, grey levels from 0 to 1) below it are taken for it."""

LEAST = 0.1
"""Edges that correlate less than this fit by chance, and are not taken for neighbours."""

EVERY, YOUNG = 4, 16
"""Steps after which neighbours are looked for anew, which costs more than keeping the covariances; in the
first `YOUNG` steps of an episode they are looked for in each."""


class Neighbors(Kept):
    """For each of B rows of N slots, which slot shows what lies to each side of what this slot shows.

    Edges that touch in the picture change alike. So every row keeps the covariance, over the last steps, of
    each slot's right edge with each slot's left edge, pixel by pixel, and of each lower edge with each upper
    one; the neighbour is the slot that correlates most. Two slots that are each other's best are almost
    always right, as Pomeranz, Shemesh and Ben-Shahar found for still pictures ("A fully automated greedy
    square jigsaw puzzle solver", CVPR 2011, best buddies).

    Of slots that fit equally well, as copies of each other do, and several in an episode's first steps, one
    is taken: there, and nowhere else, the order of the slots decides.

    The covariances are exponentially weighted, as those of `Traces`. Work and memory grow with N².

    Args:
        length: steps in which a weight falls to 1/e.
        num_envs: B.
        n_slots: N.
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
        self._own = np.arange(n_slots, dtype=np.int32)
        self._age, self._weight = np.zeros(num_envs, int), np.zeros(num_envs)
        width = self._side * colors
        self._mean = np.zeros((num_envs, 4, n_slots, width), np.float32)
        self._variance = np.zeros((num_envs, 4, n_slots), np.float32)
        # Of right edges (first) with left ones (second), and of lower with upper.
        self._covariance = np.zeros((num_envs, 2, n_slots, n_slots), np.float32)
        self.neighbors = np.tile(self._own[:, None], (num_envs, 1, 4))
        self.matches = np.zeros((num_envs, n_slots, self.size), np.float32)

    def start(self, rows: np.ndarray) -> None:
        """Begin anew in ``rows``."""
        for kept in (self._age, self._weight, self._mean, self._variance, self._covariance, self.matches):
            kept[rows] = 0
        self.neighbors[rows] = self._own[:, None]

    def enter(self, patches: np.ndarray, there: np.ndarray) -> None:
        """Take in a step.

        Args:
            patches: (B, N, D) uint8; rows, columns, colours.
            there: (B, N) bool, slots that show something; the others stay at their mean.
        """
        edges = self._edges(patches)  # edges: (B, 4, N, pixels)
        self._age += 1
        self._weight = self._weight * self._decay + 1
        rates = (1 / self._weight).astype(np.float32)
        apart = np.where(there[:, None, :, None], edges - self._mean, 0)
        self._mean += rates[:, None, None, None] * apart
        squares = np.einsum("bsnp,bsnp->bsn", apart, apart)
        wide = rates[:, None, None]
        self._variance = (1 - wide) * (self._variance + wide * squares)
        for row, rate in enumerate(rates):  # one after the other, whose matrices fit into the cache
            for axis, covariance in enumerate(self._covariance[row]):
                covariance *= 1 - rate
                first, second = apart[row, 2 * axis], apart[row, 2 * axis + 1]
                covariance += (rate * (1 - rate) * first) @ second.T
        for row in np.flatnonzero((self._age < YOUNG) | (self._age % EVERY == 0)):
            self._look(row)

    def _edges(self, patches: np.ndarray) -> np.ndarray:
        """(B, 4, N, pixels) of 0 to 1: right, left, lower and upper edges."""
        side = self._side
        pixels = patches.reshape(*patches.shape[:2], side, side, -1)
        edges = (pixels[:, :, :, -1], pixels[:, :, :, 0], pixels[:, :, -1], pixels[:, :, 0])
        return np.stack(edges, 1).reshape(len(patches), 4, patches.shape[1], -1) / np.float32(255)

    def _look(self, row: int) -> None:
        """Who fits best in ``row``."""
        inverse = 1 / np.sqrt(self._variance[row].clip(SMALLEST))  # inverse: (4, N)
        for axis, covariance in enumerate(self._covariance[row]):
            ahead, back = 2 * axis, 2 * axis + 1
            fit = covariance * inverse[ahead][:, None]
            fit *= inverse[back]
            np.fill_diagonal(fit, -1)
            for side, fits in ((ahead, fit), (back, np.ascontiguousarray(fit.T))):
                best = fits.argmax(1)  # best: (N,)
                correlation = np.take_along_axis(fits, best[:, None], 1)[:, 0]
                none = correlation < LEAST
                self.neighbors[row, :, side] = np.where(none, self._own, best)
                self.matches[row, :, side] = np.where(none, 0, correlation)
            to, fro = self.neighbors[row, :, ahead], self.neighbors[row, :, back]
            for side, there, again in ((ahead, to, fro), (back, fro, to)):
                self.matches[row, :, 4 + side] = (again[there] == self._own) & (there != self._own)
