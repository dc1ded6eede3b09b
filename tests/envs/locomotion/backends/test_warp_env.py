"""Episodes on a device: resets, cuts, divergence, snapshots, capacities, and nothing that waits."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: pip install 'somite[gpu]'")

from somite.envs.errors import UserError
from somite.envs.locomotion import LocomotionEnv
from somite.envs.locomotion.task import LocomotionTask
from somite.envs.locomotion.varied.damage import Damage
from somite.envs.locomotion.varied.world import World
from somite.envs.snapshots import Misfit

BODY = "cheetah_2_back"


def make(rows=3, steps=1000, **options):
    task = LocomotionTask(max_episode_steps=steps)
    return LocomotionEnv([BODY], rows, task, simulation="warp", **options)


def act(env, value=0.5):
    return torch.full((env.num_envs, env.n_limbs, env.n_joints), value)


def test_a_cut_episode_tells_its_last_observation_and_starts_anew():
    env = make(2, steps=3)
    first = {name: value.clone() for name, value in env.reset(seed=0).items()}
    for age in range(1, 4):
        step = env.step(act(env))
        assert step.truncated.tolist() == [age == 3] * 2
        assert not step.terminated.any()
    assert step.whole.all()
    moved = (step.final["tokens"] - first["tokens"]).abs().amax((1, 2))
    assert (moved > 0.1).all()  # it had gone on
    started = (step.observation["tokens"] - first["tokens"]).abs().amax((1, 2))
    assert (started > 1e-3).all()  # another start
    assert (step.observation["joints"][..., :1].abs() < 0.2).all()  # of a body near its home
    assert not env.step(act(env)).truncated.any()


def test_rows_that_go_on_do_not_notice_that_others_are_reset():
    alone, beside = make(1), make(1, steps=1000)
    together = make(2)
    alone.reset(seed=[7])
    together.reset(seed=[7, 8])
    together._steps[1] = 998  # is cut two steps from now
    for _ in range(5):
        one, two = alone.step(act(alone)), together.step(act(together))
        for name, value in one.observation.items():
            torch.testing.assert_close(two.observation[name][:1], value, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(two.rewards[:1], one.rewards, atol=2e-5, rtol=1e-5)
    assert together._steps.tolist() == [5, 3]
    beside.close()


def test_staggered_clocks_are_told_apart():
    env = make(8, steps=4, stagger=True)
    env.reset(seed=0)
    ages = env._start_age.tolist()
    assert len(set(ages)) > 1
    ended = [[] for _ in ages]
    for _ in range(9):
        step = env.step(act(env))
        for row in step.truncated.nonzero()[:, 0].tolist():
            ended[row].append(bool(step.whole[row]))
    for age, whole in zip(ages, ended, strict=True):
        assert whole == [age == 0] + [True] * (len(whole) - 1)


def test_a_diverged_row_ends_alone_and_starts_anew():
    env = make(3)
    env.reset(seed=0)
    model = env.bodies[0].model
    env.set_state(1, env.bodies[0].initial_qpos, np.full(model.nv, 1e9))
    step = env.step(act(env))
    assert step.diverged.tolist() == [False, True, False]
    assert step.terminated.tolist() == [False, True, False]
    assert torch.isfinite(step.rewards).all()
    for observation in (step.observation, step.final):
        assert all(torch.isfinite(value).all() for value in observation.values())
    again = env.step(act(env))
    assert not again.diverged.any()
    assert torch.isfinite(again.observation["tokens"]).all()


def test_an_action_that_is_no_number_ends_its_row_only():
    env = make(2)
    env.reset(seed=0)
    actions = act(env)
    actions[0] = torch.nan
    step = env.step(actions)
    assert step.terminated.tolist() == [True, False]
    assert torch.isfinite(step.rewards).all()


def test_a_recorded_step_is_what_plain_launches_do():
    recorded, plain = make(2), make(2)
    plain._simulation.launcher._run = lambda _, work: [work(block.worlds) for block in plain._blocks]
    recorded.reset(seed=0)
    plain.reset(seed=0)
    for _ in range(20):  # until it stands on its feet and its solver iterates
        one, two = recorded.step(act(recorded)), plain.step(act(plain))
        torch.testing.assert_close(one.observation, two.observation, atol=0, rtol=0)
        torch.testing.assert_close(one.rewards, two.rewards, atol=0, rtol=0)


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a device."""

    waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.waits):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def test_a_step_waits_for_nothing():
    env = LocomotionEnv(["cheetah_7_full", BODY], 4, LocomotionTask(max_episode_steps=2), simulation="warp")
    env.reset(seed=0)
    with NoWaiting():
        for _ in range(3):
            env.step(act(env))
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        env.check()  # the control: this one does


def test_a_snapshot_goes_on_as_the_run_would_have():
    env, other = make(3, steps=4, stagger=True), make(3, steps=4, stagger=True)
    env.reset(seed=0)
    other.reset(seed=9)
    env.step(act(env))
    taken = env.snapshot()
    seen = env._observe()
    torch.testing.assert_close(other.restore(taken), seen, atol=0, rtol=0)
    for _ in range(5):
        one, two = env.step(act(env, -0.3)), other.step(act(env, -0.3))
        torch.testing.assert_close(two.rewards, one.rewards, atol=0, rtol=0)
        torch.testing.assert_close(two.observation, one.observation, atol=0, rtol=0)
        assert two.truncated.tolist() == one.truncated.tolist()
    with pytest.raises(Misfit):
        make(2).restore(taken)


@pytest.mark.parametrize("what", ["contacts", "constraints"])
def test_a_capacity_that_is_too_small_is_said_with_the_key(what):
    env = LocomotionEnv(["cheetah_7_full"], 2, simulation="warp", **{what: 1})
    env.reset(seed=0)
    for _ in range(12):  # until it stands on its feet
        env.step(act(env, 0.0))
    with pytest.raises(UserError, match=rf"cheetah_7_full.*more {what}.*1 for each.*Raise warp\.{what}"):
        env.check()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"damage": Damage(probability=1.0)}, "env.damage"),
        ({"world": World(push=[1, 2])}, "env.world.push"),
        ({"world": World(step_height=[0.01, 0.05])}, "uneven"),
    ],
)
def test_what_cannot_be_simulated_on_a_device_is_said(options, why):
    with pytest.raises(UserError, match=why):
        make(2, **options)


def test_wrong_input_is_said():
    env = make(2)
    with pytest.raises(UserError, match="reset"):
        env.step(act(env))
    env.reset(seed=0)
    with pytest.raises(UserError, match="shape"):
        env.step(torch.zeros(2, 5, 1))
    with pytest.raises(UserError, match="3 seeds for 2"):
        env.reset(seed=[1, 2, 3])


def test_a_closed_environment_says_so():
    env = make(2)
    env.close()
    env.close()
    for ask in (env.reset, lambda: env.step(act(env)), env.snapshot):
        with pytest.raises(UserError, match="has been closed"):
            ask()
