"""From channels to slots on a device; what `somite.envs.sensors.slots` is on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...in_place import replace
from ..senses import Senses
from ..slots import Slots
from .chance import Chance
from .kept import KeptTensors
from .traces import TensorTraces


class TensorSlots(KeptTensors):
    """Slots of B rows, each with the last K readings of whatever channel it showed.

    Args:
        senses: the length of the history, its scales, the traces and the order.
        num_envs: B.
        n_channels: N; there are as many slots as channels.
        n_actions: A.
        device: of all tensors.
        complete: whether every channel is there in every step.

    Attributes:
        order: (B, N) int64, the channel that each slot shows.
        mask: (B, N) int8, 1 where the slot's reading is there.
        every: steps after which the order is drawn anew; None: it is not.
        shuffles: whether it is drawn at all.
    """

    kept = ("order", "mask", "_history", "_empty", "_traces")

    def __init__(
        self,
        senses: Senses,
        num_envs: int,
        n_channels: int,
        n_actions: int,
        device: torch.device,
        complete: bool,
    ) -> None:
        self.senses, self._complete = senses, complete
        self.every = senses.shuffle if not isinstance(senses.shuffle, str) else None
        self.shuffles = senses.shuffle != "never"
        self.order = torch.arange(n_channels, device=device).repeat(num_envs, 1)
        self.mask = torch.zeros(num_envs, n_channels, dtype=torch.int8, device=device)
        # (K, B, N), newest first: each age lies together, and moves on as a whole.
        self._history = torch.zeros(senses.history, num_envs, n_channels, device=device)
        self._empty = torch.ones(num_envs, n_channels, dtype=torch.bool, device=device)
        lengths = senses.traces
        self._traces = TensorTraces(lengths, num_envs, n_channels, n_actions, device) if lengths else None

    def seed(self, rngs: Sequence[np.random.Generator], stream: np.ndarray) -> None:
        """Draw the orders as the host does.

        Args:
            rngs: of the orders, one for each distinct seed.
            stream: (B,) which of them is a row's.
        """
        if self.shuffles:
            form = Slots(self.senses.with_values(traces=()), len(rngs), self.order.shape[1])
            form.start(np.arange(len(rngs)), rngs)
            self.order.copy_(torch.from_numpy(form.order[stream]))

    def start(self, where: Tensor, chance: Chance | None) -> None:
        """Empty the slots of the rows that ``where`` (B,) names, and draw their order; None: it is drawn."""
        self._empty |= where.unsqueeze(1)
        if self._traces:
            self._traces.start(where)
        if self.shuffles and chance:
            self.shuffle(where, chance)

    def shuffle(self, where: Tensor, chance: Chance) -> None:
        """Draw a new order in the rows that ``where`` (B,) names."""
        replace(self.order, where, chance.orders(self.order.shape[1]))

    def enter(self, values: Tensor, present: Tensor, actions: Tensor, where: Tensor | None = None) -> None:
        """Take in the readings of a step.

        Args:
            values: (B, N) of all channels.
            present: (B, N) bool, channels whose reading is there.
            actions: (B, A) that led to them.
            where: (B,) take in those of these rows only, whose episode has just begun; None: of all.
        """
        if self.shuffles:
            values, present = values.gather(1, self.order), present.gather(1, self.order)
        self.mask.copy_(present)
        history, scale = self._history, self.senses.scale
        if self._traces and where is None:
            self._traces.enter(values * scale, history[0] * scale, actions, present & ~self._empty)
        older = history[:-1].clone()
        if self._complete and where is None:
            history[1:] = older
            history[0] = values
            return
        entered = present if where is None else present & where.unsqueeze(1)
        first = entered & self._empty
        # The first reading fills the slot's whole history.
        history[1:] = torch.where(first, values, torch.where(entered, older, history[1:]))
        history[0] = torch.where(entered, values, history[0])
        self._empty &= ~first

    def tokens(self) -> Tensor:
        """(B, N, K + Q) float32: the newest reading, differences of successive ones, traces; 0 if missing."""
        history, senses = self._history, self.senses
        parts = [history[0] * senses.scale]
        if senses.history > 1:
            changes = (history[:-1] - history[1:]) * (senses.scale * senses.difference_scale)
            parts += changes.unbind()
        tokens = torch.stack(parts, -1)
        if self._traces:
            tokens = torch.cat((tokens, self._traces.read()), -1)
        return tokens if self._complete else tokens * self.mask.unsqueeze(-1)
