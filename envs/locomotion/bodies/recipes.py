"""How the bodies of the literature are made: planar families first, then spatial ones.

The planar members are those of shared modular policies (Huang, Mordatch, Pathak 2020) and Amorpheus (Kurin et
al. 2021): full bodies without some limbs. Cheetah and walker are Gymnasium's models, unchanged; a hopper of
three or five parts and the planar humanoid are built here.
"""

from __future__ import annotations

from functools import partial

import mujoco
import numpy as np

from .model_edits import (
    ASSETS,
    LIMB,
    add_capsule,
    add_hinge,
    add_motor,
    gymnasium_model,
    on_ground,
    planar_root,
    with_fixed_inertias,
    without,
)

_CHEETAH_LEGS = (("bthigh", "bshin", "bfoot"), ("fthigh", "fshin", "ffoot"))
_CHEETAHS = {  # segments that are left of the back and of the front leg
    "2_back": (1, 0),
    "2_front": (0, 1),
    "3_back": (2, 0),
    "3_balanced": (1, 1),
    "3_front": (0, 2),
    "4_allback": (3, 0),
    "4_allfront": (0, 3),
    "4_back": (2, 1),
    "4_front": (1, 2),
    "5_back": (3, 1),
    "5_balanced": (2, 2),
    "5_front": (1, 3),
    "6_back": (3, 2),
    "6_front": (2, 3),
    "7_full": (3, 3),
}
CHEETAHS = {
    f"cheetah_{name}": partial(
        gymnasium_model,
        "half_cheetah.xml",
        *(segment for leg, n in zip(_CHEETAH_LEGS, left, strict=True) for segment in leg[n : n + 1]),
    )
    for name, left in _CHEETAHS.items()
}

_WALKERS = {  # number of parts: what is removed
    2: ("leg", "thigh_left"),
    3: ("leg", "leg_left"),
    4: ("foot", "leg_left"),
    5: ("foot", "foot_left"),
    6: ("foot_left",),
    7: (),
}
WALKERS = {
    f"walker_{parts}": partial(gymnasium_model, "walker2d_v5.xml", *removed)
    for parts, removed in _WALKERS.items()
}
WALKER_ALIASES = {f"walker_{p}_{order}": f"walker_{p}" for p in _WALKERS for order in ("main", "flipped")}
"""The literature counts each body twice, with its children in two orders."""


_DAMPED = {"armature": 1, "damping": 1}


def _add_driven(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    axis: tuple[int, ...],
    limits: tuple[float, float],
    gear: float,
    **values: object,
) -> None:
    """A hinge with a motor; its limits are in the unit of the model, which for Gymnasium's is degrees."""
    add_hinge(body, name, axis, limits, **values)
    add_motor(spec, name, gear)


def hopper(n_parts: int) -> mujoco.MjSpec:
    """Hopper of three (no leg), four (Gymnasium's) or five parts (a second leg segment like the first)."""
    spec = mujoco.MjSpec.from_file(str(ASSETS / "hopper.xml"))
    if n_parts == 4:
        return with_fixed_inertias(spec)
    spec.delete(spec.body("foot"))
    knee_to_ankle = 0.5  # length of the leg capsule; the thigh's is 0.45
    if n_parts == 3:
        spec.delete(spec.body("leg"))
        above, ankle, raise_by = spec.body("thigh"), -0.45, -knee_to_ankle
    elif n_parts == 5:
        above, ankle, raise_by = spec.body("leg").add_body(name="lower_leg"), -0.25, knee_to_ankle
        above.pos = [0, 0, -knee_to_ankle]
        _add_driven(spec, above, "lower_leg_joint", (0, -1, 0), (-150, 0), 200, pos=(0, 0, 0.25), **_DAMPED)
        capsule = ((0, 0, 0.25), (0, 0, -0.25), 0.04)
        add_capsule(above, "lower_leg_geom", *capsule, friction=[0.9, 0.005, 0.0001], **_HOPPER)
    else:
        raise ValueError(f"a hopper has 3, 4 or 5 parts, not {n_parts}")
    foot = above.add_body(name="foot", pos=[0.13, 0, ankle - 0.1])
    _add_driven(spec, foot, "foot_joint", (0, -1, 0), (-45, 45), 200, pos=(-0.13, 0, 0.1), **_DAMPED)
    capsule = ((-0.26, 0, 0.1), (0.13, 0, 0.1), 0.06)
    add_capsule(foot, "foot_geom", *capsule, friction=[2.0, 0.005, 0.0001], **_HOPPER)
    torso = spec.body("torso")
    torso.pos = torso.pos + np.array([0, 0, raise_by])
    for name in ("rootx", "rootz"):
        joint = spec.joint(name)
        joint.pos = joint.pos - np.array([0, 0, raise_by])
    spec.joint("rootz").ref += raise_by
    return with_fixed_inertias(spec)


