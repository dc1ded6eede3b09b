"""The rollout in torch against Stable-Baselines3's in NumPy, number by number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.preprocessing import get_action_dim

from somite.agents.rollout import buffer as module
from somite.agents.rollout.buffer import RolloutBuffer, rollout_bytes
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


COLUMNS = {"values": (), "log_probs": ()}


def both(actions: spaces.Space, seed: int = 0) -> tuple[RolloutBuffer, DictRolloutBuffer]:
    """The two of them, filled with the same."""
    rng = np.random.default_rng(seed)
    columns = {"actions": (get_action_dim(actions),), **COLUMNS}
    ours = RolloutBuffer(T, B, OBSERVED, columns)
    theirs = DictRolloutBuffer(T, OBSERVED, actions, "cpu", n_envs=B)
    for space in (OBSERVED, actions):
        space.seed(int(rng.integers(1000)))
    for _ in range(T):
        drawn = [OBSERVED.sample() for _ in range(B)]
        observation = {key: np.stack([each[key] for each in drawn]) for key in OBSERVED}
        action, starts = np.array([actions.sample() for _ in range(B)]), rng.random(B) < 0.3
        values, log_probs = torch.from_numpy(rng.normal(size=(2, B)).astype(np.float32))
        given = {key: torch.from_numpy(value.copy()) for key, value in observation.items()}
        kept = {"actions": torch.from_numpy(action), "values": values[:, None], "log_probs": log_probs}
        ours.add(given, torch.from_numpy(starts), kept)
        for value in given.values():
            value.zero_()  # what is kept is a copy
        theirs.add(observation, action, np.zeros(B), starts, values, log_probs)
    return ours, theirs


@pytest.mark.parametrize("batch_size", [8, 35])
@pytest.mark.parametrize("kind", CHOICES)
def test_minibatches_are_theirs_in_every_pass(kind: str, batch_size: int) -> None:
    ours, theirs = both(CHOICES[kind])
    np.random.seed(4)
    found = [batch for _ in range(2) for batch in ours.batches(batch_size)]
    np.random.seed(4)
    wanted = [batch for _ in range(2) for batch in theirs.get(batch_size)]
    assert len(found) == len(wanted) > 1
    for one, other in zip(found, wanted, strict=True):
        assert set(one.observation) == set(other.observations)
        pairs = [(one.observation[key], value) for key, value in other.observations.items()]
        pairs += [(one["actions"], other.actions), (one["values"], other.old_values)]
        for own, value in [*pairs, (one["log_probs"], other.old_log_prob)]:
            assert own.shape == value.shape and own.dtype == value.dtype
            assert torch.equal(own, value)


def test_a_rollout_that_is_not_whole_is_not_learnt_from() -> None:
    with pytest.raises(RuntimeError, match="the rollout has 0 of 7 steps"):
        next(RolloutBuffer(T, B, OBSERVED, COLUMNS).batches(8))


def test_its_bytes_are_known_beforehand() -> None:
    columns = {**COLUMNS, "actions": (3, 2)}
    buffer = RolloutBuffer(T, B, OBSERVED, columns)
    tensors = [*buffer.observations.values(), *buffer.columns.values(), buffer.starts]
    assert rollout_bytes(T, B, OBSERVED, columns) == sum(tensor.nbytes for tensor in tensors)


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = rollout_bytes(T, B, OBSERVED, COLUMNS)
    for free in (needed, 0):  # 0: unknown
        monkeypatch.setattr(module, "free_memory_of", lambda device, free=free: free)
        RolloutBuffer(T, B, OBSERVED, COLUMNS)
    monkeypatch.setattr(module, "free_memory_of", lambda device: needed - 1)
    with pytest.raises(
        UserError, match=rf"{T} steps of {B} environments takes .* GiB.*num_envs={B - 1} would"
    ):
        RolloutBuffer(T, B, OBSERVED, COLUMNS)
    monkeypatch.setattr(module, "free_memory_of", lambda device: 1)
    with pytest.raises(UserError, match="lower algorithm.n_steps"):
        RolloutBuffer(T, B, OBSERVED, COLUMNS)
