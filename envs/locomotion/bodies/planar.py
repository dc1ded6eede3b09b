"""Drawn planar bodies, of a topology and sizes of their own for every number: runners and upright walkers.

``planar`` surrounds the cheetahs and ``planar_upright`` the walkers, hoppers and planar humanoids of
`recipes`: their lengths, masses, joints, springs and motors lie inside what is drawn, and no drawn body is
one of them or close to one (`near_twins`). A body depends on its family and number only.

Part of the drawn segments is shrunk, some nearly to nothing, so that whether a body has a segment is a matter
of degree.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import mujoco
import numpy as np

from .near_twins import is_near_literature
from .planar_shape import Capsule, Hinge, Segment, Shape, lowest, planar_body

STREAM = 20261  # with a family's place and a body's number it seeds the stream

RANGES = {
    "planar": {
        "trunk": (0.7, 1.3),  # length of all its parts, m
        "trunk_radius": (0.036, 0.06),  # m
        "origin": (0.4, 0.6),  # of the root's frame, as a part of its length from behind
        "head": (0.2, 0.4),  # length, m
        "head_tilt": (0.6, 1.1),  # from the vertical, rad
        "head_place": (0.75, 1.1),  # of its middle from the trunk's end, in half lengths, along x and z
        "density": (450.0, 850.0),  # kg/m³
        "friction": (0.3, 0.6),
        "end": (-0.03, 0.15),  # of a leg near an end of the trunk: how far from it, as a part of the trunk
        "thigh": (0.18, 0.36),  # length, m
        "second": (0.65, 1.25),  # length relative to the segment above
        "further": (0.5, 0.95),
        "radius": (0.036, 0.058),  # of a leg, m
        "bend": (10.0, 55.0),  # of the first segment from straight down, degrees
        "second_bend": (15.0, 75.0),
        "further_bend": (0.0, 50.0),
        "back": (0.35, 1.3),  # how far a joint turns backward from the start, rad
        "forward": (0.35, 1.3),
        "strength": (80.0, 160.0),  # of the first motor, N·m
        "weaker": (0.45, 0.95),  # strength relative to the motor above
        "stiffness": (1.3, 2.4),  # relative to the strength, per rad
        "damping": (0.015, 0.035),  # relative to the stiffness, s
        "armature": (0.06, 0.15),  # kg m²
        "shrunk": (0.05, 1.0),  # length of a shrunk segment, as a part of the drawn one
    },
    "planar_upright": {
        "trunk": (0.32, 0.62),
        "trunk_radius": (0.043, 0.1),
        "origin": (0.4, 1.0),  # from below
        "head_radius": (0.07, 0.11),  # m
        "neck": (0.0, 0.13),  # between trunk and head, m
        "density": (850.0, 1150.0),
        "friction": (0.7, 1.1),
        "foot_friction": (0.8, 2.2),
        "hip": (0.0, 0.06),  # below the trunk, m
        "thigh": (0.28, 0.52),
        "second": (0.75, 1.35),
        "further": (0.6, 1.2),
        "radius": (0.035, 0.068),
        "bend": (0.0, 25.0),  # of the thigh; the others bring the foot back below the hip
        "frame": (0.3, 0.6),  # of lower segments' frames from the joint, as a part of the length
        "toe": (0.08, 0.3),  # of a foot: ahead of the ankle, m
        "heel": (0.0, 0.16),  # behind it
        "foot_radius": (0.042, 0.07),
        "foot_frame": (0.3, 1.1),  # of a foot's frame ahead of the ankle, as a part of the toe
        "foot_drop": (0.04, 0.13),  # of a foot's frame below the ankle, m
        "hip_back": (0.6, 2.75),  # how far it turns backward, rad
        "hip_forward": (0.3, 2.1),
        "knee": (1.7, 2.8),  # how far it bends, one way only
        "ankle": (0.4, 1.0),  # how far it turns, either way
        "arm": (0.2, 0.34),
        "lower_arm": (0.8, 1.2),  # length relative to the upper arm
        "arm_radius": (0.03, 0.05),
        "shoulder": (-0.06, 0.12),  # below the trunk's upper end, m
        "shoulder_range": (1.0, 2.0),
        "elbow": (1.2, 2.0),
        "apart": (0.05, 0.22),  # of left and right limbs from the middle, m
        "strength": (80.0, 220.0),
        "weaker": (0.5, 1.05),
        "arm_strength": (10.0, 40.0),
        "log_damping": (-2.7, 1.75),  # of the hip: natural logarithm of N·m·s/rad
        "log_armature": (-5.3, 0.3),  # of kg m²
        "lower": (0.2, 1.1),  # damping and armature of the joints below, relative to the hip's
        "arm_damping": (0.05, 1.5),
        "arm_armature": (0.0028, 0.02),
        "stiffness": (0.0, 14.0),  # of a hip, N·m/rad, where it has a spring
        "shrunk": (0.05, 1.0),
    },
}
"""What is drawn, uniformly. How many limbs and segments there are is drawn below."""

LEGS = {"planar": 4, "planar_upright": 3}
ARMS, SPINE = 2, 3
MOST_LIMBS = 4

CLEARANCE = {"planar": 0.076, "planar_upright": 0.04}
"""m, between a body's lowest point and the ground at the start."""

