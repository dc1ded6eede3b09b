"""PPO with limb policies learns; with a reward or an advantage of the wrong sign it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from somite.agents.agent import Agent
from somite.agents.policies import SMP, LimbTransformer, Policy
from tests.observations import SPEC

from .worlds import Echo, make_learner
from .worlds import learn as run

EPISODE = 8
BEST = float(EPISODE)
DOING_NOTHING = EPISODE / 2
THRESHOLD = 0.85 * BEST
POLICIES = {
    "limb_transformer": lambda: LimbTransformer(SPEC, width=32, layers=1),
    "smp": lambda: SMP(SPEC, width=32, message=8),
}


def mean_return(policy: Policy, episodes: int = 60) -> float:
    """Of whole episodes on bodies of three topologies, deterministic and raw."""
    env, agent = Echo(episodes, EPISODE), Agent(policy)
    observation, _ = env.reset(seed=99)
    total = 0.0
    for _ in range(EPISODE):
        observation, rewards, *_ = env.step(agent.act(observation))
        total += rewards.mean()
    return total


class Negated(Echo):
    def rewards(self, actions: np.ndarray) -> np.ndarray:
        return -super().rewards(actions)


def learn(name: str, wrong: str | None = None, iterations: int = 10) -> float:
    """The return after learning, with the named sign turned."""
    torch.manual_seed(0)
    policy = POLICIES[name]()
    env = (Negated if wrong == "reward" else Echo)(48, EPISODE)
    total = iterations * 48 * 32
    settings = {"batch_size": 128, "learning_rate": 5e-3, "total_steps": total}
    learner = make_learner(policy, env, n_steps=32, gamma=0.5, **settings)
    finish = learner._finish

    def negated() -> None:
        finish()
        learner.buffer["advantages"].neg_()

    if wrong == "advantage":
        learner._finish = negated
    run(learner, total)
    return mean_return(policy)


@pytest.mark.parametrize("name", POLICIES)
def test_a_shared_policy_learns_on_mixed_bodies(name: str) -> None:
    assert learn(name) > THRESHOLD


@pytest.mark.parametrize("wrong", ["reward", "advantage"])
def test_the_test_fails_when_a_sign_is_wrong(wrong: str) -> None:
    assert learn("limb_transformer", wrong, iterations=4) < DOING_NOTHING < THRESHOLD
