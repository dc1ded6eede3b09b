"""What is done to the senses: channels, order, history; and what none of it may do."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.envs.errors import UserError
from somite.envs.gym import TokenVectorEnv
from somite.envs.sensors import Senses
from tests.envs.sensors.worlds import ArraySource, sensor_vec

seeds = st.integers(0, 2**31 - 1)
S, B, EPISODE = 5, 3, 9


class Waves(ArraySource):
    """Readings that differ between sensors, steps and episodes; every episode has ``length`` steps."""

    name = "waves"
    single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, num_envs: int = B, n_sensors: int = S, length: int = EPISODE) -> None:
        self.num_envs, self.max_episode_steps = num_envs, length
        self.sensor_names = tuple(f"sensor_{i}" for i in range(n_sensors))
        self.speed, self.time = np.zeros((num_envs, n_sensors)), np.zeros(num_envs)

    def start_rows(self, rows: np.ndarray, rngs: list[np.random.Generator]) -> None:
        self.time[rows] = 0
        self.speed[rows] = [rng.uniform(0.5, 1.5, len(self.sensor_names)) for rng in rngs]

    def step_rows(
        self, actions: np.ndarray, running: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.time += running
        never = np.zeros(self.num_envs, bool)
        return np.ones(self.num_envs), never, never

    def read_rows(self) -> np.ndarray:
        phase = self.speed * (self.time[:, None] + 1)
        return (10 * np.arange(1, len(self.sensor_names) + 1) + np.sin(phase)).astype(np.float32)

    def close(self) -> None:
        pass


def play(env: TokenVectorEnv, steps: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """The observations of a reset and so many steps, with ``order`` (B, N) beside them."""
    observation, _ = env.reset(seed=seed)
    found = [{**observation, "order": env.slots.order.numpy().copy()}]
    for _ in range(steps):
        observation, *_ = env.step(np.zeros((env.num_envs, 1)))
        found.append({**observation, "order": env.slots.order.numpy().copy()})
    return found


def stacked(found: list[dict[str, np.ndarray]], key: str) -> np.ndarray:
    """(T, B, ...) of what `play` gives."""
    return np.stack([observation[key] for observation in found])


def values_of(senses: Senses, steps: int = EPISODE - 1, seed: int = 0, **source: Any) -> tuple:
    """Newest readings (T, B, N), masks (T, B, N), canonical readings (T, B, S)."""
    found = play(sensor_vec(Waves(**source), senses), steps, seed)
    return stacked(found, "tokens")[..., 0], stacked(found, "mask"), stacked(found, "privileged")


def test_undisturbed_senses_are_the_readings() -> None:
    values, mask, readings = values_of(Senses())
    assert np.array_equal(values, readings) and mask.all() and mask.dtype == np.int8
    assert np.ptp(readings, 0).min() > 0.1, "they change"


def test_duplicates_are_exact_copies() -> None:
    values, mask, readings = values_of(Senses(duplicates=2))
    assert values.shape[-1] == 3 * S and mask.all()
    assert np.array_equal(values, np.tile(readings, 3))


def test_noise_channels_hold_fresh_noise_and_nothing_of_the_sensors() -> None:
    steps, std = 300, 0.3
    senses = Senses(noise_channels=4, noise_std=std)
    values, mask, readings = values_of(senses, steps, num_envs=20, length=1000)
    assert mask.all() and np.array_equal(values[..., :S], readings)
    noise = values[..., S:]  # (T, B, 4)
    assert noise.std() == pytest.approx(std, rel=0.02) and abs(noise.mean()) < 0.01
    assert len(np.unique(noise)) > 0.99 * noise.size, "no number twice: neither in time nor in rows"
    series = (noise - noise.mean(0)) / noise.std(0)
    after = (series[1:] * series[:-1]).mean(0)
    assert np.abs(after).max() < 0.3, "5 standard deviations of 1 / sqrt(300)"
    each = np.concatenate([series, (readings - readings.mean(0)) / readings.std(0)], -1)
    product = np.einsum("tbi,tbj->bij", each, each) / len(each)
    assert np.abs(product[:, :4] * (1 - np.eye(4, 4 + S))).max() < 0.3


def test_the_number_of_noise_channels_is_drawn_for_every_episode() -> None:
    _, mask, _ = values_of(Senses(noise_channels=(1, 3)), 40 * EPISODE - 1, num_envs=4)
    assert mask[..., :S].all() and mask.shape[-1] == S + 3
    counts = mask[..., S:].sum(-1).reshape(40, EPISODE, 4)
    assert np.ptp(counts, 1).max() == 0, "constant in an episode"
    found = np.bincount(counts[:, 0].ravel(), minlength=4) / 160
    assert found[0] == 0 and np.abs(found[1:] - 1 / 3).max() < 0.19, "5 standard deviations"
    assert np.ptp(counts[0], 0).max() or np.ptp(counts[:, 0], 0).min(), "rows and episodes differ"


@pytest.mark.parametrize(("share", "duplicates", "lost"), [(0.2, 0, 1), (0.4, 1, 4), (0.9, 1, 9)])
def test_a_share_of_the_channels_is_missing_for_whole_episodes(
    share: float, duplicates: int, lost: int
) -> None:
    senses = Senses(missing=share, duplicates=duplicates, noise_channels=2)
    values, mask, _ = values_of(senses, 30 * EPISODE - 1, num_envs=4)
    n = S * (1 + duplicates)
    assert np.all(mask.shape[-1] - mask.sum(-1) == lost) and mask[..., n:].all(), "noise is never lost"
    assert np.all(values[mask == 0] == 0) and np.all(values[..., :n][mask[..., :n] == 1] != 0)
    episodes = mask.reshape(30, EPISODE, 4, -1)
    assert np.array_equal(episodes.min(1), episodes.max(1))
    assert len(np.unique(episodes[:, 0].reshape(120, -1), axis=0)) >= min(5, lost + 4)
    share_of_each = (episodes[:, 0, :, :n] == 0).mean((0, 1))
    assert np.abs(share_of_each - lost / n).max() < 5 * 0.5 / np.sqrt(120), "each of them sometimes"


def test_channels_blink_one_by_one_with_their_probability() -> None:
    values, mask, readings = values_of(Senses(blinking=0.3), 400, num_envs=10, length=1000)
    lost = mask == 0
    assert np.all(values[lost] == 0) and np.array_equal(values[~lost], readings[~lost])
    assert lost.mean() == pytest.approx(0.3, abs=5 * 0.46 / np.sqrt(lost.size))
    both_in_time = (lost[1:] & lost[:-1]).mean()
    neighbours = (lost[..., 1:] & lost[..., :-1]).mean()
    assert both_in_time == pytest.approx(0.09, abs=0.01) and neighbours == pytest.approx(0.09, abs=0.01)


def test_stuck_channels_hold_the_first_reading_of_the_episode() -> None:
    values, mask, readings = values_of(Senses(stuck=2, duplicates=1), 12 * EPISODE - 1)
    values, readings = (x.reshape(12, EPISODE, B, -1) for x in (values, np.tile(readings, 2)))
    constant = np.ptp(values, 1) == 0  # (episodes, B, N)
    assert mask.all() and np.all(constant.sum(-1) == 2)
    for episode, row in np.ndindex(12, B):
        held = constant[episode, row]
        assert np.array_equal(values[episode, :, row, ~held], readings[episode, :, row, ~held])
        assert np.all(values[episode, :, row, held] == readings[episode, 0, row, held][:, None])
    assert len(np.unique(constant.reshape(12 * B, -1), axis=0)) > 5, "others in other episodes"


def test_an_order_is_drawn_for_every_episode_and_row() -> None:
    found = play(sensor_vec(Waves(), Senses(shuffle="episode")), 20 * EPISODE - 1)
    order = stacked(found, "order").reshape(20, EPISODE, B, S)
    assert np.array_equal(order.min(1), order.max(1)), "one order for an episode"
    assert len(np.unique(order[:, 0].reshape(-1, S), axis=0)) > 30, "60 draws of 120 orders"
    tokens, readings = stacked(found, "tokens")[..., 0], stacked(found, "privileged")
    shown = np.take_along_axis(readings, stacked(found, "order"), -1)
    assert np.array_equal(tokens, shown), "slot i shows the channel order[i]"


def test_all_orders_are_equally_likely() -> None:
    env = sensor_vec(Waves(num_envs=3000, n_sensors=3), Senses(shuffle="episode"))
    env.reset(seed=0)
    orders, counts = np.unique(env.slots.order, axis=0, return_counts=True)
    assert [tuple(order) for order in orders.tolist()] == list(itertools.permutations(range(3)))
    assert np.abs(counts - 500).max() < 5 * np.sqrt(3000 * 1 / 6 * 5 / 6)


@pytest.mark.parametrize("every", [1, 4, 7])
def test_a_shuffle_of_k_steps_draws_the_order_anew_at_exactly_these_steps(every: int) -> None:
    """Counted from the episode's start, whatever age it was given by ``stagger``."""
    for stagger in (False, True):
        env = sensor_vec(Waves(4, n_sensors=12, length=30), Senses(shuffle=every), stagger=stagger)
        env.reset(seed=1)
        order, made = env.slots.order.numpy().copy(), np.zeros(4, int)
        for _ in range(60):
            _, _, _, truncated, _ = env.step(np.zeros((4, 1)))
            made += 1
            changed = (env.slots.order.numpy() != order).any(1)
            assert np.array_equal(changed, (made % every == 0) | truncated)
            made[truncated] = 0
            order = env.slots.order.numpy().copy()


