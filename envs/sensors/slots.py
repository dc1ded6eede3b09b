"""From channels to slots: the order that an agent meets them in, and the history that each slot keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..snapshots import Kept
from .neighbors import Neighbors
from .senses import Senses
from .traces import PatchTraces, ReadingTraces


class Slots(Kept):
    """Slots of B rows, each with the last K readings of whatever channel it showed.

    A history belongs to its slot: a channel that comes to another slot leaves it behind, so that an order
    drawn anew in mid-episode mixes histories until K steps have passed. A reading that is missing is not
    entered; the history then waits. Traces and neighbours belong to their slot, too.

    Args:
        senses: the length of the history, its scales, the traces, the neighbours and the order.
        num_envs: B.
        n_channels: N; there are as many slots as channels.
        reading_shape: of a reading, as in `Source`.
        n_actions: A.

    Attributes:
        order: (B, N), the channel that each slot shows.
        mask: (B, N) int8, 1 where the slot's reading is there.
    """

    kept = ("order", "mask", "_history", "_empty", "_reordered", "_traces", "_neighbors")

    def __init__(
        self,
        senses: Senses,
        num_envs: int,
        n_channels: int,
        reading_shape: tuple[int, ...] = (),
        n_actions: int = 0,
    ) -> None:
        self.senses = senses
        self.every = senses.shuffle if not isinstance(senses.shuffle, str) else None
        self.shuffles = senses.shuffle != "never"
        self.order = np.tile(np.arange(n_channels), (num_envs, 1))
        self.mask = np.zeros((num_envs, n_channels), np.int8)
        self._shape = reading_shape
        kind = np.uint8 if reading_shape else np.float32
        self._history = np.zeros((num_envs, n_channels, senses.history, *reading_shape), kind)
        self._empty = np.ones((num_envs, n_channels), bool)
        self._reordered = np.zeros(num_envs, bool)  # by hand
        kind = PatchTraces if reading_shape else ReadingTraces
        self._traces = kind(senses.traces, num_envs, n_channels, n_actions) if senses.traces else None
        self._neighbors = None
        if senses.neighbors:
            self._neighbors = Neighbors(senses.neighbors, num_envs, n_channels, math.prod(reading_shape))

    def restore(self, taken: Mapping[str, Any]) -> None:
        """Inverse of `snapshot`. Raises Misfit."""
        self.mask = self.mask.copy()  # the present one has been handed out
        super().restore(taken)

    def start(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """Empty the slots of ``rows`` and draw their order from these rows' generators."""
        self._empty[rows] = True
        if self._traces:
            self._traces.start(rows)
        if self._neighbors:
            self._neighbors.start(rows)
        self.order[rows[self._reordered[rows]]] = np.arange(self.order.shape[1])
        self._reordered[rows] = False
        if self.shuffles:
            self._draw(rows, rngs)

    def reorder(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """Draw another order by hand, whatever the senses say; it holds until the row's episode ends.

        Args:
            rows: which.
            rngs: one generator for each of them.
        """
        self._reordered[rows] = True
        self._draw(rows, rngs)

    def shuffle(self, steps: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """Draw a new order in rows whose episode has made so many ``steps`` (B,)."""
        if self.every is not None:
            rows = np.flatnonzero((steps % self.every == 0) & (steps > 0))
            if len(rows):
                self._draw(rows, [rngs[row] for row in rows])

    def _draw(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        keys = np.array([rng.random(self.order.shape[1]) for rng in rngs])
        self.order[rows] = keys.argsort(1)

    def enter(
        self,
        values: np.ndarray,
        present: np.ndarray,
        actions: np.ndarray,
        rows: np.ndarray | None = None,
    ) -> None:
        """Take in the readings of a step.

        Args:
            values: (B, N, *reading_shape) of all channels.
            present: (B, N) bool, channels whose reading is there.
            actions: (B, A) that led to them.
            rows: take in those of these rows only, whose episode has just begun.
        """
        if self.shuffles or self._reordered.any():
            values = values[np.arange(len(values))[:, None], self.order]
            present = np.take_along_axis(present, self.order, 1)
        self.mask = present.astype(np.int8)
        where = slice(None) if rows is None else rows
        if self._traces and rows is None:
            now, before = values, self._history[:, :, 0]
            if not self._shape:
                now, before = now * self.senses.scale, before * self.senses.scale
            self._traces.enter(now, before, actions, present & ~self._empty)
        if self._neighbors and rows is None:
            self._neighbors.enter(values, present)
        self._take_in(where, values[where], present[where])

    def _take_in(self, where: slice | np.ndarray, values: np.ndarray, entered: np.ndarray) -> None:
        history, empty = self._history[where], self._empty[where]
        if entered.all() and not empty.any():
            history[:, :, 1:] = history[:, :, :-1].copy()
            history[:, :, 0] = values
        else:
            first = entered & empty
            history[:, :, 1:] = np.where(self._wide(entered), history[:, :, :-1], history[:, :, 1:])
            history[entered, 0] = values[entered]
            history[first] = values[first][:, None]  # the first reading fills the slot's whole history
            self._empty[where] = empty & ~first
        if not isinstance(where, slice):
            self._history[where] = history

    def _wide(self, slots: np.ndarray) -> np.ndarray:
        """(B, N) as a condition on histories."""
        return slots.reshape(*slots.shape, *[1] * (1 + len(self._shape)))

    def tokens(self) -> np.ndarray:
        """(B, N, K) float32: the newest reading, then differences of successive ones; 0 where missing.

        With traces (B, N, K + Q).

        Of patches (B, N, K * D) uint8: the frames, newest first.
        """
        history, senses = self._history, self.senses
        if self._shape:
            tokens = history.reshape(*history.shape[:2], -1)
            exists = self.mask[..., None].astype(np.uint8)
            return tokens.copy() if self.mask.all() else tokens * exists
        tokens = np.empty_like(history)
        np.multiply(history[..., 0], senses.scale, out=tokens[..., 0])
        if history.shape[2] > 1:
            np.subtract(history[..., :-1], history[..., 1:], out=tokens[..., 1:])
            tokens[..., 1:] *= senses.scale * senses.difference_scale
        if self._traces:
            tokens = np.concatenate((tokens, self._traces.read()), -1)
        if not self.mask.all():
            tokens *= self.mask[..., None]
        return tokens

    def beside_tokens(self) -> dict[str, np.ndarray]:
        """Of patches, what else is told: ``traces`` (B, N, Q) and ``neighbors`` (B, N, 4), where kept."""
        if not self._shape:
            return {}
        told = [self._traces.read()] if self._traces else []
        found = {}
        if self._neighbors:
            told.append(self._neighbors.matches)
            found["neighbors"] = self._neighbors.neighbors.copy()
        return {"traces": np.concatenate(told, -1), **found} if told else {}
