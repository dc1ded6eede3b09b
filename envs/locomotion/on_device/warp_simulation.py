"""Rows of one morphology on a device, stepped by MuJoCo Warp, and what is read of their limbs."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import torch
from torch import Tensor

from ..arrays import NAMES
from ..bodies.morphology import Morphology
from ..controls import Actuated
from ..limb_reader import LimbReader
from ..simulation import frame_skip_of
from .capacities import Capacities
from .warp_worlds import WarpWorlds


class WarpSimulation(WarpWorlds):
    """``n`` rows (Warp's worlds) of one morphology, or of several of one layout.

    Args:
        morphology: the body.
        models: every compiled body that a row can be given, of its layout; rows begin with the first.
        n: number of rows.
        frame_skip: substeps of a step; None: as many as take about 0.02 s.
        device: of all arrays; on a CPU Warp's kernels run there, one row after another.
        capacities: of contacts and constraints.

    Attributes:
        limbs: reads the rows.

    Raises:
        UserError: Warp is not installed or cannot simulate this body.
    """

    def __init__(
        self,
        morphology: Morphology,
        models: Sequence[mujoco.MjModel],
        n: int,
        frame_skip: int | None,
        device: torch.device,
        capacities: Capacities,
    ) -> None:
        self.morphology, model = morphology, morphology.model
        skip = frame_skip_of(model) if frame_skip is None else frame_skip
        super().__init__(model, n, skip, device, capacities, morphology.name, models)
        arrays = {name: self.array(name) for name in NAMES}
        arrays["xmat"] = arrays["xmat"].flatten(2)  # (n, bodies, 9), the same memory
        self.limbs, self.controls = LimbReader(morphology, arrays), Actuated(morphology, n)
        self._actuators = torch.tensor(self.controls.actuators, dtype=torch.int64, device=device)
        self._reads_transmissions = any(slot.joint < 0 for limb in morphology.limbs for slot in limb.slots)
        if morphology.home_activation is not None:
            self._home = torch.from_numpy(morphology.home_activation).to(device, torch.float32)

    def set_controls(self, controls: Tensor) -> None:
        """Physical controls (n, actuated) of the substeps that follow."""
        self._state["ctrl"][:, self._actuators] = controls
