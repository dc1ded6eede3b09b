"""Rewards in units of each body's own returns, so that one critic fits bodies whose returns differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from ...envs.sb3 import SB3VecEnv
from ...envs.snapshots import Misfit, put, take

REWARD_CLIP = 10.0
_KEPT = ("_returns",)


class BodyRewardScaling(VecEnvWrapper):
    """Divides rewards by a running deviation of the discounted return, one for each body.

    This is SB3's ``VecNormalize`` for rewards, kept for each body apart: a body that returns 3000 and one
    that returns 300 ask the same of the critic, and their advantages weigh the same before they are
    normalised together. Only the learner sees scaled rewards; logs and evaluation stay raw.

    Args:
        venv: rows of one or several bodies.
        gamma: discount of the return.
    """

    def __init__(self, venv: SB3VecEnv, gamma: float) -> None:
        super().__init__(venv)
        self.gamma = gamma
        self.rows = [np.flatnonzero(venv.body_of_row == body) for body in range(venv.body_of_row.max() + 1)]
        self.statistics = [RunningMeanStd(shape=()) for _ in self.rows]
        self._returns = np.zeros(venv.num_envs)

    def reset(self) -> VecEnvObs:
        """Start new episodes in all rows."""
        self._returns[:] = 0
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """As the wrapped environment, with scaled rewards."""
        observation, rewards, dones, infos = self.venv.step_wait()
        self._returns = self._returns * self.gamma + rewards
        for rows, statistics in zip(self.rows, self.statistics, strict=True):
            statistics.update(self._returns[rows])
        rewards = np.clip(rewards / self.scale(), -REWARD_CLIP, REWARD_CLIP)
        self._returns[dones] = 0
        return observation, rewards.astype(np.float32), dones, infos

    def scale(self) -> np.ndarray:
        """(B,) what each row's reward is divided by."""
        scale = np.empty(self.num_envs)
        for rows, statistics in zip(self.rows, self.statistics, strict=True):
            scale[rows] = np.sqrt(statistics.var + 1e-8)
        return scale

    def snapshot(self) -> dict[str, Any]:
        """The rewards' scales and the rows' discounted returns; the rows themselves are ``venv``'s."""
        statistics = [[float(s.mean), float(s.var), float(s.count)] for s in self.statistics]
        return {**take(self, _KEPT), "statistics": statistics}

    def restore(self, taken: Mapping[str, Any], begun_anew: np.ndarray) -> None:
        """Inverse of `snapshot`.

        Args:
            taken: of `snapshot`.
            begun_anew: (B,) bool, rows that are at the beginning of an episode instead.

        Raises:
            Misfit: of other rows.
        """
        put(self, _KEPT, {name: taken[name] for name in _KEPT})
        self._returns[begun_anew] = 0
        self.restore_statistics(taken)

    def restore_statistics(self, taken: Mapping[str, Any]) -> None:
        """The rewards' scales of a snapshot alone. Raises Misfit: of other bodies."""
        if len(taken["statistics"]) != len(self.statistics):
            raise Misfit(f"rewards of {len(self.statistics)} bodies, not of {len(taken['statistics'])}")
        for statistics, (mean, var, count) in zip(self.statistics, taken["statistics"], strict=True):
            statistics.mean, statistics.var, statistics.count = np.float64(mean), np.float64(var), count