SHORTEST = 0.12
"""m: so far below the trunk a drawn body reaches at least, so that it has something to move by."""


class _Draws:
    """Numbers of one body, from `RANGES` or not. Only `random` is called, which NumPy keeps."""

    def __init__(self, family: str, random: Callable[[], float]) -> None:
        self._ranges, self._random = RANGES[family], random

    def __call__(self, name: str) -> float:
        return self.between(*self._ranges[name])

    def between(self, low: float, high: float) -> float:
        return round(low + (high - low) * self._random(), 4)

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def sign(self, probability: float = 0.5) -> int:
        return 1 if self.chance(probability) else -1

    def count(self, weights: Sequence[float], first: int = 0) -> int:
        """``first`` or more, each with its weight."""
        at = self._random() * sum(weights)
        return first + next((i for i, end in enumerate(itertools.accumulate(weights)) if at < end), 0)


class _Middle(_Draws):
    """The middle of every range: for the body with every limb, which is not drawn."""

    def __init__(self, family: str) -> None:
        super().__init__(family, lambda: 0.5)


def drawn_shape(family: str, number: int) -> Shape:
    """The shape of that number: the first of its stream that `first_far` takes."""
    return first_far(family, np.random.default_rng([STREAM, list(RANGES).index(family), number]).random)


def first_far(family: str, random: Callable[[], float]) -> Shape:
    """The first shape of a stream of numbers in [0, 1) with something to move by and no near twin."""
    draws = _Draws(family, random)
    while True:
        shape = draw(family, draws)
        trunk = [own for own in shape if own.name.startswith("torso")]
        if lowest(trunk) - lowest(shape) >= SHORTEST and not is_near_literature(
            planar_body(family, shape).compile()
        ):
            return shape


def draw(family: str, draws: _Draws) -> Shape:
    """A shape, whatever it is close to."""
    return (_runner if family == "planar" else _upright)(draws)


def full_shape(family: str) -> Shape:
    """A body with every limb: in whose slots the limbs of all others go."""
    middle = _Middle(family)
    if family == "planar":
        return _runner(middle, SPINE, {slot: (slot - 1) / (LEGS[family] - 1) for slot in (1, 2, 3, 4)}, 4)
    return _upright(middle, SPINE, LEGS[family], ARMS, 4)


def drawn_body(family: str, number: int) -> mujoco.MjSpec:
    """The body of that number."""
    return planar_body(family, drawn_shape(family, number))


def full_body(family: str) -> mujoco.MjSpec:
    """The body with every limb, as near to the ground as the literature's: so near all others start."""
    shape = full_shape(family)
    spec = planar_body(family, shape)
    spec.body(shape[0].name).pos = [0, 0, CLEARANCE[family] - lowest(shape)]
    return spec


