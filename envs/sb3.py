"""Any Gymnasium vector environment of ours as a Stable-Baselines3 ``VecEnv``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from .errors import UserError


class SB3VecEnv(VecEnv):
    """Adapter for SB3's own algorithms, by its conventions.

    ``info`` of an environment that ends has ``terminal_observation``, ``TimeLimit.truncated``, ``episode``
    and the index of its ``body``. Episode statistics are of raw rewards. An episode that started in the
    middle of its clock (``stagger``) is not reported, since its return is not that of a whole one.

    Args:
        env: the vector environment.
        seed: of the first reset.

    Attributes:
        diverged: (bodies,), simulations of each body that have diverged so far.

    Raises:
        UserError: environments that end are not reset in the same step.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv, seed: int | None = None) -> None:
        if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise UserError("SB3VecEnv needs a vector environment with autoreset_mode SAME_STEP")
        self.env = env
        self.render_mode = None  # SB3 asks get_attr for it
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.body_of_row: np.ndarray = getattr(env, "body_of_row", np.zeros(env.num_envs, int))
        self.diverged = np.zeros(int(self.body_of_row.max()) + 1, int)
        self._seed, self._actions = seed, None
        self._returns, self._lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, int)
        self._start = time.time()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next reset."""
        self._seed = seed
        return [seed] * self.num_envs

    def reset(self) -> VecEnvObs:
        """Start new episodes."""
        observation, _ = self.env.reset(seed=self._seed)
        self._seed = None
        self._returns[:], self._lengths[:] = 0, 0
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions; the work is done in :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Observations, rewards float32, dones, infos."""
        observation, rewards, terminated, truncated, info = self.env.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        if "diverged" in info:
            np.add.at(self.diverged, self.body_of_row[info["diverged"]], 1)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        done = terminated | truncated
        for row in np.flatnonzero(done):
            infos[row] = self._episode_info(row, info, bool(truncated[row] and not terminated[row]))
        self._returns[done], self._lengths[done] = 0, 0
        return observation, rewards.astype(np.float32), done, infos

    def _episode_info(self, row: int, info: dict[str, Any], cut: bool) -> dict[str, Any]:
        told = {
            "terminal_observation": info["final_obs"][row],
            "TimeLimit.truncated": cut,
            "body": int(self.body_of_row[row]),
        }
        if info.get("episode_is_whole", np.ones(self.num_envs, bool))[row]:
            told["episode"] = {
                "r": float(self._returns[row]),
                "l": int(self._lengths[row]),
                "t": time.time() - self._start,
            }
        return told

    def close(self) -> None:
        """Close the vector environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The adapter's or the vector environment's attribute, once for each environment."""
        holder = self if attr_name in vars(self) else self.env
        return [getattr(holder, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment."""
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list:
        """Call a method of the vector environment once; its result stands for each environment."""
        result = getattr(self.env, method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """They are never wrapped on their own."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> list[np.ndarray | None]:
        """There are no pictures of them."""
        return [None for _ in range(self.num_envs)]
