"""Full bodies of the planar families, as ``MjSpec`` ready to be edited.

``cheetah`` and ``walker`` are Gymnasium's models, unchanged. A hopper of three or five parts and the
planar humanoid are not shipped by Gymnasium and are built here.
"""

from __future__ import annotations

import mujoco
import numpy as np

from .model_edits import ASSETS, add_capsule, add_ground, add_motor, with_fixed_inertias


def hopper(n_parts: int) -> mujoco.MjSpec:
    """Hopper of three (no leg), four (Gymnasium's) or five parts (a second leg segment).

    The parts are Gymnasium's. With five, the second leg segment repeats the first below it and the
    body starts 0.5 m higher; with three, the foot hangs from the thigh.
    """
    spec = mujoco.MjSpec.from_file(str(ASSETS / "hopper.xml"))
    if n_parts == 4:
        return with_fixed_inertias(spec)
    spec.delete(spec.body("foot"))
    knee_to_ankle = 0.5  # length of the leg capsule; the thigh's is 0.45
    if n_parts == 3:
        spec.delete(spec.body("leg"))
        _add_hopper_foot(spec, spec.body("thigh"), ankle=(0.0, 0.0, -0.45))
        raise_by = -knee_to_ankle
    elif n_parts == 5:
        lower = spec.body("leg").add_body(name="lower_leg", pos=[0, 0, -knee_to_ankle])
        _add_hopper_joint(lower, "lower_leg_joint", pos=(0, 0, 0.25), degrees=(-150, 0))
        lower.add_geom(
            name="lower_leg_geom",
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[0, 0, 0.25, 0, 0, -0.25],
            size=[0.04, 0, 0],
            friction=[0.9, 0.005, 0.0001],
            **_HOPPER_GEOM,
        )
        add_motor(spec, "lower_leg_joint", 200)
        _add_hopper_foot(spec, lower, ankle=(0.0, 0.0, -0.25))
        raise_by = knee_to_ankle
    else:
        raise ValueError(f"a hopper has 3, 4 or 5 parts, not {n_parts}")
    torso = spec.body("torso")
    torso.pos = torso.pos + np.array([0, 0, raise_by])
    for name in ("rootx", "rootz"):
        joint = spec.joint(name)
        joint.pos = joint.pos - np.array([0, 0, raise_by])
    spec.joint("rootz").ref += raise_by
    return with_fixed_inertias(spec)


_HOPPER_GEOM = {
    "contype": 1,
    "conaffinity": 1,
    "condim": 1,
    "margin": 0.001,
    "solimp": [0.8, 0.8, 0.01, 0.5, 2],
    "solref": [0.02, 1],
    "rgba": [0.8, 0.6, 0.4, 1],
}


def _add_hopper_joint(
    body: mujoco.MjsBody, name: str, pos: tuple[float, ...], degrees: tuple[float, float]
) -> None:
    # The compiler reads this file's angles in degrees, and so does a joint added to its spec.
    body.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, -1, 0],
        pos=pos,
        range=degrees,
        limited=True,
        armature=1,
        damping=1,
    )


def _add_hopper_foot(spec: mujoco.MjSpec, parent: mujoco.MjsBody, ankle: tuple[float, float, float]) -> None:
    foot = parent.add_body(name="foot", pos=[0.13 + ankle[0], 0, ankle[2] - 0.1])
    _add_hopper_joint(foot, "foot_joint", pos=(-0.13, 0, 0.1), degrees=(-45, 45))
    foot.add_geom(
        name="foot_geom",
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[-0.26, 0, 0.1, 0.13, 0, 0.1],
        size=[0.06, 0, 0],
        friction=[2.0, 0.005, 0.0001],
        **_HOPPER_GEOM,
    )
    add_motor(spec, "foot_joint", 200)


