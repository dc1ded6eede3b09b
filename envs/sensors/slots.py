"""From channels to slots: the order that an agent meets them in, and the history that each slot keeps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..draws import RandomNumbers
from ..in_place import replace, wide
from ..snapshots import Kept
from .neighbors import Neighbors
from .senses import Senses
from .traces import Traces


class Slots(Kept):
    """Slots of B environments, each with the last K readings of whatever channel it showed.

    A history belongs to its slot: a channel that comes to another slot leaves it behind, so that an order
    drawn anew in mid-episode mixes histories until K steps have passed. A reading that is missing is not
    entered; the history then waits. Traces and neighbours belong to their slot, too.

    Args:
        senses: the length of the history, its scales, the traces, the neighbours and the order.
        num_envs: B.
        n_channels: N; there are as many slots as channels.
        reading_shape: of a reading, as in `Source`.
        n_actions: A.
        complete: whether every channel is there in every step.
        device: of all tensors.

    Attributes:
        order: (B, N) int64, the channel that each slot shows.
        mask: (B, N) int8, 1 where the slot's reading is there.
        every: steps after which the order is drawn anew; None: it is not.
        shuffles: whether it is drawn at all.
    """

    kept = ("order", "mask", "_history", "_empty", "_by_hand", "_has_by_hand", "_traces", "_neighbors")

    def __init__(
        self,
        senses: Senses,
        num_envs: int,
        n_channels: int,
        reading_shape: tuple[int, ...] = (),
        n_actions: int = 0,
        complete: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.senses, self._complete, self._are_patches = senses, complete, bool(reading_shape)
        self.every = senses.shuffle if not isinstance(senses.shuffle, str) else None
        self.shuffles = senses.shuffle != "never"
        b, n, k = num_envs, n_channels, senses.history
        self._own = torch.arange(n, device=device)
        self._first = n * torch.arange(b, device=device).unsqueeze(1)  # places of channel 0 among all
        self.order = self._own.repeat(b, 1)
        self.mask = torch.full((b, n), int(complete), dtype=torch.int8, device=device)
        kind = torch.uint8 if reading_shape else torch.float32
        # (K, B, N, ...), newest first: each age lies together, and moves on as a whole.
        self._history = torch.zeros(k, b, n, *reading_shape, dtype=kind, device=device)
        self._ages = self._history.unbind()
        self._empty = torch.ones(b, n, dtype=torch.bool, device=device)
        self._by_hand, self._has_by_hand = torch.zeros(b, dtype=torch.bool, device=device), False
        if not reading_shape:  # of tokens; written anew in every step
            self._columns = torch.empty_like(self._history)
            self._newest, self._changes = self._columns[0], self._columns[1:]
        self._traces = self._neighbors = None
        if senses.traces:
            self._traces = Traces(senses.traces, b, n, n_actions, self._are_patches, device)
        if senses.neighbors:
            self._neighbors = Neighbors(senses.neighbors, b, n, math.prod(reading_shape))

    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        """Empty the slots of the environments that ``where`` (B,) names, and draw their order."""
        if not self._complete:
            self._empty |= where.unsqueeze(1)
        if self._traces:
            self._traces.start(where)
        if self._neighbors:
            self._neighbors.start(where)
        if self._has_by_hand:
            replace(self.order, where & self._by_hand, self._own)
            self._by_hand &= ~where
        if self.shuffles:
            self.shuffle(where, draws)

    def shuffle(self, where: Tensor, draws: RandomNumbers) -> None:
        """Draw a new order in the environments that ``where`` (B,) names."""
        keys = draws.uniform(self.order.shape[1])
        replace(self.order, where, keys.argsort(1))

    def reorder(self, row: int, order: Tensor) -> None:
        """Put an environment's slots into an order (N,) by hand; it holds until its episode ends."""
        self.order[row] = order
        self._by_hand[row] = self._has_by_hand = True

    def in_order(self, values: Tensor) -> Tensor:
        """(B, N, ...) of slots, from those of channels."""
        if not self.shuffles and not self._has_by_hand:
            return values
        places = (self.order + self._first).flatten()
        return values.flatten(0, 1).index_select(0, places).view_as(values)

    def enter(self, values: Tensor, present: Tensor, actions: Tensor, where: Tensor | None = None) -> None:
        """Take in the readings of a step.

        Args:
            values: (B, N, *reading_shape) of all channels.
            present: (B, N) bool, channels whose reading is there.
            actions: (B, A) that led to them.
            where: (B,) take in those of these only, whose episode has just begun; None: of all.
        """
        values = self.in_order(values)
        ages = self._ages
        if not self._complete:
            present = self.in_order(present)
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

    def tokens(self) -> Tensor:
        """(B, N, K + Q) float32: the newest reading, differences of successive ones, traces; 0 if missing.

        Of patches (B, N, K * D) uint8: the frames, newest first.
        """
        senses, history = self.senses, self._history
        if self._are_patches:
            tokens = torch.cat(self._ages, -1) if len(self._ages) > 1 else self._ages[0].clone()
            return tokens if self._complete else tokens.mul_(self.mask.unsqueeze(-1))
        torch.mul(self._ages[0], senses.scale, out=self._newest)
        if senses.history > 1:
            torch.sub(history[:-1], history[1:], out=self._changes)
            self._changes.mul_(senses.scale * senses.difference_scale)
        tokens = self._columns.permute(1, 2, 0)
        if self._traces:
            tokens = torch.cat((tokens, self._traces.read()), -1)
        tokens = tokens.clone(memory_format=torch.contiguous_format)
        return tokens if self._complete else tokens.mul_(self.mask.unsqueeze(-1))

    def beside_tokens(self) -> dict[str, Tensor]:
        """Of patches, what else is told: ``traces`` (B, N, Q) and ``neighbors`` (B, N, 4), where kept."""
        if not self._are_patches:
            return {}
        told = [self._traces.read()] if self._traces else []
        found = {}
        if self._neighbors:
            told.append(self._neighbors.matches)
            found["neighbors"] = self._neighbors.neighbors.clone()
        return {"traces": torch.cat(told, -1), **found} if told else {}
