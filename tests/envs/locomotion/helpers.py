"""One-row environments, actions in the simulation's order, and small bodies to try them on."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from somite.envs.gym import TokenVectorEnv, as_arrays
from somite.envs.locomotion import FAMILIES, LIMB_SPEC, LocomotionTask, Morphology, make_vec
from somite.envs.locomotion.bodies.model_edits import gymnasium_model

HINGE, SLIDE = mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE
FREE, BALL = mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_BALL

LISTED = [name for family in FAMILIES.values() for name in family.members]
DRAWN = (
    *("quadruped_0", "quadruped_1", "quadruped_37", "quadruped_64", "quadruped_full"),
    *("planar_4", "planar_8", "planar_full", "planar_upright_2", "planar_upright_8", "planar_upright_full"),
)
_ENDLESS = tuple(f"{family.name}_" for family in FAMILIES.values() if family.draw)
SAMPLED = [name for name in LISTED if not name.startswith(_ENDLESS)] + list(DRAWN)
"""Every member of the finite families and some drawn bodies: for tests of a body each."""


def one_row(body: str | Morphology, task: LocomotionTask | None = None, **options: Any) -> TokenVectorEnv:
    """A vector environment of one row that is never reset by itself, and has been reset."""
    env = make_vec([body], 1, task, autoreset=False, threads=1, **options)
    env.reset(seed=0)
    return env


def action_places(body: Morphology) -> tuple[np.ndarray, np.ndarray]:
    """Limb slot and joint slot of every actuator, in the order of the model's actuators."""
    places = {
        slot.actuator: (n, j)
        for n, limb in enumerate(body.limbs)
        for j, slot in enumerate(limb.slots)
        if slot.actuator >= 0
    }
    limb, joint = np.array([places[a] for a in range(body.model.nu)]).T
    return limb, joint


def placed(body: Morphology, controls: np.ndarray) -> np.ndarray:
    """(1, N, J) action of one row from (actuators,) values in the model's order."""
    action = np.zeros((1, body.n_limbs, body.n_joints))
    action[0][action_places(body)] = controls
    return action


def observed(env: TokenVectorEnv, qpos: np.ndarray, qvel: np.ndarray) -> dict[str, np.ndarray]:
    """What the first row observes in a state, without the batch dimension."""
    env.set_state(0, np.asarray(qpos, float), np.asarray(qvel, float))
    return {key: value[0].copy() for key, value in as_arrays(env._observe()).items()}


def random_state(body: Morphology, seed: int, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """A state near the start position, quaternions normalised, with lively velocities."""
    rng = np.random.default_rng(seed)
    model = body.model
    qpos = body.initial_qpos.copy()
    step = spread * rng.standard_normal(model.nv)
    mujoco.mj_integratePos(model, qpos, step, 1.0)
    return qpos, 2.0 * rng.standard_normal(model.nv)


def token(observation: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The named feature of the limbs."""
    return observation["tokens"][..., LIMB_SPEC.token_slice(name)]


def joint(observation: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The named feature of the joint slots."""
    return observation["joints"][..., LIMB_SPEC.joint_slice(name)]


def physical(observation: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A descriptor of limbs or joints in kg, m, N: times the number that its stated unit begins with."""
    feature = next(f for f in (*LIMB_SPEC.token, *LIMB_SPEC.joint) if f.name == name)
    unit = feature.unit.split()[0]
    values = token(observation, name) if feature in LIMB_SPEC.token else joint(observation, name)
    return values * (float(unit) if unit[0].isdigit() else 1.0)


def gymnasium_body(file_name: str) -> Morphology:
    """A body of Gymnasium's that is in no family."""
    return Morphology(file_name, gymnasium_model(file_name).compile())


def add_motor(spec: mujoco.MjSpec, target: str, gear: float = 1.0, limits: tuple | None = (-1, 1)) -> None:
    """A motor on a joint."""
    motor = spec.add_actuator(trntype=mujoco.mjtTrn.mjTRN_JOINT, target=target, gear=[gear, 0, 0, 0, 0, 0])
    motor.set_to_motor()
    if limits is not None:
        motor.ctrllimited, motor.ctrlrange = True, limits


def add_capsule(body: mujoco.MjsBody, start: tuple, end: tuple, radius: float = 0.05) -> None:
    """A capsule between two points of the body's frame."""
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[*start, *end], size=[radius, 0, 0])


def renamed(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    """The same with other names of bodies and joints."""
    names = {part.name: f"part{index}" for index, part in enumerate(spec.joints)}
    for actuator in spec.actuators:
        actuator.target = names[actuator.target]
    for part in spec.joints:
        part.name = names[part.name]
    for index, part in enumerate(spec.bodies[1:]):
        part.name = f"body{index}"
    return spec


def legged(
    legs: tuple[str, ...] = ("left", "right"), spec: mujoco.MjSpec | None = None, **changes: float
) -> mujoco.MjSpec:
    """A torso on a free joint with unequal legs: ``left`` of two limbs, ``right`` of one with two hinges.

    Legs are made in the order of ``legs``, in ``spec`` after what is there. ``changes`` are values other
    than the usual ones of ``length``, ``gear``, ``limit``, ``density``.
    """
    values = {"length": 0.4, "gear": 30.0, "limit": 1.0, "density": 1000.0} | changes
    spec = spec or mujoco.MjSpec()
    spec.compiler.degree = False
    floor = {"type": mujoco.mjtGeom.mjGEOM_PLANE, "size": [10, 10, 1]}
    spec.worldbody.add_geom(**floor)
    torso = spec.worldbody.add_body(name="torso", pos=[0, 0, 1])
    torso.add_joint(name="root", type=FREE)
    add_capsule(torso, (-0.2, 0, 0), (0.3, 0, 0.05), 0.1)
    for leg in legs:
        if leg == "left":
            thigh = torso.add_body(name="left", pos=[0.2, 0.2, 0])
            thigh.add_joint(name="left_hip", type=HINGE, axis=[0, 1, 0], range=[-1, values["limit"]])
            add_capsule(thigh, (0, 0, 0), (0, 0, -0.3))
            shin = thigh.add_body(name="left_shin", pos=[0, 0, -0.35], quat=[0.9, 0.1, 0.3, 0.2])
            shin.add_joint(name="left_knee", type=HINGE, axis=[0, 1, 0.2], range=[0, 2], damping=2)
            add_capsule(shin, (0, 0, 0), (0, 0, -values["length"]))
            shin.first_geom().density = values["density"]
        else:
            thigh = torso.add_body(name="right", pos=[-0.1, -0.2, 0])
            thigh.add_joint(name="right_yaw", type=HINGE, axis=[0, 0, 1])
            thigh.add_joint(name="right_pitch", type=HINGE, axis=[0, 1, 0], pos=[0, 0, 0.1], stiffness=3)
            add_capsule(thigh, (0, 0, 0), (0.1, 0, -0.5))
    for leg in legs:
        for name in {"left": ("left_hip", "left_knee"), "right": ("right_pitch", "right_yaw")}[leg]:
            add_motor(spec, name, values["gear"])
    return spec
