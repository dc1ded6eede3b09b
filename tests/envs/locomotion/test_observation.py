"""What limbs observe does not depend on where the body is, where it heads, or how its model is drawn."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.envs.locomotion import LIMB_SPEC, LocomotionTask, Morphology, build
from somite.envs.locomotion.bodies.model import quaternion_matrix

from .helpers import (
    HINGE,
    SLIDE,
    add_capsule,
    add_motor,
    joint,
    legged,
    observed,
    one_row,
    random_state,
    token,
)

CLOSE = {"rtol": 0, "atol": 1e-5}  # float32 of values up to ten
STATE = LIMB_SPEC.token_is_state()


def assert_same(first, second, *but):
    """Equal observations, apart from the named token features, which must differ."""
    excluded = np.zeros(LIMB_SPEC.token_size, bool)
    for name in but:
        excluded[LIMB_SPEC.token_slice(name)] = True
        assert np.abs(token(first, name) - token(second, name)).max() > 0.1, name
    np.testing.assert_allclose(first["tokens"][..., ~excluded], second["tokens"][..., ~excluded], **CLOSE)
    for key in set(first) - {"tokens"}:
        np.testing.assert_allclose(first[key], second[key], **CLOSE)


def turned(qpos, qvel, angle):
    """State of a body on a free joint, turned about the vertical through the world's origin."""
    qpos, qvel = qpos.copy(), qvel.copy()
    turn = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
    matrix = quaternion_matrix(turn)
    # A free joint's linear velocity is in the world's frame, its angular velocity in the body's.
    qpos[:3], qvel[:3] = matrix @ qpos[:3], matrix @ qvel[:3]
    rotated = np.empty(4)
    mujoco.mju_mulQuat(rotated, turn, qpos[3:7])
    qpos[3:7] = rotated
    return qpos, qvel


@pytest.mark.parametrize("name", ["cheetah_7_full", "walker_4", "hopper_5", "humanoid_2d_8_left_knee"])
@pytest.mark.parametrize("shift", [30.0, -1000.0])
def test_moving_a_planar_body_along_x_changes_nothing(name, shift):
    body = build(name)
    env = one_row(body)
    qpos, qvel = random_state(body, 1)
    here = observed(env, qpos, qvel)
    qpos[0] += shift
    assert_same(here, observed(env, qpos, qvel))


def test_moving_a_spatial_body_along_the_ground_changes_nothing_and_upwards_only_its_height():
    body = build("ant")
    env = one_row(body)
    qpos, qvel = random_state(body, 1)
    here = observed(env, qpos, qvel)
    qpos[:2] += [30.0, -45.0]
    assert_same(here, observed(env, qpos, qvel))
    qpos[2] += 1.0
    above = observed(env, qpos, qvel)
    assert_same(here, above, "height")
    np.testing.assert_allclose(token(above, "height"), token(here, "height") + 1, **CLOSE)