_HOPPER = {
    "contype": 1,
    "conaffinity": 1,
    "condim": 1,
    "margin": 0.001,
    "solimp": [0.8, 0.8, 0.01, 0.5, 2],
    "solref": [0.02, 1],
    "rgba": [0.8, 0.6, 0.4, 1],
}


HOPPERS = {f"hopper_{parts}": partial(hopper, parts) for parts in (3, 4, 5)}

_BODY, _ACROSS = {**LIMB, "friction": [0.9, 0.1, 0.1]}, (0, 1, 0)


def humanoid_2d(*removed: str) -> mujoco.MjSpec:
    """Planar humanoid of nine parts, without those ``removed``: trunk, two legs and two arms of two parts.

    Left and right limbs are apart, so that members are bodies of their own; in the plane they do the same.
    """
    spec = on_ground("humanoid_2d", mujoco.mjtIntegrator.mjINT_RK4, 0.002)
    trunk = spec.worldbody.add_body(name="torso", pos=[0, 0, 1.35])
    planar_root(spec, trunk, 1.35)
    add_capsule(trunk, "trunk_geom", (0, 0, -0.42), (0, 0, 0.05), 0.09, **_BODY)
    head = {"type": mujoco.mjtGeom.mjGEOM_SPHERE, "pos": [0, 0, 0.25], "size": [0.09, 0, 0]}
    trunk.add_geom(name="head", **head, **_BODY)
    for side, sign in (("right", -1), ("left", 1)):
        thigh = trunk.add_body(name=f"{side}_thigh", pos=[0, 0.1 * sign, -0.46])
        add_hinge(thigh, f"{side}_hip", _ACROSS, (-1.9, 0.9), damping=5, stiffness=10, armature=0.01)
        add_capsule(thigh, f"{side}_thigh_geom", (0, 0, 0), (0, 0, -0.36), 0.06, **_BODY)
        shin = thigh.add_body(name=f"{side}_shin", pos=[0, 0, -0.4])
        add_hinge(shin, f"{side}_knee", _ACROSS, (0.0, 2.6), damping=1, stiffness=1, armature=0.006)
        add_capsule(shin, f"{side}_shin_geom", (0, 0, 0), (0, 0, -0.32), 0.05, **_BODY)
        add_capsule(shin, f"{side}_sole", (-0.06, 0, -0.38), (0.14, 0, -0.38), 0.05, **_BODY)
    for side, sign in (("right", -1), ("left", 1)):
        upper = trunk.add_body(name=f"{side}_upper_arm", pos=[0, 0.17 * sign, 0.05])
        add_hinge(upper, f"{side}_shoulder", _ACROSS, (-1.5, 1.5), damping=1, stiffness=1, armature=0.006)
        add_capsule(upper, f"{side}_upper_arm_geom", (0, 0, 0), (0, 0, -0.26), 0.04, **_BODY)
        lower = upper.add_body(name=f"{side}_lower_arm", pos=[0, 0, -0.28])
        add_hinge(lower, f"{side}_elbow", _ACROSS, (-1.6, 0.1), damping=1, stiffness=0, armature=0.003)
        add_capsule(lower, f"{side}_lower_arm_geom", (0, 0, 0), (0, 0, -0.28), 0.035, **_BODY)
    for side in ("right", "left"):
        for joint, gear in (("hip", 150), ("knee", 100), ("shoulder", 15), ("elbow", 15)):
            add_motor(spec, f"{side}_{joint}", gear, name=f"{side}_{joint}")
    return without(with_fixed_inertias(spec), *removed)


