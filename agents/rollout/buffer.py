"""A rollout as tensors of the learner's device, with the semantics of Stable-Baselines3's buffer.

The same advantages (Schulman et al., "High-dimensional continuous control using generalized advantage
estimation", 2016), the same samples in the same random order, but nothing goes through the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples
from torch import Tensor

from ...envs.cores import GIB
from ...envs.errors import UserError
from ..device import free_memory_of

NUMBERS_OF_A_STEP = 6
"""Floats that a step of a row takes beside observation and action."""


class RolloutBuffer:
    """T steps of B rows. Its tensors are (T, B, ...).

    Args:
        n_steps: T.
        observation_space: of a row; observations keep its dtypes.
        action_space: of a row; actions are kept flat, as float32.
        device: of the learner.
        gamma: discount.
        gae_lambda: between one step (0) and all of them (1) for the advantage.
        n_envs: B.

    Attributes:
        observations: (T, B, ...) each. actions: (T, B, A). rewards, episode_starts, estimates (of the
            value), log_probs, advantages, targets (of the value): (T, B) float32.

    Raises:
        UserError: it does not fit into the memory of the device.
    """

    def __init__(
        self,
        n_steps: int,
        observation_space: spaces.Dict,
        action_space: spaces.Space,
        device: torch.device | str = "cpu",
        *,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        n_envs: int = 1,
    ) -> None:
        self.n_steps, self.n_envs, self.device = n_steps, n_envs, torch.device(device)
        self.observation_space, self.gamma, self.gae_lambda = observation_space, gamma, gae_lambda
        size = rollout_bytes(n_steps, n_envs, observation_space, action_space)
        check_memory(size, free_memory_of(self.device), n_steps, n_envs)
        spaces_by_key = observation_space.items()
        self.observations = {k: self._zeros(s.shape, _torch_dtype(s.dtype)) for k, s in spaces_by_key}
        self.actions = self._zeros((get_action_dim(action_space),))
        self.rewards, self.episode_starts, self.estimates = (self._zeros() for _ in range(3))
        self.log_probs, self.advantages, self.targets = (self._zeros() for _ in range(3))
        self.reset()

    def _zeros(self, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros((self.n_steps, self.n_envs, *shape), dtype=dtype, device=self.device)

    @property
    def values(self) -> np.ndarray:
        """(T, B) estimates of the value on the host, whose explained variance Stable-Baselines3 logs."""
        return self.estimates.cpu().numpy()

    @property
    def returns(self) -> np.ndarray:
        """(T, B) targets of the value on the host."""
        return self.targets.cpu().numpy()

    def reset(self) -> None:
        """Begin again; the next steps take the place of those that are here."""
        self.pos = 0

    def add(
        self,
        observation: Mapping[str, Tensor | np.ndarray],
        action: Tensor | np.ndarray,
        reward: Tensor | np.ndarray | None,
        episode_start: Tensor | np.ndarray,
        value: Tensor,
        log_prob: Tensor,
    ) -> None:
        """One step of all rows, copied.

        Args:
            observation: (B, ...) each, acted on.
            action: (B, ...).
            reward: (B,); None: not known yet, see `add_rewards`.
            episode_start: (B,), whether the observation is the first of an episode.
            value: (B,) or (B, 1), estimated.
            log_prob: (B,) of the action.
        """
        at = self.pos
        for key, kept in self.observations.items():
            _put(kept[at], observation[key])
        for kept, given in (
            (self.actions, action),
            (self.episode_starts, episode_start),
            (self.estimates, value),
            (self.log_probs, log_prob),
        ):
            _put(kept[at], given)
        self.pos += 1
        if reward is not None:
            self.add_rewards(reward)

    def add_rewards(self, rewards: Tensor | np.ndarray) -> None:
        """Rewards (B,) of the step that was added last."""
        _put(self.rewards[self.pos - 1], rewards)

    def compute_returns_and_advantage(self, last_values: Tensor, dones: Tensor | np.ndarray) -> None:
        """Advantages of all steps, and what the values are to become.

        Args:
            last_values: (B,) or (B, 1), of the observations after the last step.
            dones: (B,), rows whose episode the last step has ended.
        """
        goes_on = 1.0 - torch.as_tensor(dones, device=self.device).float()
        next_values = last_values.flatten()
        advantage = torch.zeros_like(next_values)
        for step in reversed(range(self.n_steps)):
            delta = self.rewards[step] + self.gamma * next_values * goes_on - self.estimates[step]
            advantage = delta + self.gamma * self.gae_lambda * goes_on * advantage
            self.advantages[step] = advantage
            goes_on, next_values = 1.0 - self.episode_starts[step], self.estimates[step]
        torch.add(self.advantages, self.estimates, out=self.targets)

    def get(self, batch_size: int | None = None) -> Iterator[DictRolloutBufferSamples]:
        """All samples in a new random order, in minibatches of ``batch_size``; None: one of them all."""
        self._check_full()
        # Stable-Baselines3 draws from NumPy's global stream and counts a row's steps first.
        row, step = np.divmod(np.random.permutation(self.n_steps * self.n_envs), self.n_steps)
        places = torch.from_numpy(step * self.n_envs + row).to(self.device)
        for chosen in places.split(batch_size or len(places)):
            yield self._samples(chosen)

    def _check_full(self) -> None:
        if self.pos < self.n_steps:
            raise RuntimeError(f"the rollout has {self.pos} of {self.n_steps} steps")

    def _samples(self, places: Tensor, more: Mapping[str, Tensor] | None = None) -> DictRolloutBufferSamples:
        """Those at ``places`` (n,), counted step by step; with ``more`` beside the observations."""

        def take(values: Tensor) -> Tensor:
            return values.flatten(0, 1).index_select(0, places)

        observations = {key: take(value) for key, value in self.observations.items()}
        return DictRolloutBufferSamples(
            observations={**observations, **(more or {})},
            actions=take(self.actions),
            old_values=take(self.estimates),
            old_log_prob=take(self.log_probs),
            advantages=take(self.advantages),
            returns=take(self.targets),
        )


def rollout_bytes(
    n_steps: int, n_envs: int, observation_space: spaces.Dict, action_space: spaces.Space
) -> int:
    """What a `RolloutBuffer` of these takes."""
    observed = sum(int(np.prod(space.shape)) * space.dtype.itemsize for space in observation_space.values())
    return n_steps * n_envs * (observed + 4 * (get_action_dim(action_space) + NUMBERS_OF_A_STEP))


def check_memory(needed: int, free: int, n_steps: int, n_envs: int) -> None:
    """Refuses a rollout that does not fit.

    Args:
        needed: bytes of the rollout.
        free: bytes that there are; 0: unknown.
        n_steps: of a row.
        n_envs: rows.

    Raises:
        UserError: it does not, with the number of rows that would.
    """
    if not free or needed <= free:
        return
    fits = free * n_envs // needed
    advice = f"algorithm.num_envs={fits} would fit" if fits else "lower algorithm.n_steps"
    raise UserError(
        f"a rollout of {n_steps} steps of {n_envs} rows takes {needed / GIB:.3g} GiB, but {free / GIB:.3g} "
        f"GiB are free; {advice}"
    )


def _torch_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _put(kept: Tensor, given: Tensor | np.ndarray) -> None:
    kept.copy_(torch.as_tensor(given).reshape(kept.shape), non_blocking=True)
