"""Which bodies are the same: hashes of all that is simulated, and of the robot alone."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import mujoco
import numpy as np

from .limbs import Limb
from .model import (
    ADHESION,
    BALL,
    FREE,
    JOINT,
    TENDON,
    body_geoms,
    body_joints,
    quaternion_matrix,
    touching_geoms,
)

_TIED = {
    int(mujoco.mjtEq.mjEQ_JOINT): int(mujoco.mjtObj.mjOBJ_JOINT),
    int(mujoco.mjtEq.mjEQ_TENDON): int(mujoco.mjtObj.mjOBJ_TENDON),
}
"""What the equality constraints tie that do not say so."""


def body_hash(model: mujoco.MjModel) -> str:
    """Hash of what a model's physics depends on; names and the order of children do not enter.

    Numbers are rounded to six digits, since compilation is exact to about fifteen only.
    """
    options = _digits(model.opt.timestep, model.opt.integrator, model.opt.gravity)
    if model.opt.density or model.opt.viscosity:  # in a fluid
        options += "," + _digits(model.opt.density, model.opt.viscosity)
    return _digest(options + _subtree(model, 0))


def robot_hash(model: mujoco.MjModel, limbs: Iterable[Limb]) -> str:
    """Hash of what a robot is, wherever it stands: also in a scene, or with other visuals.

    The bodies of the limbs that move, with their joints, actuators, the geoms that touch, and the tendons,
    equality constraints and contact exclusions between them. Neither names, the order of children, the scene,
    the place of the root and its heading, options nor keyframes enter.
    """
    moving = {body for limb in limbs for body in limb.bodies if model.body_weldid[body]}
    roots = [body for body in sorted(moving) if int(model.body_parentid[body]) not in moving]
    touching = touching_geoms(model)
    touching[model.pair_geom1] = touching[model.pair_geom2] = True
    parts = sorted(
        _digest(
            "|".join([_up_in(model, root), *_part(model, root, touching), *_children(model, root, touching)])
        )
        for root in roots
    )
    if len(roots) > 1 and all(FREE not in model.jnt_type[body_joints(model, root)] for root in roots):
        # Several arms of one base: how far they are from each other.
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        places = data.xpos[roots]
        apart = np.linalg.norm(places[:, None] - places, axis=-1)
        parts.append(_digits(np.sort(apart[np.triu_indices(len(roots), 1)])))
    within = functools.cache(functools.partial(_place, model, frozenset(moving), touching))
    parts += sorted(
        "+".join([str(int(model.actuator_trntype[a])), _actuated(model, a), *_transmission(model, a, within)])
        for a in range(model.nu)
        if int(model.actuator_trntype[a]) not in JOINT
    )
    parts += sorted(_ties(model, moving, within))
    return _digest("|".join(parts))


def _place(model: mujoco.MjModel, moving: frozenset[int], touching: np.ndarray, body: int) -> str:
    """Which body of the robot it is, by what lies between it and the root; "" of the scene's."""
    own = []
    while body in moving:
        own += _part(model, body, touching)
        parent = int(model.body_parentid[body])
        if parent in moving:
            own.append(_digits(model.body_pos[body], quaternion_matrix(model.body_quat[body])))
        body = parent
    return _digest("|".join(own)) if own else ""


def _transmission(model: mujoco.MjModel, actuator: int, within: Callable[[int], str]) -> list[str]:
    """What an actuator pulls at, that is not on a joint."""
    kind, (first, second) = int(model.actuator_trntype[actuator]), model.actuator_trnid[actuator]
    if kind == TENDON:
        return [_tendon(model, int(first), within)]
    if kind == ADHESION:
        return [within(int(first))]
    return [_site(model, int(site), within) for site in (first, second) if site >= 0]


def _site(model: mujoco.MjModel, site: int, within: Callable[[int], str]) -> str:
    place = within(int(model.site_bodyid[site]))
    turned = quaternion_matrix(model.site_quat[site])
    return place and place + _digits(model.site_pos[site], turned)


def _wraps(model: mujoco.MjModel, tendon: int) -> range:
    first = int(model.tendon_adr[tendon])
    return range(first, first + int(model.tendon_num[tendon]))


