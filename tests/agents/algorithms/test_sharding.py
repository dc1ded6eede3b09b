"""Threads with parts of a batch, and batches without padding, compute what one thread does with the whole."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.agents.algorithms import network
from somite.agents.algorithms.network import Network, Shards
from somite.agents.policies import SMP, LimbTransformer, Policy
from somite.agents.rollout.buffer import Batch
from tests.agents.runs import make_run
from tests.observations import SPEC, random_observation

COUNT = 2
POLICIES = {
    "transformer": lambda: LimbTransformer(SPEC),
    "with tree": lambda: LimbTransformer(SPEC, tree_encoding=True),
    "smp": lambda: SMP(SPEC),
}


def found(policy: Policy, observation: dict[str, torch.Tensor], threads: int) -> torch.Tensor:
    """Means, values and gradients."""
    policy.zero_grad()
    (mean, value), _ = Network(policy, threads=threads).learn(Batch(observation, {}))
    # The scale is used outside, as the learner does.
    (mean.square().sum() * policy.log_std.exp() + value.square().sum()).backward()
    gradient = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    return torch.cat([mean.detach().flatten(), value.detach(), gradient])


@pytest.mark.parametrize("threads", [1, COUNT])
@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**16), size=st.integers(6, 40))
def test_results_and_gradients_are_those_of_the_whole_batch(
    name: str, threads: int, seed: int, size: int
) -> None:
    policy, generator = POLICIES[name](), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    observation, results = random_observation(batch=size, seed=seed), []
    for cost, smallest in ((10**9, 10**9), (0, 1), (0, 1)):  # as a whole, then in groups, twice
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network, "COST_OF_A_GROUP", cost)
            patch.setattr(network, "SMALLEST_SHARED", smallest)
            results.append(found(policy, observation, threads))
    assert results[0].std() > 0.01, "there is something to confuse"
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-3 * float(results[0].abs().max()))
    assert torch.equal(results[1], results[2]), "the same every time"


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Slots and thread of every call of the network."""
    calls, evaluate = [], Network._evaluate

    def watched(self: Network, observation: dict[str, torch.Tensor]) -> tuple:
        calls.append((observation["mask"].shape[1], threading.current_thread().name))
        return evaluate(self, observation)

    monkeypatch.setattr(Network, "_evaluate", watched)
    return calls


def test_short_bodies_are_evaluated_short(met: list, monkeypatch: pytest.MonkeyPatch) -> None:
    observation = random_observation(batch=30, seed=0)
    n_slots = observation["mask"].shape[1]
    observation["mask"][:20, 2:] = 0
    Network(LimbTransformer(SPEC)).act(observation)
    assert [slots for slots, _ in met] == [n_slots], "a group would cost more than it saves"
    met.clear()
    monkeypatch.setattr(network, "COST_OF_A_GROUP", 0)
    Network(LimbTransformer(SPEC)).act(observation)
    slots = [slots for slots, _ in met]
    assert slots == sorted(set(slots), reverse=True) and slots[0] == n_slots > slots[-1]


def test_groups_cost_least() -> None:
    used, order = torch.tensor([9, 9, 4, 4, 4, 3, 2, 2]), torch.arange(8)

    def sizes(cost: int) -> list[tuple[int, int]]:
        return [(len(rows), slots) for rows, slots in network.groups_by_length(used, order, cost)]

    assert sizes(0) == [(2, 9), (3, 4), (1, 3), (2, 2)]
    assert sizes(6) == [(2, 9), (6, 4)], "no further group would save 6"
    assert sizes(31) == [(8, 9)], "all that could be saved is 30"
    rows = [rows for rows, _ in network.groups_by_length(used, order.flip(0), 6)]
    assert torch.cat(rows).tolist() == order.flip(0).tolist()


def test_groups_are_shared_out_among_the_threads(met: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "SMALLEST_SHARED", 1)
    Network(LimbTransformer(SPEC), threads=COUNT).act(random_observation(batch=31, seed=1))
    assert sum(name.startswith("shard") for _, name in met) == len(met) == COUNT


def test_batches_elsewhere_stay_whole_and_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "SMALLEST_SHARED", 1)
    observation = {key: value.to("meta") for key, value in random_observation(batch=30, seed=0).items()}
    there = Network(LimbTransformer(SPEC).to("meta"), threads=COUNT)
    assert there.shards is None and there._shared(lambda whole: whole is observation, observation)


def test_without_gradients_there_is_no_graph() -> None:
    made = Network(LimbTransformer(SPEC), threads=COUNT)
    with torch.no_grad():
        parts = [random_observation(batch=3, seed=seed) for seed in (0, 1)]
        results = made.shards.map(made._evaluate, parts, made.policy)
    assert not any(tensor.requires_grad for pair in results for tensor in pair)


def test_an_error_in_a_thread_is_told() -> None:
    def fails(observation: object) -> tuple:
        raise ValueError("no such limb")

    with pytest.raises(ValueError, match="no such limb"):
        Shards(COUNT).map(fails, [random_observation(0)], LimbTransformer(SPEC))


@pytest.mark.parametrize(("agent", "sharded"), [("limb_transformer", True), ("mlp", False)])
def test_the_learner_shares_its_work_and_leaves_torchs_threads_as_they_were(tmp_path, agent, sharded):
    threads = torch.get_num_threads()
    torch.set_num_threads(COUNT)
    try:
        run = make_run(tmp_path, f"agent={agent}")
        run.learn()
        assert torch.get_num_threads() == COUNT
        assert (run.learner.network.shards is not None) == sharded
    finally:
        torch.set_num_threads(threads)
