"""What an actuator pulls and what a nominal action means to it, for every kind that MuJoCo has.

Most actuators drive one hinge or slide joint. The others (a tendon, a thruster on a site, adhesion of a
body, a motor on a ball or free joint) *transmit*: they belong to the outermost limb that they move.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from .model import (
    TENDON,
    actuator_label,
    control_bounds,
    driven_joint,
    force_bound,
    joint_range,
    tendon_range,
)

UNLIMITED_CONTROL = 1.0
"""Half span of the physical control that a nominal action of 1 means where nothing tells a range."""

SHOWN = 5  # names in a note; further ones are counted
_AFFINE = int(mujoco.mjtBias.mjBIAS_AFFINE)
_FILTERS = tuple(int(kind) for kind in (mujoco.mjtDyn.mjDYN_FILTER, mujoco.mjtDyn.mjDYN_FILTEREXACT))
_INTEGRATOR = int(mujoco.mjtDyn.mjDYN_INTEGRATOR)
_MUSCLE, _MUSCLE_STATE = int(mujoco.mjtGain.mjGAIN_MUSCLE), int(mujoco.mjtDyn.mjDYN_MUSCLE)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


@dataclass(frozen=True)
class Controls:
    """Physical controls (nu,) that nominal actions mean: ``center + half * action``, from low to high."""

    center: np.ndarray
    half: np.ndarray
    low: np.ndarray
    high: np.ndarray


def read_controls(
    model: mujoco.MjModel, qpos: np.ndarray | None = None, home: np.ndarray | None = None
) -> Controls:
    """How nominal actions in [-1, 1] become physical controls.

    The span is the control range; of a servo without one the range of its joint or tendon; of a motor without
    one that in which its force is limited; of a muscle 0 to 1; else ±``UNLIMITED_CONTROL`` (of a servo: about
    home), with a warning. The centre, at which action 0 stands still, is ``home``, or a position servo's
    length in the home pose; else the middle. Where it is not in the middle, the span is that to the farther
    end, so that all of the range is reached.

    Args:
        model: the compiled body.
        qpos: (nq,) home pose; None: ``qpos0``.
        home: (nu,) controls that hold it (a keyframe's); None: the lengths of the transmissions there.
    """
    data = mujoco.MjData(model)
    data.qpos[:] = model.qpos0 if qpos is None else qpos
    mujoco.mj_forward(model, data)
    center, low, high = np.zeros(model.nu), np.zeros(model.nu), np.zeros(model.nu)
    guessed: dict[bool, list[int]] = {False: [], True: []}  # of motors and the like, and of servos
    for actuator, length in enumerate(data.actuator_length.tolist()):
        servo, bounds = is_position_servo(model, actuator), control_bounds(model, actuator)
        if np.isinf(bounds).any():
            span = _span_without_range(model, actuator, length)
            if span is None:
                guessed[servo].append(actuator)
                middle = _holding(model, actuator, length) if servo else 0.0
                span = middle - UNLIMITED_CONTROL, middle + UNLIMITED_CONTROL
            bounds = _within(span, *bounds)
        low[actuator], high[actuator] = bounds
        middle = (low[actuator] + high[actuator]) / 2
        if home is not None:
            middle = home[actuator]
        elif servo:
            middle = _holding(model, actuator, length)
        center[actuator] = np.clip(middle, *bounds)
    for servo, group in guessed.items():
        if group:
            _warn_of_guesses(model, group, center[group[0]] if servo else None)
    return Controls(center, np.maximum(high - center, center - low), low, high)


def _warn_of_guesses(model: mujoco.MjModel, group: Sequence[int], center: float | None) -> None:
    """One warning for actuators of which nothing tells a range; servos have a ``center``."""
    names = listed([actuator_label(model, actuator) for actuator in group])
    who, about = f"{len(group)} actuators ({names}) have", " about those that hold the home pose"
    if len(group) == 1:
        who, about = f"actuator {names} has", f" about {center or 0:.3g}, which holds its home pose"
    warnings.warn(
        f"{who} no control range; actions -1 to 1 mean ±{UNLIMITED_CONTROL}{about * (center is not None)}",
        stacklevel=4,
    )


def _within(span: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    """A span of controls in a range with one end, or none: as far of it as is in the range."""
    least, most = span
    width = most - least
    if np.isfinite(high):
        most = min(most, high)
        least = least if least < most else most - width
    elif np.isfinite(low):
        least = max(least, low)
        most = most if most > least else least + width
    return least, most


def held_activation(model: mujoco.MjModel, controls: Controls, lengths: np.ndarray) -> np.ndarray:
    """(na,) states of actuators that have been at rest at ``lengths`` (nu,) under the central controls."""
    activation = np.zeros(model.na)
    for actuator in np.flatnonzero(model.actuator_actadr >= 0):
        state = int(model.actuator_actadr[actuator] + model.actuator_actnum[actuator] - 1)
        kind = int(model.actuator_dyntype[actuator])
        if kind in _FILTERS:
            activation[state] = controls.center[actuator]
        elif kind == _INTEGRATOR and feedback(model, actuator)[0] > 0:
            activation[state] = _holding(model, actuator, float(lengths[actuator]))
        if model.actuator_actlimited[actuator]:
            activation[state] = np.clip(activation[state], *model.actuator_actrange[actuator])
    return activation


def _holding(model: mujoco.MjModel, actuator: int, length: float) -> float:
    """Control (of an integrator: state) under which a servo pulls with no force at ``length``."""
    gain = float(model.actuator_gainprm[actuator, 0])
    if gain == 0:
        return 0.0
    return (feedback(model, actuator)[0] * length - float(model.actuator_biasprm[actuator, 0])) / gain


def is_position_servo(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether the control is a length that the actuator pulls towards."""
    return (
        feedback(model, actuator)[0] > 0
        and int(model.actuator_dyntype[actuator]) != _INTEGRATOR
        and model.actuator_gainprm[actuator, 0] != 0
    )


def feedback(model: mujoco.MjModel, actuator: int) -> tuple[float, float]:
    """Force lost per length beyond the target (N/m or N m/rad) and per rate of length; 0 without feedback."""
    if int(model.actuator_biastype[actuator]) != _AFFINE:
        return 0.0, 0.0
    _, of_length, of_rate = model.actuator_biasprm[actuator, :3].tolist()
    return -of_length, -of_rate


def time_constant(model: mujoco.MjModel, actuator: int) -> float:
    """Time constant of the filter between control and force, s; 0 without one."""
    kind = int(model.actuator_dyntype[actuator])
    return float(model.actuator_dynprm[actuator, 0]) if kind in (*_FILTERS, _MUSCLE_STATE) else 0.0


def force_span(model: mujoco.MjModel, actuator: int, half: float) -> float:
    """Largest force (at the transmission, without gear) of half a control span, limits included."""
    if int(model.actuator_gaintype[actuator]) == _MUSCLE:
        _, _, force, scale = model.actuator_gainprm[actuator, :4]
        span = force if force > 0 else scale / max(float(model.actuator_acc0[actuator]), 1e-9)
    else:
        span = abs(model.actuator_gainprm[actuator, 0]) * half
    bound = force_bound(model, actuator)
    return float(span if bound is None else min(span, bound))


def force_sign(model: mujoco.MjModel, actuator: int) -> float:
    """1 where a larger control pushes towards larger lengths, -1 where it pulls towards smaller ones."""
    pulls = int(model.actuator_gaintype[actuator]) == _MUSCLE or model.actuator_gainprm[actuator, 0] < 0
    return -1.0 if pulls else 1.0


def _span_without_range(model: mujoco.MjModel, actuator: int, length: float) -> tuple[float, float] | None:
    """Ends of the physical control of an actuator without a range; None: nothing tells them."""
    if is_position_servo(model, actuator):
        joint, ends = driven_joint(model, actuator), None
        if joint >= 0:
            ends = joint_range(model, joint)
        elif int(model.actuator_trntype[actuator]) == TENDON:
            ends = tendon_range(model, int(model.actuator_trnid[actuator, 0]))
        if ends is not None:
            lengths = model.actuator_gear[actuator, 0] * np.array(ends)
            low, high = sorted(_holding(model, actuator, float(end)) for end in lengths)
            return low, high
    if int(model.actuator_dyntype[actuator]) == _MUSCLE_STATE:
        return 0.0, 1.0
    gain, bound = abs(float(model.actuator_gainprm[actuator, 0])), force_bound(model, actuator)
    if bound is not None and gain > 0 and int(model.actuator_biastype[actuator]) != _AFFINE:
        return -bound / gain, bound / gain
    return None
