"""Cutting padding away changes nothing but the order of sums."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.agents.algorithms import trimming
from somite.agents.policies import SMP, LimbTransformer
from tests.observations import SPEC, random_observation


def policies():
    return [LimbTransformer(SPEC), LimbTransformer(SPEC, tree_encoding=True), SMP(SPEC)]


def evaluation(policy, lengths=None):
    def evaluate(observation):
        if lengths is not None:
            lengths.append(observation["mask"].shape[1])
        observation = policy.prepare(observation)
        features, _ = policy.encode(observation, {})
        return policy.act(features, observation), policy.value(features, observation)

    return evaluate


def enlarge(policy, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


@pytest.mark.parametrize("index", range(3), ids=["transformer", "with tree", "smp"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), size=st.integers(6, 40))
def test_results_and_gradients_are_those_of_the_whole_batch(index, seed, size):
    policy = policies()[index]
    enlarge(policy, seed)
    observation = random_observation(batch=size, seed=seed)
    results = []
    for smallest in (1, 10**9):  # trimmed, and as a whole
        trimming_smallest, trimming.SMALLEST_GROUP = trimming.SMALLEST_GROUP, smallest
        try:
            mean, value = trimming.evaluate_trimmed(evaluation(policy), observation)
        finally:
            trimming.SMALLEST_GROUP = trimming_smallest
        policy.zero_grad()
        (mean.square().sum() + value.square().sum()).backward()
        gradient = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
        results.append((mean.detach(), value.detach(), gradient))
    assert results[0][0].std() > 0.01  # there is something to confuse
    for trimmed, whole in zip(*results, strict=True):
        torch.testing.assert_close(trimmed, whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max()))


def test_short_bodies_are_evaluated_short(monkeypatch):
    monkeypatch.setattr(trimming, "SMALLEST_GROUP", 1)
    observation = random_observation(batch=30, seed=0)
    n_slots = observation["mask"].shape[1]
    short = observation["mask"].clone()
    short[:20, 2:] = 0
    lengths = []
    policy = LimbTransformer(SPEC)
    trimming.evaluate_trimmed(evaluation(policy, lengths), {**observation, "mask": short})
    assert lengths[1:3] == [2, 2] and lengths[0] <= n_slots and n_slots > 2


def test_small_batches_stay_whole():
    observation = random_observation(batch=30, seed=0)
    lengths = []
    trimming.evaluate_trimmed(evaluation(LimbTransformer(SPEC), lengths), observation)
    assert lengths == [observation["mask"].shape[1]]


def test_batches_elsewhere_stay_whole_and_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(trimming, "SMALLEST_GROUP", 1)
    observation = {key: value.to("meta") for key, value in random_observation(batch=30, seed=0).items()}
    assert trimming.evaluate_trimmed(lambda whole: whole is observation, observation)
