"""The token sets of all rows of an environment, from what is read of the simulators."""

from __future__ import annotations

import torch
from torch import Tensor

from ..in_place import at_a_time
from .goals import Goals
from .layout import Layout
from .limb_spec import JOINT_STATES, LIMB_SPEC, TOKEN_STATES
from .readings import Readings

assert (TOKEN_STATES, JOINT_STATES) == (22, 7)  # the columns written below


class Observer:
    """Makes the token sets of B rows.

    `layout` is the given one, its descriptors in the memory that observations are copied from: who edits them
    there edits what is observed.
    """

    def __init__(self, layout: Layout, goals: Goals) -> None:
        (b, n, j), device = layout.joint_mask.shape, goals.target.device
        self._goals = goals
        self._tokens = torch.zeros(b, n, LIMB_SPEC.token_size, device=device)
        self._joints = torch.zeros(b, n * j, LIMB_SPEC.joint_size, device=device)
        self._tokens[..., 18] = goals.speed[:, None] * layout.mask
        limbs = self._tokens[..., TOKEN_STATES:]
        joints = self._joints.view(b, n, j, -1)[..., JOINT_STATES:]
        limbs.copy_(layout.limb_descriptors)
        joints.copy_(layout.joint_descriptors)
        self.layout = Layout(**vars(layout) | {"limb_descriptors": limbs, "joint_descriptors": joints})
        fixed = (layout.reference, layout.middle, layout.half_range)
        self._reference, self._middle, self._half_range = (own.view(b, -1) for own in fixed)
        self._exists = layout.mask.t().to(goals.target.dtype).contiguous()  # (N, B)
        up = layout.untilt.permute(2, 1, 0)  # of each row its columns
        self._heading = torch.stack([torch.cat([up[0], up[1]]), torch.cat([-up[1], up[0]])])  # (2, 6, B)
        self._forward = torch.tensor([[1.0], [0.0]], device=device, dtype=up.dtype)

    def observe(self, readings: Readings) -> dict[str, Tensor]:
        """The token set of every row: ``tokens`` (B, N, F), ``joints`` (B, N, J, G), masks and parents.

        Until they are written into tokens, vectors are planes (3, limbs, B). ``readings`` stay as they are.
        """
        layout, goals, exists = self.layout, self._goals, self._exists
        b, n, j = layout.joint_mask.shape
        wanted = [goals.planes[:, None]]
        origins = readings.vectors[:, :n]
        if goals.any_reaches:
            wanted.append((goals.target.t()[:, None] - origins).nan_to_num(0.0) * exists)
        # Positions, velocities, spins, x and z axes of limbs; joints' axes; direction, targets.
        vectors = torch.cat([readings.vectors, *wanted], 1)
        vectors[:, :n] -= readings.root_origin[:, None]
        spins = readings.vectors[:, 2 * n : 3 * n]
        vectors[:, n : 2 * n] += torch.linalg.cross(spins, origins - readings.centers, dim=0)
        self._to_yaw_frame(vectors, readings.root_rotation)

        tokens = _copy(self._tokens)
        tokens[..., 0:3] = vectors[:, :n].permute(2, 1, 0)
        tokens[..., 3] = ((origins[2] - readings.ground) * exists).t()
        of_limbs = vectors[:, n : 5 * n].unflatten(1, (4, n))
        tokens[..., 4:16].unflatten(-1, (4, 3)).copy_(of_limbs.permute(3, 2, 1, 0))
        goal = 5 * n + n * j
        tokens[..., 16:18] = (vectors[:2, goal, None] * exists).permute(2, 1, 0)
        if goals.any_reaches:
            tokens[..., 19:22] = vectors[:, goal + 1 :].permute(2, 1, 0)

        joints = _copy(self._joints)  # (B, N J, G)
        position = readings.joint_position.t()
        joints[..., 0] = position - self._reference
        joints[..., 1] = (position - self._middle) / self._half_range
        joints[..., 2] = readings.joint_speed.t()
        joints[..., 3:6] = vectors[:, 5 * n : goal].permute(2, 1, 0)
        if readings.activation is not None:
            joints[..., 6] = readings.activation.t()
        return {
            "tokens": tokens,
            "mask": layout.mask.clone(),
            "parent": layout.parent.clone(),
            "joints": joints.view(b, n, j, -1),
            "joint_mask": layout.joint_mask.clone(),
            "action_mask": layout.action_mask.clone(),
        }

    def _to_yaw_frame(self, vectors: Tensor, rotation: Tensor) -> None:
        """Turn (3, k, B) world vectors into the frames of the roots' headings, in place.

        The heading is the twist about the vertical of the root's rotation, of which (6, B) are the first two
        rows, its start tilt taken out. Unlike the projection of a body axis it does not flip when the body
        pitches past the vertical. It is undefined upside down only, where the heading of the world is taken.
        """
        heading = (self._heading * rotation).sum(1)  # (2, B)
        length = torch.hypot(heading[0], heading[1])
        cos, sin = torch.where(length > 1e-9, heading / length, self._forward)
        x, y = vectors[0], vectors[1]
        turned = torch.addcmul(x * cos, y, sin)
        y.mul_(cos).addcmul_(x, sin, value=-1)
        x.copy_(turned)


def _copy(values: Tensor) -> Tensor:
    rows = max(1, at_a_time(values) // max(1, values[0].numel()))
    if rows >= len(values):
        return values.clone()
    copy = torch.empty_like(values)
    for own, other in zip(copy.split(rows), values.split(rows), strict=True):
        own.copy_(other)
    return copy
