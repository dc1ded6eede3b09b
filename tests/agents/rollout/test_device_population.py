"""Populations that are simulated on the device: candidates reach there what they reach on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from somite.agents.policies import SMP, AttentionNeuron, DeepSet, Policy, SensorTransformer
from somite.agents.rollout.population import CHECK_EVERY, Population, repeated
from somite.agents.rollout.stacked import split_parameters, stack
from somite.envs.errors import UserError
from somite.envs.sensors import CartPoleSwingUp, Senses
from somite.envs.token_env import Step, TokenEnv
from tests.envs.sensors.worlds import NoWaiting, Recorded
from tests.observations import SPEC, random_observation

from .test_population import POLICIES, STARTS, TASKS, build, draw, observe, sensors

CPU = torch.device("cpu")
SIZE = 6
DISTURBED = Senses(2, shuffle="episode", duplicates=1, missing=0.3, stuck=1)
ON_DEVICE: dict[str, Callable[[], tuple]] = {
    "neuron": lambda: (CartPoleSwingUp(max_episode_steps=60), sensors(AttentionNeuron, n_actions=1)),
    "neuron_that_lacks": lambda: (CartPoleSwingUp(DISTURBED, 60), sensors(AttentionNeuron, 2, n_actions=1)),
    "deep_set": lambda: (CartPoleSwingUp(DISTURBED, 60), sensors(DeepSet, 2, n_actions=1)),
    "reshuffled": lambda: (
        CartPoleSwingUp(Senses(2, shuffle=3, blinking=0.2, noise_channels=(1, 2)), 60),
        sensors(DeepSet, 2, n_actions=1),
    ),
    "transformer": lambda: (
        CartPoleSwingUp(Senses(traces=(10.0,)), 60),
        _of(SensorTransformer, Senses(traces=(10.0,)), width=8, queries=3),
    ),
}


def _of(cls: type[Policy], senses: Senses, **more: Any) -> Policy:
    env = CartPoleSwingUp(senses).make_env(None, 1)
    return cls(env.spec_of_tokens, n_actions=1, n_recent=1, n_privileged=5, **more)


def population(name: str, simulation: str = "torch", size: int = SIZE, **options: Any) -> tuple:
    torch.manual_seed(0)
    task, policy = (ON_DEVICE | TASKS)[name]()
    return Population(policy, task.simulated_by(simulation), size, 4, **options), draw(policy, size)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose numbers the host would have to wait for."""
    monkeypatch.setattr(TokenEnv, "knows_ends", False)


@pytest.mark.parametrize("name", ["neuron_that_lacks", "transformer"])
def test_candidates_reach_on_the_device_what_they_reach_on_the_host(name: str) -> None:
    host, values = population(name, "cpu")
    device, _ = population(name)
    for starts in (STARTS, [[8, episode] for episode in range(4)]):
        for candidates in (values, values[::-1].copy()):
            wanted, found = host.evaluate(candidates, starts), device.evaluate(candidates, starts)
            assert np.array_equal(found.lengths, wanted.lengths) and not found.diverged.any()
            np.testing.assert_allclose(found.returns, wanted.returns, rtol=1e-5, atol=1e-4)
            assert np.ptp(found.returns.mean((1, 2))) > 1e-2 and np.ptp(found.lengths) > 0
    host.close(), device.close()


def test_whole_episodes_are_alike_though_rounding_has_grown() -> None:
    """Over 1000 steps the same candidates lose the same carts, or nearly so, and reach as much."""
    task, policy = CartPoleSwingUp(), sensors(AttentionNeuron, n_actions=1)
    values, found = draw(policy, 32), []
    for simulation in ("cpu", "torch"):
        both = Population(policy, task.simulated_by(simulation), 32, 4)
        found.append(both.evaluate(values, STARTS))
        both.close()
    host, device = found
    early = host.lengths <= 200
    assert early.mean() > 0.5
    assert np.array_equal(host.lengths[early], device.lengths[early])
    np.testing.assert_allclose(device.returns[early], host.returns[early], rtol=1e-4, atol=1e-4)
    assert (host.lengths == device.lengths).mean() > 0.9
    assert device.returns.mean() == pytest.approx(host.returns.mean(), rel=0.02)


