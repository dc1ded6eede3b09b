"""Which bodies are the same: hashes of all that is simulated, and of the robot alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import mujoco
import numpy as np

from .descriptors import quaternion_matrix
from .limbs import Limb, body_joints

_FREE, _BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))


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

    The bodies of the limbs that move, with their joints, actuators and the geoms that touch. Neither names,
    the order of children, the scene, the place of the root and its heading, options nor keyframes enter.
    """
    moving = {body for limb in limbs for body in limb.bodies if model.body_weldid[body]}
    roots = [body for body in sorted(moving) if int(model.body_parentid[body]) not in moving]
    touching = (model.geom_contype | model.geom_conaffinity) != 0
    touching[model.pair_geom1] = touching[model.pair_geom2] = True
    parts = sorted(
        _digest(
            "|".join([_up_in(model, root), *_part(model, root, touching), *_children(model, root, touching)])
        )
        for root in roots
    )
    if len(roots) > 1 and all(_FREE not in model.jnt_type[body_joints(model, root)] for root in roots):
        # Several arms of one base: how far they are from each other.
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        places = data.xpos[roots]
        apart = np.linalg.norm(places[:, None] - places, axis=-1)
        parts.append(_digits(np.sort(apart[np.triu_indices(len(roots), 1)])))
    parts += sorted(
        f"{int(model.actuator_trntype[a])}+{_actuated(model, a)}"
        for a in range(model.nu)
        if int(model.actuator_trntype[a]) not in _JOINT
    )
    return _digest("|".join(parts))


def _up_in(model: mujoco.MjModel, root: int) -> str:
    """Where up is in the frame of a root that does not turn freely: its joints and gravity act along that."""
    if np.isin(model.jnt_type[body_joints(model, root)], (_FREE, _BALL)).any():
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
    axes = quaternion_matrix(model.body_iquat[body])
    tensor = axes @ np.diag(model.body_inertia[body]) @ axes.T
    first = int(model.body_geomadr[body])
    geoms = range(first, first + int(model.body_geomnum[body]))
    return [
        _digits(model.body_mass[body], model.body_ipos[body], tensor, model.body_gravcomp[body]),
        *(_moving_joint(model, joint) for joint in body_joints(model, body)),
        *sorted(_geom(model, geom) for geom in geoms if touching[geom]),
    ]


def _moving_joint(model: mujoco.MjModel, joint: int) -> str:
    kind, dof, address = (int(n[joint]) for n in (model.jnt_type, model.jnt_dofadr, model.jnt_qposadr))
    actuators = sorted(
        _actuated(model, a)
        for a in range(model.nu)
        if int(model.actuator_trntype[a]) in _JOINT and model.actuator_trnid[a, 0] == joint
    )
    limits = model.jnt_range[joint] if model.jnt_limited[joint] else ()
    own = [kind, np.ravel(model.jnt_stiffness[joint]), np.ravel(model.dof_damping[dof])]
    own += [model.dof_armature[dof], model.dof_frictionloss[dof]]
    if kind != _FREE:
        own += [model.jnt_axis[joint], model.jnt_pos[joint], limits]
    if kind not in (_FREE, _BALL):
        own += [model.qpos0[address], model.qpos_spring[address]]
    return "+".join([_digits(*own), *actuators])


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
    axes = quaternion_matrix(model.body_iquat[body])
    tensor = axes @ np.diag(model.body_inertia[body]) @ axes.T
    parts.append(_digits(model.body_mass[body], model.body_ipos[body], tensor))
    # Their order is part of the physics.
    parts += [_joint(model, joint) for joint in body_joints(model, body)]
    first = int(model.body_geomadr[body])
    parts += sorted(_geom(model, geom) for geom in range(first, first + int(model.body_geomnum[body])))
    parts += sorted(_digest(_subtree(model, child)) for child in children)
    return "|".join(parts)


def _joint(model: mujoco.MjModel, joint: int) -> str:
    dof, address = int(model.jnt_dofadr[joint]), int(model.jnt_qposadr[joint])
    actuators = sorted(
        _digits(
            model.actuator_gear[a],
            model.actuator_gainprm[a],
            model.actuator_biasprm[a],
            model.actuator_ctrlrange[a],
            model.actuator_forcerange[a],
        )
        for a in range(model.nu)
        if model.actuator_trnid[a, 0] == joint
    )
    limits = model.jnt_range[joint] if model.jnt_limited[joint] else ()
    own = _digits(
        model.jnt_type[joint],
        model.jnt_axis[joint],
        model.jnt_pos[joint],
        limits,
        np.ravel(model.jnt_stiffness[joint]),
        np.ravel(model.dof_damping[dof]),
        model.dof_armature[dof],
        model.dof_frictionloss[dof],
        model.qpos0[address],
        model.qpos_spring[address],
    )
    return own + "+".join(actuators)


def _geom(model: mujoco.MjModel, geom: int) -> str:
    return _digits(
        model.geom_type[geom],
        model.geom_size[geom],
        model.geom_pos[geom],
        quaternion_matrix(model.geom_quat[geom]),
        model.geom_friction[geom],
        model.geom_condim[geom],
        model.geom_contype[geom],
        model.geom_conaffinity[geom],
        model.geom_margin[geom],
        model.geom_solref[geom],
        model.geom_solimp[geom],
    )


def _digits(*values: np.ndarray | float | Sequence[float]) -> str:
    flat = np.concatenate([np.ravel(np.asarray(value, float)) for value in values])
    flat = np.where(np.abs(flat) < 1e-9, 0.0, flat)
    return ",".join(f"{value:.5e}" for value in flat)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