_HUMANOIDS_2D = {
    "9_full": (),
    "8_left_knee": ("left_shin",),
    "8_right_knee": ("right_shin",),
    "7_left_arm": ("left_upper_arm",),
    "7_right_arm": ("right_upper_arm",),
    "7_left_leg": ("left_thigh",),
    "7_right_leg": ("right_thigh",),
    "7_lower_arms": ("left_lower_arm", "right_lower_arm"),
}
HUMANOIDS_2D = {
    f"humanoid_2d_{name}": partial(humanoid_2d, *removed) for name, removed in _HUMANOIDS_2D.items()
}

ANT_LEGS = {
    "front_left": ("front_left_leg", "1"),
    "front_right": ("front_right_leg", "2"),
    "back_left": ("back_leg", "3"),
    "back_right": ("right_back_leg", "4"),
}
"""For every leg its body in ``ant.xml`` and the number in the names of its joints.

The names are the file's, whose "front" is the side of y > 0: an ant that runs along x has front_left and
back_right ahead.
"""

DAMAGES = ("shortened", "locked", "loosened", "removed")


def ant(leg: str | None = None, damage: str | None = None) -> mujoco.MjSpec:
    """Gymnasium's ant, intact or with one leg (a key of ``ANT_LEGS``) damaged.

    ``shortened``: the last segment has half its length, and the mass of what is left; ``locked``: both joints
    are rigid at the possible angles nearest to the file's, as a standing ant holds them, without motors;
    ``loosened``: the motors are gone, the joints free; ``removed``: the leg is gone with all it carries.
    """
    spec = mujoco.MjSpec.from_file(str(ASSETS / "ant.xml"))
    for name, (body, number) in ANT_LEGS.items():
        # The file leaves the last segments without names, by which slots are aligned.
        spec.body(body).find_child(f"aux_{number}").first_body().name = f"{name}_foot"
    if leg is not None:
        _damage(spec, leg, damage)
    return with_fixed_inertias(spec)


def _damage(spec: mujoco.MjSpec, leg: str, damage: str | None) -> None:
    body, number = ANT_LEGS[leg]
    joints = [spec.joint(f"{name}_{number}") for name in ("hip", "ankle")]
    if damage == "shortened":
        geom = spec.body(f"{leg}_foot").first_geom()
        geom.fromto = geom.fromto / 2  # it begins at the joint, in the origin
    elif damage == "removed":
        without(spec, body)
    elif damage in ("locked", "loosened"):
        for motor in [m for m in spec.actuators if m.target in (j.name for j in joints)]:
            spec.delete(motor)
        for joint in joints if damage == "locked" else ():
            _lock(spec, joint)
    else:
        raise ValueError(f"damage must be one of {DAMAGES}, not {damage!r}")


def _lock(spec: mujoco.MjSpec, joint: mujoco.MjsJoint) -> None:
    """Weld a hinge through its body's origin at the possible angle (the file has degrees) nearest to 0."""
    low, high = joint.range
    angle = np.deg2rad(np.clip(0.0, low, high))
    turn = np.zeros(4)
    mujoco.mju_axisAngle2Quat(turn, joint.axis / np.linalg.norm(joint.axis), angle)
    joint.parent.quat = turn
    spec.delete(joint)


ANTS = {"ant": ant} | {
    f"ant_{leg}_{damage}": partial(ant, leg, damage) for leg in ANT_LEGS for damage in DAMAGES
}

_CENTIPEDE = {**LIMB, "density": 25, "friction": [1.5, 0.1, 0.1], "margin": 0.01}