def test_shards_are_evaluated_one_after_another_and_change_rounding_only() -> None:
    whole, values = population("deep_set")
    parts, _ = population("deep_set", shard_size=4)
    assert [shard.stop for shard in parts.shards] == [4, 6] and len(whole.shards) == 1
    np.testing.assert_allclose(
        parts.evaluate(values, STARTS).returns, whole.evaluate(values, STARTS).returns, rtol=1e-4, atol=1e-4
    )


def test_a_device_population_stops_when_told_and_can_be_asked_again() -> None:
    device, values = population("neuron")
    asked: list[int] = []
    whole = device.evaluate(values, STARTS)
    assert device.evaluate(values, STARTS, stop=lambda: asked.append(1) or len(asked) == 3) is None
    assert len(asked) == 3, "once before, and then every few steps"
    again = device.evaluate(values, STARTS, stop=lambda: asked.append(1) or False)
    assert np.array_equal(whole.returns, again.returns)
    assert len(asked) - 3 <= 1 + -(-whole.lengths.max() // CHECK_EVERY), "no longer than the longest episode"


@pytest.mark.parametrize("name", [*ON_DEVICE, "limbs"])
def test_acting_and_stepping_wait_for_nothing(name: str) -> None:
    device, values = population(name) if name != "limbs" else limb_population()
    device.evaluate(values, STARTS)
    (loop,) = device._simulators[0]._loops.values()
    with torch.no_grad(), NoWaiting():
        loop._step()


@pytest.mark.parametrize("name", ["neuron_that_lacks", "reshuffled", "transformer"])
def test_a_step_that_was_recorded_once_goes_on_for_other_candidates(name: str) -> None:
    """As a CUDA graph does: nothing but memory decides, and random numbers go on."""
    plain, recorded = population(name)[0], population(name)[0]
    first = population(name)[1]
    recorded.evaluate(first, STARTS)
    (loop,) = recorded._simulators[0]._loops.values()
    with torch.no_grad():
        with Recorded() as recording:
            loop._step()
        loop._advance = recording.replay
    for candidates, starts in ((first[::-1].copy(), STARTS), (first, [[8, i] for i in range(4)])):
        found, wanted = recorded.evaluate(candidates, starts), plain.evaluate(candidates, starts)
        assert np.array_equal(found.lengths, wanted.lengths)
        assert np.array_equal(found.returns, wanted.returns)


@pytest.mark.parametrize("name", [n for n in POLICIES if n not in ("mlp", "sensor_mlp")])
def test_a_stack_on_a_device_begins_anew_with_other_sets_in_the_same_memory(name: str) -> None:
    policy = build(name)
    one, other = (split_parameters(policy, draw(policy, 4, seed)) for seed in (0, 1))
    first = observe(policy, 4, 0)
    following = [observe(policy, 4, step) for step in range(4)]
    with torch.no_grad():
        kept = stack(policy, {k: v.clone() for k, v in one.items()}, first, complete=False)
        for sets in (one, other, one):
            plain = stack(policy, sets, first)
            new = stack(policy, sets, first, complete=False)
            for own, value in zip(kept.tensors(), new.tensors(), strict=True):
                own.copy_(value)
            for observation in following:
                found = kept.act(observation)
                torch.testing.assert_close(found, plain.act(observation), rtol=1e-4, atol=1e-5)


class Stairs(TokenEnv):
    """Two bodies of random trees; a row's reward is what it does, and its episodes last 3, 5, ... steps.

    It begins other episodes in rows that have ended, whatever ``once`` says.
    """

    kind, max_episode_steps, n_tokens = "limbs", 40, 4
    single_action_space = spaces.Box(-1.0, 1.0, (4, 2), np.float32)

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self.device = num_envs, CPU
        self.body_names = "one", "two"
        self.body_of_row = np.repeat([0, 1], num_envs // 2)
        self.checked = 0

    def reset(self, seed: Any = None) -> dict[str, Tensor]:
        half = self.num_envs // 2
        bodies = [random_observation(body, 1, self.n_tokens) for body in (3, 4)]
        self._observation = {
            key: torch.cat([body[key].expand(half, *body[key].shape[1:]) for body in bodies])
            for key in bodies[0]
        }
        self._starts = torch.tensor([one[-1] for one in seed])
        self._lasts, self._time = 3 + 2 * self._starts, torch.zeros(self.num_envs, dtype=torch.int64)
        return self._now()

    def _now(self) -> dict[str, Tensor]:
        tokens = self._observation["tokens"] + self._starts[:, None, None] + self._time[:, None, None] / 10
        exists = self._observation["mask"].unsqueeze(-1)
        return {**self._observation, "tokens": (tokens * exists).float()}

    def finish(self) -> Step:
        actions = self._begun
        self._time = self._time + 1
        rewards = actions.flatten(1).sum(1) + 1
        ended = self._time >= self._lasts
        final, self._time = self._now(), torch.where(ended, 0, self._time)
        diverged = ended & (self._starts == 1)
        return Step(self._now(), rewards, ended, ~ended & False, diverged, ended, final)

    def check(self) -> None:
        self.checked += 1

    def snapshot(self) -> dict[str, Any]:
        raise NotImplementedError

    restore = snapshot

    def close(self) -> None:
        self.closed = True


class StairsTask(CartPoleSwingUp):
    """What a population asks of a task of bodies."""

    kind = "limbs"
    seen = ("one", "two")

    def make_env(self, bodies: Any, num_envs: int, device: Any, **options: Any) -> Stairs:
        assert tuple(bodies) == self.seen and options == {"aligned": False, "once": True, "threads": 1}
        return Stairs(num_envs)


def limb_population() -> tuple:
    torch.manual_seed(0)
    policy = SMP(SPEC, width=8, message=4)
    return Population(policy, StairsTask().simulated_by("torch"), SIZE, 4), draw(policy, SIZE)


def test_what_comes_after_the_first_end_of_a_row_counts_for_nothing() -> None:
    device, values = limb_population()
    scores = device.evaluate(values, STARTS)
    (loop,) = device._simulators[0]._loops.values()
    policy = loop._policy
    assert (scores.lengths == [3, 5, 7, 9]).all() and scores.lengths.shape == (SIZE, 2, 4)
    assert np.array_equal(
        scores.diverged, np.broadcast_to([False, True, False, False], scores.diverged.shape)
    )
    env = Stairs(2 * 4)
    for candidate, returns in zip(values, scores.returns, strict=True):
        parameters = split_parameters(policy, candidate[None])
        observation, total = env.reset(STARTS * 2), torch.zeros(8)
        alone = stack(policy, parameters, {key: value.unsqueeze(0) for key, value in observation.items()})
        with torch.no_grad():
            for step in range(9):
                actions = alone.act({key: value.unsqueeze(0) for key, value in observation.items()})[0]
                result = env.step(actions)
                total += torch.where(step < env._lasts, result.rewards, 0)
                observation = result.observation
        np.testing.assert_allclose(returns, total.reshape(2, 4).numpy(), rtol=1e-4, atol=1e-4)
    assert loop.env.checked == 1 and np.ptp(scores.returns[:, 0, 0]) > 1e-2
    assert not np.allclose(scores.returns[:, 0], scores.returns[:, 1]), "bodies differ"
    device.close()
    assert loop.env.closed


def test_too_little_memory_names_the_key_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    device, values = population("neuron")

    def full(*arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(device._simulators[0], "make_env", full)
    with pytest.raises(UserError, match=r"algorithm\.shard_size=6.*algorithm\.shard_size=3"):
        device.evaluate(values, STARTS)


def test_on_a_cpu_what_is_repeated_is_called() -> None:
    def function() -> None:
        raise AssertionError("not before it is asked for")

    assert repeated(function, CPU) is function
