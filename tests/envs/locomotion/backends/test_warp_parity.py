"""Bodies simulated by MuJoCo Warp do what they do on the CPU, as far as single precision tells."""

import copy

import mujoco
import numpy as np
import pytest
import torch

pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: pip install 'somite[gpu]'")

from somite.envs.locomotion import LocomotionEnv, make_vec
from somite.envs.locomotion.bodies import families
from somite.envs.locomotion.bodies.morphology import Morphology
from somite.envs.locomotion.task import LocomotionTask


def round_cones(name):
    """A body whose friction cones are round.

    Of a capsule that stands steeply on a plane MuJoCo Warp lays the edges of a pyramidal cone otherwise than
    MuJoCo: both are approximations, and they slide otherwise. What is round has no edges.
    """
    model = copy.copy(families.build(name).model)
    model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    return Morphology(name, model)


LAND = LocomotionTask(alive_bonus=1.0, relative_height=(0.2, 2.0), max_tilt=1.0, max_state=100.0)
CASES = {
    "two cheetahs, two layouts": (["cheetah_7_full", "cheetah_2_back"], 4, {}),
    "two cheetahs, one layout": (["cheetah_7_full", "cheetah_2_back"], 4, {"layouts": 1}),
    "an ant, Gymnasium's task": (
        [round_cones("ant")],
        2,
        {"task": LocomotionTask(height=(0.2, 1.0), progress="body")},
    ),
    "a task for each": (
        ["cheetah_2_back", "cheetah_7_full"],
        4,
        {"task": [LAND, LocomotionTask(target_speed=1.0)], "frame_skip": [4, 5]},
    ),
    "a hopper in the padding of another": (["hopper_3", "hopper_4"], 2, {"task": LAND}),
    "a direction and a speed to keep": (
        [round_cones("ant")],
        2,
        {"task": LocomotionTask(direction="random", target_speed=1.0, progress="center")},
    ),
}
STEPS = 8
STATE, REWARD = 5e-3, 1e-3
"""Tolerances after at most eight steps: half a centimetre or degree, and of rewards."""


def both(names, rows, options):
    device = LocomotionEnv(names, rows, simulation="warp", **options)
    host = make_vec(names, rows, threads=1, **options)
    return device, host


def difference(device, host):
    assert set(device) == set(host)
    return max(
        np.abs(device[name].numpy().astype(float) - host[name]).max() for name in host if host[name].size
    )


SLOW = ("a hopper in the padding of another", "a direction and a speed to keep")
"""Whose kernels take long to compile, where nobody has done so before."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else []) for case in CASES]
)
def test_steps_are_those_of_the_cpu(case):
    names, rows, options = CASES[case]
    device, host = both(names, rows, options)
    seen, (wanted, _) = device.reset(seed=3), host.reset(seed=3)
    assert difference(seen, wanted) < 1e-5
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        actions = rng.uniform(-1.2, 1.2, host.action_space.shape).astype(np.float32)
        step = device.step(torch.from_numpy(actions))
        wanted, rewards, terminated, truncated, _ = host.step(actions)
        np.testing.assert_array_equal(step.terminated.numpy(), terminated)
        np.testing.assert_array_equal(step.truncated.numpy(), truncated)
        if terminated.any():
            break  # the new episodes are others
        assert difference(step.observation, wanted) < STATE * 20  # angular velocities are in rad/s
        places = step.observation["tokens"][..., :4].numpy(), wanted["tokens"][..., :4]
        assert np.abs(places[0] - places[1]).max() < STATE
        np.testing.assert_allclose(step.rewards.numpy(), rewards, atol=REWARD)
    device.check()


def test_another_reward_would_be_seen():
    """The control of the test above: one per cent more control cost is no longer equal."""
    device = LocomotionEnv(["cheetah_2_back"], 2, LocomotionTask(control_cost=0.11), simulation="warp")
    host = make_vec(["cheetah_2_back"], 2, threads=1)
    device.reset(seed=3)
    host.reset(seed=3)
    actions = np.ones(host.action_space.shape, np.float32)
    found, wanted = device.step(torch.from_numpy(actions)).rewards.numpy(), host.step(actions)[1]
    assert np.abs(found - wanted).min() > REWARD


def test_falls_end_episodes_in_the_same_step():
    options = {"task": LocomotionTask(max_tilt=0.25)}
    device, host = both(["cheetah_7_full"], 2, options)
    device.reset(seed=0)
    host.reset(seed=0)
    ends = []
    for _ in range(40):
        actions = np.ones(host.action_space.shape, np.float32)
        found, (_, _, terminated, _, _) = device.step(torch.from_numpy(actions)), host.step(actions)
        ends.append((found.terminated.numpy().copy(), terminated.copy()))
        if terminated.any():
            break
    else:
        pytest.fail("nothing fell in 40 steps")
    for found, wanted in ends:
        np.testing.assert_array_equal(found, wanted)


def test_a_target_is_reached_for_by_the_same_reward():
    spec = mujoco.MjSpec()
    arm = spec.worldbody.add_body(name="arm", pos=[0, 0, 1])
    for index, body in enumerate((arm, arm.add_body(name="fore", pos=[0.4, 0, 0]))):
        body.add_joint(name=f"j{index}", axis=[0, 1, 0])
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[0, 0, 0, 0.4, 0, 0], size=[0.05, 0, 0])
        spec.add_actuator(name=f"m{index}", target=f"j{index}", trntype=mujoco.mjtTrn.mjTRN_JOINT)
    device, host = both([Morphology("arm", spec.compile())], 2, {"task": LocomotionTask(goal="auto")})
    assert difference(device.reset(seed=1), host.reset(seed=1)[0]) < 1e-5
    for _ in range(STEPS):
        actions = np.full(host.action_space.shape, 0.5, np.float32)
        step = device.step(torch.from_numpy(actions))
        wanted, rewards, _, _, info = host.step(actions)
        assert info["reward_reach"].min() > 0
        assert difference(step.observation, wanted) < STATE
        np.testing.assert_allclose(step.rewards.numpy(), rewards, atol=REWARD)


def test_returns_of_random_actions_have_the_same_statistics():
    rows, steps = 96, 60
    device, host = both(["cheetah_7_full"], rows, {})
    device.reset(seed=5)
    host.reset(seed=6)
    rng, found, wanted = np.random.default_rng(1), np.zeros(rows), np.zeros(rows)
    for _ in range(steps):
        found += device.step(
            torch.from_numpy(rng.uniform(-1, 1, host.action_space.shape).astype(np.float32))
        ).rewards.numpy()
        wanted += host.step(rng.uniform(-1, 1, host.action_space.shape))[1]
    error = np.hypot(found.std(), wanted.std()) / np.sqrt(rows)
    assert abs(found.mean() - wanted.mean()) < 4 * error
    assert 0.7 < found.std() / wanted.std() < 1.4
