"""From channels to slots: the order that an agent meets them in, and the history that each slot keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..draws import RandomNumbers
from ..in_place import replace, wide
from ..snapshots import Kept
from .channels import Channels
from .neighbors import Neighbors
from .traces import Traces


class Slots(Kept):
    """Slots of B environments, each with the last K readings of whatever channel it showed.

    A history belongs to its slot: a channel that comes to another slot leaves it behind, so that an order
    drawn anew in mid-episode mixes histories until K steps have passed. A reading that is missing is not
    entered; the history then waits. Traces and neighbours belong to their slot, too.

    Args:
        channels: N of them, and as many slots; their senses say the rest.
        num_envs: B.
        n_actions: A.
        device: of all tensors.

    Attributes:
        order: (B, N) int64, the channel that each slot shows.
        sensor: (B, N) int32, which of the task's sensors that is, S for noise.
        mask: (B, N) int8, 1 where the slot's reading is there.
        every: steps after which the order is drawn anew; None: it is not.
        shuffles: whether it is drawn at all.
    """

    kept = ("order", "mask", "_history", "_empty", "_by_hand", "_has_by_hand", "_traces", "_neighbors")

    def __init__(self, channels: Channels, num_envs: int, n_actions: int, device: torch.device) -> None:
        self.senses = senses = channels.senses
        self._complete, self._kinds, shape = channels.complete, channels.sensor, channels.reading_shape
        self._are_patches = bool(shape)
        self.every = senses.shuffle if not isinstance(senses.shuffle, str) else None
        self.shuffles = senses.shuffle != "never"
        b, n, k = num_envs, channels.n, senses.history
        self._own = torch.arange(n, device=device)
        self._first = n * torch.arange(b, device=device).unsqueeze(1)  # places of channel 0 among all
        self.order = self._own.repeat(b, 1)
        self._places, self.sensor = self.order + self._first, self._kinds.repeat(b, 1)
        self.mask = torch.full((b, n), int(self._complete), dtype=torch.int8, device=device)
        kind = torch.uint8 if shape else torch.float32
        # (K, B, N, ...), newest first: each age lies together, and moves on as a whole.
        self._history = torch.zeros(k, b, n, *shape, dtype=kind, device=device)
        self._ages = self._history.unbind()
        self._empty = torch.ones(b, n, dtype=torch.bool, device=device)
        self._by_hand, self._has_by_hand = torch.zeros(b, dtype=torch.bool, device=device), False
        # Of tokens, written anew in every step: of each, what its slot tells side by side.
        self._columns = torch.zeros((b, n, k, *shape) if shape else (k, b, n), dtype=kind, device=device)
        self._newest, self._changes = self._columns[0], self._columns[1:]
        self._newer, self._older = self._history[:-1], self._history[1:]
        self._traces = self._neighbors = None
        if senses.traces:
            self._traces = Traces(senses.traces, b, n, n_actions, self._are_patches, device)
        if senses.neighbors:
            self._neighbors = Neighbors(senses.neighbors, b, n, math.prod(shape))

    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        """Empty the slots of the environments that ``where`` (B,) names, and draw their order."""
        if not self._complete:
            self._empty |= where.unsqueeze(1)
        if self._traces:
            self._traces.start(where)
        if self._neighbors:
            self._neighbors.start(where)
        if self._has_by_hand:
            self._put_in_order(where & self._by_hand, self._own)
            self._by_hand &= ~where
        if self.shuffles:
            self.shuffle(where, draws)

    def shuffle(self, where: Tensor, draws: RandomNumbers) -> None:
        """Draw a new order in the environments that ``where`` (B,) names."""
        self._put_in_order(where, draws.uniform(self.order.shape[1]).argsort(1))

    def reorder(self, row: int, order: Tensor) -> None:
        """Put an environment's slots into an order (N,) by hand; it holds until its episode ends."""
        self._by_hand[row] = self._has_by_hand = True
        self._put_in_order(self._own.new_tensor([row]), order)

    def _put_in_order(self, where: Tensor, order: Tensor) -> None:
        """Orders (B, N), or one (N,), where (B,) bool, or of the environments of that index."""
        if where.dtype == torch.bool:
            replace(self.order, where, order)
        else:
            self.order[where] = order
        torch.add(self.order, self._first, out=self._places)
        self.sensor.copy_(self._kinds[self.order])

    def restore(self, taken: Mapping[str, Any]) -> None:
        """See `Kept`."""
        super().restore(taken)
        self._put_in_order(self._by_hand, self.order)

    def _in_order(self, values: Tensor) -> Tensor:
        """(B, N, ...) of slots, from those of channels."""
        if not self.shuffles and not self._has_by_hand:
            return values
        return values.flatten(0, 1).index_select(0, self._places.view(-1)).view_as(values)

    def enter(self, values: Tensor, present: Tensor, actions: Tensor, where: Tensor | None = None) -> None:
        """Take in the readings of a step.

        Args:
            values: (B, N, *reading_shape) of all channels.
            present: (B, N) bool, channels whose reading is there.
            actions: (B, A) that led to them.
            where: (B,) take in those of these only, whose episode has just begun; None: of all.
        """
        values, ages = self._in_order(values), self._ages
        if not self._complete:
            present = self._in_order(present)
            self.mask.copy_(present)
        if where is None:
            if self._traces:
                now, before, scale = values, ages[0], self.senses.scale
                if scale != 1:  # patches have none
                    now, before = now * scale, before * scale
                goes = present if self._complete else present & ~self._empty
                self._traces.enter(now, before, actions, goes)
            if self._neighbors:
                self._neighbors.enter(values, present)
        if self._complete and where is None:
            for age in range(len(ages) - 1, 0, -1):
                ages[age].copy_(ages[age - 1])
            ages[0].copy_(values)
            return
        if where is not None:
            present = present & where.unsqueeze(1)
        first = wide(present if self._complete else present & self._empty, values)
        entered = wide(present, values)
        # The first reading fills the slot's whole history.
        for age in range(len(ages) - 1, 0, -1):
            moved = ages[age] if self._complete else torch.where(entered, ages[age - 1], ages[age])
            torch.where(first, values, moved, out=ages[age])
        torch.where(entered, values, ages[0], out=ages[0])
        if not self._complete:
            self._empty &= ~present

    def observed(self) -> dict[str, Tensor]:
        """``tokens`` and ``mask``, and of patches ``traces`` (B, N, Q) and ``neighbors``, where kept.

        Tokens are (B, N, K + Q) float32: the newest reading, differences of successive ones, traces; 0 if
        missing. Of patches they are (B, N, K * D) uint8: the frames, newest first.
        """
        found = {"tokens": self._patches() if self._are_patches else self._numbers(), "mask": self.mask}
        if not self._complete:
            found["tokens"].mul_(self.mask.unsqueeze(-1))
        if self._are_patches and (self._traces or self._neighbors):
            told = [self._traces.read()] if self._traces else []
            if self._neighbors:
                told.append(self._neighbors.matches)
                found["neighbors"] = self._neighbors.neighbors.clone()
            found["traces"] = torch.cat(told, -1)
        return found

    def _patches(self) -> Tensor:
        if len(self._ages) == 1 and self._complete:
            return self._ages[0]
        for place, age in enumerate(self._ages):  # torch.cat takes twice as long
            self._columns[:, :, place].copy_(age)
        return self._columns.flatten(2)

    def _numbers(self) -> Tensor:
        senses = self.senses
        torch.mul(self._ages[0], senses.scale, out=self._newest)
        if senses.history > 1:
            torch.sub(self._newer, self._older, out=self._changes)
            self._changes.mul_(senses.scale * senses.difference_scale)
        tokens = self._columns.permute(1, 2, 0)
        return torch.cat((tokens, self._traces.read()), -1) if self._traces else tokens.contiguous()
