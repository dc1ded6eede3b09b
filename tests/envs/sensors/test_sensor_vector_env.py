"""Vector environments of sensors: spaces, actions, ends, seeds, refusals."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import somite.envs  # noqa: F401 - registers the swing-up
from somite.envs.errors import UserError
from somite.envs.gym import TokenVectorEnv
from somite.envs.sb3 import SB3VecEnv
from somite.envs.sensors import CartPoleSwingUp, Senses
from tests.envs.sensors.worlds import ArraySource, sensor_vec

seeds = st.integers(0, 2**31 - 1)
DISTURBED = Senses(
    history=3,
    shuffle=4,
    duplicates=1,
    noise_channels=(1, 3),
    missing=0.25,
    blinking=0.2,
    stuck=1,
)
SENSES = {
    "plain": Senses(),
    "history": Senses(history=3),
    "disturbed": DISTURBED,
    "shuffled": Senses(shuffle="episode"),
    "reshuffled": Senses(shuffle=3, history=2),
    "noise": Senses(noise_channels=2),
    "blinking": Senses(blinking=0.3, history=2),
    "lost": Senses(missing=0.5, stuck=1),
}
SPACES = {"box": spaces.Box(-1.0, 1.0, (2,), np.float32), "discrete": spaces.Discrete(3)}


class Counter(ArraySource):
    """Two sensors: the start of the episode and the steps since. Row i ends as its script says.

    Args:
        num_envs: B.
        space: of an action.
        terminate, cut: (B,) steps of an episode after which it ends; 0: never so.
        max_episode_steps: after which we cut it.
    """

    name, sensor_names = "counter", ("start", "time")

    def __init__(
        self,
        num_envs: int,
        space: spaces.Space = SPACES["box"],
        terminate: Any = 0,
        cut: Any = 0,
        max_episode_steps: int = 1000,
    ) -> None:
        self.num_envs, self.single_action_space = num_envs, space
        self.max_episode_steps = max_episode_steps
        self.terminate, self.cut = np.broadcast_to(terminate, num_envs), np.broadcast_to(cut, num_envs)
        self.first, self.time = np.zeros(num_envs), np.zeros(num_envs)
        self.closed = False

    def start_rows(self, rows: np.ndarray, rngs: list[np.random.Generator]) -> None:
        self.first[rows] = [rng.uniform(1, 100) for rng in rngs]
        self.time[rows] = 0

    def step_rows(
        self, actions: np.ndarray, running: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.actions = copy.deepcopy(actions)
        self.time += running
        return 1.0 + self.time, self.time == self.terminate, self.time == self.cut

    def read_rows(self) -> np.ndarray:
        return np.stack((self.first, self.time), 1).astype(np.float32)

    def close(self) -> None:
        self.closed = True


def act(env: TokenVectorEnv, seed: int) -> np.ndarray:
    """Some actions for all rows."""
    rng = np.random.default_rng(seed)
    if env.discrete:
        return rng.integers(env.n_actions, size=env.num_envs)
    return rng.uniform(-1, 1, (env.num_envs, env.n_actions)).astype(np.float32)


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray], rows: Any = slice(None)) -> None:
    assert list(one) == list(other)
    for key, values in one.items():
        assert np.array_equal(values[rows], other[key][rows]), key


@pytest.mark.parametrize("privileged", [True, False], ids=["told", "not_told"])
@pytest.mark.parametrize("action", SPACES)
@pytest.mark.parametrize("senses", SENSES)
def test_observations_are_of_the_space(senses: str, action: str, privileged: bool) -> None:
    source = Counter(4, SPACES[action], terminate=(3, 5, 0, 0), max_episode_steps=6)
    env = sensor_vec(source, SENSES[senses], privileged=privileged)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert ("privileged" in observation) == privileged == (env.sizes["n_privileged"] == 2)
    for step in range(15):
        observation, rewards, terminated, truncated, info = env.step(act(env, step))
        assert env.observation_space.contains(observation)
        assert rewards.dtype == np.float64 and terminated.dtype == truncated.dtype == bool
        for row in np.flatnonzero(terminated | truncated):
            assert env.single_observation_space.contains(info["final_obs"][row])
    sizes, single = env.sizes, env.single_observation_space
    assert single["tokens"].shape == (sizes["n_tokens"], env.spec_of_tokens.token_size)
    assert single["recent_actions"].shape == (sizes["n_recent"], sizes["n_actions"])
    assert sizes["discrete"] == (action == "discrete") and sizes["n_actions"] == 2 + (action == "discrete")
    env.close()
    assert source.closed


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.* value is:UserWarning")
@pytest.mark.parametrize("starts", ["random", "fixed"])
@pytest.mark.parametrize("senses", SENSES)
def test_gymnasium_finds_nothing_wrong_with_one_cart(senses: str, starts: str) -> None:
    env = gymnasium.make("somite/CartPoleSwingUp-v0", senses=SENSES[senses], starts=starts)
    check_env(env.unwrapped, skip_render_check=True)


def test_recent_actions_are_those_applied_the_newest_last() -> None:
    env = sensor_vec(Counter(1, terminate=5), Senses(history=3))
    given_actions = np.array([[0.5, -2.0], [7.0, 0.25], [-0.5, 0.0], [0.1, 0.2]])
    applied = np.concatenate([np.zeros((3, 2)), np.clip(given_actions, -1, 1)])
    observation, _ = env.reset(seed=0)
    for step, actions in enumerate(given_actions):
        np.testing.assert_allclose(observation["recent_actions"][0], applied[step : step + 3])
        observation, *_ = env.step(actions[None])
        np.testing.assert_allclose(env.source.actions, applied[step + 3][None])
    observation, *_, info = env.step(np.ones((1, 2)))
    last = info["final_obs"][0]["recent_actions"]
    np.testing.assert_allclose(last, [[-0.5, 0], [0.1, 0.2], [1, 1]])
    assert np.all(observation["recent_actions"] == 0)


def test_recent_choices_are_one_hot() -> None:
    env = sensor_vec(Counter(2, SPACES["discrete"]), Senses(history=2))
    observation, _ = env.reset(seed=0)
    assert np.all(observation["recent_actions"] == 0)
    env.step(np.array([2, 0]))
    observation, *_ = env.step(np.array([1, 2]))
    assert env.source.actions.tolist() == [1, 2] and np.issubdtype(env.source.actions.dtype, np.integer)
    assert observation["recent_actions"].tolist() == [
        [[0, 0, 1], [0, 1, 0]],
        [[1, 0, 0], [0, 0, 1]],
    ]


def test_terminations_cuts_and_time_limits_are_told_apart() -> None:
    env = sensor_vec(Counter(4, terminate=(2, 0, 0, 4), cut=(0, 3, 0, 0), max_episode_steps=4))
    env.reset(seed=0)
    found = {}
    for step in range(1, 5):
        _, rewards, terminated, truncated, info = env.step(act(env, step))
        for row in np.flatnonzero(terminated | truncated):
            found.setdefault(int(row), (step, bool(terminated[row]), bool(truncated[row])))
            assert rewards[row] == 1 + info["final_obs"][row]["privileged"][1], "of the last step"
    assert found == {0: (2, True, False), 1: (3, False, True), 2: (4, False, True), 3: (4, True, True)}


def test_an_ended_row_starts_anew_in_the_same_step_and_the_others_go_on() -> None:
    env = sensor_vec(Counter(3, terminate=(0, 2, 0)))
    first, _ = env.reset(seed=0)
    env.step(act(env, 0))
    observation, rewards, terminated, truncated, info = env.step(act(env, 1))
    assert terminated.tolist() == info["_final_obs"].tolist() == [False, True, False]
    assert not truncated.any() and info["episode_is_whole"][1]
    assert info["final_obs"][0] is None and info["final_obs"][2] is None
    last = info["final_obs"][1]
    assert np.array_equal(last["privileged"], [first["privileged"][1, 0], 2])
    assert np.array_equal(last["tokens"][:, 0], last["privileged"])
    assert observation["privileged"][:, 1].tolist() == [2, 0, 2] and rewards.tolist() == [3, 3, 3]
    started = observation["privileged"][:, 0]
    assert (started == first["privileged"][:, 0]).tolist() == [True, False, True]
    *_, info = env.step(act(env, 2))
    assert list(info) == ["diverged"], "nothing has ended"


def test_stable_baselines_is_told_what_ended_how() -> None:
    env = SB3VecEnv(sensor_vec(Counter(3, terminate=(2, 0, 3), max_episode_steps=3)), seed=0)
    env.reset()
    for step in range(3):
        _, _, dones, infos = env.step(act(env.env, step))
    assert dones.tolist() == [False, True, True]
    assert [info.get("TimeLimit.truncated") for info in infos] == [None, True, False]
    assert infos[1]["terminal_observation"]["privileged"][1] == 3
    assert infos[1]["episode"]["r"] == 2 + 3 + 4 and infos[1]["episode"]["l"] == 3


@pytest.mark.parametrize("senses", ["plain", "disturbed"])
def test_with_once_a_row_has_one_episode_and_then_stays(senses: str) -> None:
    env = sensor_vec(Counter(3, terminate=(2, 0, 4), max_episode_steps=5), SENSES[senses], once=True)
    first, _ = env.reset(seed=0)
    ended, left = np.zeros(3, bool), {}
    for step in range(1, 9):
        observation, rewards, terminated, truncated, info = env.step(act(env, step))
        assert list(info) == ["diverged"] and np.array_equal(rewards, np.where(ended, 0, 1.0 + step))
        ends = terminated | truncated
        assert not (ends & ended).any(), "an episode ends once"
        for row in np.flatnonzero(ends):
            left[row] = step, observation["privileged"][row]
        ended |= ends
        for row, (_, readings) in left.items():
            assert np.array_equal(observation["privileged"][row], readings)
            assert readings[0] == first["privileged"][row, 0]
    assert {row: step for row, (step, _) in left.items()} == {0: 2, 2: 4, 1: 5}
    again, _ = env.reset(seed=0)
    assert_same(first, again)
    _, rewards, *_ = env.step(act(env, 0))
    assert np.all(rewards == 2)


def rows_of(n: int, senses: Senses, seed: int, wanted: int = 3) -> list[dict[str, np.ndarray]]:
    """What the first of ``n`` swing-ups meet when the i-th has the seed [seed, i], up to the first end."""
    env = CartPoleSwingUp(senses=senses, max_episode_steps=40).make_vec(num_envs=n)
    observation, _ = env.reset(seed=[[seed, i] for i in range(n)])
    found, ended = [observation], False
    rng = np.random.default_rng(0)
    while not ended:
        actions = np.zeros((n, 1))
        actions[:wanted] = rng.uniform(-1, 1, (wanted, 1))
        observation, rewards, terminated, truncated, _ = env.step(actions)
        found.append({**observation, "rewards": rewards})
        ended = (terminated | truncated).any()
    return [{key: values[:wanted] for key, values in step.items()} for step in found[:-1]]


@pytest.mark.parametrize("senses", SENSES)
@settings(max_examples=3, deadline=None)
@given(seed=seeds)
def test_an_episode_depends_on_its_seed(senses: str, seed: int) -> None:
    """And not on how many there are, where nothing is drawn after the start."""
    three, again = rows_of(3, SENSES[senses], seed), rows_of(3, SENSES[senses], seed)
    for one, other in zip(three, again, strict=True):
        assert_same(one, other)
    if senses in ("plain", "history", "shuffled", "lost"):
        for one, other in zip(three, rows_of(8, SENSES[senses], seed), strict=False):
            assert_same(one, other)
    different = rows_of(3, SENSES[senses], seed + 1)
    assert not np.array_equal(three[0]["privileged"], different[0]["privileged"])


def test_one_seed_for_all_gives_row_i_the_seed_and_its_number() -> None:
    env = sensor_vec(Counter(4), DISTURBED)
    one, _ = env.reset(seed=7)
    other, _ = env.reset(seed=[[7, i] for i in range(4)])
    assert_same(one, other)
    assert len(np.unique(one["privileged"][:, 0])) == 4
    unseeded, _ = env.reset()
    assert not np.isin(unseeded["privileged"][:, 0], one["privileged"][:, 0]).any(), "streams go on"


def test_every_stream_of_a_row_is_its_own() -> None:
    """Orders, starts and noise of different rows and purposes are not the same numbers."""
    env = sensor_vec(Counter(50), Senses(noise_channels=6, shuffle="episode"))
    observation, _ = env.reset(seed=0)
    assert len(np.unique(env.slots.order, axis=0)) == 50
    noise = observation["tokens"][..., 0][env.slots.order >= 2].reshape(50, 6)
    assert len(np.unique(noise)) == 300


def test_staggered_rows_begin_at_an_age_and_say_which_episodes_are_whole() -> None:
    limit, b = 20, 200
    env = sensor_vec(Counter(b, max_episode_steps=limit), stagger=True)
    observation, _ = env.reset(seed=3)
    assert np.all(observation["privileged"][:, 1] == 0), "the task's own state is a start"
    first_end = np.zeros(b, int)
    for step in range(1, 2 * limit + 1):
        _, _, _, truncated, info = env.step(np.zeros((b, 2)))
        new = truncated & (first_end == 0)
        if truncated.any():
            whole = info["episode_is_whole"]
            assert np.array_equal(whole[new], np.full(new.sum(), step == limit))
            assert whole[truncated & ~new].all() and not whole[~truncated].any()
        first_end[new] = step
    counts, _ = np.histogram(first_end, 4, (0.5, limit + 0.5))
    assert first_end.min() >= 1 and np.abs(counts - 50).max() < 31, "5 standard deviations"


def test_rows_are_reset_by_a_mask_and_the_others_keep_what_they_saw() -> None:
    env = sensor_vec(Counter(4), DISTURBED, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    for step in range(6):
        before, *_ = env.step(act(env, step))
    mask = np.array([False, True, False, True])
    after, _ = env.reset(options={"reset_mask": mask})
    assert_same(before, after, ~mask)
    assert after["privileged"][:, 1].tolist() == [6, 0, 6, 0]
    assert np.all(after["recent_actions"][mask] == 0) and np.all(after["tokens"][mask, :, 1:] == 0)


@pytest.mark.parametrize("seed", [None, 5])
def test_a_row_reset_by_a_mask_does_not_change_what_the_others_draw(seed: int | None) -> None:
    """And a seeded one meets the same episode whenever it begins."""

    def meet(resets: bool) -> tuple[TokenVectorEnv, list[dict[str, np.ndarray]]]:
        senses = Senses(history=3, shuffle="episode", missing=0.5, stuck=1)
        env = sensor_vec(Counter(3), senses, autoreset_mode=AutoresetMode.DISABLED)
        env.reset(seed=0)
        found = []
        for step in range(150):
            if resets and step in (3, 70):
                env.reset(seed=seed, options={"reset_mask": np.array([False, True, False])})
            found.append(env.step(act(env, step))[0])
        return found

    others = [0, 2]
    disturbed = meet(True)
    for one, other in zip(meet(False), disturbed, strict=True):
        assert_same(one, other, others)
    if seed is not None:
        for one, other in zip(disturbed[5:70], disturbed[72:137], strict=True):
            assert np.array_equal(one["tokens"][1], other["tokens"][1])


def test_observations_are_not_changed_afterwards() -> None:
    for options in ({}, {"once": True}):
        env = sensor_vec(Counter(3, terminate=2), DISTURBED, **options)
        observation, _ = env.reset(seed=0)
        given_before = []
        for step in range(6):
            given_before.append((observation, copy.deepcopy(observation)))
            observation, *_ = env.step(act(env, step))
        for kept, copied in given_before:
            assert_same(kept, copied)


@pytest.mark.parametrize("history", [1, 4])
def test_a_teacher_sees_the_same_episodes_with_its_own_senses(history: int) -> None:
    beside = Senses(history=history, duplicates=1)
    task = CartPoleSwingUp(senses=replace(DISTURBED, history=2), max_episode_steps=10)
    env = task.make_vec(num_envs=3, beside=beside)
    alone = task.changed(senses=beside).make_vec(num_envs=3)
    unwatched = task.make_vec(num_envs=3)
    wanted, _ = alone.reset(seed=2)
    assert_same(env.reset(seed=2)[0], unwatched.reset(seed=2)[0])
    for step in range(25):
        found = env.beside_observation()
        assert set(found) == {"tokens", "mask", "recent_actions"}
        assert_same(found, {key: wanted[key] for key in found})
        actions = act(env, step)
        assert_same(env.step(actions)[0], unwatched.step(actions)[0])
        wanted, *_ = alone.step(actions)
    with pytest.raises(UserError, match="teacher's senses must be undisturbed"):
        task.make_vec(num_envs=3, beside=DISTURBED)


def test_refusals_say_what_came_and_what_was_wanted() -> None:
    env = sensor_vec(Counter(3))
    with pytest.raises(UserError, match=r"step\(\) before reset\(\)"):
        env.step(np.zeros((3, 2)))
    with pytest.raises(UserError, match="the first reset.. starts every environment"):
        env.reset(seed=0, options={"reset_mask": np.array([True, False, False])})
    with pytest.raises(UserError, match="2 seeds for 3 environments"):
        env.reset(seed=[1, 2])
    env.reset(seed=0)
    for mask in (np.zeros(3, bool), np.ones(3, int), np.ones(4, bool)):
        with pytest.raises(UserError, match=r"reset_mask must be \(3,\) bool with a True in it, not"):
            env.reset(options={"reset_mask": mask})
    with pytest.raises(UserError, match=r"actions have shape \(2, 2\); expected \(3, 2\)"):
        env.step(np.zeros((2, 2)))


@pytest.mark.parametrize("choices", [(0, 3), (-1, 0)])
def test_a_choice_that_is_none_is_refused_and_not_remembered(choices: tuple[int, int]) -> None:
    env = sensor_vec(Counter(2, SPACES["discrete"]), Senses(history=2))
    env.reset(seed=0)
    env.step(np.array([1, 1]))
    with pytest.raises(UserError, match=r"actions are 0 to 2, got -?\d to \d"):
        env.step(np.array(choices))
    observation, *_ = env.step(np.array([2, 2]))
    assert observation["recent_actions"].argmax(-1).tolist() == [[1, 2], [1, 2]]


def test_without_autoreset_an_ended_row_must_be_reset() -> None:
    env = sensor_vec(Counter(3, terminate=(0, 2, 0)), autoreset_mode="Disabled")
    env.reset(seed=0)
    env.step(act(env, 0))
    observation, *_, terminated, _, info = env.step(act(env, 1))
    assert list(info) == ["diverged"] and observation["privileged"][1, 1] == 2, "not the next first"
    with pytest.raises(UserError, match=r"environments \[1\] have ended; reset them first"):
        env.step(act(env, 2))
    env.reset(options={"reset_mask": terminated})
    observation, *_ = env.step(act(env, 2))
    assert observation["privileged"][:, 1].tolist() == [3, 1, 3]


def test_rows_are_of_one_task() -> None:
    env = sensor_vec(Counter(3))
    assert env.body_names == ("counter",) and env.body_of_row.tolist() == [0, 0, 0]
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
