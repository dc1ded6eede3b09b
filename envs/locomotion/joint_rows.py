"""State of every joint row of a body, read from the simulator's arrays.

Hinges and slides are columns of ``qpos`` and ``qvel``, which is all that most bodies have, and fast. A
ball joint is the rotation vector of its quaternion; an actuator that acts through a tendon, a site or
the like is its length and rate.
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np
import torch
from torch import Tensor

from .arrays import Array, Indices, as_tensor, constant, like
from .bodies.morphology import Morphology
from .features import joint_descriptor_slice


class JointRows:
    """Joint rows (S, those of all limbs in order) of n simulations of one morphology.

    Args:
        morphology: the body.
        arrays: of the simulator, by name.
    """

    def __init__(self, morphology: Morphology, arrays: Mapping[str, Array]) -> None:
        model, index = morphology.model, Indices(arrays)
        slots = [slot for limb in morphology.limbs for slot in limb.slots]
        self._arrays, self._count = arrays, len(slots)
        self._tensors = {name: as_tensor(array) for name, array in arrays.items()}

        ball = int(mujoco.mjtJoint.mjJNT_BALL)
        balls = [i for i, s in enumerate(slots) if s.joint >= 0 and int(model.jnt_type[s.joint]) == ball]
        remote = [i for i, s in enumerate(slots) if s.joint < 0]
        scalar = [i for i in range(len(slots)) if i not in {*balls, *remote}]
        joints = [slots[i].joint for i in scalar]
        self._scalar, self._joints = index(scalar), index(joints)
        self._scalar_qpos = index([int(model.jnt_qposadr[joint]) for joint in joints])
        self._scalar_qvel = index([int(model.jnt_dofadr[joint]) for joint in joints])
        self._all_scalar = len(scalar) == len(slots)

        self._balls, self._remote = index(balls), index(remote)
        first = [slots[i].joint for i in balls[::3]]  # the three axes of a ball joint follow each other
        self._n_balls = len(first)
        self._ball_qpos = index([int(model.jnt_qposadr[joint]) + k for joint in first for k in range(4)])
        self._ball_dofs = index([int(model.jnt_dofadr[slots[i].joint]) + slots[i].axis for i in balls])
        self._remote_actuators = index([slots[i].actuator for i in remote])

        # Rows whose axis MuJoCo does not give: their axis in the limb's frame turns with the limb.
        limb_of = [k for k, limb in enumerate(morphology.limbs) for _ in limb.slots]
        axis = joint_descriptor_slice("axis")
        described = [row for rows in morphology.joint_descriptors for row in rows]
        turned = balls + remote
        self._turned = index(turned)
        self._turned_bodies = index([morphology.limbs[limb_of[i]].bodies[0] for i in turned])
        axes = np.array([described[i][axis] for i in turned], float).reshape(-1, 3, 1)
        self._turned_axes = constant(axes, arrays["xmat"])

        states = [
            (i, int(model.actuator_actadr[s.actuator] + model.actuator_actnum[s.actuator] - 1))
            for i, s in enumerate(slots)
            if s.actuator >= 0 and model.actuator_actadr[s.actuator] >= 0
        ]
        self._has_states = bool(states)
        self._stateful, self._states = index([i for i, _ in states]), index([state for _, state in states])

    def _empty(self, *shape: int) -> Tensor:
        qpos = self._tensors["qpos"]
        return torch.zeros(len(qpos), self._count, *shape, dtype=qpos.dtype, device=qpos.device)

    def positions(self) -> Array:
        """(n, S)."""
        if self._all_scalar:
            return self._arrays["qpos"][:, self._scalar_qpos]
        tensors, out = self._tensors, self._empty()
        out[:, self._scalar] = tensors["qpos"][:, self._scalar_qpos]
        quaternions = tensors["qpos"][:, self._ball_qpos].unflatten(1, (self._n_balls, 4))
        out[:, self._balls] = rotation_vectors(quaternions).flatten(1)  # (n, 3 balls)
        out[:, self._remote] = tensors["actuator_length"][:, self._remote_actuators]
        return like(out, self._arrays["qpos"])

    def speeds(self) -> Array:
        """(n, S)."""
        if self._all_scalar:
            return self._arrays["qvel"][:, self._scalar_qvel]
        tensors, out = self._tensors, self._empty()
        out[:, self._scalar] = tensors["qvel"][:, self._scalar_qvel]
        out[:, self._balls] = tensors["qvel"][:, self._ball_dofs]
        out[:, self._remote] = tensors["actuator_velocity"][:, self._remote_actuators]
        return like(out, self._arrays["qvel"])

    def axes(self) -> Array:
        """(n, S, 3) in the world."""
        if self._all_scalar:
            return self._arrays["xaxis"][:, self._joints]
        tensors, out = self._tensors, self._empty(3)
        out[:, self._scalar] = tensors["xaxis"][:, self._joints]
        rotations = tensors["xmat"][:, self._turned_bodies].unflatten(2, (3, 3))  # (n, turned, 3, 3)
        out[:, self._turned] = (rotations @ self._turned_axes)[..., 0]
        return like(out, self._arrays["xaxis"])

    def activations(self) -> Array | None:
        """(n, S), 0 for rows whose actuator has no state; None where none has."""
        if not self._has_states:
            return None
        out = self._empty()
        out[:, self._stateful] = self._tensors["act"][:, self._states]
        return like(out, self._arrays["act"])


def rotation_vectors(quaternions: Tensor) -> Tensor:
    """(..., 3) axis times angle (rad, at most pi) of (..., 4) quaternions, w first."""
    q = quaternions / torch.linalg.vector_norm(quaternions, dim=-1, keepdim=True)
    q = torch.where(q[..., :1] < 0, -q, q)
    sine = torch.linalg.vector_norm(q[..., 1:], dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, q[..., :1])
    return torch.where(sine > 1e-9, angle / sine.clamp_min(1e-9), 2.0) * q[..., 1:]
