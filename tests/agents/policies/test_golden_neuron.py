"""The published agent: its formulas, its parameters, and the scores that they are known to reach."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from somite.agents.agent import Agent
from somite.agents.evaluation.episodes import run_episodes
from somite.agents.policies import AttentionNeuron
from somite.envs.errors import UserError
from somite.envs.sensors import CartPoleSwingUp, Senses

PUBLISHED = Path(__file__).parents[3] / ".." / "shared" / "reference" / "attention_neuron_cartpole.npz"
EPISODES, SEED = 1000, 5

needs_parameters = pytest.mark.skipif(
    not PUBLISHED.is_file(), reason="the published parameters are not part of the repository"
)

ANT = {"rows": 32, "bias": True, "scaled": True, "head": 32}
VARIANTS = {"cartpole": {}, "ant": ANT, "with_history": {"n_recent": 3}}


def make_neuron(n_actions: int = 1, n_recent: int = 1, **variant: object) -> AttentionNeuron:
    spec = Senses(history=n_recent).spec()
    return AttentionNeuron(spec, n_actions=n_actions, n_recent=n_recent, n_privileged=5, **variant)


def plain_neuron(policy: AttentionNeuron, observations: list[dict[str, Tensor]]) -> np.ndarray:
    """The published formulas, sensor by sensor and query by query, of one row: (T, A)."""
    p = {name: value.detach().numpy() for name, value in policy.named_parameters()}

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    column = np.arange(8)
    hidden: dict[int, tuple] = {}
    results = []
    for observation in observations:
        tokens, recent = observation["tokens"][0].numpy(), observation["recent_actions"][0].numpy()
        gathered = np.zeros(policy.rows)
        for i in np.flatnonzero(observation["mask"][0].numpy()):
            h, c = hidden.get(i, (np.zeros(8), np.zeros(8)))
            x = np.concatenate([tokens[i], recent.ravel()])
            gates = p["cell.weight_ih"] @ x + p["cell.bias_ih"] + p["cell.weight_hh"] @ h + p["cell.bias_hh"]
            enter, keep, new, leave = np.split(gates, 4)
            c = sigmoid(keep) * c + sigmoid(enter) * np.tanh(new)
            h = sigmoid(leave) * np.tanh(c)
            hidden[i] = h, c
            key = p["key.weight"] @ h + p.get("key.bias", 0)
            for row in range(policy.rows):
                angle = row / 10000 ** (2 * (column // 2) / 8)
                position = np.where(column % 2 == 0, np.sin(angle), np.cos(angle))
                query = p["query.weight"] @ position + p.get("query.bias", 0)
                score = query @ key / (np.sqrt(32) if policy.scaled else 1)
                gathered[row] += np.tanh(score) * tokens[i, 0]
        m = np.tanh(gathered)
        if policy.head:
            m = np.tanh(p["action.0.weight"] @ m + p["action.0.bias"])
            results.append(np.tanh(p["action.2.weight"] @ m + p["action.2.bias"]))
        else:
            results.append(np.tanh(p["action.weight"] @ m + p["action.bias"]))
    return np.array(results)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(3))
def test_the_agent_is_that_of_the_published_formulas(variant: str, seed: int) -> None:
    torch.manual_seed(seed)
    policy = make_neuron(**{"n_actions": 2, **VARIANTS[variant]})
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=1.2 / (parameter.shape[-1] if parameter.dim() > 1 else 1) ** 0.5)
    observations = []
    for _ in range(4):
        mask = (torch.rand(1, 6) < 0.8).to(torch.int8)
        tokens = torch.randn(1, 6, policy.n_recent, dtype=torch.float64) * mask[..., None]
        recent = torch.rand(1, policy.n_recent, 2, dtype=torch.float64) * 2 - 1
        observations.append({"tokens": tokens, "mask": mask, "recent_actions": recent})
    policy.double()
    memory, found = policy.initial_memory(1, 6), []
    for observation in observations:
        with torch.no_grad():
            features, memory = policy.encode(observation, memory)
            found.append(policy.act(features, observation)[0].numpy())
    assert np.ptp(found, 0).max() > 0.1, "actions that vary"
    # The policy's table of positions was made in float32.
    np.testing.assert_allclose(found, plain_neuron(policy, observations), rtol=1e-5, atol=1e-5)


def test_the_agents_have_the_published_numbers_of_parameters() -> None:
    def count(policy: AttentionNeuron) -> int:
        return sum(parameter.numel() for parameter in policy.acting_parameters().values())

    assert count(make_neuron()) == 913
    assert count(make_neuron(n_actions=8, **ANT)) == 2504


def test_parameters_are_taken_in_their_published_order() -> None:
    policy = make_neuron()
    policy.set_flat(np.arange(913))
    cell = [getattr(policy.cell, name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    first = 0
    for parameter in (
        *cell,
        policy.query.weight,
        policy.key.weight,
        policy.action.weight,
        policy.action.bias,
    ):
        assert torch.equal(parameter.flatten(), first + torch.arange(parameter.numel()))
        first += parameter.numel()
    assert first == 913
    with pytest.raises(UserError, match=r"\(912,\) parameters given; this AttentionNeuron has 913"):
        policy.set_flat(np.arange(912))


@functools.cache
def returns_of(exchanged: bool = False, episodes: int = EPISODES, **senses: object) -> np.ndarray:
    """Of the published parameters, the same starts under every condition."""
    task = CartPoleSwingUp(senses=Senses(**senses))
    policy = make_neuron()
    policy.set_flat(np.load(PUBLISHED)["params"])
    if exchanged:
        query, key = policy.query.weight, policy.key.weight
        query.data, key.data = key.data, query.data
    (result,) = run_episodes(Agent(policy).act, task, task.seen, episodes, SEED)
    return result.returns


# Means and, where they are known, standard deviations of an independent run of the same parameters.
GOLDEN = {
    "plain": ({}, 506, 417),
    "noise": ({"noise_channels": 5}, 493, 408),
    "every_500": ({"shuffle": 500}, 439, None),
    "every_200": ({"shuffle": 200}, 355, None),
    "every_100": ({"shuffle": 100}, 264, None),
    "every_50": ({"shuffle": 50}, 186, None),
    "every_25": ({"shuffle": 25}, 119, None),
}
SLOW = ("every_500", "every_200", "every_50", "every_25")


@needs_parameters
@pytest.mark.parametrize(
    "condition", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in GOLDEN]
)
def test_the_published_parameters_reach_the_scores_of_an_independent_run(condition: str) -> None:
    senses, wanted, wanted_deviation = GOLDEN[condition]
    returns = returns_of(**senses)
    assert len(returns) == EPISODES
    deviation = returns.std()
    # Both runs have so many episodes, with other starts.
    error = np.hypot(deviation, wanted_deviation or deviation) / np.sqrt(EPISODES)
    assert abs(returns.mean() - wanted) < 4 * error, f"{returns.mean():.0f} ± {deviation:.0f}"
    if wanted_deviation:
        assert deviation == pytest.approx(wanted_deviation, rel=0.1)


@needs_parameters
def test_a_shuffle_at_reset_changes_no_score_beyond_rounding() -> None:
    """On the same starts. Sums in another order differ in the last bit, which a pole may make more of."""
    shuffled = returns_of(episodes=EPISODES // 4, shuffle="episode")
    difference = shuffled - returns_of()[: len(shuffled)]
    assert np.median(np.abs(difference)) < 0.5 and abs(difference.mean()) < 10
    changed = np.median(np.abs(returns_of(shuffle=100) - returns_of()))
    assert changed > 10, "as a shuffle in mid-episode does"


@needs_parameters
def test_other_parameters_do_not_reach_these_scores() -> None:
    """Queries and keys are of one shape: exchanging them goes unnoticed but for the score."""
    assert returns_of(exchanged=True, episodes=100).mean() < 100
