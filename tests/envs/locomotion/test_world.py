"""Worlds: slopes, steps, patches of other friction, pushes."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from somite.envs.errors import UserError
from somite.envs.locomotion import LIMB_SPEC, LocomotionTask, Morphology, World, build, make_vec
from somite.envs.locomotion.pictures.rendering import BodyRenderer, find_backend
from somite.envs.locomotion.varied.variants import compile_variants
from somite.envs.locomotion.varied.world import MAT, Terrain

from .helpers import legged

STILL = LocomotionTask(reset_noise=0, reset_speed_noise=0)


def make(body, world, num_envs=1, task=STILL, **options):
    env = make_vec([body], num_envs, task, threads=1, world=world, **options)
    env.reset(seed=0)
    return env


def rest(env, steps):
    for _ in range(steps):
        result = env.step(np.zeros(env.action_space.shape))
    return result


def test_a_slope_pulls_downhill_as_steep_as_it_is_told():
    env = make("cheetah_7_full", World(slope=[-20, 20]), 8)
    slope = rest(env, 1)[4]["slope"]
    assert slope.min() >= -20 and slope.max() <= 20 and np.ptp(slope) > 10
    for row in range(8):  # thrown up: all that changes its horizontal speed is gravity
        qpos, qvel = env.get_state(row)
        qpos[1] += 3
        env.set_state(row, qpos, 0 * qvel)
    rest(env, 2)
    gained = np.array([env.get_state(row)[1][0] for row in range(8)])
    np.testing.assert_allclose(gained, -9.81 * np.sin(np.radians(slope)) * 0.1, atol=0.02)


@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.0, 2.0), "random"])
def test_uphill_is_where_the_task_goes(direction):
    env = make("ant", World(slope=[10, 10]), 3, LocomotionTask(direction=direction))
    for row in range(3):
        gravity = env.simulated(row)[0].opt.gravity
        np.testing.assert_allclose(np.linalg.norm(gravity), 9.81)
        np.testing.assert_allclose(
            gravity[:2] @ env._goals.direction[row].numpy(), -9.81 * np.sin(np.radians(10))
        )


def height_of(env, row, x):
    """Where something let fall onto the ground at x would be: a ray from above."""
    model, data, _ = env.simulated(row)
    geom = np.zeros(1, np.int32)
    groups = np.ones(6, np.uint8)
    distance = mujoco.mj_ray(model, data, [x, 2.5, 5.0], [0.0, 0.0, -1.0], groups, 1, -1, geom)
    return 5.0 - distance


def test_steps_are_where_height_says():
    world = World(step_height=[0.0, 0.3], strip_length=[0.3, 0.9], strips=5, start=1.5, variants=4)
    env = make("cheetah_5_back", world, 6)
    heights = set()
    for row in range(6):
        for x in np.linspace(0.0, 6.0, 40):
            qpos, qvel = env.get_state(row)
            qpos[:2] = x, 2.0
            env.set_state(row, qpos, qvel)
            tokens = env._observe()["tokens"][row].numpy()
            said = tokens[0, LIMB_SPEC.token_slice("height")]
            root = env.simulated(row)[1].xpos[env._block_of(row)[0].root]
            assert root[2] - said == pytest.approx(height_of(env, row, root[0]), abs=1e-6)
            heights.add(round(float(root[2] - said[0]), 4))
    assert len(heights) > 10 and 0.0 in heights


def test_a_body_on_a_step_has_its_height_above_it_and_has_not_fallen():
    world = World(step_height=[0.5, 0.5], strips=2, start=1.0, strip_length=[3.0, 3.0])
    task = LocomotionTask(reset_noise=0, reset_speed_noise=0, relative_height=(0.5, 1.3))
    env = make("walker_7", world, 1, task)
    qpos, qvel = env.get_state(0)
    usual = float(env._observe()["tokens"][0, 0, 3])
    qpos[:2] += [2.5, 0.5]
    env.set_state(0, qpos, qvel)
    assert float(env._observe()["tokens"][0, 0, 3]) == pytest.approx(usual, abs=1e-6)
    _, _, terminated, _, _ = rest(env, 10)
    assert not terminated.any() and env.get_state(0)[0][1] > qpos[1] - 0.1  # it stands there


def test_strips_lie_across_the_tasks_direction():
    world = World(step_height=[0.2, 0.2], strips=1, start=1.0, strip_length=[1.0, 1.0])
    env = make("ant", world, 1, LocomotionTask(direction=(0.0, -1.0)))
    for place, height in (((0.3, -1.5), 0.2), ((-3.0, -1.9), 0.2), ((1.5, 0.0), 0.0), ((0.0, -2.1), 0.0)):
        below = env._readings.terrain.below(torch.tensor(place, dtype=torch.float64)[:, None, None])
        assert float(below) == height
    with pytest.raises(UserError, match="give one, not 'random'"):
        make("ant", world, 1, LocomotionTask(direction="random"))


def test_patches_are_as_slippery_as_they_are_drawn():
    def slid(factor):
        world = World(friction=[factor, factor], start=-30.0, strip_length=[60, 60], strips=1, variants=1)
        env = make("cheetah_7_full", world)
        rest(env, 20)
        qpos, qvel = env.get_state(0)
        assert env.simulated(0)[1].ncon > 0
        qvel[0] += 2.0
        env.set_state(0, qpos, qvel)
        rest(env, 20)
        return env.get_state(0)[0][0] - qpos[0]

    assert slid(0.02) > 1.5 > 0.8 > slid(1.0)


def test_nothing_touches_the_ground_below_a_patch():
    world = World(friction=[0.5, 0.5], start=-30.0, strip_length=[60, 60], strips=1, variants=1)
    env = make("cheetah_7_full", world)
    rest(env, 30)
    model, data, _ = env.simulated(0)
    plane = int(np.flatnonzero(model.geom_type == 0)[0])
    touched = {int(geom) for contact in data.contact[: data.ncon] for geom in contact.geom}
    assert touched and plane not in touched
    assert float(env._readings.terrain.below(torch.zeros(2, 1, 1))) == MAT


@pytest.mark.parametrize("body", ["ant", "cheetah_7_full"])
def test_a_push_moves_the_whole_body_and_ends_after_its_step(body):
    world = World(push=[1.0, 1.0], push_interval=[0.1, 0.1])
    calm, pushed = (make(body, w, 4) for w in (None, world))
    dt, mass = calm.step_duration, build(body).mass
    due = max(1, round(0.1 / dt))
    for step in range(due + 1):
        for env in (calm, pushed):
            for row in range(4):
                qpos, qvel = env.get_state(row)
                qpos[2 if body == "ant" else 1] = 3.0  # in the air
                if step == due:
                    env.set_state(row, qpos, 0 * qvel)
        rest(calm, 1)
        rest(pushed, 1)
        if step < due:
            np.testing.assert_array_equal(calm.get_state(0)[1], pushed.get_state(0)[1])
    changes = []
    for row in range(4):
        moved = [momentum(env, row) for env in (calm, pushed)]
        changes.append((moved[1] - moved[0]) / mass)
    changes = np.array(changes)
    if body == "ant":
        np.testing.assert_allclose(np.linalg.norm(changes[:, :2], axis=1), 1.0, rtol=0.05)
    else:
        assert (np.abs(changes[:, 0]) <= 1.05).all() and np.abs(changes[:, 0]).max() > 0.2
    assert np.ptp(changes[:, 0]) > 0.1  # rows in directions of their own
    rest(pushed, 1)
    if due > 1:
        assert not pushed._blocks[0].batch.bind("xfrc_applied")[:].any()


def momentum(env, row):
    model, data, root = env.simulated(row)
    mujoco.mj_subtreeVel(model, data)
    return data.subtree_linvel[root] * model.body_subtreemass[root]


def test_a_seed_decides_the_world_and_without_one_nothing_changes():
    world = World(slope=[0, 5], step_height=[0, 0.1], friction=[0.5, 1], push=[0, 1], variants=3)
    task = LocomotionTask(max_episode_steps=30)
    runs = []
    for given in (world, world, None, World()):
        env = make_vec(["walker_3", "cheetah_3_back"], 4, task, threads=1, world=given)
        seen = [env.reset(seed=1)[0]["tokens"]]
        for action in np.random.default_rng(0).uniform(-1, 1, (40, *env.action_space.shape)):
            seen.append(env.step(action)[0]["tokens"])
        runs.append(np.array(seen))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[2], runs[3])
    assert np.abs(runs[0] - runs[2]).max() > 0.1


def test_compiled_worlds_differ():
    variants = compile_variants(build("hopper_4"), None, World(step_height=[0, 0.2], variants=3), (1, 0))
    assert len({tuple(variant.terrain.heights) for variant in variants}) == 3
    assert all(isinstance(variant.terrain, Terrain) for variant in variants)


def test_pictures_show_the_world_of_the_episode():
    try:
        find_backend()
    except UserError as error:
        pytest.skip(str(error))
    world = World(step_height=[0.4, 0.4], start=-1.0, strips=1, strip_length=[2, 2], variants=1)
    pictures = []
    for given in (None, world):
        env = make("hopper_4", given)
        qpos, qvel = env.get_state(0)
        env.set_state(0, qpos, qvel)
        renderer = BodyRenderer(env, 96, 64)
        pictures.append(renderer.picture(0).astype(int))
        renderer.close()
    assert np.abs(pictures[0] - pictures[1]).max() > 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slope": [0, 95]}, "above -90 and below 90"),
        ({"slope": 5}, "world.slope must be"),
        ({"step_height": [-0.1, 0.1]}, "from 0 to 100"),
        ({"friction": [0, 1]}, "world.friction"),
        ({"strip_length": [0, 1]}, "world.strip_length"),
        ({"push_interval": None}, "world.push_interval"),
        ({"strips": 0}, "world.strips must be a whole number from 1"),
    ],
)
def test_worlds_that_cannot_be_meant_are_told(options, message):
    with pytest.raises(UserError, match=message):
        World(**options)


def test_steps_need_ground_and_a_source():
    with pytest.raises(UserError, match="compiled model only"):
        make(Morphology("own", legged().compile()), World(step_height=[0, 0.1]))

    def floating():
        spec = legged()
        spec.delete(spec.worldbody.first_geom())
        return spec

    with pytest.raises(UserError, match="stands on no plane"):
        make(Morphology("own", floating().compile(), spec=floating), World(step_height=[0, 0.1]))
