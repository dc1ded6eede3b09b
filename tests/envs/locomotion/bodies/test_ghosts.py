"""Bodies in few layouts: ghosts stand for what they lack, and nothing else changes."""

import numpy as np
import pytest
import torch

from somite.envs.locomotion import FAMILIES, BodySet, FamilySet, LocomotionEnv, LocomotionTask
from somite.envs.locomotion.bodies import families
from somite.envs.locomotion.bodies.ghosts import in_few_layouts

PLANAR = [f"planar_{number}" for number in range(16)]
UPRIGHT = [f"planar_upright_{number}" for number in range(6)]
WALKER = LocomotionTask(alive_bonus=1.0, relative_height=(0.2, 2.0), max_tilt=1.0, max_state=100.0)
CASES = {
    "cheetahs": (list(FAMILIES["cheetah"].members), None, {}, 1),
    "cheetahs, slots aligned": (list(FAMILIES["cheetah"].members), None, {"aligned": True}, 1),
    "planar": (PLANAR, None, {}, 1),
    "planar, three layouts": (PLANAR, None, {}, 3),
    "upright, which may fall": (UPRIGHT, WALKER, {"frame_skip": 4, "aligned": True}, 2),
    "with arms": (list(FAMILIES["humanoid_2d"].members), WALKER, {}, 1),
    "free roots": (["quadruped_0", "quadruped_1", "quadruped_37"], None, {}, 1),
}


def structures(bodies):
    return len({body.structure for body in bodies})


@pytest.mark.parametrize("case", CASES)
def test_ghosts_change_nothing(case):
    names, task, options, most = CASES[case]
    alone = LocomotionEnv(names, task=task, threads=1, **options)
    among = LocomotionEnv(names, task=task, threads=1, layouts=most, **options)
    assert structures(block.body for block in among._blocks) == most
    rows = torch.from_numpy(np.array(among.body_of_row))  # one of each body, in the order of the layouts
    seen, other = (
        alone.reset(seed=[[3, i] for i in range(len(names))]),
        among.reset(seed=[[3, i] for i in rows.tolist()]),
    )
    for name, values in seen.items():
        assert torch.equal(values[rows], other[name]), name  # masks, descriptors, starts and all else
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        actions = 2 * torch.rand(seen["action_mask"].shape, generator=random) - 1
        a, b = alone.step(actions), among.step(actions[rows])
        torch.testing.assert_close(a.rewards[rows], b.rewards, atol=1e-8, rtol=0)
        for name in ("tokens", "joints"):
            torch.testing.assert_close(a.observation[name][rows], b.observation[name], atol=1e-6, rtol=1e-6)
        assert torch.equal(a.terminated[rows], b.terminated)
    assert any(body.model.nv > len(body.columns[1]) for block in among._blocks for body in block.bodies)
    for block in among._blocks:
        for body, speeds in zip(block.bodies, block.array("qvel").numpy(), strict=True):
            ghosts = np.delete(speeds, body.columns[1]) if body.bare is not body else np.zeros(0)
            assert not ghosts.any()


def test_states_by_hand_are_those_of_the_body_alone():
    alone, among = (LocomotionEnv(["cheetah_2_back", "cheetah_4_allback"], layouts=k) for k in (None, 1))
    for env in (alone, among):
        env.reset(seed=0)
        qpos, qvel = env.get_state(1)
        env.set_state(1, qpos + 0.1, qvel - 0.1)
    for row in (0, 1):
        for one, other in zip(alone.get_state(row), among.get_state(row), strict=True):
            np.testing.assert_array_equal(one, other)
        (model, one, _), (_, other, _) = alone.simulated(row), among.simulated(row)
        assert other.model.nbody == model.nbody
        np.testing.assert_allclose(one.xpos, other.xpos, atol=1e-12)


def test_what_was_kept_is_gone_on_with():
    env, actions = LocomotionEnv(["cheetah_2_back", "cheetah_7_full"], layouts=1), torch.full((2, 7, 1), 0.5)
    env.reset(seed=0)
    kept = env.snapshot()
    first = env.step(actions)
    env.restore(kept)
    assert torch.equal(env.step(actions).observation["tokens"], first.observation["tokens"])


def test_bodies_whose_limbs_touch_each_other_and_those_alone_of_their_kind_have_no_ghosts():
    names = [*FAMILIES["humanoid"].members, "hopper_3", "cheetah_7_full"]
    bodies = [families.build(name) for name in names]
    assert in_few_layouts(bodies, 1) == bodies
    cheetahs = [families.build(name) for name in FAMILIES["cheetah"].members]
    assert in_few_layouts(cheetahs, None) == cheetahs
    assert in_few_layouts(cheetahs, structures(cheetahs)) == cheetahs


def test_the_cheapest_are_merged_first():
    """Bodies that are alike have no ghosts where there are layouts enough for the others."""
    bodies = [families.build(name) for name in PLANAR]
    sizes = [sum(body.model.nbody for body in in_few_layouts(bodies, most)) for most in (1, 2, 4, 8, None)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 1.5 * sizes[2]


def test_rows_of_a_layout_are_beside_each_other():
    splits = {"planar_upright": "drawn_16", "cheetah": "all"}
    settings = {name: BodySet(name, split) for name, split in splits.items()}
    task = FamilySet(list(splits), settings=settings)
    plain, env = (task.make_env(None, 70, layouts=most, threads=1) for most in (None, 3))
    assert len(env._blocks) == 6 and env.body_names == plain.body_names
    assert (np.bincount(env.body_of_row) == np.bincount(plain.body_of_row)).all()
    assert np.count_nonzero(np.diff(env.body_of_row)) == len(env.bodies) - 1  # those of a body lie together
    for block in env._blocks:
        bodies = [env.bodies[i] for i in env.body_of_row[block.rows]]
        assert [body.bare for body in block.bodies] == bodies
        assert {task.set_of(body).task for body in bodies} == {block.task}
