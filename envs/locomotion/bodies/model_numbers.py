"""Numbers of a model that stand for no limit, and those with which nothing can be computed."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from ...errors import UserError
from ...tokens import Feature

ENDLESS, UNBOUNDED = 1e3, 1e8
"""Where a joint or tendon ends beyond this (rad, m) it is taken to have no end there; a control or force
beyond this to have no bound. Files write ``inf``, ``1e10`` or the like for both."""

LARGEST = 1e15
"""What is beyond is no quantity, and its square is beyond single precision."""

LARGEST_FEATURE = 1e6
"""Of a descriptor, in the units that policies see."""

_FREE_SPAN = {int(mujoco.mjtJoint.mjJNT_HINGE): np.pi, int(mujoco.mjtJoint.mjJNT_SLIDE): 0.5}
"""How far (rad, m) beyond its reference position a joint with one end only is taken to go."""

_OPTIONS = ("gravity", "wind", "magnetic", "density", "viscosity", "impratio", "o_margin")
_FIELDS: dict[str, dict[str, str]] = {  # what a user writes, before what the compiler makes of it
    "body": {
        "body_pos": "pos",
        "body_quat": "quat",
        "body_mass": "mass",
        "body_inertia": "inertia",
        "body_ipos": "inertial pos",
        "body_gravcomp": "gravcomp",
    },
    "joint": {
        "jnt_pos": "pos",
        "jnt_axis": "axis",
        "jnt_stiffness": "stiffness",
        "jnt_margin": "margin",
        "jnt_solref": "solreflimit",
        "jnt_solimp": "solimplimit",
    },
    "geom": {
        "geom_size": "size",
        "geom_pos": "pos",
        "geom_quat": "quat",
        "geom_friction": "friction",
        "geom_margin": "margin",
        "geom_gap": "gap",
        "geom_solref": "solref",
        "geom_solimp": "solimp",
    },
    "site": {"site_pos": "pos", "site_quat": "quat"},
    "tendon": {
        "tendon_stiffness": "stiffness",
        "tendon_damping": "damping",
        "tendon_frictionloss": "frictionloss",
        "tendon_lengthspring": "springlength",
    },
    "actuator": {
        "actuator_gear": "gear",
        "actuator_gainprm": "gainprm (kp, kv, gain, force)",
        "actuator_biasprm": "biasprm (kp, kv)",
        "actuator_dynprm": "dynprm (timeconst)",
    },
    "eq": {"eq_data": "data", "eq_solref": "solref", "eq_solimp": "solimp"},
}
_DOF_FIELDS = {"dof_damping": "damping", "dof_armature": "armature", "dof_frictionloss": "frictionloss"}
_JOINT_POSITIONS = {"qpos0": "ref or pos", "qpos_spring": "springref"}
_RANGES = {
    "joint": {"jnt_range": "range", "jnt_actfrcrange": "actuatorfrcrange"},
    "tendon": {"tendon_range": "range"},
    "actuator": {
        "actuator_ctrlrange": "ctrlrange",
        "actuator_forcerange": "forcerange",
        "actuator_actrange": "actrange",
    },
}
_AMOUNTS = {
    "joint": _DOF_FIELDS,
    "geom": {"geom_friction": "friction"},
    "tendon": {"tendon_damping": "damping", "tendon_frictionloss": "frictionloss"},
}
_VALID: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "number": (lambda array: np.abs(array) <= LARGEST, f"a number is finite and at most {LARGEST:g}"),
    "range": (lambda array: ~np.isnan(array), "a range holds no NaN"),
    "amount": (lambda array: array >= 0, "it is not below 0"),
}
_WORDS = {"eq": "equality constraint"}
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


def check_model(model: mujoco.MjModel) -> None:
    """Refuses what cannot be simulated, at the number that is to blame.

    Raises:
        UserError: a number that is NaN, infinite or beyond `LARGEST` (a range may be infinite), an amount
            below 0, or a time step or constant that is none; with the element and its attribute.
    """
    step = model.opt.timestep
    if not 0 < step <= 1:
        raise UserError(f"option timestep is {step:g}; a time step is above 0 and at most 1 s")
    for name in _OPTIONS:
        _check(np.reshape(getattr(model.opt, name), (1, -1)), name, lambda _: "option")
    _check(model.wrap_prm, "coef of its joints", lambda _: "tendon")
    for kind, fields in _FIELDS.items():
        for field, attribute in fields.items():
            _check(getattr(model, field), attribute, lambda i, kind=kind: _element(model, kind, i))
    for field, attribute in _DOF_FIELDS.items():
        _check(
            getattr(model, field), attribute, lambda dof: _element(model, "joint", int(model.dof_jntid[dof]))
        )
    for field, attribute in _JOINT_POSITIONS.items():
        _check(getattr(model, field), attribute, lambda i: _element(model, "joint", _joint_at(model, i)))
    for kind, fields in _RANGES.items():
        for field, attribute in fields.items():
            _check(getattr(model, field), attribute, lambda i, kind=kind: _element(model, kind, i), "range")
    for kind, fields in _AMOUNTS.items():
        for field, attribute in fields.items():
            amounts = np.asarray(getattr(model, field))
            if "damping" in field and amounts.ndim > 1:
                amounts = amounts[:, :1]  # terms of a higher order may have any sign
            owners = model.dof_jntid if kind == "joint" else range(len(amounts))
            _check(amounts, attribute, lambda i, k=kind, o=owners: _element(model, k, int(o[i])), "amount")
    for actuator in np.flatnonzero(model.actuator_dyntype == int(mujoco.mjtDyn.mjDYN_FILTER)):
        constant = float(model.actuator_dynprm[actuator, 0])
        if constant <= 0:
            raise UserError(
                f"{_element(model, 'actuator', int(actuator))}: dynprm (timeconst) is {constant:g}; the time "
                "constant of a filter is above 0 s"
            )


def check_spec(spec: mujoco.MjSpec) -> None:
    """Refuses masses and inertias below 0, which compilation leaves out. Raises UserError."""
    for body in spec.bodies:
        for attribute, value in (("mass", body.mass), ("diaginertia", body.inertia)):
            if body.explicitinertial and np.min(value) < 0:
                told, wanted = _shown(np.ravel(value)), _VALID["amount"][1]
                raise UserError(
                    f"body {body.name or body.id!r}: {attribute} of its inertial is {told}; {wanted}"
                )


def reversed_ranges(model: mujoco.MjModel) -> list[str]:
    """In words, the ranges whose lower end is not the first, which therefore limit nothing."""
    limited = {
        "joint": (model.jnt_range, model.jnt_limited, "range"),
        "tendon": (model.tendon_range, model.tendon_limited, "range"),
        "actuator": (model.actuator_ctrlrange, model.actuator_ctrllimited, "ctrlrange"),
    }
    return [
        f"{_element(model, kind, int(i))}: {attribute} {_shown(ranges[i])} limits nothing, as the lower end "
        "comes first in a range"
        for kind, (ranges, limits, attribute) in limited.items()
        for i in np.flatnonzero((ranges[:, 0] > ranges[:, 1]) & ~limits.astype(bool))
    ]


def check_keyframe(model: mujoco.MjModel, key: int) -> None:
    """Refuses a keyframe with numbers that no state has. Raises UserError."""
    label = model.key(key).name or key
    for attribute in ("qpos", "ctrl", "act"):
        values = getattr(model, f"key_{attribute}")[key]
        if not (np.abs(values) < mujoco.mjMAXVAL).all():
            raise UserError(f"keyframe {label!r}: {attribute} is {_shown(values)}; numbers are below 1e10")


def check_features(owner: str, features: tuple[Feature, ...], values: np.ndarray) -> None:
    """Refuses descriptors that no network reads.

    Args:
        owner: of the descriptors, for the message.
        features: of the columns.
        values: (F,) in the units of the features.

    Raises:
        UserError: one is not finite or beyond `LARGEST_FEATURE`.
    """
    at = 0
    for feature in features:
        own = values[at : at + feature.size]
        at += feature.size
        if not (np.abs(own) <= LARGEST_FEATURE).all():
            cause = _CAUSES.get(feature.name, feature.name)
            raise UserError(
                f"{owner}: {cause} gives a {feature.name} of {_shown(own)} (in {feature.unit}); at most "
                f"{LARGEST_FEATURE:g} can be told to a policy"
            )


def joint_range(model: mujoco.MjModel, joint: int) -> tuple[float, float] | None:
    """Lower and upper end (rad, m) of a joint; None: it has none. A ball's lower end is 0.

    An end that is infinite or beyond ``ENDLESS`` is none. Of a joint with one end only the other is taken to
    be a half turn, or half a metre, beyond its reference position.
    """
    if not model.jnt_limited[joint]:
        return None
    low, high = (float(end) for end in model.jnt_range[joint])
    reference = float(model.qpos0[model.jnt_qposadr[joint]])
    return _ends(low, high, reference, _FREE_SPAN.get(int(model.jnt_type[joint])))


def tendon_range(model: mujoco.MjModel, tendon: int) -> tuple[float, float] | None:
    """Shortest and longest length (m) of a tendon; None: it has none, or one end only is far away."""
    if not model.tendon_limited[tendon]:
        return None
    low, high = (float(end) for end in model.tendon_range[tendon])
    return _ends(low, high, float(model.tendon_length0[tendon]), 0.5)


def force_bound(model: mujoco.MjModel, actuator: int) -> float | None:
    """Largest force of an actuator's ``forcerange``; None: it is not limited."""
    bound = float(np.abs(model.actuator_forcerange[actuator]).max())
    return bound if model.actuator_forcelimited[actuator] and bound < UNBOUNDED else None