def plain_tokens(senses: Senses, found: list[dict[str, np.ndarray]], row: int) -> list[np.ndarray]:
    """The rule of histories, one slot and step after the other. Written down anew, for one episode."""
    kept: list[list[float]] = [[] for _ in found[0]["order"][row]]
    tokens = []
    for observation in found:
        channels = np.tile(observation["privileged"][row], 1 + senses.duplicates)
        token = np.zeros((len(kept), senses.history))
        for slot, channel in enumerate(observation["order"][row]):
            if observation["mask"][row, slot]:
                kept[slot].insert(0, float(channels[channel]))
                while len(kept[slot]) < senses.history + 1:
                    kept[slot].append(kept[slot][-1])  # the first reading fills the history
                token[slot, 0] = kept[slot][0] * senses.scale
                for age in range(1, senses.history):
                    difference = kept[slot][age - 1] - kept[slot][age]
                    token[slot, age] = difference * senses.scale * senses.difference_scale
        tokens.append(token)
    return tokens


arbitrary = st.builds(
    Senses,
    history=st.integers(1, 5),
    difference_scale=st.sampled_from([1.0, 20.0]),
    scale=st.sampled_from([1.0, 0.2]),
    shuffle=st.one_of(st.sampled_from(["never", "episode"]), st.integers(1, 6)),
    duplicates=st.integers(0, 2),
    missing=st.sampled_from([0.0, 0.4]),
    blinking=st.sampled_from([0.0, 0.5]),
)


