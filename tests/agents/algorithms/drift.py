"""A small task in torch, of which the host knows which episodes end, or does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from somite.envs.snapshots import Kept
from somite.envs.token_env import Step, TokenEnv
from somite.envs.tokens import Feature, TokenSpec

N, LIMIT = 3, 5
SPEC = TokenSpec(token=(Feature("reading", 1, "state", "raw", "the newest reading"),))
SIZES = {"n_tokens": N, "n_actions": 1, "n_recent": 1, "discrete": False, "n_privileged": N, "n_sensors": N}


class Drift(Kept):
    """Three readings that drift with the action; the farther from 0, the smaller the reward.

    An episode ends where the first reading leaves its bounds, as diverged in odd rows, and is cut after LIMIT
    steps. Everything depends on the row, its episode's number and its clock, which are staggered at first.
    """

    kept = ("place", "recent", "time", "episode", "first_time")

    def __init__(self, num_envs: int) -> None:
        self.row = torch.arange(num_envs)
        self.start_anew()

    def start_anew(self) -> None:
        self.time = self.row % LIMIT
        self.first_time = self.time.clone()
        self.episode = torch.zeros_like(self.row)
        self.place, self.recent = self._first(), torch.zeros(len(self.row), 1, 1)

    def _first(self) -> Tensor:
        angle = 1.0 + self.row + 3.7 * self.episode
        return torch.stack([torch.sin(angle * k) for k in (1.0, 1.3, 1.7)], 1)

    def observe(self) -> dict[str, Tensor]:
        return {
            "tokens": self.place[..., None].clone(),
            "mask": torch.ones(len(self.row), N, dtype=torch.int8),
            "recent_actions": self.recent.clone(),
            "privileged": self.place.clone(),
            "sensor": torch.arange(N, dtype=torch.int32).expand(len(self.row), N).clone(),
        }

    def step(self, actions: Tensor) -> Step:
        """Actions (B, 1)."""
        push = torch.sin(2.1 * self.row + self.time)[:, None]
        self.place = 0.9 * self.place + 0.4 * actions.clamp(-1, 1) + 0.3 * push
        self.recent = actions[:, None].clone()
        self.time = self.time + 1
        rewards = 1 - self.place.square().sum(1)
        terminated, truncated = self.place[:, 0].abs() > 1.1, self.time >= LIMIT
        ended, final = terminated | truncated, self.observe()
        whole = ended & (self.first_time == 0)
        self.episode = self.episode + ended
        self.place = torch.where(ended[:, None], self._first(), self.place)
        self.recent = torch.where(ended[:, None, None], 0.0, self.recent)
        self.time, self.first_time = torch.where(ended, 0, self.time), torch.where(ended, 0, self.first_time)
        diverged = terminated & (self.row % 2 == 1)
        return Step(self.observe(), rewards, terminated, truncated, diverged, whole, final)


class DriftEnv(TokenEnv):
    """It gives the same tensors in every step, written anew. Rows are of two bodies."""

    kind, max_episode_steps = "sensors", LIMIT
    spec_of_tokens, sizes, body_names = SPEC, SIZES, ("one", "two")

    knows_ends = False

    def __init__(self, num_envs: int, knows_ends: bool = False) -> None:
        self.num_envs, self.device, self.knows_ends = num_envs, torch.device("cpu"), knows_ends
        self.single_observation_space = observation_space()
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.body_of_row = np.arange(num_envs) // (num_envs // 2)
        self.drift = Drift(num_envs)
        self.given: Step | None = None
        self.checks = 0

    def reset(self, seed: Any = None, rows: Tensor | None = None) -> dict[str, Tensor]:
        self.drift.start_anew()
        return self.drift.observe()

    def finish(self) -> Step:
        found = self.drift.step(self._begun)
        if self.given is None:
            self.given = found
        for name, value in vars(found).items():
            kept = getattr(self.given, name)
            for key, tensor in value.items() if isinstance(value, dict) else [(None, value)]:
                (kept if key is None else kept[key]).copy_(tensor)
        return self.given

    def check(self) -> None:
        self.checks += 1

    def snapshot(self) -> dict[str, Any]:
        return self.drift.snapshot()

    def restore(self, taken: Mapping[str, Any]) -> dict[str, Tensor]:
        self.drift.restore(taken)
        return self.drift.observe()

    def close(self) -> None:
        pass


def observation_space() -> spaces.Dict:
    unbounded = {"low": -np.inf, "high": np.inf, "dtype": np.float32}
    return spaces.Dict(
        {
            "tokens": spaces.Box(shape=(N, 1), **unbounded),
            "mask": spaces.Box(0, 1, (N,), np.int8),
            "recent_actions": spaces.Box(shape=(1, 1), **unbounded),
            "privileged": spaces.Box(shape=(N,), **unbounded),
            "sensor": spaces.Box(0, N, (N,), np.int32),
        }
    )
