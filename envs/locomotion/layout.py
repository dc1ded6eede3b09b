"""Which rows an environment has, how they lie in padded arrays, and what is fixed about each of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .bodies import families
from .bodies.model import BALL, JointSlot
from .bodies.morphology import Morphology
from .limb_spec import joint_descriptor_slice
from .task import LocomotionTask

REMOTE = -1
"""As the kind of a joint: an actuator that acts on none."""

SMALLEST_RANGE = 1e-4
"""Of a joint (rad, m) in whose range a position is told; limits are soft, and give way as far."""

_AXIS, _LIMITED, _RANGE = map(joint_descriptor_slice, ("axis", "is_limited", "range"))
_CONTROLS = ("center", "half", "low", "high")


def spread_rows(
    bodies: Sequence[str | Morphology] | str | Morphology,
    num_envs: int | None,
    weights: Sequence[float] | None = None,
) -> tuple[tuple[Morphology, ...], np.ndarray]:
    """The morphologies of ``bodies``, and which of them each row (B,) is of; rows of a body lie together.

    Each has one row at least, and otherwise the share that ``weights`` (M,) say; None: all the same.

    Raises:
        UserError: no body, an unknown one, or fewer rows than bodies.
    """
    named = [bodies] if isinstance(bodies, (str, Morphology)) else list(bodies)
    if not named:
        raise UserError("no body given; at least one is needed")
    built = tuple(families.build(body) if isinstance(body, str) else body for body in named)
    num_envs = len(built) if num_envs is None else int(num_envs)
    if num_envs < len(built):
        raise UserError(f"{num_envs} environments cannot hold {len(built)} bodies")
    if weights is None:
        counts = [len(part) for part in np.array_split(np.arange(num_envs), len(built))]
    else:
        wanted, few = np.asarray(weights, float), np.zeros(len(built), bool)
        shares = num_envs * wanted / wanted.sum()
        while (shares < 1).any():  # what would have less than one row has one; the others share what is left
            few |= shares < 1
            left = num_envs - few.sum()
            shares = np.where(few, 1.0, left * wanted / max(wanted[~few].sum(), np.finfo(float).tiny))
        counts = np.diff(np.floor(np.cumsum(shares) + 0.5).astype(int), prepend=0)
    return built, np.repeat(np.arange(len(built)), counts)


def padded_sizes(bodies: Sequence[Morphology], aligned: bool) -> tuple[int, int]:
    """Limbs and joint slots (N, J) of padded token sets. Raises UserError: aligned bodies of two families."""
    sized = [b.full_body or b for b in bodies] if aligned else bodies
    names = sorted({body.name for body in sized})
    if aligned and len(names) > 1:
        raise UserError(
            f"a policy with a slot for each limb (agent=mlp) is for bodies of one family, not for those of "
            f"{', '.join(names)}; agent=limb_transformer and agent=smp take any"
        )
    return max(b.n_limbs for b in sized), max(b.n_joints for b in sized)


def limb_slots(body: Morphology, aligned: bool) -> tuple[int, ...]:
    """Where each limb stands among the padded ones; ``aligned``: where the family's full body has it."""
    return body.aligned_slots if aligned else tuple(range(body.n_limbs))


def joint_rows(body: Morphology, slots: Sequence[int]) -> list[tuple[int, int, JointSlot, int]]:
    """Every joint row of a body, in order: its limb slot, its joint slot, what it is, its joint's kind."""
    kinds = [*body.model.jnt_type.tolist(), REMOTE]  # of joint -1 the last
    limbs = zip(slots, body.limbs, strict=True)
    return [(place, k, row, kinds[row.joint]) for place, limb in limbs for k, row in enumerate(limb.slots)]


