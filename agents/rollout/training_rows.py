"""The rows that a policy is trained on, as tensors, wherever they are simulated.

Two kinds: `HostRows` of a Gymnasium vector environment, and `DeviceRows` of a tensor environment. Both reset
a row in the step that ends its episode, and both keep records of episodes in raw rewards.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from torch import Tensor

from ...envs.errors import UserError
from ...envs.token_env import TokenEnv
from .episode_records import EpisodeRecords

CPU = torch.device("cpu")


@dataclass(frozen=True)
class RowsStep:
    """What a step of B rows gave. Tensors may be overwritten by the next step.

    Attributes:
        observation: what to act on next, (B, ...) each, on the learner's device.
        rewards: (B,) raw. ended: (B,) bool. Both are where the rows are simulated.
        cut: which episodes time has cut, that would have gone on: (k,) int, the rows, where the host knows
            them, else (B,) bool; None: none.
        final: the last observations of the rows that were cut, (k, ...) each, or of all, (B, ...).
    """

    observation: dict[str, Tensor]
    rewards: Tensor
    ended: Tensor
    cut: Tensor | None = None
    final: dict[str, Tensor] | None = None


class TrainingRows(abc.ABC):
    """B rows.

    Attributes:
        env: the environment.
        num_envs: B.
        device: of the observations that it gives and of the actions that it takes: the learner's.
        simulated_on: the device of rewards, ends and records.
        knows_ends: whether the host knows of each step which rows have ended.
        overlaps: whether something else can be done between `begin` and `finish`: rows are simulated by other
            processes, and the last observation is not theirs to write to.
        observation_space, action_space: of a row.
        body_of_row: (B,) int.
        max_episode_steps: steps after which an episode is cut.
        records: of the episodes.
    """

    knows_ends: bool
    overlaps = False
    device: torch.device
    simulated_on: torch.device

    def __init__(self, env: Any) -> None:
        self.env, self.num_envs = env, int(env.num_envs)
        self.observation_space: spaces.Dict = env.single_observation_space
        self.action_space: spaces.Space = env.single_action_space
        self.body_of_row: np.ndarray = getattr(env, "body_of_row", np.zeros(self.num_envs, int))
        self._seed: int | None = None

    def seed(self, seed: int | None) -> None:
        """Seed the next reset."""
        self._seed = seed

    def reset(self) -> dict[str, Tensor]:
        """Start new episodes in all rows; returns the observation."""
        observation = self._reset(self._seed)
        self._seed = None
        self.records.begin(torch.ones(self.num_envs, dtype=torch.bool, device=self.simulated_on))
        return observation

    def step(self, actions: Tensor) -> RowsStep:
        """Advance all rows by actions (B, ...) on `device`."""
        self.begin(actions)
        return self.finish()

    @abc.abstractmethod
    def begin(self, actions: Tensor) -> None:
        """Begin what `step` does. Where `overlaps`, the rows are simulated from now on."""

    @abc.abstractmethod
    def finish(self) -> RowsStep:
        """The rest of it."""

    def snapshot(self) -> dict[str, Any]:
        """What the rows and their records go on from; see `somite.envs.snapshots`."""
        return {"env": self.env.snapshot(), **self.records.snapshot()}

    def restore(self, taken: Mapping[str, Any]) -> dict[str, Tensor]:
        """Inverse of `snapshot`; the rows must have been reset once.

        Returns:
            The observation. `begun_anew` tells which rows are at the beginning of a new episode instead.

        Raises:
            Misfit: the snapshot is of other rows.
        """
        observation = self._restore(taken["env"])
        self.records.restore({name: value for name, value in taken.items() if name != "env"})
        self.records.begin(torch.from_numpy(self.begun_anew).to(self.simulated_on))
        return observation

    @property
    def begun_anew(self) -> np.ndarray:
        """(B,) bool, rows whose simulation could not be brought back by the last `restore`."""
        return np.asarray(getattr(self.env, "begun_anew", np.zeros(self.num_envs, bool)))

    @abc.abstractmethod
    def check(self) -> None:
        """Look at what steps have left unsaid; once a rollout. Raises UserError."""

    def close(self) -> None:
        """Let the simulations go."""
        self.env.close()

    @abc.abstractmethod
    def _reset(self, seed: int | None) -> dict[str, Tensor]: ...

    @abc.abstractmethod
    def _restore(self, taken: Mapping[str, Any]) -> dict[str, Tensor]: ...


class HostRows(TrainingRows):
    """Rows of a Gymnasium vector environment: arrays of the host, transferred where the learner is elsewhere.

    Args:
        env: resets rows in the same step.
        device: of the learner.

    Raises:
        UserError: rows are not reset in the same step.
    """

    knows_ends = True
    simulated_on = CPU

    def __init__(self, env: gymnasium.vector.VectorEnv, device: torch.device = CPU) -> None:
        if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise UserError("training needs a vector environment with autoreset_mode SAME_STEP")
        super().__init__(env)
        self.device = device
        self.records = EpisodeRecords(self.body_of_row, self.simulated_on)
        self._pinned: dict[str, Tensor] = {}
        self.overlaps = self._is_away and hasattr(env, "step_begin")

    def begin(self, actions: Tensor) -> None:
        """Waits for the actions."""
        self._actions = actions.cpu().numpy()
        if self.overlaps:
            self.env.step_begin(self._actions)

    def finish(self) -> RowsStep:
        """As of the environment."""
        told = self.env.step_finish() if self.overlaps else self.env.step(self._actions)
        observation, rewards, terminated, truncated, info = told
        ended = terminated | truncated
        whole, diverged = info.get("episode_is_whole", True) & ended, info.get("diverged", ended & False)
        rewards, tensor = torch.as_tensor(rewards), torch.from_numpy(ended)
        self.records.add(rewards, tensor, torch.from_numpy(whole), torch.from_numpy(diverged))
        given = self._transfer(observation)
        cut = np.flatnonzero(truncated & ~terminated)
        if not len(cut):
            return RowsStep(given, rewards, tensor)
        last = [info["final_obs"][row] for row in cut]
        final = {key: torch.from_numpy(np.stack([each[key] for each in last])) for key in last[0]}
        final = {key: value.to(self.device, non_blocking=True) for key, value in final.items()}
        return RowsStep(given, rewards, tensor, torch.from_numpy(cut).to(self.device), final)

    def check(self) -> None:
        """Nothing: steps raise what there is to say."""

    def _reset(self, seed: int | None) -> dict[str, Tensor]:
        return self._transfer(self.env.reset(seed=seed)[0])

    def _restore(self, taken: Mapping[str, Any]) -> dict[str, Tensor]:
        return self._transfer(self.env.restore(taken))

    def _transfer(self, observation: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """On the learner's device; on the CPU the arrays themselves."""
        arrays = {key: torch.from_numpy(value) for key, value in observation.items()}
        return {key: self._sent(key, value) for key, value in arrays.items()} if self._is_away else arrays

    @property
    def _is_away(self) -> bool:
        return self.device.type != "cpu"

    def _sent(self, key: str, value: Tensor) -> Tensor:
        # From pinned memory the GPU copies while the host goes on. The next step writes to the same memory,
        # which is safe: it has waited for its actions, and these come after the copy.
        if key not in self._pinned:
            self._pinned[key] = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        return self._pinned[key].copy_(value).to(self.device, non_blocking=True)


class DeviceRows(TrainingRows):
    """Rows of a tensor environment: nothing waits for the device.

    Args:
        env: on the learner's device.
    """

    knows_ends = False

    def __init__(self, env: TokenEnv) -> None:
        super().__init__(env)
        self.device = self.simulated_on = env.device
        self.records = EpisodeRecords(self.body_of_row, env.device)

    def begin(self, actions: Tensor) -> None:
        """All of it waits for `finish`: whoever launches it waits for nothing."""
        self._actions = actions

    def finish(self) -> RowsStep:
        """As of the environment."""
        step = self.env.step(self._actions)
        ended = step.ended
        self.records.add(step.rewards, ended, step.whole, step.diverged)
        if step.final is None:
            return RowsStep(step.observation, step.rewards, ended)
        cut = step.truncated & ~step.terminated
        return RowsStep(step.observation, step.rewards, ended, cut, step.final)

    def check(self) -> None:
        """See `TokenEnv.check`."""
        self.env.check()

    def _reset(self, seed: int | None) -> dict[str, Tensor]:
        return self.env.reset(seed)

    def _restore(self, taken: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.env.restore(taken)