def _runner(
    draws: _Draws,
    spine: int | None = None,
    places: dict[int, float] | None = None,
    segments: int | None = None,
) -> Shape:
    """A trunk along x, with a head, on legs that fold; what is not given is drawn.

    ``places`` are those of its legs by their slots, from 0 at the rear end to 1 at the front one.
    """
    spine = spine or draws.count((6, 2, 1), 1)
    density, friction = draws("density"), draws("friction")
    length, radius, armature = draws("trunk"), draws("trunk_radius"), draws("armature")
    parts = [length * share for share in _shares(draws, spine)]  # from the front
    front = round((1 - draws("origin")) * parts[0], 4)
    ends = np.concatenate(([front], front - np.cumsum(parts)))
    tilt, nose = draws("head_tilt"), draws("head")
    along = nose / 2 * math.sin(tilt), nose / 2 * math.cos(tilt)
    center = front + draws("head_place") * along[0], draws("head_place") * along[1]
    head = Capsule(_less(center, along), _plus(center, along), radius, friction)
    trunk = []
    for index in range(spine):
        start, end = float(ends[index]), float(ends[index + 1])
        name = _numbered("torso", index)
        if index == 0:
            capsules = (Capsule((end, 0.0), (start, 0.0), radius, friction), head)
            trunk.append(Segment(name, "", (0.0, 0.0, 0.0), capsules, density))
        else:
            capsule = Capsule((end - start, 0.0), (0.0, 0.0), radius, friction)
            hinge = _spring_hinge(draws, draws("strength"), armature)
            above = _numbered("torso", index - 1)
            trunk.append(Segment(name, above, (start, 0.0, 0.0), (capsule,), density, hinge))
    if places is None:
        places = _places(draws)
    legs = []
    for slot, along_trunk in places.items():
        x = float(ends[-1] + along_trunk * length)
        carrier = max(0, min(spine - 1, int(np.sum(x < ends[1:]))))
        count = draws.count((0.12, 0.2, 0.25, 0.33, 0.1)) if segments is None else segments
        leg = _folding_leg(draws, f"leg_{slot}", trunk[carrier].name, x, count, density, friction, armature)
        legs.append((carrier, -count, leg))
    # Legs of one length on one part of the trunk come in the order of their places: few orders of bodies.
    legs.sort(key=lambda one: one[:2])
    return (*trunk, *(own for *_, leg in legs for own in leg))


def _places(draws: _Draws) -> dict[int, float]:
    """Where legs are along the trunk, by their slots: the quarter of the trunk, or the nearest free one."""
    count = draws.count((0.15, 0.55, 0.2, 0.1), 1)
    if count <= 2 and draws.chance(0.8):
        ends = [draws("end"), 1 - draws("end")]
        places = ends if count == 2 else [ends[draws.count((1, 1))]]
    else:
        places = [draws.between(-0.03, 1.03) for _ in range(count)]
        for index in range(1, count):
            if draws.chance(0.15):
                places[index] = places[index - 1]
    places.sort()
    slots, last = {}, 0
    for index, place in enumerate(places):
        last = min(
            max(1 + round(3 * min(max(place, 0.0), 1.0)), last + 1), LEGS["planar"] - (count - 1 - index)
        )
        slots[last] = place
    return slots


def _folding_leg(
    draws: _Draws,
    name: str,
    above: str,
    x: float,
    count: int,
    density: float,
    friction: float,
    armature: float,
) -> Shape:
    leg, place, sign = [], (x, 0.0, 0.0), draws.sign()
    length, radius, strength = draws("thigh"), draws("radius"), draws("strength")
    shrunk = _shrunk(draws, count, others=0.06)
    for index in range(count):
        if index == 1:
            length, sign = length * draws("second"), sign * -draws.sign(0.1)
        elif index > 1:
            length, sign = length * draws("further"), sign * -draws.sign(0.45)
        if index:
            strength *= draws("weaker")
        degrees = sign * draws(("bend", "second_bend", "further_bend", "further_bend")[index])
        hinge, size = _spring_hinge(draws, strength, armature), shrunk[index]
        end = _down(size * length, degrees)
        capsule = Capsule((0.0, 0.0), end, radius, friction)
        own = Segment(f"{name}_{index + 1}", above, place, (capsule,), density, hinge)
        leg.append(_shrink(own, size))
        above, place = own.name, (place[0] + end[0], place[1], place[2] + end[1])
    return tuple(leg)


def _spring_hinge(draws: _Draws, strength: float, armature: float) -> Hinge:
    stiffness = strength * draws("stiffness")
    limits = (-draws("back"), draws("forward"))
    return Hinge(limits, strength, stiffness, stiffness * draws("damping"), armature)


