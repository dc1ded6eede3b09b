"""The swing-up: its dynamics, reward, ends and starts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.envs.errors import UserError
from somite.envs.sensors import CartPoleSwingUp, Senses
from somite.envs.sensors.cartpole_swingup import CartPoles, fixed_starts
from somite.envs.task_set import task_set_of

CENTRE, REACH = np.array([0, 0, np.pi, 0]), np.array([2.4, 10, np.pi / 2, 10])
"""Of the starts: x, its speed, the angle, its speed."""

states = st.tuples(st.floats(-2.4, 2.4), st.floats(-20, 20), st.floats(-20, 20), st.floats(-30, 30))
pushes = st.floats(-1, 1)


def plain_step(
    state: tuple[float, ...],
    push: float,
    g: float = 9.82,
    b: float = 0.1,
    new_velocities: bool = False,
    old_reward: bool = False,
) -> tuple[list[float], float, bool]:
    """The published formulas, written down anew for one cart."""
    x, v, theta, omega = state
    s, c = math.sin(theta), math.cos(theta)
    f, m_c, m_p, length, dt = 10.0 * push, 0.5, 0.5, 0.6, 0.01
    m, total = m_p * length, m_c + m_p
    a = (-2 * m * omega**2 * s + 3 * m_p * g * s * c + 4 * f - 4 * b * v) / (4 * total - 3 * m_p * c**2)
    alpha = (-3 * m * omega**2 * s * c + 6 * total * g * s + 6 * (f - b * v) * c) / (
        4 * length * total - 3 * m * c**2
    )
    new_v, new_omega = v + dt * a, omega + dt * alpha
    if new_velocities:
        v, omega = new_v, new_omega
    new = [x + dt * v, new_v, theta + dt * omega, new_omega]
    place, angle = (x, theta) if old_reward else (new[0], new[2])
    return new, (math.cos(angle) + 1) / 2 * math.cos(math.pi / 2 * place / 2.4), abs(new[0]) > 2.4


def carts(rows: list[tuple[float, ...]]) -> CartPoles:
    source = CartPoles(len(rows))
    source.place(torch.ones(len(rows), dtype=torch.bool), torch.tensor(rows, dtype=torch.float64))
    return source


def step(source: CartPoles, actions: np.ndarray, running: np.ndarray) -> list[np.ndarray]:
    """Arrays of a step."""
    rewards, terminated, cut = source.step(torch.from_numpy(actions.astype(float)), torch.from_numpy(running))
    assert cut is None, "the task cuts no episode itself"
    return [rewards.numpy(), terminated.numpy(), np.zeros(len(running), bool)]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(states, pushes, st.booleans()), min_size=1, max_size=10), steps=st.integers(1, 5)
)
def test_steps_are_those_of_the_published_formulas_and_other_carts_stand_still(
    rows: list, steps: int
) -> None:
    source = carts([state for state, _, _ in rows])
    given_pushes, running = np.array([[push] for _, push, _ in rows]), np.array([runs for *_, runs in rows])
    wanted = [list(state) for state, _, _ in rows]
    for _ in range(steps):
        rewards, terminated, cut = step(source, given_pushes, running)
        assert not cut.any()
        for row in np.flatnonzero(running):
            wanted[row], reward, ended = plain_step(wanted[row], rows[row][1])
            np.testing.assert_allclose(rewards[row], reward, rtol=1e-12, atol=1e-12)
            assert terminated[row] == ended
    np.testing.assert_allclose(source.state.numpy().T, wanted, rtol=1e-12, atol=1e-12)
    for (x, v, theta, omega), reading in zip(wanted, source.read().numpy(), strict=True):
        wanted_reading = [x, v, math.cos(theta), math.sin(theta), omega]
        np.testing.assert_allclose(reading, wanted_reading, rtol=1e-6, atol=1e-6)
    assert source.read().dtype == torch.float32


@pytest.mark.parametrize("going", [(5, 9), (0,), (11,), ()])
def test_a_few_carts_go_on_where_most_stand_still(going: tuple[int, ...]) -> None:
    """As late in an evaluation, each with its own action."""
    starts = [tuple(CENTRE + REACH * nominal) for nominal in np.linspace(-0.9, 0.9, 12)]
    source, given_pushes = carts(starts), np.linspace(-1, 1, 12)[:, None]
    running = np.isin(np.arange(12), going)
    rewards, terminated, _ = step(source, given_pushes, running)
    for row, start in enumerate(starts):
        wanted, reward, ended = plain_step(start, given_pushes[row, 0]) if row in going else (start, 0, False)
        np.testing.assert_allclose(source.state[:, row], wanted, rtol=1e-12, atol=1e-12)
        if row in going:
            assert rewards[row] == pytest.approx(reward, rel=1e-12) and terminated[row] == ended


@pytest.mark.parametrize("wrong", [{"g": 9.81}, {"b": 0}, {"new_velocities": True}, {"old_reward": True}])
def test_the_comparison_would_find_another_physics(wrong: dict) -> None:
    state, push = (0.7, 2.0, 2.5, -3.0), 0.4
    source = carts([state])
    rewards, *_ = step(source, np.array([[push]]), np.ones(1, bool))
    new, reward, _ = plain_step(state, push, **wrong)
    difference = np.abs(np.append(source.state[:, 0].numpy() - new, rewards[0] - reward)).max()
    assert difference > 1e-5


def test_an_episode_ends_beyond_the_track_and_not_on_its_edge() -> None:
    edge = 2.4
    source = carts([(edge, 0, 0, 0), (-edge, 0, 0, 0), (edge, 0.01, 0, 0), (-edge, -0.01, 0, 0)])
    _, terminated, _ = step(source, np.zeros((4, 1)), np.ones(4, bool))
    assert terminated.tolist() == [False, False, True, True]


def test_upright_in_the_middle_is_worth_one_and_hanging_nothing() -> None:
    source = carts([(0, 0, 0, 0), (0, 0, np.pi, 0), (1.2, 0, 0, 0), (2.4, 0, 0, 0)])
    rewards, *_ = step(source, np.zeros((4, 1)), np.ones(4, bool))
    np.testing.assert_allclose(rewards, [1, 0, math.cos(math.pi / 4), 0], atol=1e-12)


def test_actions_are_clipped_to_the_nominal_range() -> None:
    found = []
    for push in (1.0, 7.0, 0.9):
        env = CartPoleSwingUp().make_vec(num_envs=2)
        env.reset(seed=0)
        observation, *_ = env.step(np.full((2, 1), push))
        found.append(observation["privileged"])
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_an_episode_is_cut_after_1000_steps() -> None:
    env = CartPoleSwingUp().make_vec(num_envs=1)
    env.reset(seed=0)
    env.source.place(torch.tensor([True]), torch.tensor([[0.0, 0.0, np.pi, 0.0]]).double())  # it hangs still
    for step in range(1, 1001):
        _, _, terminated, truncated, _ = env.step(np.zeros((1, 1), np.float32))
        assert not terminated[0] and truncated[0] == (step == 1000)


def test_starts_are_uniform_in_their_ranges() -> None:
    env = CartPoleSwingUp().make_vec(num_envs=2000)
    env.reset(seed=1)
    nominal = (env.source.state.numpy().T - CENTRE) / REACH
    assert np.abs(nominal).max() <= 1
    for column in nominal.T:
        counts, _ = np.histogram(column, 10, (-1, 1))
        assert np.abs(counts - 200).max() < 65, "within 5 standard deviations of 13.4"
    correlation = np.corrcoef(nominal.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.12, "drawn one by one: 5 standard deviations are 0.11"


def test_the_fixed_starts_are_a_thousand_in_the_same_ranges() -> None:
    starts = fixed_starts()
    assert starts.shape == (1000, 4) and len(np.unique(starts, axis=0)) == 1000
    nominal = (starts - CENTRE) / REACH
    assert np.abs(nominal).max() <= 1 + 1e-6, "six decimals"
    np.testing.assert_allclose(nominal.mean(0), 0, atol=5 / np.sqrt(3 * 1000))
    np.testing.assert_allclose(nominal.std(0), 1 / np.sqrt(3), rtol=0.1)
    with pytest.raises(ValueError, match="read-only"):
        starts[0] = 0


def test_row_i_takes_fixed_start_i_whatever_the_seed_and_goes_on_by_the_number_of_rows() -> None:
    env = CartPoleSwingUp(max_episode_steps=1, starts="fixed").make_vec(num_envs=300)
    env.reset(seed=11)
    for seed in (12, 13):
        for first in (0, 300, 600):
            which = (first + np.arange(300)) % 1000
            assert np.array_equal(env.source.state.numpy().T, fixed_starts()[which])
            env.step(np.zeros((300, 1)))  # every episode ends, and the next one starts
        env.reset()  # without a seed they go on
        assert np.array_equal(env.source.state.numpy().T, fixed_starts()[(1200 + np.arange(300)) % 1000])
        env.reset(seed=seed)


CONDITIONS = {
    "plain": {},
    "shuffled": {"shuffle": "episode"},
    "reshuffled": {"shuffle": 3, "history": 4},
    "noise": {"noise_channels": (0, 5)},
    "lost": {"missing": 0.4, "blinking": 0.2, "stuck": 1},
    "doubled": {"duplicates": 1, "scale": 0.2},
}


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("starts", ["random", "fixed"])
def test_episodes_are_the_same_whatever_is_done_to_the_senses(condition: str, starts: str) -> None:
    """So scores can be compared. Also from one episode to the next of a row."""

    def episodes(senses: Senses) -> tuple[np.ndarray, np.ndarray]:
        task = CartPoleSwingUp(senses=senses, max_episode_steps=25, starts=starts)
        env = task.make_vec(num_envs=6)
        observation, _ = env.reset(seed=5)
        readings, rewards = [observation["privileged"]], []
        rng = np.random.default_rng(0)
        for _ in range(60):
            observation, reward, *_ = env.step(rng.uniform(-1, 1, (6, 1)))
            readings.append(observation["privileged"])
            rewards.append(reward)
        return np.array(readings), np.array(rewards)

    plain, found = episodes(Senses()), episodes(Senses(**CONDITIONS[condition]))
    for one, other in zip(plain, found, strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(plain[0][0], plain[0][25]), "another start in the next episode"


def test_sensor_scales_are_told_and_applied() -> None:
    factors = (1 / 2.4, 0.1, 1, 1, 0.1)
    plain, scaled = CartPoleSwingUp(), CartPoleSwingUp(sensor_scales=factors)
    tokens = []
    for task in (plain, scaled):
        observation, _ = task.make_vec(num_envs=3).reset(seed=2)
        tokens.append(observation["tokens"][..., 0])
    np.testing.assert_allclose(tokens[1], tokens[0] * factors, rtol=1e-6)
    assert plain.notes() == () and "0.1" in scaled.notes()[0]


def test_the_task_names_itself_and_rebuilds_from_its_saved_node() -> None:
    saved = {
        "_target_": "somite.envs.sensors.CartPoleSwingUp",
        "senses": {"_target_": "somite.envs.sensors.Senses", "history": 3, "noise_channels": [0, 2]},
        "max_episode_steps": 7,
        "starts": "fixed",
    }
    task = task_set_of(saved)
    assert task.seen == task.choose("all") == task.choose(["cartpole_swingup"]) == ("cartpole_swingup",)
    assert task.unseen == () and task.hashes() == {}
    assert task.max_episode_steps == 7 and task.starts == "fixed"
    assert task.senses == Senses(history=3, noise_channels=(0, 2))
    with pytest.raises(UserError, match=r"cartpole_swingup has no body 'cartpol'; did you mean"):
        task.choose("cartpol")
    with pytest.raises(UserError, match="a 'somite.envs.sensors.CartPoles'; expected a task"):
        task_set_of({"_target_": "somite.envs.sensors.CartPoles"})
    with pytest.raises(UserError, match="hisory"):
        task_set_of({**saved, "senses": {"hisory": 3}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"starts": "fixd"}, "env.starts must be one of .*, got 'fixd'; did you mean 'fixed'"),
        ({"starts": 3}, "env.starts must be .*, got 3"),
        ({"starts": None}, "env.starts must be .*, got null"),
        ({"sensor_scales": [1, 2]}, r"env.sensor_scales must be 5 numbers, for x, x_dot.*; got \(1, 2\)"),
        ({"sensor_scales": 3}, "env.sensor_scales must be a list .*, got 3"),
        ({"sensor_scales": [1, 2, 3, 4, "a"]}, "env.sensor_scales must be a list"),
        ({"sensor_scales": [1, 2, 3, 4, math.nan]}, "env.sensor_scales must be a list"),
        ({"max_episode_steps": 0}, "max_episode_steps must be a whole number from 1 to 1,000,000,000, got 0"),
        (
            {"max_episode_steps": 2.5},
            "max_episode_steps must be a whole number from 1 to 1,000,000,000, got 2.5",
        ),
        ({"max_episode_steps": "long"}, "max_episode_steps must be a whole number .* got 'long'"),
        ({"max_episode_steps": None}, "max_episode_steps must be a whole number .* got null"),
    ],
)
def test_values_that_cannot_be_meant(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CartPoleSwingUp(**values)
