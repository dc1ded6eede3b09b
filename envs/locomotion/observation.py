"""What limbs sense, computed for all rows of all bodies at once, in torch.

`LimbLayout` holds what never changes (descriptors, masks, who hangs from whom); `observe` turns
the simulator's arrays into the token set of ``features.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..snapshots import Kept
from .bodies.morphology import Morphology
from .features import LIMB_SPEC, joint_descriptor_slice

SMALLEST_RANGE = 1e-4
"""Of a joint (rad, m) in whose range a position is told; limits are soft, and give way as far."""

_LIMITED, _RANGE = joint_descriptor_slice("is_limited"), joint_descriptor_slice("range")


@dataclass(frozen=True)
class LimbLayout:
    """Constant parts of the observation of B rows, padded to N limbs and J joint slots.

    Attributes:
        mask, parent: (B, N) int8, int32. joint_mask, action_mask: (B, N, J) int8.
        limb_descriptors: (B, N, 19), joint_descriptors: (B, N, J, 22) float32, 0 at padding.
        root_slot: (B,) int64, the root's slot.
        ground: (B, 1) float64, height of the ground, m; (B, N) of that below each limb where it is uneven.
        untilt: (B, 3, 3) float64, takes the root's tilt at its start out of its rotation.
        reference, middle, half_range: (B, N, J) float64 of every joint; half_range is inf if unlimited.
    """

    mask: torch.Tensor
    parent: torch.Tensor
    joint_mask: torch.Tensor
    action_mask: torch.Tensor
    limb_descriptors: torch.Tensor
    joint_descriptors: torch.Tensor
    root_slot: torch.Tensor
    ground: torch.Tensor
    untilt: torch.Tensor
    reference: torch.Tensor
    middle: torch.Tensor
    half_range: torch.Tensor

    def to(self, dtype: torch.dtype, device: torch.device | str) -> LimbLayout:
        """On a device; what the simulator's numbers are compared with is of their type."""
        own = {name: value.to(device) for name, value in vars(self).items()}
        for name in ("ground", "untilt", "reference", "middle", "half_range"):
            own[name] = own[name].to(dtype)
        return LimbLayout(**own)


def make_layout(
    rows: Sequence[tuple[Morphology, tuple[int, ...]]], n_limbs: int, n_joints: int
) -> LimbLayout:
    """Layout of rows given as (morphology, slot of each of its limbs)."""
    b, n, j = len(rows), n_limbs, n_joints
    layout = LimbLayout(
        mask=torch.zeros(b, n, dtype=torch.int8),
        parent=torch.full((b, n), -1, dtype=torch.int32),
        joint_mask=torch.zeros(b, n, j, dtype=torch.int8),
        action_mask=torch.zeros(b, n, j, dtype=torch.int8),
        limb_descriptors=torch.zeros(b, n, 19),
        joint_descriptors=torch.zeros(b, n, j, 22),
        root_slot=torch.zeros(b, dtype=torch.int64),
        ground=torch.zeros(b, 1, dtype=torch.float64),
        untilt=torch.zeros(b, 3, 3, dtype=torch.float64),
        reference=torch.zeros(b, n, j, dtype=torch.float64),
        middle=torch.zeros(b, n, j, dtype=torch.float64),
        half_range=torch.full((b, n, j), torch.inf, dtype=torch.float64),
    )
    for row, (morphology, slots) in enumerate(rows):
        layout.root_slot[row] = slots[0]
        layout.ground[row] = morphology.ground
        layout.untilt[row] = torch.from_numpy(_untilt(morphology.start_rotation))
        for index, limb in enumerate(morphology.limbs):
            slot = slots[index]
            layout.mask[row, slot] = 1
            layout.parent[row, slot] = slots[limb.parent] if limb.parent >= 0 else -1
            layout.limb_descriptors[row, slot] = torch.from_numpy(morphology.limb_descriptors[index])
            for k, joint_slot in enumerate(limb.slots):
                descriptors = morphology.joint_descriptors[index][k]
                layout.joint_mask[row, slot, k] = 1
                layout.action_mask[row, slot, k] = int(joint_slot.actuator >= 0)
                layout.joint_descriptors[row, slot, k] = torch.from_numpy(descriptors)
                layout.reference[row, slot, k] = reference = morphology.reference(joint_slot)
                if descriptors[_LIMITED]:
                    low, high = (float(end) for end in descriptors[_RANGE])
                    layout.middle[row, slot, k] = reference + (low + high) / 2
                    if high - low > SMALLEST_RANGE:
                        layout.half_range[row, slot, k] = (high - low) / 2
    return layout


def _untilt(rotation: np.ndarray) -> np.ndarray:
    """Inverse (3, 3) of the tilt of a start rotation (3, 3), its heading kept.

    A rotation is its tilt followed by its heading (swing and twist about the vertical), so that a
    model drawn lying down has a heading at home that is not singular.
    """
    cos, sin = rotation[0, 0] + rotation[1, 1], rotation[1, 0] - rotation[0, 1]
    length = np.hypot(cos, sin)
    cos, sin = (cos / length, sin / length) if length > 1e-9 else (1.0, 0.0)
    heading = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return (heading.T @ rotation).T