def _upright(
    draws: _Draws,
    spine: int | None = None,
    n_legs: int | None = None,
    n_arms: int | None = None,
    links: int | None = None,
) -> Shape:
    """A standing trunk on legs, perhaps with arms and a head; what is not given is drawn."""
    full = spine is not None
    spine = spine or draws.count((0.76, 0.16, 0.08), 1)
    density, friction, axis = draws("density"), draws("friction"), draws.sign()
    length, radius = draws("trunk"), draws("trunk_radius")
    parts = [length * share for share in _shares(draws, spine)]  # from below
    bottom = -draws("origin") * parts[0]
    ends = np.concatenate(([bottom], bottom + np.cumsum(parts)))
    strength, damping = draws("strength"), math.exp(draws("log_damping"))
    # Explicit integration needs the dampers to be slower than its steps.
    armature = max(math.exp(draws("log_armature")), damping / 500)
    trunk = []
    for index in range(spine):
        start, end = float(ends[index]), float(ends[index + 1])
        name, above = _numbered("torso", index), _numbered("torso", index - 1) if index else ""
        place = (0.0, 0.0, start) if index else (0.0, 0.0, 0.0)
        low = 0.0 if index else start
        capsules = [Capsule((0.0, low), (0.0, low + end - start), radius, friction)]
        if index == spine - 1 and draws.chance(0.5):
            ball = draws("head_radius")
            center = (0.0, low + end - start + radius + draws("neck"))
            capsules.append(Capsule(center, center, ball, friction))
        reach = draws("ankle"), draws("ankle")
        hinge = Hinge((-reach[0], reach[1]), strength * draws("weaker"), 0.0, damping, armature, axis)
        trunk.append(Segment(name, above, place, tuple(capsules), density, hinge if index else None))
    if n_legs is None:
        n_legs = draws.count((0.3, 0.6, 0.1), 1)
        n_arms = min(draws.count((0.5, 0.14, 0.36)), MOST_LIMBS - n_legs)
    hip = (draws.between(-0.03, 0.03), bottom - draws("hip"))
    plan = _leg_plan(draws, links, full, density, friction, axis, (strength, damping, armature))
    apart = draws("apart") if draws.chance(0.5) else 0.0
    limbs = []
    for index in range(n_legs):
        left = 0 if full or not draws.chance(0.35) else draws.count((1,) * len(plan))
        leg = plan[: len(plan) - left] if left < len(plan) else plan[:1]
        y = (apart, -apart, 0.0)[index] if n_legs > 1 else 0.0
        limbs.append(_hung(draws, f"leg_{index + 1}", trunk[0].name, (hip[0], y, hip[1]), leg, full))
    arm = _arm_plan(draws, density, friction, axis)
    shoulder, apart = float(ends[-1]) - draws("shoulder"), draws("apart") if draws.chance(0.8) else 0.0
    for index in range(n_arms):
        left = 0 if full else int(draws.chance(0.3))
        place = (0.0, (apart, -apart)[index], shoulder)
        limbs.append(_hung(draws, f"arm_{index + 1}", trunk[-1].name, place, arm[: 2 - left], full))
    return (*trunk, *(own for limb in limbs for own in limb))


Plan = list[tuple[str, tuple[float, float], Segment]]
"""Of a limb, from above: what its name ends with, where the next joint is (x, z) from its own, and a segment
whose name, parent and place are not known yet."""


def _leg_plan(
    draws: _Draws,
    links: int | None,
    full: bool,
    density: float,
    friction: float,
    axis: int,
    drive: tuple[float, float, float],
) -> Plan:
    """A leg of ``links`` and perhaps a foot or a sole; all legs of a body are made by one."""
    links = links or draws.count((0.15, 0.55, 0.25, 0.05), 1)
    strength, damping, armature = drive
    length, radius, sole = draws("thigh"), draws("radius"), draws("foot_radius")
    foot = 0 if full else draws.count((0.55, 0.25, 0.2))  # a segment of its own, fixed, none
    toe, heel = draws("toe"), draws("heel") if draws.chance(0.6) else 0.0
    rough = draws("foot_friction")
    frame = draws("frame") if draws.chance(0.5) else 0.0
    stiffness = draws("stiffness") if draws.chance(0.4) else 0.0
    bend = draws.sign() * draws("bend") if draws.chance(0.4) else 0.0
    knee = draws.sign(0.25)  # 1: it bends forward
    forward = 0.0 if draws.chance(0.35) else draws("hip_forward")
    limits, plan = (-draws("hip_back"), forward), []
    for index in range(links):
        if index:
            length = length * draws("second" if index == 1 else "further")
            angle = draws("knee")
            limits = (0.0, angle) if knee > 0 else (-angle, 0.0)
            if index > 1:
                knee *= draws.sign(0.7)
            lower = draws("lower")
            strength, stiffness = strength * draws("weaker"), stiffness * draws("lower") / 5
            damping, armature = damping * lower, max(armature * lower, damping * lower / 500)
            radius *= draws.between(0.75, 1.0)
        end = _down(length, bend)
        bend = -bend if index == 0 else -bend * 0.5
        capsules = [Capsule((0.0, 0.0), end, radius, friction)]
        if foot == 1 and index == links - 1:
            low = end[1] - 0.02
            capsules.append(Capsule((end[0] - heel, low), (end[0] + toe, low), sole, rough))
        hinge = Hinge(limits, strength, stiffness, damping, armature, axis)
        origin = (frame * end[0], frame * end[1]) if index else (0.0, 0.0)
        plan.append(
            (f"{index + 1}", end, Segment("", "", (0, 0, 0), tuple(capsules), density, hinge, origin))
        )
    if foot == 0:
        lower, ankle = draws("lower"), (-draws("ankle"), draws("ankle"))
        hinge = Hinge(
            ankle, strength * draws("weaker"), 0.0, damping * lower, max(armature * lower, 0.005), axis
        )
        capsule = Capsule((-heel, 0.0), (toe, 0.0), sole, rough)
        origin = (toe * draws("foot_frame"), -draws("foot_drop")) if draws.chance(0.6) else (0.0, 0.0)
        plan.append(("foot", (0.0, 0.0), Segment("", "", (0, 0, 0), (capsule,), density, hinge, origin)))
    return plan


