"""A further loss goes along with the algorithm's own: what sensor is this?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from somite.agents.algorithms.network import Network
from somite.agents.composition import sizes_for
from somite.agents.policies import SensorTransformer
from somite.agents.rollout.buffer import Batch
from somite.envs.errors import UserError
from somite.envs.sensors import CartPoleSwingUp, Senses

SENSES = Senses(history=4, traces=[10], shuffle="episode", noise_channels=[0, 2])
WEIGHT = 0.3


def made(identify: float) -> tuple[SensorTransformer, dict[str, Tensor], Tensor]:
    """A policy with an odd number of observations that it has met, and actions."""
    env = CartPoleSwingUp(SENSES).make_env(num_envs=31)
    torch.manual_seed(0)
    policy = SensorTransformer(
        env.spec_of_tokens, **sizes_for(SensorTransformer, env), width=8, queries=2, identify=identify
    )
    observation = env.reset(seed=0)
    for _ in range(8):
        observation = env.step(torch.linspace(-1, 1, 31)[:, None]).observation
    return policy, observation, torch.linspace(-1, 1, 31)[:, None]


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
def test_the_loss_and_its_gradient_are_those_of_the_plain_formula(threads: int) -> None:
    policy, observation, _ = made(WEIGHT)
    assert len({tuple(row) for row in observation["mask"].tolist()}) > 1, "some rows have less noise"
    wanted = WEIGHT * cross_entropy(policy, observation)
    extra = gradients(policy, wanted)
    (outputs, values), loss = Network(policy, threads=threads).learn(Batch(observation, {}))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
    found = gradients(policy, loss)
    assert extra["identity.weight"].abs().max() > 1e-3 < extra["sensor.weight"].abs().max()
    for name, gradient in extra.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: n + m)
    bare, *_ = made(0.0)
    bare.load_state_dict(policy.state_dict(), strict=False)
    results, none = Network(bare, threads=threads).learn(Batch(observation, {}))
    assert none is None
    for one, other in zip((outputs, values), results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_acting_neither_needs_nor_uses_what_the_sensors_are() -> None:
    policy, observation, _ = made(WEIGHT)
    network = Network(policy, values=False)
    with torch.no_grad():
        (wanted,) = network.act(observation)
        without = {key: value for key, value in observation.items() if key not in ("sensor", "privileged")}
        assert torch.equal(network.act(without)[0], wanted)
        policy.identity.weight.fill_(7.0)
        assert torch.equal(network.act(observation)[0], wanted)
    assert not any(name.startswith("identity") for name in policy.acting_parameters())


def test_sensors_come_to_be_known() -> None:
    policy, observation, _ = made(1.0)
    optimizer, losses = torch.optim.Adam(policy.parameters(), lr=1e-3), []
    for _ in range(150):
        _, loss = Network(policy).learn(Batch(observation, {}))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.8 * math.log(6)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("weight", [-1, "much", None])
def test_a_weight_that_cannot_be_meant_is_refused(weight: object) -> None:
    with pytest.raises(UserError, match="agent.identify must be a number from 0"):
        SensorTransformer(
            SENSES.spec(n_actions=1), n_actions=1, n_recent=4, n_privileged=5, n_sensors=5, identify=weight
        )
