"""Somebody else, such as a teacher, who meets the same episodes with senses of its own."""

from __future__ import annotations

import numpy as np

from ..errors import UserError
from ..snapshots import Kept
from .channels import Channels
from .senses import Senses
from .slots import Slots
from .source import Source


class Onlooker(Kept):
    """Channels and slots of somebody else, in the task's own order.

    Args:
        senses: of the onlooker; nothing of them may be random.
        source: the task.
        sees: its ``state`` or its ``readings``.
        n_actions: A.

    Attributes:
        sees: as given.

    Raises:
        UserError: senses that are shuffled, noisy or lost.
    """

    kept = ("channels", "slots")

    def __init__(self, senses: Senses, source: Source, sees: str, n_actions: int) -> None:
        self.sees = sees
        self._sees_state = sees == "state"
        shape = () if self._sees_state else source.reading_shape
        count = len(source.state_names if self._sees_state else source.sensor_names)
        self.channels = Channels(senses, source.num_envs, count, shape)
        self.slots = Slots(senses, source.num_envs, self.channels.n, shape, n_actions)
        if self.channels.draws or self.slots.shuffles:
            raise UserError(f"an onlooker's senses must be undisturbed, got {senses}")

    def start(self, rows: np.ndarray) -> None:
        """Episodes begin in ``rows``."""
        self.channels.start(rows, ())
        self.slots.start(rows, ())

    def enter(
        self, readings: np.ndarray, state: np.ndarray, actions: np.ndarray, rows: np.ndarray | None
    ) -> None:
        """Take in a step; see `Slots.enter`.

        Args:
            readings: (B, S, *reading_shape) of the task.
            state: (B, P) of the task.
            actions: (B, A) that led to them.
            rows: those whose episode has just begun; None: all step.
        """
        seen = state if self._sees_state else readings
        self.slots.enter(*self.channels.read(seen, ()), actions, rows)
