"""Where the limbs, joints and actuators of a body's rows stand in an environment's padded arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .arrays import Array
from .bodies.morphology import Morphology
from .limb_reader import LimbReader


class Places:
    """Rows of one body, or of several of one layout, within an environment.

    Args:
        body: the body.
        rows: of the environment.
        actuated: indices of the actuated joint slots among all in order.
        aligned: limbs are placed as in the full body instead of packed together.
        device: of the arrays; None: they are NumPy's.

    Attributes:
        slots: limb slot of every limb.
        joint_slots: limb slots and joint slots (S,), (S,) of every joint row, on the host.
    """

    def __init__(
        self,
        body: Morphology,
        rows: slice,
        actuated: Sequence[int],
        aligned: bool,
        device: torch.device | None = None,
    ) -> None:
        self.rows = rows
        self.slots = body.aligned_slots if aligned else tuple(range(body.n_limbs))
        places = [
            (self.slots[i], k) for i, limb in enumerate(body.limbs) for k in range(len(limb.slots))
        ]  # (limb slot, joint slot) of every joint
        limb, joint = np.array(places).T
        self.joint_slots = limb, joint
        contiguous = self.slots == tuple(range(body.n_limbs))
        self._limbs: slice | list[int] | Tensor = slice(0, body.n_limbs) if contiguous else list(self.slots)
        self._joints: tuple[Array, Array] = (limb, joint)
        self._actions: tuple[Array, Array] = (limb[list(actuated)], joint[list(actuated)])
        if device is not None:  # lists would go to the device in every step
            if not contiguous:
                self._limbs = torch.tensor(self.slots, device=device)
            self._joints = torch.from_numpy(limb).to(device), torch.from_numpy(joint).to(device)
            self._actions = tuple(part[list(actuated)] for part in self._joints)

    def actions(self, actions: Array) -> Array:
        """(n, actuated) of actions (B, N, J) of the environment."""
        return actions[self.rows][:, self._actions[0], self._actions[1]]

    def write(
        self, limbs: LimbReader, arrays: Mapping[str, Array], places: slice | np.ndarray = slice(None)
    ) -> None:
        """Copy limb and joint arrays of rows into the padded ones.

        Args:
            limbs: reads the rows.
            arrays: of the environment, as `LimbState` names them.
            places: of these rows; all of them, or indices.
        """
        rows, slots = self.rows, self._limbs
        if not isinstance(places, slice):
            rows, slots = (places + self.rows.start)[:, None], list(self.slots)
        limb, joint = self._joints
        arrays["position"][rows, slots] = limbs.positions()[places]
        arrays["rotation"][rows, slots] = limbs.rotations()[places]
        arrays["velocity"][rows, slots] = limbs.velocities()[places]
        arrays["center"][rows, slots] = limbs.tree_centers()[places]
        arrays["axis"][rows, limb, joint] = limbs.joint_axes()[places]
        arrays["joint_position"][rows, limb, joint] = limbs.joint_positions()[places]
        arrays["joint_speed"][rows, limb, joint] = limbs.joint_speeds()[places]
        activations = limbs.activations()
        if activations is not None:
            arrays["activation"][rows, limb, joint] = activations[places]