_STRUCTURE: dict[str, tuple] = {
    "mask": (torch.int8, "N"),
    "parent": (torch.int32, "N"),
    "joint_mask": (torch.int8, "N", "J"),
    "action_mask": (torch.int8, "N", "J"),
    "root_slot": (torch.int64,),
    "ground": (torch.float64, "N"),  # m, its height
    "untilt": (torch.float64, 3, 3),  # takes the root's tilt at its start out of its rotation
    # In the limb's frame, of joints whose axis MuJoCo does not give.
    "turned_axis": (torch.float64, "N", "J", 3),
}
VARIED: dict[str, tuple] = {
    "limb_descriptors": (torch.float32, "N", 19),
    "joint_descriptors": (torch.float32, "N", "J", 22),
    "tip_slot": (torch.int64,),  # of the limb that reaches farthest
    "tip_center": (torch.float64, 3),  # m, in that limb's frame
    "height_limits": (torch.float64, 2),  # m, of the root
    "reference": (torch.float64, "N", "J"),
    "middle": (torch.float64, "N", "J"),
    "half_range": (torch.float64, "N", "J"),  # inf: unlimited
    # Physical controls are center + half * action, from low to high.
    **{name: (torch.float64, "N", "J") for name in _CONTROLS},
}
"""Type and shape behind (B,) of what a `Layout` has: equal in all variants of a body, and what is not."""

_PADDING = {"parent": -1, "half_range": torch.inf}


class Layout(SimpleNamespace):
    """Tensors of ``_STRUCTURE`` and `VARIED`: what is fixed within an episode, of B rows padded to N and J.

    What the simulator's numbers are compared with is of their type: float64 on the CPU.
    """

    @staticmethod
    def padding(b: int, n: int, j: int) -> Layout:
        """Rows without a body."""
        sizes, values = {"N": n, "J": j}, {}
        for name, (dtype, *shape) in (_STRUCTURE | VARIED).items():
            size = [b, *(sizes.get(length, length) for length in shape)]
            values[name] = torch.full(size, _PADDING.get(name, 0), dtype=dtype)
        return Layout(**values)

    def rows(self, rows: slice | Tensor | np.ndarray) -> Layout:
        """Only these rows; of a slice the same memory."""
        return Layout(**{name: value[rows] for name, value in vars(self).items()})

    def to(self, dtype: torch.dtype, device: torch.device) -> Layout:
        """On a device, what is compared with the simulator's numbers in their type."""
        kinds = {name: dtype for name, value in vars(self).items() if value.dtype == torch.float64}
        return Layout(**{name: value.to(device, kinds.get(name)) for name, value in vars(self).items()})

    def widened(self, n: int, j: int) -> Layout:
        """With padding to more limbs and joint slots."""
        wide = Layout.padding(len(self.mask), n, j)
        for name, own in vars(self).items():
            getattr(wide, name)[tuple(map(slice, own.shape))] = own
        return wide


def make_layout(
    bodies: Sequence[tuple[Morphology, tuple[int, ...], LocomotionTask]], n_limbs: int, n_joints: int
) -> Layout:
    """One row for each body, given with the slots of its limbs and its task."""
    layout = Layout.padding(len(bodies), n_limbs, n_joints)
    for row, own in enumerate(bodies):
        _describe(layout.rows(row), *own)
    return layout


def per_row(values: Sequence[float], body_of_row: np.ndarray, **kind: Any) -> Any:
    """A number of each body as a tensor (B,) of its ``kind``; where all are equal, the number itself."""
    if len(set(values)) == 1:
        return values[0]
    return torch.from_numpy(np.array(values)[body_of_row]).to(**kind)


def _describe(row: Layout, body: Morphology, slots: tuple[int, ...], task: LocomotionTask) -> None:
    """Write what a body is into a row of a layout."""
    row.root_slot.fill_(slots[0])
    row.ground.fill_(body.ground)
    row.untilt.copy_(torch.from_numpy(_untilt(body.start_rotation)))
    low, high = -np.inf, np.inf
    if body.can_fall:
        low, high = task.height_range(body.standing_height, body.height_unit)
    row.height_limits.copy_(torch.tensor([low + body.ground, high + body.ground], dtype=torch.float64))
    if body.tip >= 0:
        row.tip_slot.fill_(slots[body.tip])
        row.tip_center.copy_(torch.from_numpy(np.asarray(body.tip_center, float)))
    for limb, slot, own in zip(body.limbs, slots, body.limb_descriptors, strict=True):
        row.mask[slot] = 1
        row.parent[slot] = slots[limb.parent] if limb.parent >= 0 else -1
        row.limb_descriptors[slot] = torch.from_numpy(own)
    described = [own for limb in body.joint_descriptors for own in limb]
    for (*place, joint, kind), own in zip(joint_rows(body, slots), described, strict=True):
        place = tuple(place)
        row.joint_mask[place] = 1
        row.joint_descriptors[place] = torch.from_numpy(own)
        row.reference[place] = reference = body.reference(joint)
        if own[_LIMITED]:
            low, high = (float(end) for end in own[_RANGE])
            row.middle[place] = reference + (low + high) / 2
            if high - low > SMALLEST_RANGE:
                row.half_range[place] = (high - low) / 2
        if kind in (BALL, REMOTE):
            row.turned_axis[place] = torch.from_numpy(own[_AXIS])
        if joint.actuator >= 0:
            row.action_mask[place] = 1
            for name in _CONTROLS:
                getattr(row, name)[place] = float(getattr(body.controls, name)[joint.actuator])