def _wrapped_body(model: mujoco.MjModel, wrap: int) -> int:
    """The body of the joint, site or geom that a tendon passes; -1: of a pulley, which has none."""
    kind, thing = int(model.wrap_type[wrap]), int(model.wrap_objid[wrap])
    if kind == int(mujoco.mjtWrap.mjWRAP_JOINT):
        return int(model.jnt_bodyid[thing])
    if kind == int(mujoco.mjtWrap.mjWRAP_SITE):
        return int(model.site_bodyid[thing])
    return -1 if kind == int(mujoco.mjtWrap.mjWRAP_PULLEY) else int(model.geom_bodyid[thing])


def _tendon(model: mujoco.MjModel, tendon: int, within: Callable[[int], str]) -> str:
    limits = model.tendon_range[tendon] if model.tendon_limited[tendon] else ()
    numbers = (
        model.tendon_stiffness,
        model.tendon_damping,
        model.tendon_frictionloss,
        model.tendon_lengthspring,
    )
    own = [_digits(*(np.ravel(of[tendon]) for of in numbers), limits)]
    for wrap in _wraps(model, tendon):
        kind, body = int(model.wrap_type[wrap]), _wrapped_body(model, wrap)
        thing = int(model.wrap_objid[wrap])
        at = _site(model, thing, within) if kind == int(mujoco.mjtWrap.mjWRAP_SITE) else within(body)
        own.append(f"{kind}+{at}+{_digits(model.wrap_prm[wrap]) if at or body < 0 else ''}")
    return _digest("|".join(own))


def _ties(model: mujoco.MjModel, moving: set[int], within: Callable[[int], str]) -> Iterator[str]:
    """What the bodies of a robot do to each other beside their joints; what a scene holds is not told."""
    for tendon in range(model.ntendon):
        bodies = [body for wrap in _wraps(model, tendon) if (body := _wrapped_body(model, wrap)) >= 0]
        if moving.issuperset(bodies):
            yield "tendon" + _tendon(model, tendon, within)
    for constraint in range(model.neq):
        tied = _TIED.get(int(model.eq_type[constraint]), int(model.eq_objtype[constraint]))
        ends = [
            _end(model, tied, int(thing[constraint]), within) for thing in (model.eq_obj1id, model.eq_obj2id)
        ]
        if all(ends):
            numbers = (model.eq_data, model.eq_solref, model.eq_solimp)
            told = _digits(
                model.eq_type[constraint],
                model.eq_active0[constraint],
                *(of[constraint] for of in numbers),
            )
            yield "+".join(["equality", told, *ends])
    for signature in model.exclude_signature:
        first, second = (within(body) for body in divmod(int(signature), 2**16))
        if first and second:
            yield "+".join(["exclude", *sorted((first, second))])


def _end(model: mujoco.MjModel, kind: int, thing: int, within: Callable[[int], str]) -> str:
    """What an equality constraint holds; "-" where it needs no second; "" if it is of the scene."""
    if thing < 0:
        return "-"
    if kind == int(mujoco.mjtObj.mjOBJ_SITE):
        return _site(model, thing, within)
    if kind == int(mujoco.mjtObj.mjOBJ_TENDON):
        return _tendon(model, thing, within)
    if kind == int(mujoco.mjtObj.mjOBJ_JOINT):
        place = within(int(model.jnt_bodyid[thing]))
        return place and place + _moving_joint(model, thing)
    return within(thing) if kind == int(mujoco.mjtObj.mjOBJ_BODY) else ""


def _up_in(model: mujoco.MjModel, root: int) -> str:
    """Where up is in the frame of a root that does not turn freely: its joints and gravity act along that."""
    if np.isin(model.jnt_type[body_joints(model, root)], (FREE, BALL)).any():
        return ""
    rotation, body = np.eye(3), root
    while body:
        rotation = quaternion_matrix(model.body_quat[body]) @ rotation
        body = int(model.body_parentid[body])
    return _digits(rotation[2])


def _children(model: mujoco.MjModel, body: int, touching: np.ndarray) -> list[str]:
    digests = []
    for child in np.flatnonzero(model.body_parentid == body):
        place = _digits(model.body_pos[child], quaternion_matrix(model.body_quat[child]))
        own = [place, *_part(model, child, touching), *_children(model, child, touching)]
        # What neither weighs, moves nor touches is drawn only.
        if len(own) > 2 or model.body_mass[child] > 0:
            digests.append(_digest("|".join(own)))
    return sorted(digests)


