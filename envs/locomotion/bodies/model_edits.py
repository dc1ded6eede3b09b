"""What the builders of bodies share: Gymnasium's models, fixed inertias, motors, capsules, the ground."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium
import mujoco
import numpy as np

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"

LIMB = {"contype": 1, "conaffinity": 0, "condim": 3, "rgba": [0.8, 0.6, 0.4, 1]}
"""Fields of a limb's geom: limbs touch the ground and not each other, as in Gymnasium's walker."""


def gymnasium_model(file_name: str, *removed: str) -> mujoco.MjSpec:
    """Gymnasium's own MJCF file without the bodies ``removed``; masses and inertias are the full body's."""
    return without(with_fixed_inertias(mujoco.MjSpec.from_file(str(ASSETS / file_name))), *removed)


def with_fixed_inertias(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    """Write the compiled mass and inertia of every body into ``spec``, and return it.

    Without this, removing a limb from a model with ``settotalmass`` makes what remains heavier. Compiling the
    result gives the same numbers to the last bit, so an unedited body stays at parity with Gymnasium.
    """
    with warnings.catch_warnings():
        # Gymnasium's half-cheetah uses the attribute whose effect is made permanent here.
        warnings.filterwarnings("ignore", message=".*settotalmass.*")
        model = spec.compile()
    for body in spec.bodies[1:]:  # the first is the world
        body.explicitinertial = True
        body.fullinertia = [np.nan] * 6
        body.mass = model.body_mass[body.id]
        body.ipos = model.body_ipos[body.id]
        body.iquat = model.body_iquat[body.id]
        body.inertia = model.body_inertia[body.id]
    spec.compiler.settotalmass = -1
    spec.compiler.inertiafromgeom = int(mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO)
    return spec


def without(spec: mujoco.MjSpec, *limbs: str) -> mujoco.MjSpec:
    """``spec`` without these bodies and all they carry, motors included."""
    for limb in limbs:
        spec.delete(spec.body(limb))
    return spec


def on_ground(
    name: str, integrator: mujoco.mjtIntegrator, timestep: float, **values: object
) -> mujoco.MjSpec:
    """A model in radians of a light and a checkered plane, with fields ``values``; ``timestep`` in s."""
    spec = mujoco.MjSpec()
    spec.modelname = name
    spec.compiler.degree = False
    spec.option.integrator = integrator
    spec.option.timestep = timestep
    spec.add_texture(
        name="checkers",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.65, 0.75, 0.65],
        rgb2=[0.8, 0.9, 0.8],
        width=100,
        height=100,
    )
    ground = spec.add_material(name="ground", texrepeat=[1, 1], texuniform=True)
    ground.textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = "checkers"
    spec.worldbody.add_light(pos=[0, 0, 3], dir=[0, 0, -1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    spec.worldbody.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[40, 40, 40],
        conaffinity=1,
        condim=3,
        material="ground",
        **values,
    )
    return spec


def add_capsule(
    body: mujoco.MjsBody,
    name: str,
    start: tuple[float, ...],
    end: tuple[float, ...],
    radius: float,
    **values: object,
) -> None:
    """A capsule between two points (m) of the body's frame; ``values`` are further fields of the geom."""
    body.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[*start, *end], size=[radius, 0, 0], **values
    )


def add_hinge(
    body: mujoco.MjsBody, name: str, axis: tuple[float, ...], limits: tuple[float, float], **values: object
) -> None:
    """A hinge with limits in the file's unit of angles; ``values`` are further fields of the joint."""
    body.add_joint(
        name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=axis, range=limits, limited=True, **values
    )


def add_motor(spec: mujoco.MjSpec, joint: str, gear: float, name: str = "") -> None:
    """A motor on a joint, of ``gear`` N or N·m at full control, which reaches from -1 to 1."""
    motor = spec.add_actuator(
        name=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, target=joint, gear=[gear, 0, 0, 0, 0, 0]
    )
    motor.set_to_motor()
    motor.ctrllimited = True
    motor.ctrlrange = [-1, 1]


def planar_root(spec: mujoco.MjSpec, trunk: mujoco.MjsBody, reference: float = 0.0) -> None:
    """Joints by which a trunk moves in the plane of x and z, and a camera that follows it.

    The vertical slide is at ``reference`` (m) at the start.
    """
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
    spec.joint("rootz").ref = reference
