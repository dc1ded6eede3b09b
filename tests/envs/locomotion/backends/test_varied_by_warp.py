"""Varied bodies on a device: every row simulates, and is told of, the variant that was drawn for it."""

import mujoco
import numpy as np
import pytest
import torch

pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: pip install 'somite[gpu]'")

from somite.envs.locomotion import LocomotionEnv
from somite.envs.locomotion.limb_spec import LIMB_SPEC
from somite.envs.locomotion.task import LocomotionTask
from somite.envs.locomotion.varied.variation import BodyVariation
from somite.envs.locomotion.varied.world import World

BODIES = ["cheetah_2_back", "cheetah_2_front"]
VARIATION = BodyVariation(
    length=[0.7, 1.4], mass=[0.5, 2.0], gear=[0.5, 2.0], damping=[0.5, 2.0], friction=[0.6, 1.5], variants=3
)
WORLD = World(slope=[-10, 10])
ROWS, PREPARED = 6, 4


@pytest.fixture(scope="module")
def env():
    env = LocomotionEnv(
        BODIES,
        ROWS,
        LocomotionTask(max_episode_steps=4),
        variation=VARIATION,
        world=WORLD,
        prepared=PREPARED,
        simulation="warp",
    )
    env.reset(seed=0)
    return env


def numbers_of(env):
    """Which prepared variant each row is, of those of its body."""
    return torch.cat([variants._number for variants in env._prepared])


def model_of(env, row):
    """The compiled model that a row should be simulating, its block, and its place in it."""
    index, block = next(
        (k, b) for k, b in enumerate(env._simulation.blocks) if b.rows.start <= row < b.rows.stop
    )
    place = row - block.rows.start
    return block.worlds.models[int(env._prepared[index]._number[place])], block, place


def state_of(block, name, place):
    return block.array(name)[place]


def actions_of(env, value=0.0):
    return torch.full((env.num_envs, env.n_limbs, env.n_joints), value)


def test_rows_simulate_their_variants(env):
    env.reset(seed=1)
    datas = []
    for row in range(ROWS):
        model, block, place = model_of(env, row)
        data = mujoco.MjData(model)
        data.qpos[:] = state_of(block, "qpos", place)
        data.qvel[:] = state_of(block, "qvel", place)
        datas.append((model, data, block, place))
    assert len({round(float(model.body_mass.sum()), 4) for model, *_ in datas}) > 2
    rng = np.random.default_rng(0)
    for _ in range(3):
        actions = torch.from_numpy(rng.uniform(-1, 1, actions_of(env).shape).astype(np.float32))
        env.step(actions)
        for model, data, block, place in datas:
            data.ctrl[:] = state_of(block, "ctrl", place)
            mujoco.mj_step(model, data, nstep=block.frame_skip)
            np.testing.assert_allclose(state_of(block, "qpos", place), data.qpos, atol=2e-3)
            np.testing.assert_allclose(state_of(block, "qvel", place), data.qvel, atol=5e-2)


def test_a_row_with_the_neighbours_model_would_move_otherwise(env):
    """The control of the test above."""
    env.reset(seed=1)
    model, block, place = model_of(env, 0)
    other = next(m for m in block.worlds.models if m is not model)
    ends = []
    for simulated in (model, other):
        data = mujoco.MjData(simulated)
        data.qpos[:], data.qvel[:] = state_of(block, "qpos", place), state_of(block, "qvel", place)
        data.ctrl[:] = 1.0
        mujoco.mj_step(simulated, data, nstep=15)
        ends.append(data.qvel.copy())
    assert np.abs(ends[0] - ends[1]).max() > 5e-2


def test_rows_are_told_of_their_variants(env):
    observation = env.reset(seed=2)
    states = int(LIMB_SPEC.token_is_state().sum())
    mass = LIMB_SPEC.token_slice("mass").start
    assert mass >= states
    for row in range(ROWS):
        body, (model, _, _) = env.bodies[env.body_of_row[row]], model_of(env, row)
        told = observation["tokens"][row, : body.n_limbs, mass].numpy()
        own = [sum(model.body_mass[part] for part in limb.bodies) for limb in body.limbs]
        np.testing.assert_allclose(told, own, rtol=1e-4)


def test_new_episodes_draw_new_variants_and_leave_the_others(env):
    env.reset(seed=3)
    before = numbers_of(env).tolist()
    env._steps[0] = 3  # the first row is cut in the next step
    seen = set()
    for _ in range(12):
        env._steps[0], env._steps[1:] = 3, 0
        env.step(actions_of(env))
        numbers = numbers_of(env).tolist()
        assert numbers[1:] == before[1:]
        seen.add(numbers[0])
    assert len(seen) > 1
    assert seen <= set(range(PREPARED))  # of its own body


def test_gravity_is_of_each_row(env):
    gravities = torch.cat([block.worlds.fields["gravity"] for block in env._simulation.blocks])
    assert len({round(float(g), 4) for g in gravities[:, 0]}) > 1
    torch.testing.assert_close(gravities.norm(dim=1), torch.full((ROWS,), 9.81), atol=1e-3, rtol=0)


def test_a_snapshot_keeps_the_variants(env):
    env.reset(seed=4)
    taken = env.snapshot()
    numbers = numbers_of(env)
    wanted = env.step(actions_of(env)).rewards.clone()
    env.reset(seed=5)
    env.restore(taken)
    assert torch.equal(numbers_of(env), numbers)
    torch.testing.assert_close(env.step(actions_of(env)).rewards, wanted, atol=0, rtol=0)
