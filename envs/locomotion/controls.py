"""What nominal actions mean to the actuators of simulated rows."""

from __future__ import annotations

import numpy as np

from ..snapshots import Kept
from .bodies.morphology import Morphology


class Actuated(Kept):
    """The actuators of n rows of one morphology, or of several of one layout.

    Args:
        morphology: the body.
        n: rows.

    Attributes:
        slots: indices of the actuated joint slots among the slots of all limbs in order. actuators: theirs.
        center, half, low, high: (n, actuated) physical controls; see `to_physical`.
    """

    kept = ("center", "half", "low", "high")

    def __init__(self, morphology: Morphology, n: int) -> None:
        every = [slot for limb in morphology.limbs for slot in limb.slots]
        actuated = [(i, slot.actuator) for i, slot in enumerate(every) if slot.actuator >= 0]
        self.slots = [i for i, _ in actuated]
        self.actuators = [actuator for _, actuator in actuated]
        self.center, self.half, self.low, self.high = np.empty((4, n, len(actuated)))
        self.set(slice(0, n), morphology)

    def set(self, rows: int | slice, body: Morphology) -> None:
        """Nominal actions mean in these rows what they mean to ``body``."""
        for name in self.kept:
            getattr(self, name)[rows] = getattr(body.controls, name)[self.actuators]

    def to_physical(self, nominal: np.ndarray) -> np.ndarray:
        """(n, actuated) nominal actions in [-1, 1] as physical controls."""
        return np.clip(self.center + self.half * nominal, self.low, self.high)
