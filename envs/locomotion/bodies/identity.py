"""Which bodies are the same: hashes of all that is simulated, and of the robot alone."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import mujoco
import numpy as np

from .model import (
    ADHESION,
    BALL,
    FREE,
    JOINT,
    TENDON,
    Limb,
    body_geoms,
    body_joints,
    quaternion_matrix,
    touching_geoms,
)

_BODY, _SITE = int(mujoco.mjtObj.mjOBJ_BODY), int(mujoco.mjtObj.mjOBJ_SITE)
_HINGED, _CORD = int(mujoco.mjtObj.mjOBJ_JOINT), int(mujoco.mjtObj.mjOBJ_TENDON)
_TIED = {int(mujoco.mjtEq.mjEQ_JOINT): _HINGED, int(mujoco.mjtEq.mjEQ_TENDON): _CORD}
"""What the equality constraints tie that do not say so."""


def body_hash(model: mujoco.MjModel) -> str:
    """Hash of what a model's physics depends on; names and the order of children do not enter.

    Numbers are rounded to six digits, since compilation is exact to about fifteen only.
    """
    options = _digits(model.opt.timestep, model.opt.integrator, model.opt.gravity)
    if model.opt.density or model.opt.viscosity:  # in a fluid
        options += "," + _digits(model.opt.density, model.opt.viscosity)
    return _digest(options + _subtree(model, 0))


def _subtree(model: mujoco.MjModel, body: int) -> str:
    children = [b for b in range(1, model.nbody) if model.body_parentid[b] == body]
    parts = [_place(model, body), _digits(*_inertia(model, body))]
    # Their order is part of the physics.
    parts += [_joint(model, joint) for joint in body_joints(model, body)]
    parts += sorted(_geom(model, geom) for geom in body_geoms(model, body))
    parts += sorted(_digest(_subtree(model, child)) for child in children)
    return "|".join(parts)


def _joint(model: mujoco.MjModel, joint: int) -> str:
    actuators = sorted(
        _digits(*_fields(model, "actuator", "gear gainprm biasprm ctrlrange forcerange", a))
        for a in range(model.nu)
        if model.actuator_trnid[a, 0] == joint
    )
    place, resistance, reference = _joint_parts(model, joint)
    return _digits(model.jnt_type[joint], *place, *resistance, *reference) + "+".join(actuators)


def robot_hash(model: mujoco.MjModel, limbs: Iterable[Limb]) -> str:
    """Hash of what a robot is, wherever it stands: also in a scene, or with other visuals.

    The bodies of the limbs that move, with their joints, actuators, the geoms that touch, and the tendons,
    equality constraints and contact exclusions between them. Neither names, the order of children, the scene,
    the place of the root and its heading, options nor keyframes enter.
    """
    return _digest("|".join(_Robot(model, limbs).told()))


class _Robot:
    """What is told of a robot; of all its methods "" means a part of the scene."""

    def __init__(self, model: mujoco.MjModel, limbs: Iterable[Limb]) -> None:
        self.model = model
        self.moving = {body for limb in limbs for body in limb.bodies if model.body_weldid[body]}
        self.touching = touching_geoms(model)
        self.touching[model.pair_geom1] = self.touching[model.pair_geom2] = True
        self.place = functools.cache(self._place)

    def told(self) -> Iterator[str]:
        """Its trees, how far apart they stand, and what acts between its bodies beside their joints."""
        model = self.model
        roots = [body for body in sorted(self.moving) if int(model.body_parentid[body]) not in self.moving]
        trees = [[self._up_in(root), *self._part(root), *self._children(root)] for root in roots]
        yield from sorted(_digest("|".join(tree)) for tree in trees)
        if len(roots) > 1 and all(FREE not in model.jnt_type[body_joints(model, root)] for root in roots):
            # Several arms of one base: how far they are from each other.
            data = mujoco.MjData(model)
            mujoco.mj_kinematics(model, data)
            places = data.xpos[roots]
            apart = np.linalg.norm(places[:, None] - places, axis=-1)
            yield _digits(np.sort(apart[np.triu_indices(len(roots), 1)]))
        yield from sorted(self._transmissions())
        yield from sorted(self._ties())

    def _place(self, body: int) -> str:
        """Which body of the robot it is, by what lies between it and the root."""
        model, own = self.model, []
        while body in self.moving:
            own += self._part(body)
            parent = int(model.body_parentid[body])
            if parent in self.moving:
                own.append(_place(model, body))
            body = parent
        return _digest("|".join(own)) if own else ""

    def _up_in(self, root: int) -> str:
        """Where up is in the frame of a root that does not turn freely: joints and gravity act along that."""
        model = self.model
        if np.isin(model.jnt_type[body_joints(model, root)], (FREE, BALL)).any():
            return ""
        rotation, body = np.eye(3), root
        while body:
            rotation = quaternion_matrix(model.body_quat[body]) @ rotation
            body = int(model.body_parentid[body])
        return _digits(rotation[2])

    def _children(self, body: int) -> list[str]:
        model, digests = self.model, []
        for child in np.flatnonzero(model.body_parentid == body):
            own = [_place(model, child), *self._part(child), *self._children(child)]
            # What neither weighs, moves nor touches is drawn only.
            if len(own) > 2 or model.body_mass[child] > 0:
                digests.append(_digest("|".join(own)))
        return sorted(digests)

    def _part(self, body: int) -> list[str]:
        """What a body is by itself: its inertia, joints with their actuators, and the geoms that touch."""
        model = self.model
        return [
            _digits(*_inertia(model, body), model.body_gravcomp[body]),
            *(self._joint(joint) for joint in body_joints(model, body)),
            *sorted(_geom(model, geom) for geom in body_geoms(model, body) if self.touching[geom]),
        ]

    def _joint(self, joint: int) -> str:
        model, kind = self.model, int(self.model.jnt_type[joint])
        place, resistance, reference = _joint_parts(model, joint)
        actuators = sorted(
            self._actuator(a)
            for a in range(model.nu)
            if int(model.actuator_trntype[a]) in JOINT and model.actuator_trnid[a, 0] == joint
        )
        place = [] if kind == FREE else place
        reference = [] if kind in (FREE, BALL) else reference
        return "+".join([_digits(kind, *resistance, *place, *reference), *actuators])

    def _actuator(self, actuator: int) -> str:
        own = _fields(self.model, "actuator", "gear dyntype dynprm gainprm biasprm", actuator)
        for limit in ("ctrl", "force"):
            if getattr(self.model, f"actuator_{limit}limited")[actuator]:
                own.append(getattr(self.model, f"actuator_{limit}range")[actuator])
        return _digits(*own)

    def _transmissions(self) -> Iterator[str]:
        """The actuators that are not on joints, and what they pull at."""
        for actuator in range(self.model.nu):
            kind, ends = int(self.model.actuator_trntype[actuator]), self.model.actuator_trnid[actuator]
            if kind not in JOINT:
                what = {TENDON: _CORD, ADHESION: _BODY}.get(kind, _SITE)
                pulled = [self._end(what, int(end)) for end in ends[: 1 + (what == _SITE)] if end >= 0]
                yield "+".join([str(kind), self._actuator(actuator), *pulled])

    def _ties(self) -> Iterator[str]:
        """The tendons, equality constraints and contact exclusions that are of nothing but the robot."""
        model = self.model
        for tendon in range(model.ntendon):
            bodies = [body for wrap in self._wraps(tendon) if (body := self._wrapped_body(wrap)) >= 0]
            if self.moving.issuperset(bodies):
                yield "tendon" + self._end(_CORD, tendon)
        for tie in range(model.neq):
            kind = _TIED.get(int(model.eq_type[tie]), int(model.eq_objtype[tie]))
            ends = [self._end(kind, int(things[tie])) for things in (model.eq_obj1id, model.eq_obj2id)]
            if all(ends):
                own = _digits(*_fields(model, "eq", "type active0 data solref solimp", tie))
                yield "+".join(["equality", own, *ends])
        for signature in model.exclude_signature:
            first, second = (self.place(body) for body in divmod(int(signature), 2**16))
            if first and second:
                yield "+".join(["exclude", *sorted((first, second))])

    def _end(self, kind: int, thing: int) -> str:
        """A body, site, joint or tendon that something acts on; "-" where there is no second one."""
        model = self.model
        if thing < 0:
            return "-"
        if kind == _CORD:
            return self._tendon(thing)
        if kind == _SITE:
            place = self.place(int(model.site_bodyid[thing]))
            return place and place + _digits(model.site_pos[thing], quaternion_matrix(model.site_quat[thing]))
        if kind == _HINGED:
            place = self.place(int(model.jnt_bodyid[thing]))
            return place and place + self._joint(thing)
        return self.place(thing) if kind == _BODY else ""

    def _tendon(self, tendon: int) -> str:
        model = self.model
        limits = model.tendon_range[tendon] if model.tendon_limited[tendon] else ()
        fields = _fields(model, "tendon", "stiffness damping frictionloss lengthspring", tendon)
        told = [_digits(*fields, limits)]
        for wrap in self._wraps(tendon):
            kind, body = int(model.wrap_type[wrap]), self._wrapped_body(wrap)
            is_site = kind == int(mujoco.mjtWrap.mjWRAP_SITE)
            at = self._end(_SITE, int(model.wrap_objid[wrap])) if is_site else self.place(body)
            told.append(f"{kind}+{at}+{_digits(model.wrap_prm[wrap]) if at or body < 0 else ''}")
        return _digest("|".join(told))

    def _wraps(self, tendon: int) -> range:
        first = int(self.model.tendon_adr[tendon])
        return range(first, first + int(self.model.tendon_num[tendon]))

    def _wrapped_body(self, wrap: int) -> int:
        """The body of the joint, site or geom that a tendon passes; -1: of a pulley, which has none."""
        model, kinds = self.model, mujoco.mjtWrap
        kind, thing = int(model.wrap_type[wrap]), int(model.wrap_objid[wrap])
        if kind == int(kinds.mjWRAP_PULLEY):
            return -1
        owners = {int(kinds.mjWRAP_JOINT): model.jnt_bodyid, int(kinds.mjWRAP_SITE): model.site_bodyid}
        return int(owners.get(kind, model.geom_bodyid)[thing])


def _place(model: mujoco.MjModel, body: int) -> str:
    """Where a body is in its parent's frame."""
    return _digits(model.body_pos[body], quaternion_matrix(model.body_quat[body]))