@settings(max_examples=60, deadline=None)
@given(senses=arbitrary, seed=seeds)
def test_tokens_are_the_newest_reading_of_the_slot_and_the_differences_before_it(
    senses: Senses, seed: int
) -> None:
    found = play(sensor_vec(Waves(), senses), EPISODE - 1, seed)
    for row in range(B):
        for observation, wanted in zip(found, plain_tokens(senses, found, row), strict=True):
            # float32 readings of 50 differ by 4e-6, twenty times that in a scaled difference
            np.testing.assert_allclose(observation["tokens"][row], wanted, rtol=1e-5, atol=2e-4)
            assert np.all(observation["tokens"][row][observation["mask"][row] == 0] == 0)


def test_the_first_reading_fills_the_history_and_recent_actions_are_zero() -> None:
    env = sensor_vec(Waves(), Senses(history=4, shuffle="episode"))
    for observation in play(env, 2 * EPISODE)[::EPISODE]:
        assert np.all(observation["tokens"][..., 1:] == 0) and np.all(observation["tokens"][..., 0] != 0)
        assert np.all(observation["recent_actions"] == 0)


def test_a_missing_reading_is_not_entered_and_the_history_waits() -> None:
    """The next difference is to the last reading that was there."""
    env = sensor_vec(Waves(num_envs=1, length=400), Senses(history=2, blinking=0.5, difference_scale=1))
    found = play(env, 300)
    mask, tokens, readings = (stacked(found, key)[:, 0] for key in ("mask", "tokens", "privileged"))
    gaps = 0
    for sensor in range(S):
        there = np.flatnonzero(mask[:, sensor])
        assert tokens[there[0], sensor, 1] == 0
        wanted = readings[there[1:], sensor] - readings[there[:-1], sensor]
        np.testing.assert_allclose(tokens[there[1:], sensor, 1], wanted, atol=1e-5)
        gaps += (np.diff(there) > 1).sum()
    assert gaps > 100