def centipede(n_legs: int) -> mujoco.MjSpec:
    """NerveNet's centipede (Wang et al. 2018), built anew: the same sizes, ranges, densities and gears.

    A chain of spheres, each with a leg of two segments on either side. ``segment_1``, at the rear, is the
    root; each further one hangs on the one behind. So a centipede is every longer one without its foremost
    segments. ``n_legs`` is an even number from 2.
    """
    if n_legs < 2 or n_legs % 2:
        raise ValueError(f"a centipede has an even number of legs, from 2, not {n_legs}")
    ground = {name: _CENTIPEDE[name] for name in ("friction", "margin")}
    spec = on_ground("centipede", mujoco.mjtIntegrator.mjINT_RK4, 0.01, **ground)
    above = spec.worldbody
    for index in range(1, n_legs // 2 + 1):
        segment = above.add_body(name=f"segment_{index}", pos=[0.5, 0, 0] if index > 1 else [0, 0, 0.75])
        sphere = {"type": mujoco.mjtGeom.mjGEOM_SPHERE, "size": [0.25, 0, 0], "density": 100}
        segment.add_geom(name=f"segment_{index}_geom", **{**_CENTIPEDE, **sphere})
        if index == 1:
            segment.add_freejoint(name="root")
        else:
            for name, axis, limits in (("yaw", (0, 0, 1), (-20, 20)), ("pitch", (0, 1, 0), (-10, 30))):
                where = {"pos": [-0.25, 0, 0], **_DAMPED}
                _add_driven(spec, segment, f"{name}_{index}", axis, np.deg2rad(limits), 100, **where)
        for side, sign in (("left", 1), ("right", -1)):
            thigh = segment.add_body(name=f"{side}_thigh_{index}", pos=[0, 0.28 * sign, 0])
            add_capsule(thigh, f"{thigh.name}_geom", (0, 0, 0), (0, 0.28 * sign, 0), 0.08, **_CENTIPEDE)
            _add_driven(spec, thigh, f"{side}_hip_{index}", (0, 0, 1), np.deg2rad((-40, 40)), 150, **_DAMPED)
            foot = thigh.add_body(name=f"{side}_foot_{index}", pos=[0, 0.28 * sign, 0])
            add_capsule(foot, f"{foot.name}_geom", (0, 0, 0), (0, 0.6 * sign, 0), 0.08, **_CENTIPEDE)
            ankle = np.deg2rad((30, 100))
            _add_driven(spec, foot, f"{side}_ankle_{index}", (-sign, 0, 0), ankle, 150, **_DAMPED)
        above = segment
    return with_fixed_inertias(spec)


CENTIPEDES = {f"centipede_{legs}": partial(centipede, legs) for legs in range(4, 21, 2)}


def swimmer(n_links: int) -> mujoco.MjSpec:
    """Gymnasium's swimmer, its chain continued to ``n_links`` links by copies of its last; 3 from there."""
    if n_links < 3:
        raise ValueError(f"a swimmer has 3 links or more, not {n_links}")
    spec = mujoco.MjSpec.from_file(str(ASSETS / "swimmer.xml"))
    for index, name in enumerate(("torso", "mid", "back"), start=1):
        spec.body(name).name = f"link_{index}"
    for index in range(4, n_links + 1):
        # What is not said here is the file's default, as for its own links.
        link = spec.body(f"link_{index - 1}").add_body(name=f"link_{index}", pos=[-1, 0, 0])
        add_capsule(link, f"link_{index}_geom", (0, 0, 0), (-1, 0, 0), 0.1, density=1000)
        _add_driven(spec, link, f"motor{index - 1}_rot", (0, 0, 1), (-100, 100), 150)
    return with_fixed_inertias(spec)


SWIMMERS = {f"swimmer_{links}": partial(swimmer, links) for links in range(3, 14)}

_HUMANOIDS = {  # what is removed
    "no_left_lower_arm": ("left_lower_arm",),
    "no_left_arm": ("left_upper_arm",),
    "no_left_foot": ("left_foot",),
    "no_left_shin": ("left_shin",),
    "no_right_lower_arm": ("right_lower_arm",),
    "no_right_arm": ("right_upper_arm",),
    "no_right_foot": ("right_foot",),
    "no_right_shin": ("right_shin",),
    "no_lower_arms": ("left_lower_arm", "right_lower_arm"),
    "no_arms": ("left_upper_arm", "right_upper_arm"),
}
HUMANOIDS = {"humanoid": partial(gymnasium_model, "humanoid.xml")} | {
    f"humanoid_{name}": partial(gymnasium_model, "humanoid.xml", *removed)
    for name, removed in _HUMANOIDS.items()
}
