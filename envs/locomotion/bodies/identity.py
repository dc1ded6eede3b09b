"""Which bodies are the same: a hash of what a compiled model's physics depends on."""

from __future__ import annotations

import hashlib

import mujoco
import numpy as np

from .descriptors import quaternion_matrix
from .limbs import body_joints


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


def _digits(*values: np.ndarray | float) -> str:
    flat = np.concatenate([np.ravel(np.asarray(value, float)) for value in values])
    flat = np.where(np.abs(flat) < 1e-9, 0.0, flat)
    return ",".join(f"{value:.5e}" for value in flat)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
