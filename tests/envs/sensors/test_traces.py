"""Traces: running statistics of slots, against the plain formula, and what must not reach them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.envs.errors import UserError
from somite.envs.sensors import CartPoleSwingUp, Senses, traces
from somite.envs.sensors.traces import SMALLEST, Traces

LENGTHS = (5.0, 30.0)
B, N, A = 2, 3, 2
seeds = st.integers(0, 2**31 - 1)


def walk(rng: np.random.Generator, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Readings (steps, B, N) and the actions (steps, B, A) that led to them; action 1 moves slot 0."""
    actions = rng.uniform(-1, 1, (steps, B, A))
    changes = rng.normal(size=(steps, B, N)) * [1.0, 0.1, 3.0]
    changes[..., 0] += 2 * actions[..., 1]
    return np.cumsum(changes, 0) + 4, actions


class Kept:
    """`Traces` of arrays."""

    def __init__(self, *sizes: Any, are_patches: bool = False) -> None:
        self.own = Traces(*sizes, are_patches)

    def enter(self, now: np.ndarray, before: np.ndarray, actions: np.ndarray, goes: np.ndarray) -> None:
        now, before = (
            torch.from_numpy(x if x.dtype == np.uint8 else x.astype(np.float32)) for x in (now, before)
        )
        self.own.enter(now, before, torch.from_numpy(actions).float(), torch.from_numpy(goes))

    def read(self) -> np.ndarray:
        return self.own.read().numpy()


SIZE = Traces.size(A, False)


def entered(readings: np.ndarray, actions: np.ndarray, goes: np.ndarray | None = None) -> np.ndarray:
    """What traces tell (B, N, T, 4 + A) after all steps but the first, from which the first change counts."""
    kept = Kept(LENGTHS, B, N, A)
    for step in range(1, len(readings)):
        there = np.ones((B, N), bool) if goes is None else goes[step]
        kept.enter(readings[step], readings[step - 1], actions[step], there)
    return kept.read().reshape(B, N, len(LENGTHS), SIZE)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, steps=st.integers(3, 120))
def test_statistics_are_weighted_sums(seed: int, steps: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traces, "OUTLIER", 1e30)
        readings, actions = walk(np.random.default_rng(seed), steps)
        found = entered(readings, actions)
    for t, length in enumerate(LENGTHS):
        weights = np.exp(-np.arange(steps - 1)[::-1] / length)
        shares = weights / weights.sum()

        def mean(values: np.ndarray, shares: np.ndarray = shares) -> np.ndarray:
            return np.tensordot(shares, values, 1)

        x, d, a = readings[1:], np.diff(readings, axis=0), actions[1:]
        deviation, change, action = (  # of two values that are nearly the same, too
            np.sqrt(np.maximum(mean(v**2) - mean(v) ** 2, traces.SMALLEST**2)) for v in (x, d, a)
        )
        along = mean(d[..., None] * a[:, :, None]) - mean(d)[..., None] * mean(a)[:, None]
        wanted = [mean(x), np.log(deviation), np.log(change)]
        wanted.append(np.full((B, N), weights.sum() * (1 - np.exp(-1 / length))))
        np.testing.assert_allclose(found[:, :, t, :4], np.stack(wanted, -1), rtol=2e-3, atol=2e-3)
        correlation = along / (change[..., None] * action[:, None])
        np.testing.assert_allclose(found[:, :, t, 4:], correlation, rtol=2e-3, atol=2e-3)


def test_the_action_that_moves_a_slot_is_told_from_the_other() -> None:
    readings, actions = walk(np.random.default_rng(0), 400)
    correlation = entered(readings, actions)[:, :, 1, 4:]
    assert (correlation[:, 0, 1] > 0.5).all()
    correlation[:, 0, 1] = 0
    assert np.abs(correlation).max() < 0.45


def test_slots_that_wait_keep_what_they_had() -> None:
    rng = np.random.default_rng(1)
    readings, actions = walk(rng, 20)
    goes = rng.random((20, B, N)) < 0.6
    found = entered(readings, actions, goes)
    # A slot alone with the steps in which it went, whatever the others did.
    for row, slot in np.ndindex(B, N):
        kept = Kept(LENGTHS, 1, 1, A)
        for step in np.flatnonzero(goes[1:, row, slot]) + 1:
            now, before = (readings[i, row, slot].reshape(1, 1) for i in (step, step - 1))
            kept.enter(now, before, actions[step, row : row + 1], np.ones((1, 1), bool))
        np.testing.assert_allclose(kept.read().ravel(), found[row, slot].ravel(), rtol=1e-5, atol=1e-6)


def test_rows_begin_anew() -> None:
    readings, actions = walk(np.random.default_rng(2), 30)
    there = np.ones((B, N), bool)
    kept, fresh = Kept(LENGTHS, B, N, A), Kept(LENGTHS, B, N, A)
    for step in range(1, 30):
        if step == 15:
            before = kept.read()
            kept.own.start(torch.tensor([False, True]))
            assert np.array_equal(kept.read()[0], before[0])
        for traced in (kept, fresh) if step >= 15 else (kept,):
            traced.enter(readings[step], readings[step - 1], actions[step], there)
    assert np.array_equal(kept.read()[1], fresh.read()[1])
    assert not np.allclose(kept.read()[0], fresh.read()[0])


