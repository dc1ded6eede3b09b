"""What an environment goes on from: restored into another one, both have the same future, bit for bit."""

from __future__ import annotations

import pytest

from somite.envs.locomotion import BodyVariation, Damage, LocomotionTask, World, make_vec
from somite.envs.snapshots import Misfit

from ..futures import equal, go_on, read_back
from .test_goals import MOTORS
from .user_robots import arm, load

CHEETAHS = ["cheetah_3_front", "cheetah_3_front", "cheetah_2_back", "cheetah_7_full"]
SHORT = LocomotionTask(max_episode_steps=25)
FALLING = LocomotionTask(max_episode_steps=40, relative_height=(0.7, 1.5), max_tilt=1.0)
VARIED = BodyVariation(
    mass=[0.5, 2], length=[0.8, 1.25], gear=[0.5, 2], damping=[0.5, 2], armature=[0.5, 2], friction=[0.5, 2]
)
HARD = Damage(probability=0.8, parts=2, step=(2, 20))
WILD = World(
    slope=[-10, 10], step_height=[0.01, 0.1], friction=[0.5, 1], push=[0.5, 2], push_interval=[0.1, 0.4]
)

CASES = {
    "plain": lambda: make_vec(CHEETAHS, 9, SHORT, stagger=True, threads=1),
    "falls": lambda: make_vec(["walker_7_main", "hopper_4"], 6, FALLING, threads=2),
    "a task for each": lambda: make_vec(
        ["walker_7", "walker_4", "cheetah_3_front"], 6, [FALLING, SHORT, FALLING], frame_skip=[4, 5, 3]
    ),
    "aligned": lambda: make_vec(CHEETAHS, 8, SHORT, aligned=True, threads=1),
    "goes anywhere": lambda: make_vec(["ant"], 3, LocomotionTask(15, direction="random")),
    "varied": lambda: make_vec(["cheetah_5_back"], 4, SHORT, variation=VARIED, threads=1),
    "damaged": lambda: make_vec(["ant"], 4, SHORT, damage=HARD, threads=1),
    "in the world": lambda: make_vec(["cheetah_7_full"], 4, SHORT, world=WILD, threads=1),
    "all of it": lambda: make_vec(
        ["cheetah_7_full", "cheetah_2_back"], 6, SHORT, variation=VARIED, damage=HARD, world=WILD
    ),
    "reset by hand": lambda: make_vec(["ant", "ant_back_left_removed"], 4, SHORT, autoreset=False, threads=1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_restored_environment_has_the_same_future(case):
    env, other = CASES[case](), CASES[case]()
    for before, seed in ((1, 0), (24, 1), (40, 2)):
        env.reset(seed=seed)
        go_on(env, before, seed)
        other.reset(seed=1000)
        go_on(other, 7, 3)
        other.restore(read_back(env.snapshot()))
        assert equal(env._observe(), other._observe())
        assert equal(go_on(env, 45, seed + 1), go_on(other, 45, seed + 1))


@pytest.mark.parametrize("case", ["plain", "all of it"])
def test_taking_a_snapshot_changes_nothing_and_shares_nothing(case):
    env, other = CASES[case](), CASES[case]()
    env.reset(seed=0), other.reset(seed=0)
    go_on(env, 10, 0), go_on(other, 10, 0)
    taken = env.snapshot()
    kept = read_back(taken)
    assert equal(go_on(env, 40, 1), go_on(other, 40, 1))
    env.restore(taken)  # back in time, by what would have changed if it shared memory
    other.reset(seed=5)
    other.restore(kept)
    assert equal(go_on(env, 40, 1), go_on(other, 40, 1))


@pytest.mark.parametrize("part", ["_rngs", "_steps", "_blocks", "_streams", "_goals", "_told"])
def test_every_part_is_needed(part):
    """The negative control: what is restored without one of its parts has another future."""

    def make():
        task = LocomotionTask(max_episode_steps=25, direction="random")
        return make_vec(["ant"], 4, task, variation=BodyVariation(mass=[0.5, 2]), damage=HARD, threads=1)

    env, other = make(), make()
    env.reset(seed=0), other.reset(seed=9)
    go_on(env, 12, 0), go_on(other, 5, 1)
    taken = env.snapshot()
    other.restore({**taken, part: other.snapshot()[part]})
    assert not equal(go_on(env, 40, 2), go_on(other, 40, 2))


def test_a_robot_that_reaches_keeps_its_targets(tmp_path):
    body = load(tmp_path, arm(MOTORS))

    def make():
        return make_vec([body], 3, LocomotionTask(20, goal="auto"), threads=1)

    env, other = make(), make()
    env.reset(seed=0), other.reset(seed=1)
    go_on(env, 10, 0)
    other.restore(read_back(env.snapshot()))
    assert equal(go_on(env, 45, 1), go_on(other, 45, 1))


def test_another_environment_is_refused():
    env = CASES["plain"]()
    env.reset(seed=0)
    taken = env.snapshot()
    for other in (
        make_vec(CHEETAHS, 8, SHORT, threads=1),
        make_vec(["ant"], 9, SHORT, threads=1),
        make_vec(CHEETAHS, 9, SHORT, threads=1, damage=HARD),
    ):
        other.reset(seed=0)
        with pytest.raises(Misfit, match="snapshot|keeps"):
            other.restore(taken)


def test_the_number_of_threads_changes_nothing():
    found = []
    for threads in (1, 2, 5):
        env = make_vec(CHEETAHS, 6, SHORT, stagger=True, threads=threads, variation=VARIED)
        env.reset(seed=3)
        found.append(go_on(env, 30, 3))
    assert equal(found[0], found[1]) and equal(found[0], found[2])


def test_readings_lie_as_training_states_of_earlier_versions_hold_them():
    env = make_vec(["ant"], 1, threads=1)
    assert list(env.snapshot()["_readings"]) == ["_values"]
    assert list(env._readings._parts) == [
        *("vectors", "centers", "joint_position", "joint_speed", "activation", "root_origin"),
        *("root_rotation", "root_qpos", "mass_center", "bounded", "quaternions", "rotations_of_joints"),
        "rotations",
    ]