def _inertia(model: mujoco.MjModel, body: int) -> tuple[float, np.ndarray, np.ndarray]:
    axes = quaternion_matrix(model.body_iquat[body])
    return model.body_mass[body], model.body_ipos[body], axes @ np.diag(model.body_inertia[body]) @ axes.T


def _fields(model: mujoco.MjModel, prefix: str, names: str, index: int) -> list[np.ndarray | float]:
    return [getattr(model, f"{prefix}_{name}")[index] for name in names.split()]


def _joint_parts(model: mujoco.MjModel, joint: int) -> tuple[list, list, list]:
    """Where a joint is and how far it goes, what resists it, and its reference positions."""
    dof, address = int(model.jnt_dofadr[joint]), int(model.jnt_qposadr[joint])
    limits = model.jnt_range[joint] if model.jnt_limited[joint] else ()
    resistance = [model.jnt_stiffness[joint], *_fields(model, "dof", "damping armature frictionloss", dof)]
    reference = [model.qpos0[address], model.qpos_spring[address]]
    return [model.jnt_axis[joint], model.jnt_pos[joint], limits], resistance, reference


def _geom(model: mujoco.MjModel, geom: int) -> str:
    touch = _fields(model, "geom", "friction condim contype conaffinity margin solref solimp", geom)
    turn = quaternion_matrix(model.geom_quat[geom])
    return _digits(*_fields(model, "geom", "type size pos", geom), turn, *touch)


def _digits(*values: np.ndarray | float | Sequence[float]) -> str:
    flat = np.concatenate([np.ravel(np.asarray(value, float)) for value in values])
    flat = np.where(np.abs(flat) < 1e-9, 0.0, flat)
    return ",".join(f"{value:.5e}" for value in flat)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
