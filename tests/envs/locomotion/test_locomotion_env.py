"""The vector environment: episodes, resets, determinism, mixed bodies, padding, divergence, errors."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from somite.envs.errors import UserError
from somite.envs.locomotion import LocomotionTask, Morphology, build, make_vec

from .helpers import SAMPLED, legged, random_state

# Rows start with up to 0.1 rad of lean and fall at different times.
FALLING = LocomotionTask(alive_bonus=1.0, relative_height=(0.6, 2.0), max_tilt=0.15, max_episode_steps=30)
SHORT = LocomotionTask(max_episode_steps=10)


def make(bodies, num_envs=None, task=None, **options):
    return make_vec(bodies, num_envs, task, **{"threads": 1, "frame_skip": 4} | options)


def actions_for(env, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape))


def assert_rows_equal(first, second, rows=slice(None), other_rows=slice(None)):
    for key in first:
        np.testing.assert_array_equal(first[key][rows], second[key][other_rows], err_msg=key)


# Episodes


def test_same_step_autoreset_gives_the_last_observation_that_a_copy_without_reset_sees():
    bodies = ["hopper_4", "cheetah_2_back", "hopper_3"]
    resetting, staying = (make(bodies, 9, FALLING, autoreset=same) for same in (True, False))
    assert_rows_equal(resetting.reset(seed=5)[0], staying.reset(seed=5)[0])
    ended_alone = set()
    for action in actions_for(resetting, 60):
        observation, reward, terminated, truncated, info = resetting.step(action)
        last, last_reward, last_terminated, last_truncated, last_info = staying.step(action)
        np.testing.assert_array_equal(reward, last_reward)
        np.testing.assert_array_equal(terminated, last_terminated)
        np.testing.assert_array_equal(truncated, last_truncated)
        ended = terminated | truncated
        if not ended.any():
            assert "final_obs" not in info and "final_info" not in info
            assert_rows_equal(observation, last)
            continue
        np.testing.assert_array_equal(info["_final_obs"], ended)
        np.testing.assert_array_equal(info["_final_info"], ended)
        for key, value in last_info.items():
            np.testing.assert_array_equal(info["final_info"][key][ended], value[ended])
            np.testing.assert_array_equal(info["final_info"][f"_{key}"], ended)
        for row, final in enumerate(info["final_obs"]):
            assert (final is not None) == ended[row]
            for key in final or ():
                np.testing.assert_array_equal(final[key], last[key][row])
            assert final is None or np.abs(observation["tokens"][row] - final["tokens"]).max() > 1e-3
        # The copy's rows are reset by hand, and draw their starts from the same streams.
        assert_rows_equal(observation, staying.reset(options={"reset_mask": ended})[0])
        if not ended.all():
            ended_alone |= set(np.flatnonzero(ended).tolist())
    assert ended_alone >= {0, 1, 2, 6, 7, 8}  # rows of two bodies, each at a time of its own


def test_the_observation_after_an_autoreset_is_a_start_of_the_rows_own_stream():
    env = make(["cheetah_3_back"], 3, SHORT)
    env.reset(seed=1)
    for action in actions_for(env, 10):
        observation, _, _, truncated, _ = env.step(action)
    assert truncated.all()
    again = make(["cheetah_3_back"], 3, SHORT)
    again.reset(seed=1)
    assert_rows_equal(observation, again.reset()[0])  # the second start of the same streams
    starts = observation["tokens"]
    assert np.abs(starts[0] - starts[1]).max() > 1e-3  # rows start differently


def test_the_time_limit_truncates_and_falling_terminates():
    env = make(["hopper_4"], 2, LocomotionTask(max_tilt=0.3, max_episode_steps=6, reset_noise=0.0))
    env.reset(seed=0)
    zero = np.zeros(env.action_space.shape)
    for _ in range(5):
        _, _, terminated, truncated, _ = env.step(zero)
        assert not terminated.any() and not truncated.any()
    qpos, qvel = env.get_state(1)
    qpos[2] = 0.5  # leans beyond the limit
    env.set_state(1, qpos, qvel)
    _, _, terminated, truncated, _ = env.step(zero)
    assert terminated.tolist() == [False, True] and truncated.tolist() == [True, True]
    for _ in range(5):  # both clocks have started again
        assert not env.step(zero)[3].any()
    assert env.step(zero)[3].all()


def test_rewards_are_progress_bonus_and_cost():
    task = LocomotionTask(forward_weight=2.0, control_cost=0.3, alive_bonus=0.7, max_tilt=3.0)
    env = make(["cheetah_4_back"], 2, task, frame_skip=5)
    env.reset(seed=0)
    before = [env.get_state(row)[0][0] for row in range(2)]
    action = np.full(env.action_space.shape, 0.5)
    _, reward, terminated, _, info = env.step(action)
    velocity = (np.array([env.get_state(row)[0][0] for row in range(2)]) - before) / 0.05
    np.testing.assert_allclose(info["forward_velocity"], velocity)
    np.testing.assert_allclose(reward, 2 * velocity + 0.7 - 0.3 * 3 * 0.25)  # three motors
    parts = [info[f"reward_{part}"] for part in ("forward", "alive", "control")]
    np.testing.assert_allclose(reward, sum(parts))
    qpos, qvel = env.get_state(0)
    qpos[2] = np.pi  # upside down: no bonus
    env.set_state(0, qpos, qvel)
    _, _, terminated, _, info = env.step(action)
    assert terminated.tolist() == [True, False]
    np.testing.assert_allclose(info["reward_alive"], [0, 0.7])


def test_progress_is_along_the_tasks_direction_of_any_length():
    qpos, qvel = random_state(build("ant"), 0, spread=0.05)
    qvel[:2] = [3.0, -4.0]
    rewards = []
    for direction in ((1, 0), (0, 2), (-1, 0), (3, -4)):
        env = make(["ant"], 1, LocomotionTask(control_cost=0, direction=direction))
        env.reset(seed=0)
        env.set_state(0, qpos, qvel)
        rewards.append(env.step(np.zeros(env.action_space.shape))[1][0])
    x, y, back, along = rewards
    assert x > 1 and y < -1 and back == -x
    assert along == pytest.approx((3 * x - 4 * y) / 5)


def test_staggered_clocks_end_first_episodes_apart_and_tell_them_from_whole_ones():
    env = make(["cheetah_2_back"], 6, SHORT, stagger=True)
    env.reset(seed=3)
    lengths, whole, steps = [[] for _ in range(6)], [[] for _ in range(6)], np.zeros(6, int)
    for action in actions_for(env, 35):
        _, _, _, truncated, info = env.step(action)
        steps += 1
        for row in np.flatnonzero(truncated):
            lengths[row].append(steps[row])
            whole[row].append(bool(info["episode_is_whole"][row]))
            steps[row] = 0
        if truncated.any():
            assert not info["episode_is_whole"][~truncated].any()
    first = [row[0] for row in lengths]
    assert len(set(first)) > 1 and all(1 <= length <= 10 for length in first)
    for row in range(6):
        assert set(lengths[row][1:]) == {10} and all(whole[row][1:])
        assert whole[row][0] == (first[row] == 10)
    plain = make(["cheetah_2_back"], 6, SHORT)
    plain.reset(seed=3)
    for action in actions_for(env, 10):
        _, _, _, truncated, info = plain.step(action)
    assert truncated.all() and info["episode_is_whole"].all()


def test_disabled_autoreset_waits_for_a_reset_of_the_rows_that_ended():
    env = make(["hopper_4"], 4, FALLING, autoreset=False)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    env.reset(seed=0)
    ended = np.zeros(4, bool)
    for action in actions_for(env, 40):
        if ended.any():
            break
        observation, _, terminated, truncated, info = env.step(action)
        ended = terminated | truncated
    assert ended.any() and not ended.all() and "final_obs" not in info
    with pytest.raises(UserError, match=rf"environments \[{np.flatnonzero(ended)[0]}"):
        env.step(action)
    after, _ = env.reset(options={"reset_mask": ended})
    assert_rows_equal(after, observation, ~ended, ~ended)
    assert all(np.abs(after["tokens"] - observation["tokens"]).max((1, 2))[ended] > 1e-3)
    env.step(action)


def test_rows_that_ended_and_were_not_reset_are_still_waited_for():
    env = make(["cheetah_2_back"], 3, SHORT, autoreset=False)
    env.reset(seed=0)
    for action in actions_for(env, 10):
        _, _, _, truncated, _ = env.step(action)
    assert truncated.all()
    env.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(UserError, match=r"environments \[1\] have ended"):
        env.step(action)


def test_a_masked_reset_with_a_seed_seeds_only_its_rows():
    mask = np.array([True, False])
    first, second = (make(["cheetah_2_back"], 2, SHORT) for _ in range(2))
    for env in (first, second):
        env.reset(seed=0)
    first.reset(seed=7, options={"reset_mask": mask})
    fresh = first.reset()[0]  # row 0 goes on in its new stream, row 1 in its old one
    expected = second.reset()[0]
    assert_rows_equal(fresh, expected, [1], [1])
    assert np.abs(fresh["tokens"][0] - expected["tokens"][0]).max() > 1e-3


# Determinism


def rollout(env, seed, steps=25):
    observations = [env.reset(seed=seed)[0]]
    rewards = []
    for action in actions_for(env, steps):
        observation, reward, _, _, _ = env.step(action)
        observations.append(observation)
        rewards.append(reward)
    return observations, np.array(rewards)


@pytest.mark.parametrize("stagger", [False, True])
def test_a_seed_decides_everything_whatever_the_number_of_threads(stagger):
    bodies = ["hopper_3", "hopper_5"]
    runs = [
        rollout(make(bodies, 8, FALLING, threads=threads, stagger=stagger), 11) for threads in (1, 1, 2, 4)
    ]
    other = rollout(make(bodies, 8, FALLING, stagger=stagger), 12)
    for observations, rewards in runs[1:]:
        np.testing.assert_array_equal(rewards, runs[0][1])
        for one, two in zip(observations, runs[0][0], strict=True):
            assert_rows_equal(one, two)
    assert np.abs(other[1] - runs[0][1]).max() > 1e-3
    assert np.abs(runs[0][1][:, 0] - runs[0][1][:, 1]).max() > 1e-3  # rows differ from each other


def test_nothing_of_an_episode_is_left_in_the_next():
    # Such as the solver's warm start, which would change contacts in the last digits.
    used = make(["hopper_4", "walker_3"], 4, SHORT)
    used.reset(seed=1)
    for action in actions_for(used, 25, seed=9):
        used.step(action)
    observations, rewards = rollout(used, 2)
    expected, expected_rewards = rollout(make(["hopper_4", "walker_3"], 4, SHORT), 2)
    np.testing.assert_array_equal(rewards, expected_rewards)
    for one, two in zip(observations, expected, strict=True):
        assert_rows_equal(one, two)


def test_rows_of_a_mixed_environment_evolve_as_in_one_of_their_own():
    # They also differ in their time step: the cheetahs' is five times the hopper's.
    bodies, seeds = ["cheetah_7_full", "hopper_3", "cheetah_5_balanced"], list(range(40, 46))
    mixed = make(bodies, 6, SHORT)
    observations, rewards = rollout(mixed, seeds)
    actions = actions_for(mixed, 25)
    for index, name in enumerate(bodies):
        rows = np.flatnonzero(mixed.body_of_row == index)
        own = make([name], 2, SHORT)
        n, j = own.n_limbs, own.n_joints
        assert_rows_equal(cut(observations[0], rows, n, j), own.reset(seed=[seeds[r] for r in rows])[0])
        for step in range(25):  # over two autoresets
            observation, reward, _, _, _ = own.step(actions[step][rows, :n, :j])
            assert_rows_equal(cut(observations[step + 1], rows, n, j), observation)
            np.testing.assert_array_equal(reward, rewards[step][rows])


def cut(observation, rows, n, j):
    """Some rows without their padding."""
    limbs = {key: value[rows, :n] for key, value in observation.items()}
    return {key: v[:, :, :j] if "joint" in key or "action" in key else v for key, v in limbs.items()}


def test_observations_are_not_overwritten_by_later_steps():
    env = make(["hopper_3", "hopper_4"], 4, FALLING)
    observations, kept, finals = [env.reset(seed=0)[0]], [], []
    kept.append({key: value.copy() for key, value in observations[0].items()})
    for action in actions_for(env, 30):
        observation, reward, _, _, info = env.step(action)
        observations.append(observation)
        kept.append({key: value.copy() for key, value in observation.items()})
        if "final_obs" in info:
            for final in filter(None, info["final_obs"]):
                finals.append((final, {key: value.copy() for key, value in final.items()}))
    env.reset(seed=1)
    assert finals
    for now, then in [*zip(observations, kept, strict=True), *finals]:
        assert_rows_equal(now, then)


# Mixed bodies and padding


@pytest.mark.parametrize("aligned", [False, True])
def test_padding_is_zero_and_masked(aligned):
    bodies = [f"humanoid_2d_{name}" for name in ("7_left_leg", "9_full", "7_lower_arms")]
    env = make(bodies, 6, aligned=aligned)
    env.reset(seed=0)
    observation = env.step(actions_for(env, 1)[0])[0]
    np.testing.assert_array_equal(observation["mask"].sum(1), [7, 7, 9, 9, 7, 7])
    assert env.observation_space.contains(observation)
    limb, joint = observation["mask"] == 0, observation["joint_mask"] == 0
    assert limb.any() and joint.any()
    assert not observation["tokens"][limb].any() and not observation["joints"][joint].any()
    assert (observation["parent"][limb] == -1).all()
    assert not observation["joint_mask"][limb].any() and not observation["action_mask"][joint].any()
    assert (np.abs(observation["tokens"]).sum(-1)[~limb] > 0).all()


@pytest.mark.parametrize("name", SAMPLED)
def test_aligned_slots_are_those_of_the_full_bodys_limbs(name):
    body = build(name)
    full = body.full_body or body
    packed, aligned = make([name]), make([name], aligned=True)
    one, other = packed.reset(seed=0)[0], aligned.reset(seed=0)[0]
    names = [limb.name for limb in full.limbs]
    slots = [names.index(limb.name) for limb in body.limbs]
    assert aligned.n_limbs == full.n_limbs and aligned.n_joints == packed.n_joints
    for key in set(one) - {"parent"}:
        np.testing.assert_array_equal(other[key][0, slots], one[key][0], err_msg=key)
    for index, slot in enumerate(slots):
        parent = one["parent"][0, index]
        assert other["parent"][0, slot] == (slots[parent] if parent >= 0 else -1)


def test_aligned_slots_of_two_families_are_refused():
    with pytest.raises(UserError, match="one family.*cheetah_7_full, walker_7"):
        make(["cheetah_2_back", "walker_2"], aligned=True)


@pytest.mark.parametrize("aligned", [False, True])
def test_actions_for_slots_without_an_actuator_are_ignored(aligned):
    bodies = ["cheetah_2_front", "cheetah_7_full", "cheetah_4_back"]
    quiet, noisy = (make(bodies, 6, aligned=aligned) for _ in range(2))
    actuated = quiet.reset(seed=0)[0]["action_mask"].astype(bool)
    noisy.reset(seed=0)
    for action in actions_for(quiet, 5):
        one = quiet.step(np.where(actuated, action, 0.0))
        other = noisy.step(np.where(actuated, action, np.nan))
        assert_rows_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    moved = make(bodies, 6, aligned=aligned)  # negative control: actions that exist are not ignored
    moved.reset(seed=0)
    assert np.abs(moved.step(np.where(actuated, 1.0, 0.0))[0]["tokens"] - one[0]["tokens"]).max() > 0.01


def test_rows_are_spread_evenly_and_lie_together():
    env = make(["walker_2", "walker_3", "walker_4"], 8)
    np.testing.assert_array_equal(env.body_of_row, [0, 0, 0, 1, 1, 1, 2, 2])
    assert env.body_names == ("walker_2", "walker_3", "walker_4")


# Divergence


@pytest.mark.parametrize("autoreset", [True, False])
def test_a_diverging_row_ends_alone_and_is_reported(autoreset):
    usual, broken = (make(["cheetah_7_full", "cheetah_3_back"], 4, autoreset=autoreset) for _ in range(2))
    for env in (usual, broken):
        env.reset(seed=0)
    qpos, qvel = broken.get_state(1)
    broken.set_state(1, qpos, np.full_like(qvel, 1e9))
    action = actions_for(usual, 1)[0]
    expected, expected_reward, _, _, _ = usual.step(action)
    observation, reward, terminated, truncated, info = broken.step(action)
    assert terminated.tolist() == info["diverged"].tolist() == [False, True, False, False]
    assert not truncated.any()
    assert_rows_equal(observation, expected, [0, 2, 3], [0, 2, 3])
    np.testing.assert_array_equal(reward[[0, 2, 3]], expected_reward[[0, 2, 3]])
    # Where it was put is no progress: what remains is the cost of its controls.
    assert info["forward_velocity"][1] == 0 and reward[1] == info["reward_control"][1]
    assert all(np.isfinite(value).all() for value in observation.values())
    if autoreset:
        assert np.isfinite(info["final_obs"][1]["tokens"]).all()
        assert info["final_info"]["diverged"].tolist() == [False, True, False, False]
    else:
        broken.reset(options={"reset_mask": terminated})
    _, reward, terminated, _, info = broken.step(action)
    assert not info["diverged"].any() and not terminated.any() and np.isfinite(reward).all()


def test_an_action_that_is_no_number_ends_its_row_alone():
    env = make(["cheetah_2_back"], 3)
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape)
    action[1] = np.nan
    observation, reward, terminated, _, info = env.step(action)
    assert terminated.tolist() == info["diverged"].tolist() == [False, True, False]
    assert np.isfinite(reward[[0, 2]]).all() and np.isfinite(observation["tokens"]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_state_that_is_no_state_is_refused(bad):
    # MuJoCo would put the row back to its start without a word.
    env = make(["cheetah_2_back"], 2)
    env.reset(seed=0)
    qpos, qvel = env.get_state(0)
    for place in ("qpos", "qvel"):
        broken = {"qpos": qpos.copy(), "qvel": qvel.copy()}
        broken[place][1] = bad
        with pytest.raises(UserError, match="finite"):
            env.set_state(0, **broken)
    np.testing.assert_array_equal(env.get_state(0)[0], qpos)
    with pytest.raises(UserError, match=r"expected \(4,\)"):
        env.set_state(0, qpos[:-1], qvel)


# Errors


@pytest.mark.parametrize(
    ("bodies", "options", "message"),
    [
        ([], {}, "at least one is needed"),
        (["cheetah_8"], {}, "unknown body 'cheetah_8'; did you mean"),
        (["cheetah_2_back", "cheetah_3_back"], {"num_envs": 1}, "1 environments cannot hold 2 bodies"),
        (["cheetah_2_back"], {"frame_skip": 0}, "frame_skip must be at least 1"),
    ],
)
def test_wrong_arguments_are_told(bodies, options, message):
    with pytest.raises(UserError, match=message):
        make(bodies, **options)


def test_wrong_calls_are_told():
    env = make(["cheetah_2_back"], 2)
    with pytest.raises(UserError, match="call reset"):
        env.step(np.zeros((2, 2, 1)))
    with pytest.raises(UserError, match="first reset"):
        env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(UserError, match="3 seeds for 2 environments"):
        env.reset(seed=[1, 2, 3])
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"\(2, 2\); expected \(2, 2, 1\)"):
        env.step(np.zeros((2, 2)))
    for mask in (np.array([0, 1]), np.array([True]), np.array([False, False])):  # indices, too short, none
        with pytest.raises(UserError, match="reset_mask must be"):
            env.reset(options={"reset_mask": mask})


# Gymnasium's interface


def test_make_vec_gives_rows_of_one_body_or_of_several():
    env = gymnasium.make_vec("somite/Locomotion-v0", num_envs=3, body="walker_3", threads=1)
    assert env.body_names == ("walker_3",) and env.num_envs == 3
    options = {"bodies": ["walker_3", "walker_6"], "threads": 1, "aligned": True}
    env = gymnasium.make_vec("somite/Locomotion-v0", 4, **options)
    assert env.body_names == ("walker_3", "walker_6") and env.n_limbs == 7
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation) and isinstance(info, dict)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    assert reward.shape == terminated.shape == truncated.shape == (4,)
    assert terminated.dtype == truncated.dtype == bool
    env.close()


def test_gymnasiums_episode_statistics_agree_with_the_rewards():
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(make(["hopper_3"], 3, FALLING))
    env.reset(seed=0)
    returns, told = np.zeros(3), 0
    for action in actions_for(env, 40):
        _, reward, terminated, truncated, info = env.step(action)
        returns += reward
        ended = terminated | truncated
        if ended.any():
            told += ended.sum()
            np.testing.assert_allclose(info["episode"]["r"][ended], returns[ended], rtol=1e-6)
        returns[ended] = 0
    assert told


def test_a_morphology_of_ones_own_can_be_given():
    env = make([Morphology("own", legged().compile())], 2)
    observation, _ = env.reset(seed=0)
    assert observation["mask"].shape == (2, 4) and env.body_names == ("own",)
    env.step(actions_for(env, 1)[0])


def test_an_action_that_is_no_number_ends_its_row_with_a_reward_that_is_one():
    env = make_vec(["cheetah_2_back"], 3, LocomotionTask(), threads=1)
    env.reset(seed=0)
    actions = np.zeros(env.action_space.shape)
    actions[1] = np.nan
    observation, rewards, terminated, _, info = env.step(actions)
    assert info["diverged"].tolist() == terminated.tolist() == [False, True, False]
    assert np.isfinite(rewards).all() and rewards[1] == 0
    assert all(np.isfinite(value).all() for value in observation.values())
    assert not env.step(np.zeros_like(actions))[4]["diverged"].any()
