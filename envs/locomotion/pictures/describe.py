"""What a body is made of, as plain data in SI units: limbs, joint rows, actuators, and what was left out."""

from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import dataclass

import mujoco
import numpy as np

from ..bodies.actuators import feedback, force_span, is_position_servo, listed, read_controls
from ..bodies.descriptors import LENGTH_UNIT, gear_size, transmission_axis
from ..bodies.model import (
    ADHESION,
    BALL,
    CRANK,
    FREE,
    HINGE,
    SITE,
    TENDON,
    JointSlot,
    Limb,
    body_joints,
    joint_range,
    tendon_range,
)
from ..bodies.morphology import Morphology
from ..env import LocomotionEnv
from ..limb_spec import LIMB_SPEC
from ..task import LocomotionTask

_TRANSMISSIONS = {TENDON: "tendon", SITE: "site", ADHESION: "adhesion", CRANK: "slider-crank"}


@dataclass(frozen=True)
class ActuatorRow:
    """What drives a joint row."""

    name: str  # its own, or its number
    kind: str  # motor, position servo, velocity servo, muscle, damper, adhesion or general
    control: tuple[float, float]  # physical controls that can be given, low and high
    control_unit: str  # rad, m, rad/s, m/s, or 1 for a plain number
    strength: float  # largest force of the span of nominal actions, gear included
    strength_unit: str  # N m or N


@dataclass(frozen=True)
class JointRow:
    """A joint row."""

    name: str
    kind: str  # hinge, slide, ball x, ball y, ball z, tendon, site and so on
    limits: tuple[float, float] | None  # low and high
    unit: str  # rad or m
    actuator: ActuatorRow | None


@dataclass(frozen=True)
class LimbRow:
    """A limb."""

    name: str
    parent: str  # its name, "" for a root
    parent_index: int
    merged: tuple[str, ...]  # bodies welded to it
    mass: float  # kg
    size: tuple[float, float, float]  # sides of its box, m
    joints: tuple[JointRow, ...]


@dataclass(frozen=True)
class Description:
    """All that is told of a body; lengths in m, masses in kg, times in s. ``tip`` is "" where it travels."""

    name: str
    limbs: tuple[LimbRow, ...]
    n_actuators: int
    mass: float
    standing_height: float
    tip: str
    reach: float
    timestep: float
    frame_skip: int
    hash: str
    notes: tuple[str, ...]

    @property
    def n_joint_rows(self) -> int:
        """Joint rows of all limbs."""
        return sum(len(limb.joints) for limb in self.limbs)

    @property
    def totals(self) -> tuple[str, ...]:
        """What is told of the body as a whole, in words; the numbers of its parts and its mass first."""
        step = self.timestep * self.frame_skip
        return (
            _count(len(self.limbs), "limb"),
            _count(self.n_joint_rows, "joint row"),
            _count(self.n_actuators, "actuator"),
            f"{self.mass:.3g} kg",
            f"root stands at {self.standing_height:.3g} m",
            self.motion,
            f"timestep {self.timestep:g} s × frame skip {self.frame_skip} = {step:.4g} s a step",
            f"hash {self.hash}",
        )

    @property
    def motion(self) -> str:
        """Whether it travels, or what it reaches with."""
        return f"reaches with {self.tip}, {self.reach:.3g} m" if self.tip else "travels"


def describe(body: Morphology, frame_skip: int) -> Description:
    """Reads a body whose task takes ``frame_skip`` substeps in a step."""
    columns = LIMB_SPEC.token_slice("size")
    first = int(LIMB_SPEC.token_is_state().sum())
    sizes = 2 * LENGTH_UNIT * body.limb_descriptors[:, columns.start - first : columns.stop - first]
    limbs = tuple(
        LimbRow(
            name=limb.name,
            parent=body.limbs[limb.parent].name if limb.parent >= 0 else "",
            parent_index=limb.parent,
            merged=tuple(_label(body.model.body(part).name, "body", part) for part in limb.bodies[1:]),
            mass=float(body.model.body_mass[list(limb.bodies)].sum()),
            size=tuple(float(side) for side in size),
            joints=tuple(_joint_row(body, limb, slot) for slot in limb.slots),
        )
        for limb, size in zip(body.limbs, sizes, strict=True)
    )
    tip = body.tip
    return Description(
        name=body.name,
        limbs=limbs,
        n_actuators=int(body.model.nu),
        mass=body.mass,
        standing_height=body.standing_height,
        tip=limbs[tip].name if tip >= 0 else "",
        reach=body.limb_reach[tip] if tip >= 0 else 0.0,
        timestep=float(body.model.opt.timestep),
        frame_skip=frame_skip,
        hash=body.hash,
        notes=tuple(dict.fromkeys([*body.notes, *_left_out(body)])),
    )


def start_tokens(body: Morphology) -> np.ndarray:
    """(N, F) float32: what each limb observes in the start pose, at rest; columns as in `LIMB_SPEC`."""
    still = LocomotionTask(reset_noise=0.0, reset_speed_noise=0.0)
    with closing(LocomotionEnv([body], 1, still, threads=1)) as env:
        return env.reset(seed=0)["tokens"][0].numpy()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _label(name: str, what: str, number: int) -> str:
    return name or f"{what} {number}"


