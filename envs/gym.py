"""Gymnasium's interfaces, thin adapters over `TokenEnv`, for others' code: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from .errors import UserError
from .token_env import Step, TokenEnv

Told = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]
"""Observation, rewards (B,) float64, terminated (B,), truncated (B,), info."""


class TokenVectorEnv(gymnasium.vector.VectorEnv):
    """A `TokenEnv` as Gymnasium's vector environment; further attributes are those of the `TokenEnv`.

    An environment that ends is reset in the same step: its observation is then the first of the next episode,
    ``info["final_obs"][i]`` the last of the one that ended, and ``info["final_info"]`` what that step told.
    ``info["diverged"]`` and ``info["episode_is_whole"]`` are (B,) bool; see `Step`. With ``autoreset=False``
    (``AutoresetMode.DISABLED``) the caller resets by ``reset(options={"reset_mask": (B,) bool})``.
    """

    def __init__(self, env: TokenEnv) -> None:
        self.env, self.num_envs = env, env.num_envs
        mode = AutoresetMode.SAME_STEP if env.autoreset else AutoresetMode.DISABLED
        self.autoreset_mode, self.metadata = mode, {"render_modes": [], "autoreset_mode": mode}
        self.single_observation_space = env.single_observation_space
        self.single_action_space = env.single_action_space
        self.observation_space = batch_space(env.single_observation_space, env.num_envs)
        self.action_space = batch_space(env.single_action_space, env.num_envs)

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # not made yet
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(
        self, *, seed: int | Sequence[Any] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start episodes.

        Args:
            seed: one for all (environment i then draws from ``(seed, i)``) or a key for each.
            options: ``reset_mask`` (B,) bool, to reset (and seed) these only.

        Raises:
            UserError: a mask for the first reset, or one that is not (B,) bool with a True in it.
        """
        mask = (options or {}).get("reset_mask")
        if mask is not None:
            mask = np.asarray(mask)
            if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
                raise UserError(f"reset_mask must be ({self.num_envs},) bool with a True in it, not {mask!r}")
            mask = torch.from_numpy(mask).to(self.env.device)
        observation = self.env.reset(seed, mask)
        return as_arrays(observation), as_arrays(self.env.info)

    def step(self, actions: Any) -> Told:
        """Advance every environment."""
        self.step_begin(actions)
        return self.step_finish()

    def step_begin(self, actions: Any) -> None:
        """Begin what `step` does; see `TokenEnv.begin`."""
        self.env.begin(torch.from_numpy(np.array(actions)).to(self.env.device))

    def step_finish(self) -> Told:
        """Finish it; what `step` returns."""
        step = self.env.finish()
        ended = _array(step.ended)
        info = as_arrays(step.info | {"diverged": step.diverged})
        if self.env.autoreset and not self.env.once and step.final is not None and ended.any():
            info |= _final(step, ended)
        ends = _array(step.terminated), _array(step.truncated)
        return as_arrays(step.observation), _array(step.rewards.double()), *ends, info

    def close_extras(self, **kwargs: Any) -> None:
        """Let the simulations go."""
        self.env.close()


def _final(step: Step, ended: np.ndarray) -> dict[str, Any]:
    """What Gymnasium tells of episodes that ended and were reset in the same step."""
    last, told = as_arrays(step.final), as_arrays(step.final_info | {"diverged": step.diverged})
    final = np.full(len(ended), None, object)
    for row in np.flatnonzero(ended):
        final[row] = {key: value[row].copy() for key, value in last.items()}
    kept = {key: np.where(ended.reshape(-1, *[1] * (part.ndim - 1)), part, 0) for key, part in told.items()}
    return {
        "final_obs": final,
        "_final_obs": ended.copy(),
        "final_info": kept | {f"_{key}": ended.copy() for key in kept},
        "_final_info": ended.copy(),
        "episode_is_whole": _array(step.whole),
    }


def as_arrays(values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Copies on the host."""
    return {key: _array(value) for key, value in values.items()}


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().copy()


def resets_itself(mode: AutoresetMode | str) -> bool:
    """`TokenEnv.autoreset` of Gymnasium's ``autoreset_mode``. Raises UserError: it is not offered."""
    for choice in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        if mode in (choice, choice.name, choice.value):
            return choice == AutoresetMode.SAME_STEP
    raise UserError(f"autoreset_mode {mode!r} is not offered; choices: SAME_STEP, DISABLED")


class SingleEnv(gymnasium.Env):
    """One environment as Gymnasium's; what is drawn is a subclass's.

    Args:
        vector: of one environment, without autoreset.
        render_mode: as Gymnasium says.
    """

    metadata = {"render_modes": []}

    def __init__(self, vector: gymnasium.vector.VectorEnv, render_mode: str | None = None) -> None:
        modes = (None, *self.metadata["render_modes"])
        if render_mode not in modes:
            choices = ", ".join(map(str, modes))
            raise UserError(f"render_mode {render_mode!r} is not offered; choices: {choices}")
        self.vector, self.render_mode = vector, render_mode
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        observation, info = self.vector.reset(seed=seed)
        return _first(observation), _first(info)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Advance; ``action`` is nominal."""
        observation, reward, terminated, truncated, info = self.vector.step(np.asarray(action)[None])
        return _first(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), _first(info)

    def close(self) -> None:
        """Let the simulation go."""
        self.vector.close()


def _first(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value[0] for key, value in values.items()}