def _untilt(rotation: np.ndarray) -> np.ndarray:
    """Inverse (3, 3) of the tilt of a start rotation (3, 3), its heading kept.

    A rotation is its tilt followed by its heading (swing and twist about the vertical), so that a model drawn
    lying down has a heading at home that is not singular.
    """
    cos, sin = rotation[0, 0] + rotation[1, 1], rotation[1, 0] - rotation[0, 1]
    length = np.hypot(cos, sin)
    cos, sin = (cos / length, sin / length) if length > 1e-9 else (1.0, 0.0)
    heading = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return (heading.T @ rotation).T


class Row(NamedTuple):
    """What a row does: its body, its task, and the substeps of a step (None: the body's own)."""

    body: Morphology
    task: LocomotionTask
    frame_skip: int | None


class Run(NamedTuple):
    """Neighbouring rows of a group whose limbs have the same numbers: a body of theirs, and which they are.

    ``rows`` are those of the environment; ``own`` those of the group.
    """

    body: Morphology
    rows: slice
    own: slice
    slots: tuple[int, ...]
    joints: list[tuple[int, int, JointSlot, int]]


class Group(NamedTuple):
    """Rows that one batch can simulate: the body of each, which they are, and their limbs' slots ``aligned``.

    They have one task, and as many substeps in a step.
    """

    bodies: list[Morphology]
    rows: slice
    aligned: bool
    task: LocomotionTask
    frame_skip: int | None

    def runs(self) -> list[Run]:
        """The rows in runs: one, or among ghosts one for each body."""
        starts, first = [0], self.rows.start
        for k, body in enumerate(self.bodies):
            if body is not self.bodies[starts[-1]] and body.bare is not body:
                starts.append(k)
        found = []
        for start, end in zip(starts, [*starts[1:], len(self.bodies)], strict=True):
            body, rows = self.bodies[start], slice(first + start, first + end)
            slots = limb_slots(body, self.aligned)
            found.append(Run(body, rows, slice(start, end), slots, joint_rows(body, slots)))
        return found


def adjacent_groups(rows: Sequence[Row], aligned: bool) -> list[Group]:
    """Rows in runs that share a layout and a task."""
    starts = [0]
    for number, row in enumerate(rows):
        first = rows[starts[-1]]
        if row[1:] != first[1:] or not share_layout(first.body, row.body, aligned):
            starts.append(number)
    return [
        Group([row.body for row in rows[start:end]], slice(start, end), aligned, *rows[start][1:])
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)
    ]


def grouped(bodies: Sequence[Morphology]) -> list[Morphology]:
    """Bodies in an order in which those that share a layout lie beside each other."""
    groups: dict[tuple, list[Morphology]] = {}
    for body in bodies:
        groups.setdefault(body.structure, []).append(body)
    return [body for group in groups.values() for body in group]


def share_layout(one: Morphology, other: Morphology, aligned: bool = False) -> bool:
    """Whether two bodies differ only in what a batch holds for every row.

    What is read of the first body of a batch only must be equal: the structure, the joints that place the
    root, the time step, and where slots are aligned these. Lengths, masses, joints' places and all
    descriptors may differ. Among ghosts limbs may have other numbers and slots, too: see `Run`.
    """
    if one is other:
        return True
    alike = not aligned or one.bare is not one or one.aligned_slots == other.aligned_slots
    return alike and one.structure == other.structure