K = 4


def at_reset(seed: int, **senses: Any) -> tuple[list, list]:
    """The same episodes in the task's order and shuffled at reset."""
    plain = play(sensor_vec(Waves(), Senses(history=K, **senses)), 3 * EPISODE - 1, seed)
    shuffled = Senses(history=K, shuffle="episode", **senses)
    return plain, play(sensor_vec(Waves(), shuffled), 3 * EPISODE - 1, seed)


@pytest.mark.parametrize(
    "senses",
    [{}, {"blinking": 0.3, "missing": 0.2, "noise_channels": (1, 3)}, {"stuck": 2, "duplicates": 1}],
    ids=["plain", "lost_and_noisy", "stuck_and_doubled"],
)
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_a_permutation_drawn_at_reset_commutes_with_history_exactly(senses: dict, seed: int) -> None:
    plain, shuffled = at_reset(seed, **senses)
    for one, other in zip(plain, shuffled, strict=True):
        order = other["order"]
        for key in ("tokens", "mask"):
            wanted = np.stack([one[key][row][order[row]] for row in range(B)])
            assert np.array_equal(other[key], wanted), key


def test_the_history_belongs_to_the_slot() -> None:
    """A new order in mid-episode mixes histories; after K readings it is as if it had always been so."""
    every = 2 * K
    found = play(sensor_vec(Waves(length=100), Senses(history=K, shuffle=every)), 3 * every - 1, 3)
    plain = play(sensor_vec(Waves(length=100), Senses(history=K)), 3 * every - 1, 3)
    for shuffle in (every, 2 * every):
        order = found[shuffle]["order"]
        moved = order != found[shuffle - 1]["order"]  # slots that show another channel than before
        assert moved.any()
        for step in range(shuffle, shuffle + every):
            always = np.stack([plain[step]["tokens"][row][order[row]] for row in range(B)])
            tokens = found[step]["tokens"]
            assert np.array_equal(tokens[..., 0], always[..., 0]), "the reading is the new channel's at once"
            same = np.all(tokens == always, -1)
            if step < shuffle + K - 1:
                # Sensors are 10 apart and move by less than 2: a mixed history shows.
                assert np.array_equal(same, ~moved)
                mixed = np.abs(tokens - always)[moved].max(-1)
                assert np.all(mixed > 20 * 5)
            else:
                assert same.all(), f"{step - shuffle + 1} readings after the shuffle"


def test_the_last_observation_belongs_to_the_episode_that_ended() -> None:
    """It has the order, the history and the recent actions of that episode, not those of the next."""
    senses = Senses(history=K, shuffle="episode")
    env = sensor_vec(Waves(), senses)
    long = sensor_vec(Waves(length=1000), senses)
    acted = np.random.default_rng(0).uniform(-1, 1, (2 * EPISODE, B, 1))
    env.reset(seed=5)
    long.reset(seed=5)
    for actions in acted[:EPISODE]:
        observation, _, _, truncated, info = env.step(actions)
        unended, *_ = long.step(actions)
    assert truncated.all() and info["_final_obs"].all()
    for row in range(B):
        for key, values in unended.items():
            assert np.array_equal(info["final_obs"][row][key], values[row]), key
            assert not np.array_equal(observation[key][row], values[row]) or key == "mask"
    assert np.all(observation["tokens"][..., 1:] == 0) and np.all(observation["recent_actions"] == 0)


def test_noise_of_an_episodes_start_is_not_that_of_the_end_before_it() -> None:
    env = sensor_vec(Waves(), Senses(noise_channels=3))
    env.reset(seed=0)
    for _ in range(EPISODE):
        observation, _, _, _, info = env.step(np.zeros((B, 1)))
    for row in range(B):
        assert not np.isin(observation["tokens"][row, S:], info["final_obs"][row]["tokens"][S:]).any()