def humanoid_2d() -> mujoco.MjSpec:
    """Planar humanoid of nine parts: trunk, two legs of two parts, two arms of two parts.

    Left and right limbs are mirror images at y = ±0.1 (legs) and ±0.17 m (arms), so that the members
    of the family are bodies of their own; in the plane of motion they do the same.
    """
    spec = mujoco.MjSpec()
    spec.modelname = "humanoid_2d"
    spec.compiler.degree = False
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_RK4
    spec.option.timestep = 0.002
    add_ground(spec)
    trunk = spec.worldbody.add_body(name="torso", pos=[0, 0, 1.35])
    trunk.add_camera(
        name="track",
        mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM,
        pos=[0, -4, -0.2],
        quat=[0.5**0.5, 0.5**0.5, 0, 0],  # from the side: x to the right, z up
    )
    for name, kind, axis in (
        ("rootx", mujoco.mjtJoint.mjJNT_SLIDE, [1, 0, 0]),
        ("rootz", mujoco.mjtJoint.mjJNT_SLIDE, [0, 0, 1]),
        ("rooty", mujoco.mjtJoint.mjJNT_HINGE, [0, 1, 0]),
    ):
        trunk.add_joint(name=name, type=kind, axis=axis)
    spec.joint("rootz").ref = 1.35
    add_capsule(trunk, "trunk_geom", (0, 0, -0.42), (0, 0, 0.05), 0.09, **_BODY)
    head = {"type": mujoco.mjtGeom.mjGEOM_SPHERE, "pos": [0, 0, 0.25], "size": [0.09, 0, 0]}
    trunk.add_geom(name="head", **head, **_BODY)
    for side, sign in (("right", -1), ("left", 1)):
        thigh = trunk.add_body(name=f"{side}_thigh", pos=[0, 0.1 * sign, -0.46])
        _hinge(thigh, f"{side}_hip", (-1.9, 0.9), damping=5, stiffness=10, armature=0.01)
        add_capsule(thigh, f"{side}_thigh_geom", (0, 0, 0), (0, 0, -0.36), 0.06, **_BODY)
        shin = thigh.add_body(name=f"{side}_shin", pos=[0, 0, -0.4])
        _hinge(shin, f"{side}_knee", (0.0, 2.6), damping=1, stiffness=1, armature=0.006)
        add_capsule(shin, f"{side}_shin_geom", (0, 0, 0), (0, 0, -0.32), 0.05, **_BODY)
        add_capsule(shin, f"{side}_sole", (-0.06, 0, -0.38), (0.14, 0, -0.38), 0.05, **_BODY)
    for side, sign in (("right", -1), ("left", 1)):
        upper = trunk.add_body(name=f"{side}_upper_arm", pos=[0, 0.17 * sign, 0.05])
        _hinge(upper, f"{side}_shoulder", (-1.5, 1.5), damping=1, stiffness=1, armature=0.006)
        add_capsule(upper, f"{side}_upper_arm_geom", (0, 0, 0), (0, 0, -0.26), 0.04, **_BODY)
        lower = upper.add_body(name=f"{side}_lower_arm", pos=[0, 0, -0.28])
        _hinge(lower, f"{side}_elbow", (-1.6, 0.1), damping=1, stiffness=0, armature=0.003)
        add_capsule(lower, f"{side}_lower_arm_geom", (0, 0, 0), (0, 0, -0.28), 0.035, **_BODY)
    for side in ("right", "left"):
        for joint, gear in (("hip", 150), ("knee", 100), ("shoulder", 15), ("elbow", 15)):
            add_motor(spec, f"{side}_{joint}", gear, name=f"{side}_{joint}")
    return with_fixed_inertias(spec)


# Limbs touch the ground and not each other, as in Gymnasium's walker.
_BODY = {"contype": 1, "conaffinity": 0, "condim": 3, "friction": [0.9, 0.1, 0.1], "rgba": [0.8, 0.6, 0.4, 1]}


def _hinge(
    body: mujoco.MjsBody,
    name: str,
    limits: tuple[float, float],
    *,
    damping: float,
    stiffness: float,
    armature: float,
) -> None:
    body.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, 1, 0],
        range=limits,
        limited=True,
        damping=damping,
        stiffness=stiffness,
        armature=armature,
    )