def test_one_jump_does_not_drown_what_follows() -> None:
    readings, actions = walk(np.random.default_rng(3), 60)
    readings[..., 0] -= readings[:1, :, 0]
    jumped = readings.copy()
    jumped[30:] += 1000.0  # another channel has come to every slot
    quiet, loud = entered(readings, actions), entered(jumped, actions)
    grown = loud[:, :, 0, 2] - quiet[:, :, 0, 2]  # logarithm of the deviation of changes, 30 steps later
    assert grown.max() < 0.1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traces, "OUTLIER", 1e30)
        assert (entered(jumped, actions) - quiet)[:, :, 0, 2].min() > 0.5


def test_what_stands_still_is_finite() -> None:
    found = entered(np.full((10, B, N), 3.0), np.zeros((10, B, A)))
    np.testing.assert_allclose(found[..., 0], 3.0)
    np.testing.assert_allclose(found[..., 1:3], np.log(SMALLEST))
    assert not found[..., 4:].any()


def played(senses: Senses, steps: int = 40) -> list[dict[str, np.ndarray]]:
    """Observations of four carts under the same actions."""
    env = CartPoleSwingUp(senses).make_vec(num_envs=4)
    rng = np.random.default_rng(5)
    found = [env.reset(seed=3)[0]]
    for _ in range(steps):
        found.append(env.step(rng.uniform(-1, 1, (4, 1)))[0])
    env.close()
    return found


def test_tokens_hold_history_and_traces_in_any_order_of_slots() -> None:
    plain = played(Senses(history=3, traces=LENGTHS))
    shuffled = played(Senses(history=3, traces=LENGTHS, shuffle="episode"))
    without = played(Senses(history=3))
    for one, other, bare in zip(plain, shuffled, without, strict=True):
        assert one["tokens"].shape == (4, 5, 3 + 2 * Traces.size(1, False))
        assert np.array_equal(one["tokens"][..., :3], bare["tokens"])
        order = other["sensor"]
        assert np.array_equal(np.take_along_axis(one["tokens"], order[..., None], 1), other["tokens"])
    assert not np.array_equal(order, plain[-1]["sensor"])
    ages = np.array([observation["tokens"][..., 3 + 3] for observation in plain])
    assert not ages[0].any() and ages.max() > 0.9


def test_every_slot_says_to_training_which_sensor_it_is() -> None:
    senses = Senses(shuffle=7, duplicates=1, noise_channels=[1, 3], noise_std=100.0)
    for observation in played(senses):
        sensor, readings = observation["sensor"], observation["tokens"][..., 0]
        there = observation["mask"] != 0
        padded = np.concatenate([observation["privileged"], np.zeros((4, 1), np.float32)], 1)
        told = np.take_along_axis(padded, sensor, 1)
        is_sensor = sensor < 5
        assert (is_sensor.sum(1) == 10).all() and sensor.max() == 5
        assert np.array_equal(told[is_sensor], readings[is_sensor])
        assert (np.abs(readings[there & ~is_sensor]) > 0).all()


def test_traces_are_in_raw_units_times_the_scale() -> None:
    plain, scaled = (played(Senses(traces=[10], scale=scale))[-1]["tokens"] for scale in (1.0, 10.0))
    np.testing.assert_allclose(scaled[..., :2], 10 * plain[..., :2], rtol=1e-4)
    np.testing.assert_allclose(scaled[..., 5:], plain[..., 5:], atol=1e-2)


@pytest.mark.parametrize("given", ["10", 10, [0.5], [10, "x"], [True]])
def test_lengths_that_cannot_be_meant_are_refused(given: object) -> None:
    with pytest.raises(UserError, match=r"senses.traces must be a list .*such as \[10,50\]"):
        Senses(traces=given)


def test_patches_tell_level_contrast_and_change() -> None:
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (30, B, N, 4)).astype(np.uint8)
    actions = rng.uniform(-1, 1, (30, B, A))
    kept = Kept([1e6], B, N, A, are_patches=True)  # so long that all steps weigh the same
    for step in range(1, 30):
        kept.enter(patches[step], patches[step - 1], actions[step], np.ones((B, N), bool))
    found = kept.read()
    assert found.shape == (B, N, Traces.size(A, True)) and found.dtype == np.float32
    grey = patches / 255
    change = np.abs(np.diff(grey, axis=0, prepend=0)).mean(-1)
    values = np.stack([grey.mean(-1), grey.std(-1), change], -1)[1:]
    np.testing.assert_allclose(found[..., :3], values.mean(0), rtol=1e-4)
    np.testing.assert_allclose(found[..., 3:6], np.log(values.std(0)), rtol=1e-3)
    for row, slot, value, action in np.ndindex(B, N, 3, A):
        wanted = np.corrcoef(values[:, row, slot, value], actions[1:, row, action])[0, 1]
        assert found[row, slot, 7 + value * A + action] == pytest.approx(wanted, abs=1e-3)
