"""The rollout in torch against Stable-Baselines3's in NumPy, number by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer

from somite.agents.rollout.buffer import RolloutBuffer, check_memory, rollout_bytes
from somite.envs.errors import UserError

T, B = 7, 5
OBSERVED = spaces.Dict(
    {
        "tokens": spaces.Box(0, 255, (3, 4), np.uint8),
        "joints": spaces.Box(-9, 9, (3, 2, 1), np.float32),
        "parent": spaces.Box(-1, 3, (3,), np.int32),
    }
)
CHOICES = {"nominal": spaces.Box(-1, 1, (3, 2), np.float32), "choice": spaces.Discrete(4)}


def both(actions: spaces.Space, seed: int = 0) -> tuple[RolloutBuffer, DictRolloutBuffer]:
    """The two of them, filled with the same."""
    rng = np.random.default_rng(seed)
    sizes = {"gamma": 0.9, "gae_lambda": 0.8, "n_envs": B}
    buffers = (
        RolloutBuffer(T, OBSERVED, actions, **sizes),
        DictRolloutBuffer(T, OBSERVED, actions, "cpu", **sizes),
    )
    batch = [(space, space.seed(int(rng.integers(1000)))) for space in (OBSERVED, actions)]
    for _ in range(T):
        drawn = [OBSERVED.sample() for _ in range(B)]
        observation = {key: np.stack([each[key] for each in drawn]) for key in OBSERVED}
        action = np.array([batch[1][0].sample() for _ in range(B)])
        rewards, starts = rng.normal(size=B).astype(np.float32), rng.random(B) < 0.3
        values, log_probs = torch.from_numpy(rng.normal(size=(2, B)).astype(np.float32))
        tensors = {key: torch.from_numpy(value.copy()) for key, value in observation.items()}
        buffers[0].add(
            tensors, torch.from_numpy(action), None, torch.from_numpy(starts), values[:, None], log_probs
        )
        for value in tensors.values():
            value.zero_()  # what is kept is a copy
        buffers[0].add_rewards(torch.from_numpy(rewards.astype(float)))
        buffers[1].add(observation, action, rewards, starts, values, log_probs)
    last, ends = torch.from_numpy(rng.normal(size=(B, 1)).astype(np.float32)), rng.random(B) < 0.5
    buffers[0].compute_returns_and_advantage(last, torch.from_numpy(ends))
    buffers[1].compute_returns_and_advantage(last, ends)
    return buffers


@pytest.mark.parametrize("kind", CHOICES)
def test_advantages_and_targets_are_theirs(kind: str) -> None:
    ours, theirs = both(CHOICES[kind])
    np.testing.assert_allclose(ours.advantages, theirs.advantages, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.returns, theirs.returns, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(ours.values, theirs.values)
    assert ours.advantages.std() > 0.5


def fields(batch: Any) -> dict[str, torch.Tensor]:
    named = batch._asdict()
    return {**named.pop("observations"), **named}


@pytest.mark.parametrize("batch_size", [None, 8, 35])
@pytest.mark.parametrize("kind", CHOICES)
def test_minibatches_are_theirs_in_every_pass(kind: str, batch_size: int | None) -> None:
    passes = []
    for buffer in both(CHOICES[kind]):
        np.random.seed(4)
        passes.append([fields(batch) for _ in range(2) for batch in buffer.get(batch_size)])
    assert len(passes[0]) == len(passes[1]) > 1
    for ours, theirs in zip(*passes, strict=True):
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            assert ours[name].shape == value.shape and ours[name].dtype == value.dtype, name
            torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-6)


def test_a_rollout_that_is_not_whole_is_not_learnt_from() -> None:
    with pytest.raises(RuntimeError, match="the rollout has 0 of 7 steps"):
        next(RolloutBuffer(T, OBSERVED, CHOICES["choice"], n_envs=B).get())


@pytest.mark.parametrize("kind", CHOICES)
def test_its_bytes_are_known_beforehand(kind: str) -> None:
    buffer = RolloutBuffer(T, OBSERVED, CHOICES[kind], n_envs=B)
    tensors = [value for value in vars(buffer).values() if isinstance(value, torch.Tensor)]
    tensors += buffer.observations.values()
    assert rollout_bytes(T, B, OBSERVED, CHOICES[kind]) == sum(tensor.nbytes for tensor in tensors)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    check_memory(8 * 2**30, 8 * 2**30, 32, 4096)
    check_memory(8 * 2**30, 0, 32, 4096)  # unknown
    with pytest.raises(
        UserError, match=r"32 steps of 4096 rows takes 8 GiB, but 2 GiB .*num_envs=1024 would"
    ):
        check_memory(8 * 2**30, 2 * 2**30, 32, 4096)
    with pytest.raises(UserError, match="lower algorithm.n_steps"):
        check_memory(8 * 2**30, 2**10, 32, 4)
