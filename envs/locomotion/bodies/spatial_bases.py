"""Bodies of the spatial families, as ``MjSpec``: ants with damaged legs, centipedes, swimmers."""

from __future__ import annotations

import mujoco
import numpy as np

from .model_edits import ASSETS, add_capsule, add_ground, add_motor, with_fixed_inertias, without

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
    spec = mujoco.MjSpec()
    spec.modelname = "centipede"
    spec.compiler.degree = False
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_RK4
    spec.option.timestep = 0.01
    add_ground(spec, friction=_CENTIPEDE_GEOM["friction"], margin=_CENTIPEDE_GEOM["margin"])
    above = spec.worldbody
    for index in range(1, n_legs // 2 + 1):
        segment = above.add_body(name=f"segment_{index}", pos=[0.5, 0, 0] if index > 1 else [0, 0, 0.75])
        sphere = {"type": mujoco.mjtGeom.mjGEOM_SPHERE, "size": [0.25, 0, 0], "density": 100}
        segment.add_geom(name=f"segment_{index}_geom", **{**_CENTIPEDE_GEOM, **sphere})
        if index == 1:
            segment.add_freejoint(name="root")
        else:
            for name, axis, limits in (("yaw", [0, 0, 1], (-20, 20)), ("pitch", [0, 1, 0], (-10, 30))):
                _centipede_hinge(segment, f"{name}_{index}", axis, limits, pos=[-0.25, 0, 0])
                add_motor(spec, f"{name}_{index}", 100)
        for side, sign in (("left", 1), ("right", -1)):
            _add_centipede_leg(spec, segment, f"{side}_{{}}_{index}", sign)
        above = segment
    return with_fixed_inertias(spec)


_CENTIPEDE_GEOM = {
    "contype": 1,
    "conaffinity": 0,  # limbs touch the ground and not each other
    "condim": 3,
    "density": 25,
    "friction": [1.5, 0.1, 0.1],
    "margin": 0.01,
    "rgba": [0.8, 0.6, 0.4, 1],
}


def _centipede_hinge(
    body: mujoco.MjsBody,
    name: str,
    axis: list[float],
    degrees: tuple[float, float],
    pos: list[float] | None = None,
) -> None:
    body.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=axis,
        pos=pos or [0, 0, 0],
        range=np.deg2rad(degrees),
        limited=True,
        armature=1,
        damping=1,
    )


def _add_centipede_leg(spec: mujoco.MjSpec, segment: mujoco.MjsBody, name: str, sign: int) -> None:
    """One leg, on the left (``sign`` 1) or right (-1); ``name`` has a gap for the part's."""
    hip, ankle = name.format("hip"), name.format("ankle")
    thigh = segment.add_body(name=name.format("thigh"), pos=[0, 0.28 * sign, 0])
    _centipede_hinge(thigh, hip, [0, 0, 1], (-40, 40))
    add_capsule(thigh, f"{thigh.name}_geom", (0, 0, 0), (0, 0.28 * sign, 0), 0.08, **_CENTIPEDE_GEOM)
    foot = thigh.add_body(name=name.format("foot"), pos=[0, 0.28 * sign, 0])
    _centipede_hinge(foot, ankle, [-sign, 0, 0], (30, 100))
    add_capsule(foot, f"{foot.name}_geom", (0, 0, 0), (0, 0.6 * sign, 0), 0.08, **_CENTIPEDE_GEOM)
    add_motor(spec, hip, 150)
    add_motor(spec, ankle, 150)


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
        hinge = {"type": mujoco.mjtJoint.mjJNT_HINGE, "axis": [0, 0, 1]}
        link.add_joint(name=joint, **hinge, limited=True, range=[-100, 100])  # the file has degrees
        add_motor(spec, joint, 150)
    return with_fixed_inertias(spec)
