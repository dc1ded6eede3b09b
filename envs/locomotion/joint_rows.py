"""State of every joint row of a body, read from the simulator's arrays.

Hinges and slides are columns of ``qpos`` and ``qvel``, which is all that most bodies have, and fast. A
ball joint is the rotation vector of its quaternion; an actuator that acts through a tendon, a site or
the like is its length and rate.
"""

from __future__ import annotations

import mujoco
import mujoco.batch
import numpy as np

from .bodies.morphology import Morphology
from .features import joint_descriptor_slice


class JointRows:
    """Joint rows (S, those of all limbs in order) of n simulations of one morphology.

    Args:
        morphology: the body.
        batch: its simulations.
    """

    def __init__(self, morphology: Morphology, batch: mujoco.batch.Batch) -> None:
        model = morphology.model
        slots = [slot for limb in morphology.limbs for slot in limb.slots]
        self._n, self._count = batch.nsim, len(slots)
        self._qpos, self._qvel = batch.bind("qpos"), batch.bind("qvel")
        self._xaxis, self._xmat = batch.bind("xaxis"), batch.bind("xmat")
        self._length, self._rate = batch.bind("actuator_length"), batch.bind("actuator_velocity")
        self._act = batch.bind("act")

        ball = int(mujoco.mjtJoint.mjJNT_BALL)
        balls = [i for i, s in enumerate(slots) if s.joint >= 0 and int(model.jnt_type[s.joint]) == ball]
        remote = [i for i, s in enumerate(slots) if s.joint < 0]
        scalar = [i for i in range(len(slots)) if i not in {*balls, *remote}]
        joints = [slots[i].joint for i in scalar]
        self._scalar, self._joints = scalar, as_slice(joints)
        self._scalar_qpos = as_slice([int(model.jnt_qposadr[joint]) for joint in joints])
        self._scalar_qvel = as_slice([int(model.jnt_dofadr[joint]) for joint in joints])
        self._all_scalar = len(scalar) == len(slots)

        self._balls, self._remote = balls, remote
        first = balls[::3]  # the three axes of a ball joint follow each other
        self._ball_qpos = np.array([model.jnt_qposadr[slots[i].joint] for i in first], int)
        self._ball_dofs = [int(model.jnt_dofadr[slots[i].joint]) + slots[i].axis for i in balls]
        self._remote_actuators = [slots[i].actuator for i in remote]

        # Rows whose axis MuJoCo does not give: their axis in the limb's frame turns with the limb.
        limb_of = [k for k, limb in enumerate(morphology.limbs) for _ in limb.slots]
        axis = joint_descriptor_slice("axis")
        described = [row for rows in morphology.joint_descriptors for row in rows]
        self._turned = balls + remote
        self._turned_bodies = [morphology.limbs[limb_of[i]].bodies[0] for i in self._turned]
        self._turned_axes = np.array([described[i][axis] for i in self._turned], float).reshape(-1, 3, 1)

        states = [
            (i, int(model.actuator_actadr[s.actuator] + model.actuator_actnum[s.actuator] - 1))
            for i, s in enumerate(slots)
            if s.actuator >= 0 and model.actuator_actadr[s.actuator] >= 0
        ]
        self._stateful, self._states = [i for i, _ in states], [state for _, state in states]

    def positions(self) -> np.ndarray:
        """(n, S)."""
        if self._all_scalar:
            return self._qpos[:, self._scalar_qpos]
        out = np.empty((self._n, self._count))
        out[:, self._scalar] = self._qpos[:, self._scalar_qpos]
        if self._balls:
            quaternions = self._qpos[:, self._ball_qpos[:, None] + np.arange(4)]  # (n, balls, 4)
            out[:, self._balls] = rotation_vectors(quaternions).reshape(self._n, -1)
        out[:, self._remote] = self._length[:, self._remote_actuators]
        return out

    def speeds(self) -> np.ndarray:
        """(n, S)."""
        if self._all_scalar:
            return self._qvel[:, self._scalar_qvel]
        out = np.empty((self._n, self._count))
        out[:, self._scalar] = self._qvel[:, self._scalar_qvel]
        out[:, self._balls] = self._qvel[:, self._ball_dofs]
        out[:, self._remote] = self._rate[:, self._remote_actuators]
        return out

    def axes(self) -> np.ndarray:
        """(n, S, 3) in the world."""
        if self._all_scalar:
            return self._xaxis[:, self._joints]
        out = np.empty((self._n, self._count, 3))
        out[:, self._scalar] = self._xaxis[:, self._joints]
        rotations = self._xmat[:, self._turned_bodies].reshape(self._n, -1, 3, 3)
        out[:, self._turned] = (rotations @ self._turned_axes)[..., 0]
        return out

    def activations(self) -> np.ndarray | None:
        """(n, S), 0 for rows whose actuator has no state; None where none has."""
        if not self._stateful:
            return None
        out = np.zeros((self._n, self._count))
        out[:, self._stateful] = self._act[:, self._states]
        return out


def rotation_vectors(quaternions: np.ndarray) -> np.ndarray:
    """(..., 3) axis times angle (rad, at most pi) of (..., 4) quaternions, w first."""
    q = quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)
    q = np.where(q[..., :1] < 0, -q, q)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., :1])
    return np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 2.0) * q[..., 1:]


def as_slice(indices: list[int]) -> slice | list[int]:
    """A slice where the indices are consecutive, since that reads without a copy."""
    if indices and indices == list(range(indices[0], indices[0] + len(indices))):
        return slice(indices[0], indices[0] + len(indices))
    return indices
