"""Vector environments of limb token sets that need no simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from somite.agents.algorithms import PPO
from somite.agents.algorithms.base import Setup
from somite.agents.algorithms.ppo import PPOLearner
from somite.agents.policies import Policy
from somite.agents.rollout.episodes import EpisodeLog
from somite.envs.snapshots import Misfit
from somite.envs.token_env import Step, TokenEnv
from somite.envs.tokens import limb_action_space, limb_observation_space
from tests.observations import SPEC

BODIES = ((-1, 0, 1, 0), (1, -1, 1), (-1, 0))
"""Parents of the limbs of three bodies of different topology."""
N_LIMBS, N_JOINTS = 4, 2


class World(gymnasium.vector.VectorEnv):
    """Rows of bodies whose readings are random numbers; reset in the same step.

    A subclass says what the rewards are and which rows end.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, num_envs: int, bodies: Sequence[Sequence[int]] = BODIES) -> None:
        self.num_envs = num_envs
        self.body_of_row = np.arange(num_envs) % len(bodies)
        self.single_observation_space = limb_observation_space(SPEC, N_LIMBS, N_JOINTS)
        self.single_action_space = limb_action_space(N_LIMBS, N_JOINTS)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.mask = np.zeros((num_envs, N_LIMBS), np.int8)
        self.parent = np.full((num_envs, N_LIMBS), -1, np.int32)
        for row, body in enumerate(self.body_of_row):
            self.mask[row, : len(bodies[body])] = 1
            self.parent[row, : len(bodies[body])] = bodies[body]
        # The second limb of every body has two joints, the others one; all are actuated.
        self.joint_mask = np.zeros((num_envs, N_LIMBS, N_JOINTS), np.int8)
        self.joint_mask[:, :, 0] = self.mask
        self.joint_mask[:, 1, 1] = self.mask[:, 1]
        self.rng = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.time = 0
        self.observation = self.draw()
        return self.observation, {}

    def draw(self) -> dict[str, np.ndarray]:
        """A new observation of every row."""
        tokens = self.rng.normal(size=(self.num_envs, N_LIMBS, SPEC.token_size))
        joints = self.rng.normal(size=(self.num_envs, N_LIMBS, N_JOINTS, SPEC.joint_size))
        return {
            "tokens": (tokens * self.mask[..., None]).astype(np.float32),
            "mask": self.mask.copy(),
            "parent": self.parent.copy(),
            "joints": (joints * self.joint_mask[..., None]).astype(np.float32),
            "joint_mask": self.joint_mask.copy(),
            "action_mask": self.joint_mask.copy(),
        }

    def step(self, actions: np.ndarray) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray, dict]:
        assert actions.shape == self.action_space.shape
        rewards = self.rewards(actions)
        terminated, truncated = self.ends()
        self.time += 1
        self.observation = self.draw()
        ended, info = terminated | truncated, {}
        if ended.any():
            info["final_obs"] = np.full(self.num_envs, None, object)
            for row in np.flatnonzero(ended):
                info["final_obs"][row] = {key: value[row] for key, value in self.observation.items()}
            self.observation = self.draw()
        return self.observation, rewards, terminated, truncated, info

    def rewards(self, actions: np.ndarray) -> np.ndarray:
        """(B,) of the actions in the present observation."""
        return np.ones(self.num_envs)

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """(B,), (B,) which rows this step terminates and which it truncates."""
        none = np.zeros(self.num_envs, bool)
        return none, none


class Script(World):
    """Rewards (T, B) and ends (T, B) that are given; 0 and no end after T steps."""

    def __init__(self, rewards: Any, terminated: Any = None, truncated: Any = None, **options: Any) -> None:
        self.script = [
            np.asarray(np.zeros_like(rewards) if values is None else values)
            for values in (rewards, terminated, truncated)
        ]
        super().__init__(self.script[0].shape[1], **options)

    def rewards(self, actions: np.ndarray) -> np.ndarray:
        return self._now(0).astype(float)

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        return self._now(1).astype(bool), self._now(2).astype(bool)

    def _now(self, which: int) -> np.ndarray:
        values = self.script[which]
        return values[self.time] if self.time < len(values) else np.zeros_like(values[0])