def control_bounds(model: mujoco.MjModel, actuator: int) -> tuple[float, float]:
    """Ends of an actuator's ``ctrlrange``, infinite where it has none."""
    if not model.actuator_ctrllimited[actuator]:
        return -np.inf, np.inf
    low, high = (float(end) for end in model.actuator_ctrlrange[actuator])
    return (low if low > -UNBOUNDED else -np.inf), (high if high < UNBOUNDED else np.inf)


def _ends(low: float, high: float, reference: float, span: float | None) -> tuple[float, float] | None:
    if low < -ENDLESS and high > ENDLESS:
        return None
    if span is None:  # of a ball
        return None if high > ENDLESS else (low, high)
    if low < -ENDLESS:
        return min(high, reference) - span, high
    if high > ENDLESS:
        return low, max(low, reference) + span
    return low, high


def _check(array: np.ndarray, attribute: str, element: Callable[[int], str], valid: str = "number") -> None:
    """Raises UserError, for the first of the rows (n, ...) that holds a invalid number."""
    is_good, wanted = _VALID[valid]
    good = is_good(array)
    if not good.all():
        row = int(np.flatnonzero(~good.reshape(len(array), -1).all(1))[0])
        raise UserError(f"{element(row)}: {attribute} is {_shown(np.ravel(array[row]))}; {wanted}")


def _shown(values: np.ndarray) -> str:
    numbers = " ".join(f"{value:g}" for value in values[:10])
    return numbers + (" ..." if len(values) > 10 else "")


def _joint_at(model: mujoco.MjModel, address: int) -> int:
    return int(np.searchsorted(model.jnt_qposadr, address, side="right")) - 1


def _element(model: mujoco.MjModel, kind: str, index: int) -> str:
    return f"{_WORDS.get(kind, kind)} {getattr(model, kind)(index).name or index!r}"