def _joint_row(body: Morphology, limb: Limb, slot: JointSlot) -> JointRow:
    model, joint = body.model, slot.joint
    if joint < 0:
        name, kind, limits = _transmission(model, slot.actuator)
        turns = transmission_axis(model, limb, slot.actuator)[0]
    else:
        name, limits = _label(model.joint(joint).name, "joint", joint), joint_range(model, joint)
        turns = int(model.jnt_type[joint]) in (HINGE, BALL)
        kind = "hinge" if turns else "slide"
        if int(model.jnt_type[joint]) == BALL:  # its range is that of the whole turn, whatever the axis
            kind, limits = f"ball {'xyz'[slot.axis]}", limits and (-limits[1], limits[1])
    actuator = None if slot.actuator < 0 else _actuator_row(body, slot.actuator, turns)
    return JointRow(name, kind, limits, "rad" if turns else "m", actuator)


def _transmission(model: mujoco.MjModel, actuator: int) -> tuple[str, str, tuple[float, float] | None]:
    """Name and kind of what an actuator acts through that drives no hinge or slide, and its limits."""
    target = int(model.actuator_trnid[actuator, 0])
    what = _TRANSMISSIONS.get(int(model.actuator_trntype[actuator]), "joint")
    owner = {"tendon": model.tendon, "adhesion": model.body, "joint": model.joint}.get(what, model.site)
    name = _label(owner(target).name, "body" if what == "adhesion" else what, target)
    limits = tendon_range(model, target) if what == "tendon" else None
    if what == "joint":
        what = "ball motor" if int(model.jnt_type[target]) == BALL else "free motor"
    return name, what, limits


def _actuator_row(body: Morphology, number: int, turns: bool) -> ActuatorRow:
    model, controls, kind = body.model, body.controls, actuator_kind(body.model, number)
    length = "rad" if turns else "m"
    return ActuatorRow(
        name=_label(model.actuator(number).name, "actuator", number),
        kind=kind,
        control=(float(controls.low[number]), float(controls.high[number])),
        control_unit={"position servo": length, "velocity servo": f"{length}/s"}.get(kind, "1"),
        strength=gear_size(model, number) * force_span(model, number, float(controls.half[number])),
        strength_unit="N m" if turns else "N",
    )


def actuator_kind(model: mujoco.MjModel, actuator: int) -> str:
    """What an actuator is called, told from its gain and bias and not from the element that made it."""
    gain, bias = int(model.actuator_gaintype[actuator]), int(model.actuator_biastype[actuator])
    if int(model.actuator_trntype[actuator]) == ADHESION:
        return "adhesion"
    if gain == int(mujoco.mjtGain.mjGAIN_MUSCLE):
        return "muscle"
    if is_position_servo(model, actuator):
        return "position servo"
    if gain == int(mujoco.mjtGain.mjGAIN_AFFINE) and bias == int(mujoco.mjtBias.mjBIAS_NONE):
        return "damper"
    of_length, of_rate = feedback(model, actuator)
    # The first is MuJoCo's intvelocity: a servo whose target is integrated.
    if of_length > 0 or (of_rate > 0 and np.isclose(model.actuator_gainprm[actuator, 0], of_rate)):
        return "velocity servo"
    if gain == int(mujoco.mjtGain.mjGAIN_FIXED) and bias == int(mujoco.mjtBias.mjBIAS_NONE):
        return "motor"
    return "general"


def _left_out(body: Morphology) -> list[str]:
    """What of the model is no part of the limbs, in words, where the body's own notes do not say it."""
    model = body.model
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_controls(model, body.home, body.home_controls)
    notes = [*_scenery(body), *(_placing(body, limb) for limb in body.limbs if limb.parent < 0)]
    notes += [str(warning.message) for warning in caught]
    if model.nsensor:
        notes.append(f"sensors are not observed ({model.nsensor}); limbs and joints are")
    if model.neq:
        notes.append(f"equality constraints ({model.neq}) act in the simulation and are not observed")
    return [note for note in notes if note]


def _scenery(body: Morphology) -> list[str]:
    """Trees that are no limbs, in one line for each reason."""
    model = body.model
    found: dict[str, list[str]] = {}
    for part in range(1, model.nbody):
        if part in body.parts or int(model.body_rootid[part]) != part:
            continue
        why = "without joints"
        if model.body_mocapid[part] >= 0:
            why = "moved by the user alone"
        elif model.body_jntnum[model.body_rootid == part].any():
            why = "without an actuator"
        found.setdefault(why, []).append(repr(_label(model.body(part).name, "body", part)))
    return [f"{why}, so scenery and no limb: {listed(names)}" for why, names in found.items()]


def _placing(body: Morphology, limb: Limb) -> str:
    """The joints that place a root in the world, which are no joint rows; "" if there are none."""
    model, part = body.model, limb.bodies[0]
    rows = {slot.joint for slot in limb.slots}
    placing = [joint for joint in body_joints(model, part) if joint not in rows]
    if not placing:
        return ""
    kinds = ["free joint" if int(model.jnt_type[j]) == FREE else "joint" for j in placing]
    names = ", ".join(_label(model.joint(j).name, k, j) for j, k in zip(placing, kinds, strict=True))
    what = "only places" if len(placing) == 1 else "only place"
    return f"{names} {what} {limb.name!r} in the world: no joint row{'s' * (len(placing) > 1)}"
