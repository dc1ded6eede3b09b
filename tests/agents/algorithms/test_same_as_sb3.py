"""The same learning as Stable-Baselines3's own PPO with its own policies, rollouts and buffer in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from torch import Tensor

from somite.agents.algorithms.network import distribution
from somite.agents.policies import LimbTransformer
from somite.envs.gym import TokenVectorEnv
from somite.envs.locomotion import LIMB_SPEC, LocomotionTask, make_vec
from somite.envs.sb3 import SB3VecEnv

from .worlds import learn, make_learner

ROWS, STEPS, UPDATES = 6, 16, 3
SETTINGS = {"n_steps": STEPS, "batch_size": 40, "n_epochs": 2, "learning_rate": 1e-3, "gamma": 0.95}
CASES = {
    "defaults": {},
    "all that can be set": {"ent_coef": 0.02, "vf_coef": 0.7, "clip_range": 0.05, "max_grad_norm": 0.1},
    "a target of the divergence": {"target_kl": 1e-4, "n_epochs": 6, "gae_lambda": 0.8},
}
FALLING = LocomotionTask(alive_bonus=1.0, relative_height=(0.6, 2.0), max_tilt=0.15, max_episode_steps=9)


def hoppers() -> TokenVectorEnv:
    return make_vec(("hopper_3", "hopper_4"), ROWS, FALLING, threads=1, frame_skip=4, stagger=True)


def policy() -> LimbTransformer:
    torch.manual_seed(3)
    return LimbTransformer(LIMB_SPEC, width=16, layers=1)


class Adapted(ActorCriticPolicy):
    """A token policy as Stable-Baselines3's actor-critic, in plain words."""

    def __init__(self, spaces: Any, actions: Any, rate: Any, use_sde: bool = False, *, policy: Any) -> None:
        BasePolicy.__init__(self, spaces, actions, normalize_images=False)
        self.token_policy, self.use_sde, self.share_features_extractor = policy, use_sde, True
        self.optimizer = torch.optim.Adam(policy.parameters(), lr=rate(1), eps=1e-5)

    @property
    def log_std(self) -> Tensor:
        return self.token_policy.log_std

    def _found(self, observation: dict[str, Tensor]) -> tuple:
        policy = self.token_policy
        prepared = policy.prepare(observation)
        features, _ = policy.encode(prepared, {})
        mean, value = policy.act(features, prepared), policy.value(features, prepared)
        return distribution(mean, False, observation["action_mask"], policy.log_std), value[:, None]

    def forward(self, obs: dict[str, Tensor], deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        explored, value = self._found(obs)
        actions = explored.sample()
        return actions, value, explored.log_prob(actions)

    def evaluate_actions(self, obs: dict[str, Tensor], actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        explored, value = self._found(obs)
        return value, explored.log_prob(actions), explored.entropy()

    def predict_values(self, obs: dict[str, Tensor]) -> Tensor:
        return self._found(obs)[1]


def flat(made: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in made.parameters()])


def ours(**changes: float) -> tuple[Tensor, dict[str, float]]:
    """Parameters after some updates, and what the last one told."""
    made = policy()
    settings = {**SETTINGS, "learning_rate_schedule": "constant", "normalize_returns": False, **changes}
    learner = make_learner(made, hoppers(), **settings)
    learner._update_normalizer = lambda: None  # which Stable-Baselines3 has not
    learn(learner, (UPDATES - 1) * ROWS * STEPS)
    return learner.update(lambda: False), flat(made)


@pytest.mark.parametrize("case", CASES)
def test_parameters_and_scalars_are_those_of_stable_baselines(case: str) -> None:
    made, env = policy(), SB3VecEnv(hoppers(), seed=0)
    settings = {**SETTINGS, **CASES[case]}
    learner = stable_baselines3.PPO(Adapted, env, **settings, policy_kwargs={"policy": made}, device="cpu")
    learner.set_logger(Logger(None, []))
    step, ends = env.step_wait, []

    def recorded() -> tuple:
        result = step()
        ends.extend(result[3][row]["TimeLimit.truncated"] for row in np.flatnonzero(result[2]))
        return result

    env.step_wait = recorded
    np.random.seed(0)
    torch.manual_seed(0)
    learner.learn(UPDATES * ROWS * STEPS, log_interval=None)
    theirs, told = flat(made), learner.logger.name_to_value
    assert sum(ends) > 10 and sum(not cut for cut in ends) > 2, "episodes were cut, and others ended"
    assert (theirs - flat(policy())).abs().max() > 1e-3
    scalars, found = ours(**CASES[case])
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-5)
    for name, value in scalars.items():
        assert told[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    passes = UPDATES * settings["n_epochs"]
    assert scalars["train/n_updates"] == passes or (case.startswith("a target") and passes > UPDATES)


def test_another_discount_is_noticed() -> None:
    assert (ours()[1] - ours(gamma=0.99 * SETTINGS["gamma"])[1]).abs().max() > 1e-4
