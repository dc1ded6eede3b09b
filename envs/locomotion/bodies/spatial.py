"""The spatial families: ants with damaged legs, centipedes, swimmers, humanoids without limbs."""

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
    with_fixed_inertias,
    without,
)

ANT_LEGS = {
    "front_left": ("front_left_leg", "1"),
    "front_right": ("front_right_leg", "2"),
    "back_left": ("back_leg", "3"),
    "back_right": ("right_back_leg", "4"),
}
"""For every leg its body in ``ant.xml`` and the number in the names of its joints.

The names are the file's, which the literature uses. Its "front" is the side of y > 0: an ant that runs
along x has front_left and back_right ahead, front_right and back_left behind.
"""

DAMAGES = ("shortened", "locked", "loosened", "removed")


def ant(leg: str | None = None, damage: str | None = None) -> mujoco.MjSpec:
    """Gymnasium's ant, intact or with one leg damaged.

    Args:
        leg: a key of ``ANT_LEGS``; None: intact.
        damage: ``shortened``: the last segment has half its length, and the mass of what is left;
            ``locked``: both joints are rigid at the angles nearest to the file's that they can have, which
            is how a standing ant holds them, and their motors are gone; ``loosened``: the motors are gone,
            the joints free; ``removed``: the leg is gone with all it carries.
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
    root; each further one hangs on the one behind by a yaw and a pitch joint. So a centipede is every
    longer one without its foremost segments.

    Args:
        n_legs: an even number from 2.
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
                _add_joint(spec, segment, f"{name}_{index}", axis, limits, gear=100, pos=[-0.25, 0, 0])
        for side, sign in (("left", 1), ("right", -1)):
            thigh = segment.add_body(name=f"{side}_thigh_{index}", pos=[0, 0.28 * sign, 0])
            add_capsule(thigh, f"{thigh.name}_geom", (0, 0, 0), (0, 0.28 * sign, 0), 0.08, **_CENTIPEDE)
            _add_joint(spec, thigh, f"{side}_hip_{index}", (0, 0, 1), (-40, 40), gear=150)
            foot = thigh.add_body(name=f"{side}_foot_{index}", pos=[0, 0.28 * sign, 0])
            add_capsule(foot, f"{foot.name}_geom", (0, 0, 0), (0, 0.6 * sign, 0), 0.08, **_CENTIPEDE)
            _add_joint(spec, foot, f"{side}_ankle_{index}", (-sign, 0, 0), (30, 100), gear=150)
        above = segment
    return with_fixed_inertias(spec)


def _add_joint(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    axis: tuple[int, ...],
    degrees: tuple[float, float],
    gear: float,
    **values: object,
) -> None:
    add_hinge(body, name, axis, np.deg2rad(degrees), armature=1, damping=1, **values)
    add_motor(spec, name, gear)


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
        joint = f"motor{index - 1}_rot"
        add_hinge(link, joint, (0, 0, 1), (-100, 100))  # the file has degrees
        add_motor(spec, joint, 150)
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