def _arm_plan(draws: _Draws, density: float, friction: float, axis: int) -> Plan:
    length, radius, strength = draws("arm"), draws("arm_radius"), draws("arm_strength")
    damping, armature, turn = draws("arm_damping"), draws("arm_armature"), draws("shoulder_range")
    stiffness = draws.between(0.0, 2.0) if draws.chance(0.5) else 0.0
    plan = []
    for index, limits in enumerate(
        ((-turn, draws("shoulder_range")), (-draws.between(0.0, 0.2), draws("elbow")))
    ):
        if index:
            length, strength = length * draws("lower_arm"), strength * draws.between(0.7, 1.1)
            radius, damping = radius * draws.between(0.8, 1.0), damping * draws.between(0.6, 1.1)
            armature, stiffness = max(0.0028, armature * draws.between(0.4, 1.0)), 0.0
        end = (0.0, -length)
        hinge = Hinge(limits, strength, stiffness, damping, max(armature, damping / 500), axis)
        capsules = (Capsule((0.0, 0.0), end, radius, friction),)
        plan.append((f"{index + 1}", end, Segment("", "", (0, 0, 0), capsules, density, hinge)))
    return plan


def _hung(
    draws: _Draws, name: str, above: str, place: tuple[float, float, float], plan: Plan, full: bool
) -> Shape:
    """A limb made by a plan, some of its segments shrunk."""
    sizes, limb = [1.0] * len(plan) if full else _shrunk(draws, len(plan), others=0.03), []
    for (ending, end, own), size in zip(plan, sizes, strict=True):
        own = replace(own, name=f"{name}_{ending}", parent=above, place=place)
        capsules = tuple(
            replace(c, start=_times(c.start, size), end=_times(c.end, size)) for c in own.capsules
        )
        own = replace(own, capsules=capsules, frame=_times(own.frame, size))
        limb.append(_shrink(own, size))
        x, z = _times(end, size)
        above, place = own.name, (place[0] + x, place[1], place[2] + z)
    return tuple(limb)


def _shrunk(draws: _Draws, count: int, others: float) -> list[float]:
    """Sizes of a limb's segments, relative to those drawn: many a last one is smaller, few others are."""
    last = draws.chance(0.4)
    return [
        draws("shrunk") if draws.chance(others) or (last and index == count - 1) else 1.0
        for index in range(count)
    ]


def _shrink(own: Segment, size: float) -> Segment:
    """A segment whose lengths are ``size`` times the drawn ones already: thinner, with a weaker joint.

    The armature stays, so that the joint is as stable as before.
    """
    if size == 1.0:
        return own
    capsules = tuple(replace(c, radius=c.radius * math.sqrt(size)) for c in own.capsules)
    hinge = own.hinge
    driven = {name: size * getattr(hinge, name) for name in ("strength", "stiffness", "damping")}
    return replace(own, capsules=capsules, hinge=replace(hinge, **driven))


def _shares(draws: _Draws, count: int) -> list[float]:
    sizes = [draws.between(0.7, 1.3) for _ in range(count)]
    return [size / sum(sizes) for size in sizes]


def _numbered(name: str, index: int) -> str:
    return f"{name}_{index + 1}" if index else name


def _down(length: float, degrees: float) -> tuple[float, float]:
    """(x, z) of a vector that leans forward by so many degrees from straight down."""
    angle = math.radians(degrees)
    return length * math.sin(angle), -length * math.cos(angle)


def _plus(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return one[0] + other[0], one[1] + other[1]


def _times(one: tuple[float, float], factor: float) -> tuple[float, float]:
    return one[0] * factor, one[1] * factor


def _less(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return _plus(one, _times(other, -1.0))


PLANAR, UPRIGHT = (
    {f"{family}_{number}": functools.partial(drawn_body, family, number) for number in range(64)}
    for family in RANGES
)
"""Those that are listed."""
