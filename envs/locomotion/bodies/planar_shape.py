"""Planar bodies as shapes: lists of segments made of capsules, and the MuJoCo bodies that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from .model_edits import LIMB, add_capsule, add_hinge, add_motor, on_ground, planar_root


@dataclass(frozen=True)
class Capsule:
    """From ``start`` to ``end``, (x, z) m from the segment's joint as it stands at the start."""

    start: tuple[float, float]
    end: tuple[float, float]
    radius: float
    friction: float


@dataclass(frozen=True)
class Hinge:
    """A joint with a motor. ``limits`` rad, positive is forward; ``axis`` 1 or -1 along y."""

    limits: tuple[float, float]
    strength: float
    stiffness: float
    damping: float
    armature: float
    axis: int = 1


@dataclass(frozen=True)
class Segment:
    """A limb. All frames stand as the world's at the start.

    Args:
        name: of the body and its joint.
        parent: name of the segment that carries it; "": none, it is the root.
        place: (x, y, z) m of its joint, from the root's origin.
        capsules: what it is made of; a sphere is a capsule without length.
        density: kg/m³.
        hinge: None: it is the root.
        frame: (x, z) m of its frame's origin, from its joint.
    """

    name: str
    parent: str
    place: tuple[float, float, float]
    capsules: tuple[Capsule, ...]
    density: float
    hinge: Hinge | None = None
    frame: tuple[float, float] = (0.0, 0.0)


Shape = tuple[Segment, ...]
"""Of a body, parents before children."""


def planar_body(family: str, shape: Shape) -> mujoco.MjSpec:
    """The body of that shape, simulated as the literature's of its family."""
    geom, joint = dict(LIMB), {}
    slippery = [0.1, 0.1, 0.1]  # a contact has the larger friction of the two
    if family == "planar":  # as half_cheetah.xml
        contact = {"solimp": [0, 0.8, 0.01, 0.5, 2], "solref": [0.02, 1]}
        geom |= contact
        joint = {"solimp_limit": [0, 0.8, 0.03, 0.5, 2], "solref_limit": [0.02, 1]}
        integrator, timestep, height = mujoco.mjtIntegrator.mjINT_EULER, 0.01, 0.7
        spec = on_ground(family, integrator, timestep, friction=slippery, **contact)
    else:  # as walker2d.xml
        integrator, timestep, height = mujoco.mjtIntegrator.mjINT_RK4, 0.002, 1.25
        spec = on_ground(family, integrator, timestep, friction=slippery)
    spec.memory = 2**20  # bytes, of which such bodies use a fiftieth; MuJoCo would reserve 14 times as many
    placed = {"": (spec.worldbody, np.zeros(3))}
    for own in shape:
        parent, origin_of_parent = placed[own.parent]
        frame = np.array([own.frame[0], 0.0, own.frame[1]])
        origin = np.array(own.place) + frame
        body = parent.add_body(name=own.name, pos=origin - origin_of_parent)
        placed[own.name] = body, origin
        if own.hinge is None:
            body.pos = [0, 0, height]
            planar_root(spec, body)
        else:
            hinge = own.hinge
            # Turning forward is turning about -y.
            limits = sorted(-hinge.axis * limit for limit in hinge.limits)
            values = {name: getattr(hinge, name) for name in ("stiffness", "damping", "armature")}
            add_hinge(body, own.name, (0, hinge.axis, 0), tuple(limits), pos=-frame, **values, **joint)
            add_motor(spec, own.name, hinge.strength, name=own.name)
        for index, capsule in enumerate(own.capsules):
            fields = {**geom, "density": own.density, "friction": [capsule.friction, 0.1, 0.1]}
            name = f"{own.name}_geom_{index}"
            start, end = (np.array([x, 0.0, z]) - frame for x, z in (capsule.start, capsule.end))
            if capsule.start == capsule.end:
                sphere = {"type": mujoco.mjtGeom.mjGEOM_SPHERE, "size": [capsule.radius, 0, 0]}
                body.add_geom(name=name, pos=start, **sphere, **fields)
            else:
                add_capsule(body, name, tuple(start), tuple(end), capsule.radius, **fields)
    return spec


def lowest(shape: Sequence[Segment]) -> float:
    """Height of the lowest point of some segments above the root's origin, m."""
    return min(s.place[2] + min(c.start[1], c.end[1]) - c.radius for s in shape for c in s.capsules)