@pytest.mark.parametrize("make", [lambda: build("ant"), lambda: Morphology("legged", legged().compile())])
@given(angle=st.floats(-3.2, 3.2), seed=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_turning_body_and_goal_together_changes_nothing(make, angle, seed):
    body = make()
    qpos, qvel = random_state(body, seed)
    goal = (np.cos(angle), np.sin(angle))
    ahead = observed(one_row(body, LocomotionTask(direction=(1.0, 0.0))), qpos, qvel)
    there = observed(one_row(body, LocomotionTask(direction=goal)), *turned(qpos, qvel, angle))
    assert_same(ahead, there)


def test_turning_the_body_alone_changes_only_the_direction_it_sees():
    body = build("ant")
    env = one_row(body)
    qpos, qvel = random_state(body, 2)
    there = observed(env, *turned(qpos, qvel, 1.3))
    assert_same(observed(env, qpos, qvel), there, "direction")
    cos, sin = np.cos(1.3), np.sin(1.3)
    before = token(observed(env, qpos, qvel), "direction")
    np.testing.assert_allclose(token(there, "direction"), before @ [[cos, -sin], [sin, cos]], **CLOSE)


def test_features_do_not_jump_when_a_planar_body_turns_somersaults():
    # A heading taken from the projection of a body axis flips at ±90° of pitch, and every x with it.
    body = build("cheetah_7_full")
    env = one_row(body)
    qpos, qvel = random_state(body, 3)
    pitches = np.linspace(-7, 7, 1401)
    seen = []
    for pitch in [*pitches, np.pi / 2, np.pi, -np.pi]:
        qpos[2] = pitch
        observation = observed(env, qpos, qvel)
        seen.append(np.concatenate([observation["tokens"].ravel(), observation["joints"].ravel()]))
        np.testing.assert_array_equal(token(observation, "direction"), [[1, 0]] * 7)
    seen = np.array(seen[: len(pitches)])
    assert np.ptp(seen, 0).max() > 1  # the somersaults are seen
    assert np.abs(np.diff(seen, axis=0)).max() < 0.01 * 10  # a limb's speed times the step of 0.01 rad


def test_a_spatial_body_pitching_past_the_vertical_keeps_its_heading():
    body = build("ant")
    env = one_row(body)
    qpos, qvel = random_state(body, 3)
    headings = []
    for pitch in np.linspace(-2.8, 2.8, 57):  # undefined upside down only
        tilt = np.array([np.cos(pitch / 2), 0, np.sin(pitch / 2), 0])
        turn = np.array([np.cos(0.35), 0, 0, np.sin(0.35)])
        mujoco.mju_mulQuat(qpos[3:7], turn, tilt)
        headings.append(token(observed(env, qpos, qvel), "direction")[0])
    np.testing.assert_allclose(headings, [[np.cos(0.7), -np.sin(0.7)]] * 57, **CLOSE)


def test_observing_edits_no_simulator_memory():
    env = one_row("ant")
    qpos, qvel = random_state(env.bodies[0], 4)
    qpos[0] = 30.0
    env.set_state(0, qpos, qvel)
    sim = env._blocks[0]
    fields = {name: sim.batch.bind(name).copy() for name in ("qpos", "qvel", "xpos", "xmat", "cvel", "xaxis")}
    read = env._readings.snapshot()["_values"]
    first = env._observe()
    for values in first.values():
        values[...] = 77  # nor does a caller who edits an observation
    second = env._observe()
    for name, before in fields.items():
        np.testing.assert_array_equal(sim.batch.bind(name), before)
    assert torch.equal(env._readings.snapshot()["_values"], read)
    assert abs(fields["xpos"][0, 1, 0] - 30) < 0.1  # what would have been made relative in place
    assert not any((array == 77).any() for array in second.values())


def planar_body(drawn=(1.0, 0.0, 0.0, 0.0)):
    """A trunk on two slides and a hinge, with a leg; the trunk's frame is drawn with rotation ``drawn``.

    Whatever ``drawn`` is, the same things stand at the same places.
    """
    back = np.array(drawn) * [1, -1, -1, -1]
    matrix = quaternion_matrix(back)
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    trunk = spec.worldbody.add_body(name="trunk", pos=[0.1, 0, 1.2], quat=drawn)
    for name, kind, axis in (("x", SLIDE, [1, 0, 0]), ("z", SLIDE, [0, 0, 1]), ("y", HINGE, [0, 1, 0])):
        trunk.add_joint(name=name, type=kind, axis=matrix @ axis)
    add_capsule(trunk, tuple(matrix @ [-0.3, 0, 0]), tuple(matrix @ [0.2, 0, 0.3]), 0.1)
    leg = trunk.add_body(name="leg", pos=matrix @ [0.1, 0.05, -0.2], quat=back)
    leg.add_joint(name="hip", type=HINGE, axis=[0, 1, 0], range=[-1, 1])
    add_capsule(leg, (0, 0, 0), (0, 0, -0.5))
    add_motor(spec, "hip", 40)
    return Morphology("planar", spec.compile())


@pytest.mark.parametrize(
    "drawn",
    [
        (0.5**0.5, 0.5**0.5, 0, 0),  # on its side
        (0.5**0.5, 0, 0.5**0.5, 0),  # on its face
        (0, 1, 0, 0),  # upside down
        (0.5**0.5, 0, 0, 0.5**0.5),  # turned to the left
        (0.5, 0.5, 0.5, 0.5),  # turned to the left and lying
    ],
)
@pytest.mark.parametrize("pitch", [0.0, 0.4, 2.0, 3.5])
def test_a_model_drawn_lying_down_has_the_yaw_frame_of_one_drawn_upright(drawn, pitch):
    qpos, qvel = [3.0, 0.2, pitch, 0.3], [1.0, -0.5, 2.0, 0.7]
    upright, lying = (observed(one_row(body), qpos, qvel) for body in (planar_body(), planar_body(drawn)))
    # The heading of a drawing is its own: what is drawn turned to the left is turned to the left.
    heading = 2 * np.arctan2(drawn[3], drawn[0])
    cos, sin = np.cos(heading), np.sin(heading)
    to_yaw = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    np.testing.assert_allclose(token(lying, "height"), token(upright, "height"), **CLOSE)
    np.testing.assert_allclose(
        token(lying, "direction"), token(upright, "direction") @ to_yaw[:2, :2], **CLOSE
    )
    for name in ("position", "velocity", "angular_velocity"):
        np.testing.assert_allclose(token(lying, name), token(upright, name) @ to_yaw, **CLOSE)
    leg = token(upright, "orientation")[1].reshape(2, 3) @ to_yaw
    np.testing.assert_allclose(token(lying, "orientation")[1], leg.ravel(), **CLOSE)
    np.testing.assert_allclose(joint(lying, "axis_now")[1], joint(upright, "axis_now")[1] @ to_yaw, **CLOSE)
    np.testing.assert_allclose(joint(lying, "angle"), joint(upright, "angle"), **CLOSE)


def test_reordered_children_give_the_same_set_of_tokens():
    first = Morphology("a", legged(("left", "right")).compile())
    second = Morphology("b", legged(("right", "left")).compile())
    assert first.hash == second.hash
    qpos, qvel = random_state(first, 5)
    moved_qpos, moved_qvel = qpos.copy(), qvel.copy()
    for index in range(1, first.model.njnt):
        target = second.model.joint(first.model.joint(index).name)
        moved_qpos[target.qposadr[0]] = qpos[first.model.jnt_qposadr[index]]
        moved_qvel[target.dofadr[0]] = qvel[first.model.jnt_dofadr[index]]
    one, other = observed(one_row(first), qpos, qvel), observed(one_row(second), moved_qpos, moved_qvel)
    assert np.abs(one["tokens"] - other["tokens"]).max() > 0.1  # the order did change
    order = [int(np.abs(other["tokens"] - row).sum(1).argmin()) for row in one["tokens"]]
    assert sorted(order) == list(range(4)) and order != sorted(order)
    for key in set(one) - {"parent"}:
        np.testing.assert_allclose(one[key], other[key][order], **CLOSE)
    moved_parents = [order[parent] if parent >= 0 else -1 for parent in one["parent"]]
    np.testing.assert_array_equal(moved_parents, other["parent"][order])


def test_widths_are_those_of_the_specification_and_descriptors_do_not_move():
    env = one_row("walker_5")
    body = env.bodies[0]
    first, second = (observed(env, *random_state(body, seed)) for seed in (1, 2))
    assert first["tokens"].shape == (5, LIMB_SPEC.token_size)
    assert first["joints"].shape == (5, 1, LIMB_SPEC.joint_size)
    np.testing.assert_array_equal(first["tokens"][:, ~STATE], second["tokens"][:, ~STATE])
    still = ~LIMB_SPEC.joint_is_state()
    np.testing.assert_array_equal(first["joints"][..., still], second["joints"][..., still])
    assert np.abs(first["tokens"][:, STATE] - second["tokens"][:, STATE]).max() > 0.1
    assert all(env.single_observation_space[key].contains(value) for key, value in first.items())


def test_phase_is_the_position_in_the_range_and_zero_without_one():
    body = Morphology("legged", legged().compile())
    qpos = body.initial_qpos.copy()
    for name, at in (("left_hip", 1.0), ("left_knee", 0.0), ("right_pitch", 5.0)):
        qpos[body.model.joint(name).qposadr[0]] = at
    seen = observed(one_row(body), qpos, np.zeros(body.model.nv))
    names = [limb.name for limb in body.limbs]
    left, shin, right = (names.index(name) for name in ("left", "left_shin", "right"))
    np.testing.assert_allclose(joint(seen, "phase")[[left, shin], 0, 0], [1, -1], **CLOSE)
    np.testing.assert_allclose(joint(seen, "phase")[right], 0, **CLOSE)
    np.testing.assert_allclose(joint(seen, "angle")[right, 1, 0], 5, **CLOSE)
