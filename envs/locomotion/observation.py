"""What a limb observes: the columns of ``tokens`` and ``joints`` in locomotion tasks, and what is in them.

Every vector is expressed in the *yaw frame*: origin at the root, x along the root's heading in the
ground plane, z up. So nothing here changes when the body is moved along the ground or turned, and
nothing depends on a name or an index.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..in_place import at_a_time
from ..tokens import Feature, TokenSpec

if TYPE_CHECKING:
    from .goals import Goals
    from .layout import Layout
    from .readings import Readings

LIMB_SPEC = TokenSpec(
    token=(
        Feature("position", 3, "state", "m", "limb origin relative to the root's, yaw frame"),
        Feature("height", 1, "state", "m", "limb origin above the ground below it"),
        Feature("velocity", 3, "state", "m/s", "velocity of the limb origin, yaw frame"),
        Feature("angular_velocity", 3, "state", "rad/s", "angular velocity, yaw frame"),
        Feature("orientation", 6, "state", "1", "limb's x and z axes, yaw frame"),
        Feature("direction", 2, "state", "1", "the task's direction on the ground, yaw frame"),
        Feature(
            "target_speed", 1, "state", "m/s", "speed asked for in that direction (0: the faster the better)"
        ),
        Feature(
            "target", 3, "state", "m", "from the limb origin to the task's target, yaw frame (0 without)"
        ),
        Feature("is_root", 1, "descriptor", "1", "1 for the root limb"),
        Feature("is_tip", 1, "descriptor", "1", "1 for the limb that reaches farthest from the root"),
        Feature("mass", 1, "descriptor", "kg", "mass"),
        Feature("center_of_mass", 3, "descriptor", "0.1 m", "centre of mass, limb frame"),
        Feature("gyration", 3, "descriptor", "0.1 m", "radii of gyration about the limb frame's axes"),
        Feature("size", 3, "descriptor", "0.1 m", "half extents of the geoms' bounding box, limb frame"),
        Feature("center", 3, "descriptor", "0.1 m", "centre of the geoms' bounding box, limb frame"),
        Feature("friction", 1, "descriptor", "1", "largest sliding friction of the limb's geoms"),
        Feature("attachment", 3, "descriptor", "0.1 m", "limb origin in the parent's frame (0 for a root)"),
    ),
    joint=(
        Feature("angle", 1, "state", "rad, m", "position minus its reference position"),
        Feature("phase", 1, "state", "1", "position in its range, -1 to 1 (0 where unlimited)"),
        Feature("speed", 1, "state", "rad/s, m/s", "velocity"),
        Feature("axis_now", 3, "state", "1", "joint axis, yaw frame"),
        Feature("activation", 1, "state", "1", "state of the actuator's filter or muscle (0 without)"),
        Feature("is_rotation", 1, "descriptor", "1", "1 for an axis of rotation, 0 for a slide or a tendon"),
        Feature("is_transmission", 1, "descriptor", "1", "1 for a tendon, thruster or other remote actuator"),
        Feature("axis", 3, "descriptor", "1", "axis of the joint or remote actuator, limb frame"),
        Feature("anchor", 3, "descriptor", "0.1 m", "joint anchor, limb frame"),
        Feature("is_limited", 1, "descriptor", "1", "1 where the joint has a range"),
        Feature("range", 2, "descriptor", "rad, m", "limits minus reference (0 where unlimited)"),
        Feature("rest", 1, "descriptor", "rad, m", "spring's rest minus reference (0 without spring)"),
        Feature("damping", 1, "descriptor", "10 N m s/rad", "damping"),
        Feature("stiffness", 1, "descriptor", "100 N m/rad", "spring stiffness"),
        Feature("armature", 1, "descriptor", "kg m^2", "rotor inertia"),
        Feature("is_actuated", 1, "descriptor", "1", "1 where an actuator drives this joint"),
        Feature("strength", 1, "descriptor", "100 N m", "half the span of force; below 0: control pulls"),
        Feature("control_range", 2, "descriptor", "1", "physical control of the actions -1 and 1"),
        Feature("position_gain", 1, "descriptor", "100 N m/rad", "servo: torque per angle off the target"),
        Feature("velocity_gain", 1, "descriptor", "10 N m s/rad", "servo: torque per speed off the target"),
        Feature("lag", 1, "descriptor", "s", "time constant of the actuator's filter (0 without)"),
    ),
)

_TOKEN_STATES, _JOINT_STATES = int(LIMB_SPEC.token_is_state().sum()), int(LIMB_SPEC.joint_is_state().sum())
assert (_TOKEN_STATES, _JOINT_STATES) == (22, 7)  # the columns written below


def joint_descriptor_slice(name: str) -> slice:
    """Columns of the named feature among the descriptors of a joint row, which follow its state."""
    columns = LIMB_SPEC.joint_slice(name)
    return slice(columns.start - _JOINT_STATES, columns.stop - _JOINT_STATES)


class Observer:
    """Makes the token sets of B rows.

    Args:
        layout: what is fixed of the rows.
        goals: what the task wants of them.

    Attributes:
        layout: the same, its descriptors in the memory that observations are copied from: who edits them
            there edits what is observed.
    """

    def __init__(self, layout: Layout, goals: Goals) -> None:
        b, n, j = layout.joint_mask.shape
        self._goals = goals
        self._tokens = torch.zeros(b, n, LIMB_SPEC.token_size, device=goals.target.device)
        self._joints = torch.zeros(b, n * j, LIMB_SPEC.joint_size, device=goals.target.device)
        self._tokens[..., 18] = goals.speed[:, None] * layout.mask
        limbs = self._tokens[..., _TOKEN_STATES:]
        joints = self._joints.view(b, n, j, -1)[..., _JOINT_STATES:]
        limbs.copy_(layout.limb_descriptors)
        joints.copy_(layout.joint_descriptors)
        self.layout = dataclasses.replace(layout, limb_descriptors=limbs, joint_descriptors=joints)
        self._exists = layout.mask.t().to(goals.target.dtype).contiguous()  # (N, B)
        up = layout.untilt.permute(2, 1, 0)  # of each row its columns
        self._heading = torch.stack([torch.cat([up[0], up[1]]), torch.cat([-up[1], up[0]])])  # (2, 6, B)
        self._forward = torch.tensor([[1.0], [0.0]], device=up.device, dtype=up.dtype)

    def observe(self, readings: Readings) -> dict[str, Tensor]:
        """The token set of every row.

        Until they are written into tokens, vectors are planes (3, limbs, B).

        Args:
            readings: of the simulators; nothing of them is edited.

        Returns:
            ``tokens`` (B, N, F) and ``joints`` (B, N, J, G) float32, and the masks and parents.
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
        joints[..., 0] = position - layout.reference.view(b, -1)
        joints[..., 1] = (position - layout.middle.view(b, -1)) / layout.half_range.view(b, -1)
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

        The heading is the twist about the vertical of the root's rotation, its start tilt taken out. Unlike
        the projection of a body axis it does not flip when the body pitches past the vertical. It is
        undefined upside down only, where the heading of the world is taken.

        Args:
            vectors: in the world's frame.
            rotation: (6, B) the first two rows of the roots' rotations.
        """
        heading = (self._heading * rotation).sum(1)  # (2, B)
        length = torch.hypot(heading[0], heading[1])
        cos, sin = torch.where(length > 1e-9, heading / length, self._forward)
        x, y = vectors[0], vectors[1]
        turned = torch.addcmul(x * cos, y, sin)
        y.mul_(cos).addcmul_(x, sin, value=-1)
        x.copy_(turned)


def _copy(values: Tensor) -> Tensor:
    copy, rows = torch.empty_like(values), max(1, at_a_time(values) // max(1, values[0].numel()))
    for own, other in zip(copy.split(rows), values.split(rows), strict=True):
        own.copy_(other)
    return copy