@dataclass
class LimbState(Kept):
    """The simulator's arrays of B rows in the layout's slots, in the world frame.

    Attributes:
        position: (B, N, 3). rotation: (B, N, 9). velocity: (B, N, 6) angular, linear at ``center``.
        center: (B, N, 3). axis: (B, N, J, 3). joint_position, joint_speed, activation: (B, N, J).
    """

    position: torch.Tensor
    rotation: torch.Tensor
    velocity: torch.Tensor
    center: torch.Tensor
    axis: torch.Tensor
    joint_position: torch.Tensor
    joint_speed: torch.Tensor
    activation: torch.Tensor

    @classmethod
    def empty(
        cls, b: int, n: int, j: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> LimbState:
        """Zeros, to be written by simulations."""

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        return cls(
            zeros(b, n, 3),
            zeros(b, n, 9),
            zeros(b, n, 6),
            zeros(b, n, 3),
            zeros(b, n, j, 3),
            zeros(b, n, j),
            zeros(b, n, j),
            zeros(b, n, j),
        )

    @property
    def kept(self) -> tuple[str, ...]:  # type: ignore[override]
        """All of it."""
        return tuple(vars(self))

    def rows(self, rows: torch.Tensor) -> LimbState:
        """Only the given rows."""
        return LimbState(**{name: value[rows] for name, value in vars(self).items()})


def select_rows(layout: LimbLayout, rows: torch.Tensor) -> LimbLayout:
    """Only the given rows of a layout."""
    return LimbLayout(**{name: value[rows] for name, value in vars(layout).items()})


@dataclass
class Goal(Kept):
    """What the task wants of B rows, world frame.

    Attributes:
        direction: (B, 2) unit vector on the ground, where to go.
        speed: (B, 1) m/s asked for in that direction; 0: the faster the better.
        target: (B, 3) m, a place to reach; not a number where there is none.
    """

    direction: torch.Tensor
    speed: torch.Tensor
    target: torch.Tensor

    kept = ("direction", "speed", "target")

    def rows(self, rows: torch.Tensor) -> Goal:
        """Only the given rows."""
        return Goal(**{name: value[rows] for name, value in vars(self).items()})


def observe(state: LimbState, layout: LimbLayout, goal: Goal) -> dict[str, torch.Tensor]:
    """The token set of every row.

    Args:
        state: of the simulators; no view of it is edited.
        layout: the constant parts.
        goal: what the task wants.

    Returns:
        ``tokens`` (B, N, F) and ``joints`` (B, N, J, G) float32, and the masks and parents.
    """
    b, n, j = state.joint_position.shape
    every = torch.arange(b, device=state.position.device)
    root = state.position[every, layout.root_slot]  # (B, 3)
    to_yaw = _to_yaw_frame(state.rotation[every, layout.root_slot].view(b, 3, 3) @ layout.untilt)

    arm = state.position - state.center  # (B, N, 3)
    angular, linear = state.velocity[..., :3], state.velocity[..., 3:]
    matrix = state.rotation.view(b, n, 3, 3)
    vectors = torch.stack(
        (
            state.position - root[:, None],
            linear + torch.linalg.cross(angular, arm),
            angular,
            matrix[..., 0],  # the limb's x axis
            matrix[..., 2],  # the limb's z axis
            (goal.target[:, None] - state.position).nan_to_num(0.0),
        ),
        dim=2,
    )  # (B, N, 6, 3)
    vectors = vectors @ to_yaw[:, None]
    asked = torch.cat((goal.direction[:, None] @ to_yaw[:, :2, :2], goal.speed[:, None]), -1)  # (B, 1, 3)
    tokens = torch.cat(
        (
            vectors[:, :, 0],
            state.position[..., 2:] - layout.ground[..., None],
            vectors[:, :, 1:5].flatten(2),
            asked.expand(b, n, 3),
            vectors[:, :, 5],
        ),
        dim=-1,
    )  # (B, N, 22)
    exists = layout.mask[..., None]
    tokens = torch.cat((tokens.float() * exists, layout.limb_descriptors), dim=-1)

    axis = (state.axis.view(b, n * j, 3) @ to_yaw).view(b, n, j, 3)
    scalars = torch.stack(
        (
            state.joint_position - layout.reference,
            (state.joint_position - layout.middle) / layout.half_range,
            state.joint_speed,
        ),
        dim=-1,
    )  # (B, N, J, 3)
    joints = (
        torch.cat((scalars, axis, state.activation[..., None]), dim=-1).float() * layout.joint_mask[..., None]
    )
    return {
        "tokens": tokens,  # (B, N, F)
        "mask": layout.mask.clone(),
        "parent": layout.parent.clone(),
        "joints": torch.cat((joints, layout.joint_descriptors), dim=-1),  # (B, N, J, G)
        "joint_mask": layout.joint_mask.clone(),
        "action_mask": layout.action_mask.clone(),
    }


def _to_yaw_frame(rotation: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3) that takes world row vectors to the yaw frame by right multiplication.

    The heading is the twist about the vertical of the root's rotation (B, 3, 3), its start tilt taken
    out. Unlike the projection of a body axis it does not flip when the body pitches past the vertical.
    It is undefined upside down only, where the heading of the world is taken.
    """
    cos = rotation[:, 0, 0] + rotation[:, 1, 1]
    sin = rotation[:, 1, 0] - rotation[:, 0, 1]
    length = torch.hypot(cos, sin)
    defined = length > 1e-9
    length = length.clamp_min(1e-9)
    cos = torch.where(defined, cos / length, 1.0)
    sin = torch.where(defined, sin / length, 0.0)
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    return torch.stack((cos, -sin, zero, sin, cos, zero, zero, zero, one), -1).view(-1, 3, 3)


assert LIMB_SPEC.token_size == 41 and LIMB_SPEC.joint_size == 29  # the widths written above