class Echo(World):
    """Each joint shall repeat its limb's first reading, with the sign of its own first descriptor.

    A row's reward is 1 minus the mean absolute error over its joints; episodes are ``steps`` long.
    The best return is ``steps``. Doing nothing loses about 0.5 a step.
    """

    def __init__(self, num_envs: int, steps: int = 8) -> None:
        super().__init__(num_envs)
        self.steps = steps

    def draw(self) -> dict[str, np.ndarray]:
        observation = super().draw()
        observation["tokens"][..., 0] = self.rng.uniform(-1, 1, self.mask.shape) * self.mask
        sign = self.rng.choice([-1.0, 1.0], self.joint_mask.shape)
        observation["joints"][..., 0] = sign * self.joint_mask
        return observation

    def rewards(self, actions: np.ndarray) -> np.ndarray:
        target = self.observation["tokens"][..., :1] * self.observation["joints"][..., 0]
        error = np.abs(actions - target) * self.joint_mask
        return 1 - error.sum((1, 2)) / self.joint_mask.sum((1, 2))

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        none = np.zeros(self.num_envs, bool)
        return none, np.full(self.num_envs, (self.time + 1) % self.steps == 0)


class OfArrays(TokenEnv):
    """A vector environment of arrays, such as a `World`, as a token environment."""

    device, kind, spec_of_tokens = torch.device("cpu"), "limbs", SPEC
    max_episode_steps, step_duration = 1000, 0.1

    def __init__(self, env: gymnasium.vector.VectorEnv) -> None:
        self.env, self.num_envs, self.body_of_row = env, env.num_envs, env.body_of_row
        self.single_observation_space = env.single_observation_space
        self.single_action_space = env.single_action_space

    def reset(self, seed: Any = None, rows: Any = None) -> dict[str, torch.Tensor]:
        return tensors(self.env.reset(seed=seed)[0])

    def finish(self) -> Step:
        observation, rewards, terminated, truncated, info = self.env.step(self._begun.numpy())
        ended, given, final = terminated | truncated, tensors(observation), None
        if ended.any():
            final = {key: value.clone() for key, value in given.items()}
            for row in np.flatnonzero(ended):
                for key, value in info["final_obs"][row].items():
                    final[key][row] = torch.as_tensor(value)
        diverged, whole = info.get("diverged", ended & False), info.get("episode_is_whole", True) & ended
        ends = (torch.as_tensor(each) for each in (rewards, terminated, truncated, diverged, whole))
        return Step(given, *ends, final)

    def snapshot(self) -> dict[str, Any]:
        return {}

    def restore(self, taken: Any) -> dict[str, torch.Tensor]:
        raise Misfit("a world keeps nothing")

    def close(self) -> None:
        self.env.close()


def tensors(observation: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in observation.items()}


@dataclass
class WorldSetup(Setup):
    """A run's part of a learner whose environments are there already."""

    env: Any = None

    def make_env(self, *arguments: Any, **options: Any) -> TokenEnv:
        return self.env


def make_learner(
    policy: Policy,
    env: gymnasium.vector.VectorEnv | TokenEnv,
    seed: int = 0,
    precision: str = "float32",
    **settings: Any,
) -> PPOLearner:
    """The package's PPO in these environments."""
    algorithm = PPO(**{"num_envs": env.num_envs, **settings})
    names = [str(body) for body in range(int(env.body_of_row.max()) + 1)]
    setup = WorldSetup(
        task_set=SimpleNamespace(seen=names, simulation="cpu"),
        agent=None,
        environment={},
        device=torch.device("cpu"),
        precision=precision,
        threads=1,
        compute=None,
        seed=seed,
        learner_seed=seed,
        env_seed=seed,
        continued=False,
        episodes=EpisodeLog(names),
        make_policy=lambda _: policy,
        env=env if isinstance(env, TokenEnv) else OfArrays(env),
    )
    return algorithm.make_learner(setup)


def learn(learner: PPOLearner, steps: int) -> None:
    """Updates until so many steps have been made."""
    while learner.steps < steps:
        learner.update(lambda: False)


def only_collect(learner: PPOLearner) -> None:
    """Nothing is learnt from rollouts."""
    learner._learn = dict
    learner._update_normalizer = lambda: None
