"""A further loss goes along with the algorithm's own: what sensor is this?"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from somite.agents.algorithms.auxiliary import also_minimize
from somite.agents.algorithms.sb3_policy import SB3TokenPolicy
from somite.agents.algorithms.sharding import Shards
from somite.agents.composition import sizes_for
from somite.agents.policies import SensorTransformer
from somite.envs.errors import UserError
from somite.envs.sensors import CartPoleSwingUp, Senses

SENSES = Senses(history=4, traces=[10], shuffle="episode", noise_channels=[0, 2])
WEIGHT = 0.3


def test_values_stay_and_the_loss_has_weight_one_whatever_the_values_are_used_for() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = torch.tensor(3.0, requires_grad=True)
    values = also_minimize(x * 1, (y**2).mean())
    assert torch.equal(values, x)
    (100 * values).sum().backward()
    assert x.grad.tolist() == [100.0, 100.0] and y.grad == 6.0


def adapted(identify: float) -> tuple[SB3TokenPolicy, dict[str, Tensor], Tensor]:
    """A policy with an odd number of observations that it has met, and actions."""
    env = CartPoleSwingUp(SENSES).make_vec(num_envs=31)
    torch.manual_seed(0)
    policy = SensorTransformer(
        env.spec_of_tokens, **sizes_for(SensorTransformer, env), width=8, queries=2, identify=identify
    )
    observation, _ = env.reset(seed=0)
    for _ in range(8):
        observation = env.step(np.random.default_rng(0).uniform(-1, 1, (31, 1)))[0]
    spaces = env.single_observation_space, env.single_action_space
    student = SB3TokenPolicy(*spaces, lambda remaining: 1e-3, policy=policy)
    tensors = {key: torch.from_numpy(value) for key, value in observation.items()}
    return student, tensors, torch.linspace(-1, 1, 31)[:, None]


def gradients(policy: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    policy.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def cross_entropy(policy: SensorTransformer, observation: dict[str, Tensor]) -> Tensor:
    """By the plain formula: the mean over observations of the mean over their sensors."""
    x, _ = policy._embed(observation)
    chances = policy.identity(x).log_softmax(-1)
    right = -chances.gather(-1, observation["sensor"].long().unsqueeze(-1)).squeeze(-1)
    means = [own[there != 0].mean() for own, there in zip(right, observation["mask"], strict=True)]
    return torch.stack(means).mean()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("what", ["ppo", "clone"])
def test_gradients_are_those_of_the_sum_of_both_losses(what: str, threads: int) -> None:
    student, observation, actions = adapted(WEIGHT)
    policy = student.token_policy
    assert len({tuple(row) for row in observation["mask"].tolist()}) > 1, "some rows have less noise"

    def own(asked: SB3TokenPolicy) -> Tensor:
        if what == "clone":
            return (asked.outputs_of(observation) - actions).square().mean()
        value, log_prob, entropy = asked.evaluate_actions(observation, actions)
        return log_prob.mean() + 2 * value.square().mean() + entropy.mean()

    bare, *_ = adapted(0.0)
    bare.token_policy.load_state_dict(policy.state_dict(), strict=False)
    without = gradients(bare.token_policy, own(bare))
    extra = gradients(policy, WEIGHT * cross_entropy(policy, observation))
    student.shards = Shards(threads) if threads > 1 else None
    found = gradients(policy, own(student))
    assert extra["identity.weight"].abs().max() > 1e-3 < extra["sensor.weight"].abs().max()
    for name, gradient in found.items():
        wanted = sum(part[name] for part in (without, extra) if name in part)
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    wanted = WEIGHT * cross_entropy(policy, observation).detach().item()
    assert student.auxiliary_loss == pytest.approx(wanted, rel=1e-4)


def test_acting_neither_needs_nor_uses_what_the_sensors_are() -> None:
    student, observation, _ = adapted(WEIGHT)
    policy = student.token_policy
    with torch.no_grad():
        wanted = student.outputs(observation)
        without = {key: value for key, value in observation.items() if key not in ("sensor", "privileged")}
        assert torch.equal(student.outputs(without), wanted)
        policy.identity.weight.fill_(7.0)
        assert torch.equal(student.outputs(observation), wanted)
    assert not any(name.startswith("identity") for name in policy.acting_parameters())


def test_sensors_come_to_be_known() -> None:
    student, observation, _ = adapted(1.0)
    losses = []
    for _ in range(150):
        student.optimizer.zero_grad()
        student.outputs_of(observation).sum().mul(0).backward()
        student.optimizer.step()
        losses.append(student.auxiliary_loss)
    assert losses[0] > 0.8 * math.log(6)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("weight", [-1, "much", None])
def test_a_weight_that_cannot_be_meant_is_refused(weight: object) -> None:
    with pytest.raises(UserError, match="agent.identify must be a number from 0"):
        SensorTransformer(
            SENSES.spec(n_actions=1), n_actions=1, n_recent=4, n_privileged=5, n_sensors=5, identify=weight
        )