def _part(model: mujoco.MjModel, body: int, touching: np.ndarray) -> list[str]:
    """What a body is by itself: its inertia, joints with their actuators, and the geoms that touch."""
    return [
        _digits(*_inertia(model, body), model.body_gravcomp[body]),
        *(_moving_joint(model, joint) for joint in body_joints(model, body)),
        *sorted(_geom(model, geom) for geom in body_geoms(model, body) if touching[geom]),
    ]


def _inertia(model: mujoco.MjModel, body: int) -> tuple[float, np.ndarray, np.ndarray]:
    axes = quaternion_matrix(model.body_iquat[body])
    return model.body_mass[body], model.body_ipos[body], axes @ np.diag(model.body_inertia[body]) @ axes.T


def _joint_parts(model: mujoco.MjModel, joint: int) -> tuple[list, list, list]:
    """Where a joint is and how far it goes, what resists it, and its reference positions."""
    dof, address = int(model.jnt_dofadr[joint]), int(model.jnt_qposadr[joint])
    limits = model.jnt_range[joint] if model.jnt_limited[joint] else ()
    resistance = [np.ravel(model.jnt_stiffness[joint]), np.ravel(model.dof_damping[dof])]
    resistance += [model.dof_armature[dof], model.dof_frictionloss[dof]]
    reference = [model.qpos0[address], model.qpos_spring[address]]
    return [model.jnt_axis[joint], model.jnt_pos[joint], limits], resistance, reference


def _moving_joint(model: mujoco.MjModel, joint: int) -> str:
    kind, (place, resistance, reference) = int(model.jnt_type[joint]), _joint_parts(model, joint)
    actuators = sorted(
        _actuated(model, a)
        for a in range(model.nu)
        if int(model.actuator_trntype[a]) in JOINT and model.actuator_trnid[a, 0] == joint
    )
    place = [] if kind == FREE else place
    reference = [] if kind in (FREE, BALL) else reference
    return "+".join([_digits(kind, *resistance, *place, *reference), *actuators])


def _actuated(model: mujoco.MjModel, actuator: int) -> str:
    limited = (model.actuator_ctrllimited[actuator], model.actuator_forcelimited[actuator])
    ranges = (model.actuator_ctrlrange[actuator], model.actuator_forcerange[actuator])
    return _digits(
        model.actuator_gear[actuator],
        model.actuator_dyntype[actuator],
        model.actuator_dynprm[actuator],
        model.actuator_gainprm[actuator],
        model.actuator_biasprm[actuator],
        *(span if has else () for has, span in zip(limited, ranges, strict=True)),
    )


def _subtree(model: mujoco.MjModel, body: int) -> str:
    children = [b for b in range(1, model.nbody) if model.body_parentid[b] == body]
    parts = [_digits(model.body_pos[body], quaternion_matrix(model.body_quat[body]))]
    parts.append(_digits(*_inertia(model, body)))
    # Their order is part of the physics.
    parts += [_joint(model, joint) for joint in body_joints(model, body)]
    parts += sorted(_geom(model, geom) for geom in body_geoms(model, body))
    parts += sorted(_digest(_subtree(model, child)) for child in children)
    return "|".join(parts)


def _joint(model: mujoco.MjModel, joint: int) -> str:
    fields = ("gear", "gainprm", "biasprm", "ctrlrange", "forcerange")
    actuators = sorted(
        _digits(*(getattr(model, f"actuator_{field}")[a] for field in fields))
        for a in range(model.nu)
        if model.actuator_trnid[a, 0] == joint
    )
    place, resistance, reference = _joint_parts(model, joint)
    return _digits(model.jnt_type[joint], *place, *resistance, *reference) + "+".join(actuators)


def _geom(model: mujoco.MjModel, geom: int) -> str:
    size = (model.geom_type[geom], model.geom_size[geom], model.geom_pos[geom])
    fields = ("friction", "condim", "contype", "conaffinity", "margin", "solref", "solimp")
    touch = (getattr(model, f"geom_{field}")[geom] for field in fields)
    return _digits(*size, quaternion_matrix(model.geom_quat[geom]), *touch)


def _digits(*values: np.ndarray | float | Sequence[float]) -> str:
    flat = np.concatenate([np.ravel(np.asarray(value, float)) for value in values])
    flat = np.where(np.abs(flat) < 1e-9, 0.0, flat)
    return ",".join(f"{value:.5e}" for value in flat)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
