"""Threads with parts of a batch compute what one thread does with the whole."""

from __future__ import annotations

import functools
import threading

import pytest
import torch

from somite.agents.algorithms import trimming
from somite.agents.algorithms.sharding import Shards
from somite.agents.policies import SMP, LimbTransformer
from tests.agents.runs import make_run
from tests.observations import SPEC, random_observation

COUNT = 2


def evaluation(policy, seen=None):
    def evaluate(observation):
        if seen is not None:
            seen.append(threading.current_thread().name)
        observation = policy.prepare(observation)
        features, _ = policy.encode(observation, {})
        return policy.act(features, observation), policy.value(features, observation)

    return evaluate


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(trimming, "SMALLEST_GROUP", 1)


@pytest.mark.parametrize("make", [LimbTransformer, SMP])
def test_results_and_gradients_are_those_of_one_thread_every_time(make):
    torch.manual_seed(0)
    policy, shards, seen = make(SPEC), Shards(COUNT), []
    observation = random_observation(batch=31, seed=1)
    share = functools.partial(shards.map, module=policy)
    results = []
    for arguments in ((), (share, COUNT), (share, COUNT)):
        policy.zero_grad()
        mean, value = trimming.evaluate_trimmed(evaluation(policy, seen), observation, *arguments)
        # The scale is used outside, as the learner does.
        (mean.square().sum() * policy.log_std.exp() + value.square().sum()).backward()
        assert policy.log_std.grad is not None
        gradient = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
        results.append(torch.cat([mean.detach().flatten(), value.detach(), gradient]))
    assert results[0].std() > 0.01
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-3 * float(results[0].abs().max()))
    assert torch.equal(results[1], results[2])
    assert sum(name.startswith("shard") for name in seen) == 2 * COUNT * trimming.GROUPS_OF_A_SHARD


def test_without_gradients_there_is_no_graph():
    policy = LimbTransformer(SPEC)
    with torch.no_grad():
        parts = [random_observation(batch=3, seed=seed) for seed in (0, 1)]
        results = Shards(COUNT).map(evaluation(policy), parts, policy)
    assert not any(tensor.requires_grad for pair in results for tensor in pair)


def test_an_error_in_a_thread_is_told():
    def fails(observation):
        raise ValueError("no such limb")

    policy = LimbTransformer(SPEC)
    with pytest.raises(ValueError, match="no such limb"):
        Shards(COUNT).map(fails, [random_observation(0)], policy)


@pytest.mark.parametrize(("agent", "sharded"), [("limb_transformer", True), ("mlp", False)])
def test_the_learner_shares_its_work_and_leaves_torchs_threads_as_they_were(tmp_path, agent, sharded):
    threads = torch.get_num_threads()
    torch.set_num_threads(COUNT)
    try:
        run = make_run(tmp_path, f"agent={agent}")
        run.learn()
        assert torch.get_num_threads() == COUNT
        assert (run.learner.policy.shards is not None) == sharded
    finally:
        torch.set_num_threads(threads)
