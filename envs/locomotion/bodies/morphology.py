"""A morphology: a compiled body, its limbs, and where it starts and stands."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import mujoco
import numpy as np

from .actuators import Controls, read_controls
from .descriptors import attachment, joint_descriptors, limb_center, limb_descriptors
from .identity import body_hash, robot_hash
from .model import (
    BALL,
    FREE,
    SLIDE,
    JointSlot,
    Limb,
    body_joints,
    is_held,
    is_tied,
    joint_range,
    placed_bounds,
    quaternion_matrix,
    read_limbs,
    touching_geoms,
)

AIR = 10.0  # in a fluid denser than this (kg/m^3) a body is taken to swim
UNLIMITED_SLIDE = 0.5
"""How far (m) a slide without a range is taken to go, either way, where a reach is asked for."""


@dataclass(frozen=True, eq=False)
class Morphology:
    """A body that can be simulated.

    Args:
        name: what tables and logs call it.
        model: the compiled model. It is never edited.
        full_body: the body this one lacks limbs of (None: it is complete), from whose height above the ground
            it starts and by whose limbs the padded network's slots are aligned.
        home: (nq,) start position; None: the model's ``qpos0``, as near to the ground as the full body.
        home_controls: (nu,) controls that hold ``home``; None: read from the model.
        home_activation: (na,) states of actuators at the start; None: 0.
        ground: height of the ground, m.
        floats: it starts off the ground, as what flies or swims does.
        spec: makes a fresh ``MjSpec`` that compiles to ``model``, to be edited; None: there is none.
        notes: what was added, changed or left out when the body was read.
    """

    name: str
    model: mujoco.MjModel
    full_body: Morphology | None = None
    home: np.ndarray | None = None
    home_controls: np.ndarray | None = None
    home_activation: np.ndarray | None = None
    ground: float = 0.0
    floats: bool = False
    spec: Callable[[], mujoco.MjSpec] | None = None
    notes: tuple[str, ...] = ()

    @property
    def bare(self) -> Morphology:
        """The body without the ghosts that it may have: see `ghosts`."""
        return self

    @property
    def columns(self) -> tuple[np.ndarray | slice, np.ndarray | slice]:
        """Where the positions and the velocities of `bare` are among those of the model."""
        return slice(None), slice(None)

    @functools.cached_property
    def limbs(self) -> tuple[Limb, ...]:
        """Limbs, parents before children; N of them."""
        return read_limbs(self.model)

    @property
    def n_limbs(self) -> int:
        """N."""
        return len(self.limbs)

    @property
    def n_joints(self) -> int:
        """J, the largest number of joint rows of a limb."""
        return max(len(limb.slots) for limb in self.limbs)

    @functools.cached_property
    def parts(self) -> list[int]:
        """Ids of all bodies of its limbs."""
        return [body for limb in self.limbs for body in limb.bodies]

    @property
    def root(self) -> int:
        """Body id of the root limb."""
        return self.limbs[0].bodies[0]

    @functools.cached_property
    def controls(self) -> Controls:
        """What nominal actions mean to its actuators."""
        return read_controls(self.model, self.home, self.home_controls)

    @functools.cached_property
    def limb_descriptors(self) -> np.ndarray:
        """(N, 19) float32."""
        return limb_descriptors(self.model, self.limbs, self.tip)

    @functools.cached_property
    def joint_descriptors(self) -> tuple[tuple[np.ndarray, ...], ...]:
        """For every limb the (22,) float32 descriptors of each of its joint rows."""
        model, controls = self.model, self.controls
        return tuple(
            tuple(joint_descriptors(model, limb, slot, controls, self.reference(slot)) for slot in limb.slots)
            for limb in self.limbs
        )

    def reference(self, slot: JointSlot) -> float:
        """What a row's angle is measured from: the joint's reference position, a tendon's length at home."""
        if slot.joint < 0:
            return float(self._start.lengths[slot.actuator])
        if int(self.model.jnt_type[slot.joint]) == BALL:
            return 0.0  # the rotation vector is one from the reference orientation
        return float(self.model.qpos0[int(self.model.jnt_qposadr[slot.joint])])

    def placed(self, qpos: np.ndarray) -> mujoco.MjData:
        """Everything that depends on positions, computed for ``qpos`` (nq,)."""
        data = mujoco.MjData(self.model)
        data.qpos[:] = qpos
        mujoco.mj_fwdPosition(self.model, data)
        return data

    @functools.cached_property
    def mass(self) -> float:
        """Total mass of the limbs in kg."""
        return float(sum(self.model.body_mass[list(limb.bodies)].sum() for limb in self.limbs))

    @functools.cached_property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that equal bodies in equal scenes share, whatever their names."""
        return body_hash(self.model)

    @functools.cached_property
    def identity(self) -> str:
        """Sixteen hexadecimal digits of what the body is, whatever scene it stands in."""
        return robot_hash(self.model, self.limbs)

    @functools.cached_property
    def structure(self) -> tuple:
        """What bodies that one batch can simulate have in common; of what acts remotely only itself.

        What is read of the first body of a batch only: sizes and trees, the joints that place the root, the
        time step. Lengths, masses, joints' places and all descriptors may differ.
        """
        if any(slot.joint < 0 for limb in self.limbs for slot in limb.slots):
            return (id(self),)
        return (
            *_sizes(self.model).items(),
            *(getattr(self.model, name).tobytes() for name in _SHARED),
            self.model.opt.timestep,
            *((limb.bodies, limb.parent, limb.slots) for limb in self.limbs),
            *((part + 0.0).tobytes() for part in self._rooted()),  # the sum has no negative zeros
        )

    def _rooted(self) -> list[np.ndarray]:
        """States of actuators at a start, and where the root is as a function of its joints' positions."""
        model, root = self.model, self.root
        joints = list(body_joints(model, root))
        free = model.jnt_type[joints].tolist() == [FREE]
        place = [model.body_pos[root], model.jnt_pos[joints], model.jnt_axis[joints], model.qpos0]
        activation = np.zeros(0) if self.home_activation is None else self.home_activation
        return [activation, model.body_quat[root], self.start_rotation, *([] if free else place)]

    @functools.cached_property
    def aligned_slots(self) -> tuple[int, ...]:
        """For every limb its slot in the full body, found by limb name (for the padded network)."""
        if self.full_body is None:
            return tuple(range(self.n_limbs))
        slot_of = {limb.name: slot for slot, limb in enumerate(self.full_body.limbs)}
        return tuple(slot_of[limb.name] for limb in self.limbs)

    @functools.cached_property
    def can_travel(self) -> bool:
        """Whether the root can move over the ground: by a free joint, or a slide without end along it."""
        return self._can_move(lambda joint, rise: rise < 0.99 and joint_range(self.model, joint) is None)

    @functools.cached_property
    def can_fall(self) -> bool:
        """Whether nothing holds the root up: a free joint, or a vertical slide that no actuator drives.

        What swims, floats without gravity or is tied to the world does not fall.
        """
        options, driven = self.model.opt, {slot.joint for slot in self.limbs[0].slots if slot.actuator >= 0}
        weightless = (
            options.disableflags & int(mujoco.mjtDisableBit.mjDSBL_GRAVITY) or options.gravity[2] >= 0
        )
        if weightless or options.density > AIR:
            return False
        return self._can_move(lambda joint, rise: rise > 0.1 and joint not in driven)

    def _can_move(self, along: Callable[[int, float], bool]) -> bool:
        """Whether the root has a free joint, or a slide that is not held and of which ``along`` is true.

        ``along`` is given the joint and the vertical part of its axis.
        """
        model = self.model
        if is_tied(model, self.limbs[0].bodies):
            return False
        vertical = quaternion_matrix(model.body_quat[self.root])[2]  # in the body's frame
        for joint in body_joints(model, self.root):
            kind, rise = int(model.jnt_type[joint]), abs(float(vertical @ model.jnt_axis[joint]))
            if kind == FREE or (kind == SLIDE and not is_held(model, joint) and along(joint, rise)):
                return True
        return False

    @functools.cached_property
    def tip(self) -> int:
        """Index of the limb that reaches farthest from a root that cannot travel; -1 for one that can."""
        if self.can_travel:
            return -1
        # Limbs equally far out are told apart by where they are at home, not by their order.
        reach, data = self.limb_reach, self.placed(self.initial_qpos)
        places = [tuple(np.round(data.xpos[limb.bodies[0]], 6)) for limb in self.limbs]
        return max(range(self.n_limbs), key=lambda i: (round(reach[i], 6), places[i]))

    @functools.cached_property
    def limb_reach(self) -> tuple[float, ...]:
        """How far (m) the centre of each limb can be from the root's origin: lengths, and what joints add."""
        lengths: list[float] = []
        for index, limb in enumerate(self.limbs):
            above = lengths[limb.parent] if limb.parent >= 0 else 0.0
            along = float(np.linalg.norm(attachment(self.model, self.limbs, index)))
            lengths.append(above + along + self._travel(limb))
        return tuple(
            length + float(np.linalg.norm(limb_center(self.model, limb)))
            for length, limb in zip(lengths, self.limbs, strict=True)
        )

    def _travel(self, limb: Limb) -> float:
        """How far (m) a limb's own joints can take its origin: along slides, and about anchors beside it."""
        model, total = self.model, 0.0
        for joint in body_joints(model, limb.bodies[0]):
            kind, reference = int(model.jnt_type[joint]), model.qpos0[model.jnt_qposadr[joint]]
            if kind == FREE or is_held(model, joint):
                continue
            if kind != SLIDE:
                total += 2 * float(np.linalg.norm(model.jnt_pos[joint]))
            else:
                ends = joint_range(model, joint)
                total += float(np.abs(np.array(ends) - reference).max()) if ends else UNLIMITED_SLIDE
        return total

    @functools.cached_property
    def tip_center(self) -> np.ndarray:
        """(3,) m: the point of the tip limb that is to reach a target, in the limb's frame."""
        return limb_center(self.model, self.limbs[self.tip])

    @functools.cached_property
    def initial_qpos(self) -> np.ndarray:
        """(nq,) start position: ``home``, or as near to the ground as the full body starts."""
        if self.home is not None:
            return self.home.copy()
        qpos = self.model.qpos0.copy()
        if self.full_body is not None:
            self.raise_root(qpos, self.full_body._lowest - self._lowest)
        return qpos

    @functools.cached_property
    def _lowest(self) -> float:
        """Height of the lowest point in the model's reference position."""
        return self.lowest_point(self.model.qpos0)

    @functools.cached_property
    def _start(self) -> SimpleNamespace:
        """What depends on the start position; a body is placed there once."""
        data = self.placed(self.initial_qpos)
        return SimpleNamespace(
            height=float(data.xpos[self.root, 2]),
            rotation=data.xmat[self.root].reshape(3, 3).copy(),
            lengths=data.actuator_length.copy(),
            bounds=self._bounds(data),
        )

    @functools.cached_property
    def start_rotation(self) -> np.ndarray:
        """(3, 3) rotation of the root in the start position."""
        return self._start.rotation

    @functools.cached_property
    def standing_height(self) -> float:
        """Height of the root's origin above the body's lowest point (the ground if it floats) at first, m."""
        lowest = self.ground if self.floats else float(self._start.bounds[0][2])
        return self._start.height - lowest

    @functools.cached_property
    def height_unit(self) -> float:
        """What heights that end an episode are multiples of, m: the standing height, more if it is large."""
        # The root's origin may lie low in the body.
        low, high = self._start.bounds
        return max(self.standing_height, float((high - low)[2]) / 2, float((high - low)[:2].max()) / 8)

    def bounds(self, qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner (3,) m of the limbs' geoms that touch, else of all, else of the origins."""
        return self._bounds(self.placed(qpos))

    def _bounds(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        model = self.model
        geoms = np.flatnonzero(np.isin(model.geom_bodyid, self.parts))
        touching = geoms[touching_geoms(model)[geoms]]
        corners = placed_bounds(model, data, touching if len(touching) else geoms)
        if not len(corners):
            corners = data.xpos[self.parts][:, None].repeat(2, 1)
        return corners[:, 0].min(0), corners[:, 1].max(0)

    def lowest_point(self, qpos: np.ndarray) -> float:
        """Height of the lowest of `bounds`."""
        return float(self.bounds(qpos)[0][2])

    def raise_root(self, qpos: np.ndarray, shift: float) -> None:
        """Move the root in ``qpos`` up by ``shift`` metres, if it has a free joint or a vertical slide."""
        model = self.model
        start = quaternion_matrix(model.body_quat[self.root])
        for joint in body_joints(model, self.root):
            address, kind = int(model.jnt_qposadr[joint]), int(model.jnt_type[joint])
            upward = float(start[2] @ model.jnt_axis[joint])
            if kind == FREE:
                qpos[address + 2] += shift
            elif kind == SLIDE and abs(upward) > 0.99:
                qpos[address] += shift * np.sign(upward)


_SHARED = (
    *("body_parentid", "jnt_type", "jnt_bodyid", "jnt_qposadr", "dof_bodyid", "geom_bodyid"),
    *("actuator_trntype", "actuator_trnid", "actuator_dyntype"),
)
_NO_SIZES = ("nname", "npath", "ntext", "nmat", "nnumeric", "nkey", "nmesh", "ntex")


def _sizes(model: mujoco.MjModel) -> dict[str, int]:
    names = [name for name in dir(model) if name.startswith("n") and not name.startswith(_NO_SIZES)]
    return {name: size for name in names if isinstance(size := getattr(model, name), int)}