def test_the_spec_says_what_the_columns_are() -> None:
    assert Senses().spec().token_size == 1
    spec = Senses(history=6, difference_scale=5).spec()
    assert spec.token_size == 6 and spec.token_slice("change") == slice(1, 6)
    assert "times scale and 5" in spec.token[1].meaning and spec.token_is_state().all()


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    senses = Senses(shuffle=1e1, history=2.0, duplicates=1e0, noise_channels=[0.0, 2.0], stuck=1.0)
    assert senses == Senses(shuffle=10, history=2, duplicates=1, noise_channels=(0, 2), stuck=1)
    env = sensor_vec(Waves(), senses)
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_senses_with_other_values_are_checked_anew() -> None:
    senses = Senses(history=3)
    assert dataclasses.replace(senses, duplicates=1) == Senses(history=3, duplicates=1)
    with pytest.raises(UserError, match="senses.history"):
        dataclasses.replace(senses, history=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        senses.history = 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"history": 0}, "senses.history must be .*whole number.*, got 0"),
        ({"history": 2.5}, "senses.history must be .*whole number.*, got 2.5"),
        ({"history": True}, "senses.history .* got true"),
        ({"history": float("nan")}, "senses.history .* got nan"),
        ({"history": float("inf")}, "senses.history .* got inf"),
        ({"history": None}, "senses.history .* got null"),
        ({"duplicates": -1}, "senses.duplicates must be .*whole number.*, got -1"),
        ({"stuck": "two"}, "senses.stuck must be .*whole number.*, got 'two'"),
        ({"shuffle": "episod"}, "senses.shuffle must be one of never, episode or .* 'episod'; did you mean"),
        ({"shuffle": 0}, "senses.shuffle must be .*whole number.*, got 0"),
        ({"shuffle": None}, "senses.shuffle must be .*whole number.*, got null"),
        ({"shuffle": 2.5}, "senses.shuffle must be .*, got 2.5"),
        ({"noise_channels": -1}, "senses.noise_channels must be .*whole number.*, got -1"),
        ({"noise_channels": (3, 1)}, r"number from 0 to 10,000, or \[fewest, most\], got \(3, 1\)"),
        ({"noise_channels": [1, 2, 3]}, r"number from 0 to 10,000, or \[fewest, most\], got \[1, 2, 3\]"),
        ({"noise_channels": [0, 1.5]}, "senses.noise_channels must be a whole number .* got .0, 1.5"),
        ({"noise_channels": "five"}, "senses.noise_channels must be a whole number .* got 'five'"),
        ({"noise_channels": None}, "senses.noise_channels must be a whole number .* got null"),
        ({"noise_std": -0.1}, "senses.noise_std must be a number from 0 to 1,000,000, got -0.1"),
        ({"noise_std": None}, "senses.noise_std must be a number from 0 to 1,000,000, got null"),
        ({"scale": float("nan")}, "senses.scale must be a number from 0 to 1,000,000, got nan"),
        ({"difference_scale": "x"}, "senses.difference_scale must be a number from 0 to 1,000,000, got 'x'"),
        ({"missing": 1.0}, r"senses.missing must be a number of 0 or more and below 1, got 1.0"),
        ({"missing": -0.1}, r"senses.missing must be a number of 0 or more and below 1, got -0.1"),
        ({"missing": "half"}, r"senses.missing must be a number of 0 or more and below 1, got 'half'"),
        ({"blinking": 1.5}, r"senses.blinking must be a number of 0 or more and below 1, got 1.5"),
        ({"blinking": float("nan")}, r"senses.blinking must be a number of 0 or more and below 1, got nan"),
    ],
)
def test_values_that_cannot_be_meant(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Senses(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stuck": 6}, "env.senses.stuck is 6, but the sensors have 5 channels"),
        ({"missing": 0.08}, "env.senses.missing=0.08 is less than half a channel.* have 5; 0.2 is one"),
    ],
)
def test_values_that_do_not_fit_the_task(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sensor_vec(Waves(), Senses(**values))
