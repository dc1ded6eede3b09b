"""Any MJCF file as a body: what its limbs need to stand, start and be stepped, read from the model.

Nothing is asked of the user but the file. Sensors, equality constraints, cameras and objects of the
scene stay as they are; a floor is added where a robot that can fall has none.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np

from ...errors import UserError, nearest, one_line
from ..limb_spec import LIMB_SPEC
from .actuators import held_activation, listed
from .descriptors import LARGEST_FEATURE
from .model import SCALAR, touching_geoms
from .morphology import Morphology

HOME_KEYS = ("home", "stand", "standing", "neutral", "default", "init", "initial")
"""Names of keyframes that are taken for the home pose where a model has several."""

STABLE_SECONDS = 0.2  # how long a body is simulated under its home controls when it is read
_PLACE_TOLERANCE = 0.02  # of the standing height; feet may sink into the floor or hang that far above it


def load_morphology(name: str, path: Path, keyframe: str | int | None = None) -> Morphology:
    """Read an MJCF file that has been checked: see `user_bodies` and `mjcf_files`.

    The start is a keyframe (the one asked for, the only one, or one called ``home`` or the like), else
    ``qpos0`` within the joints' ranges; a robot that can fall is put onto the ground.

    Args:
        name: what tables and logs call the body.
        path: the file; includes and meshes are found beside it.
        keyframe: name or number of the keyframe that is the start; None: the home keyframe.

    Raises:
        UserError: it cannot be read or compiled, has no actuator or no such keyframe, or its simulation
            diverges at once; with the reason and the element.
    """
    try:
        body = _load(name, path, keyframe)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # told when the body is used, which is made anew below
            activation = body.home_activation
            if activation is None and body.model.na:
                lengths = body.placed(body.initial_qpos).actuator_length
                activation = held_activation(body.model, body.controls, lengths)
            body = dataclasses.replace(body, home_activation=activation)
            _check_descriptors(body, path)
            notes = _check_stable(body, path)
        return dataclasses.replace(body, notes=(*body.notes, *notes))
    except (mujoco.FatalError, mujoco.UnexpectedError) as error:
        raise UserError(f"{path} cannot be simulated: {one_line(str(error))}") from error


def _load(name: str, path: Path, keyframe: str | int | None) -> Morphology:
    spec = functools.partial(_parse, path)
    parsed = spec()
    body = Morphology(name, _compile(parsed, path), spec=spec)
    try:
        _check_spec(parsed)
        check_model(body.model)
        _ = body.limbs
        body, is_keyframe, notes = _with_home(body, keyframe)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    notes += _reversed_ranges(body.model)
    ground = ground_below(body)
    if ground is None:
        ground = body.lowest_point(body.home)
        if body.can_fall:
            spec = functools.partial(_with_floor, path, ground, *_collision_bits(body.model))
            body = dataclasses.replace(body, model=_compile(spec(), path), spec=spec)
            notes.append("a floor was added, since nothing lies below the robot")
    body = dataclasses.replace(body, ground=ground)
    floats, note = _put_on_ground(body, is_keyframe)
    return dataclasses.replace(body, floats=floats, notes=(*notes, *note))


def ground_below(body: Morphology) -> float | None:
    """Height (m) of what lies below the root at home and cannot move: floor, terrain or table."""
    model, data = body.model, body.placed(body.initial_qpos)
    fixed = touching_geoms(model) & (model.body_weldid[model.geom_bodyid] == 0)
    probe = copy.copy(model)  # in which a ray meets nothing else
    probe.geom_group[:] = ~fixed | np.isin(model.geom_bodyid, body.parts)
    probe.geom_rgba[:, 3], probe.geom_matid[:] = 1, -1  # rays pass what is not drawn
    start = data.xpos[body.root].copy()
    start[2] = max(start[2], body.lowest_point(body.initial_qpos)) + 1e-6
    # The rectangle of a plane is what is drawn of it; bodies touch it everywhere.
    level = (model.geom_type == int(mujoco.mjtGeom.mjGEOM_PLANE)) & (data.geom_xmat[:, 8] > 0.99)
    heights = [float(z) for z in data.geom_xpos[fixed & level, 2] if z < start[2]]
    groups, geom = np.array([1, 0, 0, 0, 0, 0], np.uint8), np.full(1, -1, np.int32)
    distance = mujoco.mj_ray(probe, data, start, np.array([0.0, 0, -1]), groups, 1, -1, geom, None)
    if geom[0] >= 0:
        heights.append(float(start[2] - distance))
    return max(heights, default=None)


def _parse(path: Path) -> mujoco.MjSpec:
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        return mujoco.MjSpec.from_file(os.path.abspath(path))
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path} is no MJCF that MuJoCo reads: {one_line(str(error))}") from error


def _with_floor(path: Path, height: float, contype: int, conaffinity: int) -> mujoco.MjSpec:
    spec = _parse(path)
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[0, 0, 0.05],
        pos=[0, 0, height],
        contype=contype,
        conaffinity=conaffinity,
        rgba=[0.8, 0.9, 0.8, 1],
    )
    return spec


def _collision_bits(model: mujoco.MjModel) -> tuple[int, int]:
    """``contype`` and ``conaffinity`` of a floor that all touch which move and touch anything."""
    moving = model.body_weldid[model.geom_bodyid] != 0
    bits = [np.bitwise_or.reduce(b[moving], initial=0) for b in (model.geom_conaffinity, model.geom_contype)]
    return int(bits[0]) or 1, int(bits[1]) or 1


def _compile(spec: mujoco.MjSpec, path: Path) -> mujoco.MjModel:
    try:
        return spec.compile()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path} does not compile: {one_line(str(error))}") from error


def _find_keyframe(names: list[str], keyframe: str | int) -> int:
    """Number of the keyframe of that name or number. Raises UserError."""
    if str(keyframe) in names:
        return names.index(str(keyframe))
    if str(keyframe).isdecimal() and int(keyframe) < len(names):
        return int(keyframe)
    if not names:
        raise UserError(
            f"it has no keyframe, so none that env.keyframe={keyframe} could mean; leave that out"
        )
    hint = nearest(str(keyframe), [name or str(number) for number, name in enumerate(names)])
    raise UserError(f"it has no keyframe {keyframe!r}; {hint}; or a number from 0 to {len(names) - 1}")


def _with_home(body: Morphology, keyframe: str | int | None) -> tuple[Morphology, bool, list[str]]:
    """The body at home, whether a keyframe says where that is, and notes."""
    model = body.model
    names = [model.key(key).name for key in range(model.nkey)]
    chosen = [key for word in HOME_KEYS for key, name in enumerate(names) if name.lower() == word]
    if len(names) == 1:
        chosen = [0]
    if keyframe is not None:
        chosen = [_find_keyframe(names, keyframe)]
    if chosen:
        key = chosen[0]
        named = f"keyframe {names[key]!r}" if names[key] else f"keyframe {key}"
        for field in ("qpos", "ctrl", "act"):
            values = getattr(model, f"key_{field}")[key]
            if not (np.abs(values) < mujoco.mjMAXVAL).all():
                raise UserError(f"{named}: {field} is {_shown(values)}; numbers are below 1e10")
        given = (model.key_ctrl[key], model.key_act[key])
        controls, activation = (values.copy() if values.any() else None for values in given)
        at = {"home": model.key_qpos[key].copy(), "home_controls": controls, "home_activation": activation}
        return dataclasses.replace(body, **at), True, [f"the start is the {named}"]
    notes = []
    if names:
        choices = listed([name or str(number) for number, name in enumerate(names)])
        notes.append(
            f"none of the {len(names)} keyframes is called home: the start is qpos0 (env.keyframe: {choices})"
        )
    home, moved = model.qpos0.copy(), []
    for joint in np.flatnonzero(model.jnt_limited.astype(bool) & np.isin(model.jnt_bodyid, body.parts)):
        if int(model.jnt_type[joint]) in SCALAR:
            at = int(model.jnt_qposadr[joint])
            home[at] = np.clip(home[at], *model.jnt_range[joint])
            if home[at] != model.qpos0[at]:
                moved.append(model.joint(int(joint)).name or str(joint))
    if moved:
        notes.append(f"start at an end of their range, as qpos0 is outside: {listed(moved)}")
    return dataclasses.replace(body, home=home), False, notes


def _put_on_ground(body: Morphology, is_keyframe: bool) -> tuple[bool, list[str]]:
    """Move the home of a robot that can fall onto the ground, in place; a keyframe may lift it off.

    Returns:
        Whether it starts above the ground, and notes.
    """
    gap = body.lowest_point(body.home) - body.ground
    off = abs(gap) > _PLACE_TOLERANCE * max(body.standing_height, 1e-6)
    if not (body.can_fall and off):
        return False, []
    before = body.home.copy()
    if gap < 0 or not is_keyframe:
        body.raise_root(body.home, -gap)
    if np.array_equal(before, body.home):
        told = [f"the start is {gap:.3g} m above the ground, as the keyframe says"] if gap > 0 else []
        return gap > 0, told
    moved = "lowered" if gap > 0 else "raised"
    return False, [f"the start was {moved} by {abs(gap):.3g} m onto the ground"]


_CAUSES = {
    "center_of_mass": "pos of its inertial or geoms",
    "gyration": "inertia",
    "size": "size of its geoms",
    "center": "pos of its geoms",
    "friction": "friction of its geoms",
    "attachment": "pos of its body",
    "anchor": "pos of the joint",
    "rest": "springref, springlength",
    "range": "range",
    "strength": "gear, gain, ctrlrange or forcerange",
    "control_range": "ctrlrange, range or gain",
    "position_gain": "kp or gear",
    "velocity_gain": "kv or gear",
    "lag": "timeconst",
}


def _check_descriptors(body: Morphology, path: Path) -> None:
    """Refuses descriptors that no network reads. Raises UserError: with the limb or joint, and its cause."""
    rows = []
    with np.errstate(over="ignore"):
        for limb, row, joints in zip(body.limbs, body.limb_descriptors, body.joint_descriptors, strict=True):
            rows.append((f"limb {limb.name!r}", LIMB_SPEC.token, row))
            for slot, own in zip(limb.slots, joints, strict=True):
                parts = [("jnt", slot.joint), ("actuator", slot.actuator)]
                named = [_element(body.model, kind, index) for kind, index in parts if index >= 0]
                rows.append((", ".join(named), LIMB_SPEC.joint, own))
    for owner, features, row in rows:
        for feature in features:
            if feature.kind != "descriptor":
                continue
            values, row = row[: feature.size], row[feature.size :]
            if not (np.abs(values) <= LARGEST_FEATURE).all():
                cause = _CAUSES.get(feature.name, feature.name)
                raise UserError(
                    f"{path}: {owner}: {cause} gives a {feature.name} of {_shown(values)} (in "
                    f"{feature.unit}); at most {LARGEST_FEATURE:g} can be told to a policy"
                )


def _check_stable(body: Morphology, path: Path) -> list[str]:
    """What is to be noted of its first steps. Raises UserError: they diverge though nothing is done."""
    model, controls, rng = body.model, body.controls, np.random.default_rng(0)
    steps = int(min(max(STABLE_SECONDS / model.opt.timestep, 1), 1000))
    for acted in (False, True):
        data = body.placed(body.initial_qpos)
        if body.home_activation is not None:
            data.act[:] = body.home_activation
        data.ctrl[:] = controls.center
        for step in range(steps):
            if acted and step % 10 == 0:
                data.ctrl[:] = rng.uniform(controls.low, controls.high)
            mujoco.mj_step(model, data)
            joint = _diverged_joint(model, data)
            if joint is not None:
                told = (
                    f"the simulation diverges within {STABLE_SECONDS} s of "
                    f"{'random actions' if acted else 'its start'}, at joint {joint!r}; a smaller timestep "
                    f"(now {model.opt.timestep:g} s) or more damping and armature often help"
                )
                if not acted:
                    raise UserError(f"{path}: {told}")
                return [told + ", or a smaller ctrlrange, gear or gain"]
    return []


def _diverged_joint(model: mujoco.MjModel, data: mujoco.MjData) -> str | int | None:
    """Name (or number) of the joint at which MuJoCo found a bad number; None if it found none."""
    kinds = mujoco.mjtWarning
    for kind in (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC):
        if data.warning[int(kind)].number:
            at, addresses = int(data.warning[int(kind)].lastinfo), model.jnt_dofadr
            if kind == kinds.mjWARN_BADQPOS:
                addresses = model.jnt_qposadr
            joint = int(np.searchsorted(addresses, at, side="right")) - 1
            return model.joint(joint).name or joint
    return None


LARGEST = 1e15  # what is beyond is no quantity, and its square is beyond single precision
_FIELDS = (  # what the numbers are, and fields of a model before what the compiler makes of them
    ("number", "opt", "gravity wind magnetic density viscosity impratio o_margin"),
    ("number", "wrap", "prm"),
    ("number", "qpos", "0 spring"),
    ("number", "body", "pos quat mass inertia ipos gravcomp"),
    ("number", "jnt", "pos axis stiffness margin solref solimp"),
    ("number", "geom", "size pos quat friction margin gap solref solimp"),
    ("number", "site", "pos quat"),
    ("number", "tendon", "stiffness damping frictionloss lengthspring"),
    ("number", "actuator", "gear gainprm biasprm dynprm"),
    ("number", "eq", "data solref solimp"),
    ("number", "dof", "damping armature frictionloss"),
    ("range", "jnt", "range actfrcrange"),
    ("range", "tendon", "range"),
    ("range", "actuator", "ctrlrange forcerange actrange"),
    ("amount", "dof", "damping armature frictionloss"),
    ("amount", "geom", "friction"),
    ("amount", "tendon", "damping frictionloss"),
)
_WRITTEN = {  # by users, where it is not what the field is called
    "wrap_prm": "coef of its joints",
    "qpos0": "ref or pos",
    "qpos_spring": "springref",
    "body_ipos": "inertial pos",
    "jnt_solref": "solreflimit",
    "jnt_solimp": "solimplimit",
    "jnt_actfrcrange": "actuatorfrcrange",
    "tendon_lengthspring": "springlength",
    "actuator_gainprm": "gainprm (kp, kv, gain, force)",
    "actuator_biasprm": "biasprm (kp, kv)",
    "actuator_dynprm": "dynprm (timeconst)",
}
_VALID: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "number": (lambda array: np.abs(array) <= LARGEST, f"a number is finite and at most {LARGEST:g}"),
    "range": (lambda array: ~np.isnan(array), "a range holds no NaN"),
    "amount": (lambda array: array >= 0, "it is not below 0"),
}


def check_model(model: mujoco.MjModel) -> None:
    """Refuses what cannot be simulated.

    Raises:
        UserError: a number that is NaN, infinite or beyond `LARGEST` (a range may be infinite), an amount
            below 0, or an invalid time step or constant; with the element and its attribute.
    """
    step = model.opt.timestep
    if not 0 < step <= 1:
        raise UserError(f"option timestep is {step:g}; a time step is above 0 and at most 1 s")
    for valid, kind, names in _FIELDS:
        is_good, wanted = _VALID[valid]
        for name in names.split():
            field = "qpos0" if name == "0" else f"{kind}_{name}"
            array = np.array([getattr(model.opt, name)]) if kind == "opt" else getattr(model, field)
            if valid == "amount" and name == "damping" and array.ndim > 1:
                array = array[:, :1]  # terms of a higher order may have any sign
            good = is_good(array).all(axis=tuple(range(1, array.ndim)))
            if not good.all():
                row = int(good.argmin())
                written = _WRITTEN.get(field, name)
                raise UserError(
                    f"{_element(model, kind, row)}: {written} is {_shown(np.ravel(array[row]))}; {wanted}"
                )
    for actuator in np.flatnonzero(model.actuator_dyntype == int(mujoco.mjtDyn.mjDYN_FILTER)):
        constant = float(model.actuator_dynprm[actuator, 0])
        if constant <= 0:
            raise UserError(
                f"{_element(model, 'actuator', int(actuator))}: dynprm (timeconst) is {constant:g}; the time "
                "constant of a filter is above 0 s"
            )


def _check_spec(spec: mujoco.MjSpec) -> None:
    """Refuses masses and inertias below 0, which compilation leaves out. Raises UserError."""
    for body in spec.bodies:
        for attribute, value in (("mass", body.mass), ("diaginertia", body.inertia)):
            if body.explicitinertial and np.min(value) < 0:
                told, wanted = _shown(np.ravel(value)), _VALID["amount"][1]
                raise UserError(
                    f"body {body.name or body.id!r}: {attribute} of its inertial is {told}; {wanted}"
                )


def _reversed_ranges(model: mujoco.MjModel) -> list[str]:
    """In words, the ranges whose lower end is not the first, which therefore limit nothing."""
    limited = {
        "jnt": (model.jnt_range, model.jnt_limited, "range"),
        "tendon": (model.tendon_range, model.tendon_limited, "range"),
        "actuator": (model.actuator_ctrlrange, model.actuator_ctrllimited, "ctrlrange"),
    }
    return [
        f"{_element(model, kind, int(i))}: {attribute} {_shown(ranges[i])} limits nothing, as the lower end "
        "comes first in a range"
        for kind, (ranges, limits, attribute) in limited.items()
        for i in np.flatnonzero((ranges[:, 0] > ranges[:, 1]) & ~limits.astype(bool))
    ]


def _shown(values: np.ndarray) -> str:
    numbers = " ".join(f"{value:g}" for value in values[:10])
    return numbers + (" ..." if len(values) > 10 else "")


def _element(model: mujoco.MjModel, kind: str, index: int) -> str:
    """Kind and name of the element to which a number of a field belongs."""
    if kind in ("opt", "wrap"):
        return {"opt": "option", "wrap": "tendon"}[kind]
    if kind == "qpos":
        kind, index = "jnt", int(np.searchsorted(model.jnt_qposadr, index, side="right")) - 1
    elif kind == "dof":
        kind, index = "jnt", int(model.dof_jntid[index])
    told = {"jnt": "joint", "eq": "equality constraint"}.get(kind, kind)
    return f"{told} {getattr(model, kind)(index).name or index!r}"
