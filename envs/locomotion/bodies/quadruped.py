"""Drawn bodies: a box on 3 to 6 springy legs, of other sizes for every number.

Everything about a body is drawn from `RANGES`, by a stream that depends on its number only: ``quadruped_17``
is the same body on every machine. All start upright, with their feet on the ground.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import mujoco
import numpy as np

from .model_edits import LIMB, add_capsule, add_hinge, add_motor, on_ground, with_fixed_inertias

STREAM = 20260  # with a body's number it seeds the stream; another one would be another family

RANGES = {
    "half_length": (0.16, 0.30),  # of the box, m
    "half_width": (0.10, 0.20),  # m
    "half_height": (0.03, 0.06),  # m
    "density": (300.0, 600.0),  # of the box, kg/m³
    "thigh": (0.18, 0.30),  # length, m
    "shin_to_thigh": (1.0, 1.5),  # ratio of the lengths
    "radius": (0.02, 0.03),  # of thigh and shin, m
    "rise": (-30.0, 15.0),  # of the thigh above the horizontal, degrees
    "stretch": (0.85, 0.97),  # how far the most stretched shin reaches down, as a part of its length
    "strength": (1.6, 3.2),  # motor torque, in units of a leg's share of the weight times its length
    "spring": (3.0, 6.0),  # joint stiffness per rad, in the same
    "damping": (0.2, 0.4),  # joint damping per rad/s, in the same
    "angle": (-20.0, 20.0),  # where a leg is in its sixth of the circle, degrees from the middle
    "size": (0.9, 1.1),  # of a leg, relative to the body's other legs
}
"""What is drawn, uniformly: once for a body, but for ``angle`` and ``size``, once for each leg."""

PLACES = ("left_front", "left_middle", "left_back", "right_back", "right_middle", "right_front")
"""Names of legs: the sixths of the circle about the vertical, from straight ahead (x) to the left."""

LEG_DENSITY = 1000.0  # kg/m³
JOINTS = {"yaw": ((0, 0, 1), 35.0), "pitch": ((0, 1, 0), 45.0), "knee": ((0, 1, 0), 60.0)}
"""Axis and largest angle from the start, degrees. The first two join thigh and box."""


@dataclass(frozen=True)
class Shape:
    """The numbers of a body, in the units of `RANGES`; ``legs`` maps each place to (angle, size)."""

    values: dict[str, float]
    legs: dict[str, tuple[float, float]]


def drawn_shape(number: int) -> Shape:
    """The shape of that number. Only `random` is called, whose stream NumPy keeps between versions."""
    random = np.random.default_rng([STREAM, number]).random
    values = {name: _drawn(name, random) for name in RANGES if name not in ("angle", "size")}
    count = 3 + int(4 * random())
    layouts = [chosen for chosen in combinations(range(6), count) if _stands(chosen)]
    chosen = layouts[int(len(layouts) * random())]
    return Shape(
        values, {PLACES[sixth]: (_drawn("angle", random), _drawn("size", random)) for sixth in chosen}
    )


def full_shape() -> Shape:
    """Six legs and the middle of every range: the body in whose slots the legs of all others go."""
    values = {name: (low + high) / 2 for name, (low, high) in RANGES.items()}
    leg = values.pop("angle"), values.pop("size")
    return Shape(values, dict.fromkeys(PLACES, leg))


def _drawn(name: str, random: Callable[[], float]) -> float:
    low, high = RANGES[name]
    return round(low + (high - low) * random(), 4)


def _stands(chosen: tuple[int, ...]) -> bool:
    """Whether the feet surround the centre: no two neighbouring sixths without a leg."""
    return all(sixth in chosen or (sixth + 1) % 6 in chosen for sixth in range(6))


def quadruped(shape: Shape) -> mujoco.MjSpec:
    """The body of that shape, standing on the ground with its joints in the middle of their ranges."""
    v = shape.values
    spec = on_ground("quadruped", mujoco.mjtIntegrator.mjINT_IMPLICITFAST, 0.005)
    reach = {place: _reach(shape, size) for place, (_, size) in shape.legs.items()}
    below = min(reach.values())  # from the hips' height to the feet's centres
    torso = spec.worldbody.add_body(name="torso", pos=[0, 0, below + v["radius"]])
    torso.add_freejoint(name="root")
    box = [v["half_length"], v["half_width"], v["half_height"]]
    torso.add_geom(name="torso_geom", type=mujoco.mjtGeom.mjGEOM_BOX, size=box, density=v["density"], **_GEOM)
    for place in shape.legs:
        _add_leg(spec, torso, shape, place, below)
    with_fixed_inertias(spec)
    # Springs, dampers and motors in proportion to what a leg carries.
    mass = sum(body.mass for body in spec.bodies[1:])
    unit = mass / len(shape.legs) * 9.81 * v["thigh"] * (1 + v["shin_to_thigh"])  # N·m
    for joint in spec.joints:
        if joint.name != "root":
            # Polynomials, of which the first coefficient is the ordinary stiffness and damping.
            joint.stiffness = [round(v["spring"] * unit, 2), 0, 0]
            joint.damping = [round(v["damping"] * unit, 3), 0, 0]
            add_motor(spec, joint.name, round(v["strength"] * unit, 2))
    return spec


def _reach(shape: Shape, size: float) -> float:
    """How far below its hip a leg of that size reaches, m, when its shin is stretched as drawn."""
    v = shape.values
    return size * v["thigh"] * (v["shin_to_thigh"] * v["stretch"] - math.sin(math.radians(v["rise"])))


_GEOM = {**LIMB, "friction": [1.0, 0.1, 0.1]}


def _add_leg(spec: mujoco.MjSpec, torso: mujoco.MjsBody, shape: Shape, place: str, below: float) -> None:
    v, (angle, size) = shape.values, shape.legs[place]
    heading = math.radians(60 * PLACES.index(place) + 30 + angle)
    outward = np.array([math.cos(heading), math.sin(heading)])
    edge = min(v["half_length"] / abs(outward[0]), v["half_width"] / abs(outward[1]))
    # x of the thigh's frame points outward.
    turn = [math.cos(heading / 2), 0, 0, math.sin(heading / 2)]
    thigh = torso.add_body(name=f"{place}_thigh", pos=[*(edge * outward), 0], quat=turn)
    length, rise = size * v["thigh"], math.radians(v["rise"])
    knee = (length * math.cos(rise), 0.0, length * math.sin(rise))
    add_capsule(thigh, f"{place}_thigh_geom", (0, 0, 0), knee, v["radius"], density=LEG_DENSITY, **_GEOM)
    shin = thigh.add_body(name=f"{place}_shin", pos=knee)
    length *= v["shin_to_thigh"]
    down = below + knee[2]
    foot = (math.sqrt(length**2 - down**2), 0.0, -down)  # feet of all legs at one height
    add_capsule(shin, f"{place}_shin_geom", (0, 0, 0), foot, v["radius"], density=LEG_DENSITY, **_GEOM)
    for body, name in ((thigh, "yaw"), (thigh, "pitch"), (shin, "knee")):
        axis, degrees = JOINTS[name]
        limit = math.radians(degrees)
        add_hinge(body, f"{place}_{name}", axis, (-limit, limit), armature=0.02)


def drawn_quadruped(number: int) -> mujoco.MjSpec:
    """The body of that number."""
    return quadruped(drawn_shape(number))


QUADRUPEDS = {f"quadruped_{number}": partial(drawn_quadruped, number) for number in range(128)}
"""Those that are listed."""
