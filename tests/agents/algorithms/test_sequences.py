"""PPO with memory: what a rollout keeps, what learning makes of it, and tasks that need it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from somite.agents.agent import Agent
from somite.agents.algorithms.network import Network
from somite.agents.algorithms.ppo import PPOLearner
from somite.agents.composition import sizes_for
from somite.agents.policies import AttentionNeuron, DeepSet, SensorPolicy, SensorTransformer
from somite.agents.rollout.buffer import Batch, RolloutBuffer
from somite.envs.errors import UserError
from somite.envs.gym import TokenVectorEnv
from somite.envs.sensors import Senses
from tests.envs.sensors.worlds import ArraySource, sensor_vec

from .worlds import learn as run
from .worlds import make_learner, only_collect


def filled(parts: int, length: int, rows: int) -> RolloutBuffer:
    """A rollout in which every number tells its step and its row: 100 * step + row."""
    steps = parts * length
    space = spaces.Dict({"tokens": spaces.Box(-1, 1e4, (2, 1)), "mask": spaces.Box(0, 1, (2,), np.int8)})
    buffer = RolloutBuffer(steps, rows, space, {"actions": (1,), "values": ()}, "cpu", length)
    for step in range(steps):
        code = 100.0 * step + torch.arange(rows)
        memory = {"hidden": code.view(rows, 1, 1).repeat(1, 2, 3)}
        mask = torch.ones(rows, 2, dtype=torch.int8)
        observation = {"tokens": code.view(rows, 1, 1).repeat(1, 2, 1), "mask": mask}
        buffer.add(observation, code % 3 == 0, {"actions": code[:, None], "values": code + 0.25}, memory)
        memory["hidden"].fill_(-1)  # what is kept is a copy
    return buffer


@settings(max_examples=30, deadline=None)
@given(
    parts=st.integers(1, 4), length=st.integers(1, 5), rows=st.integers(1, 4), batch_size=st.integers(1, 50)
)
def test_every_step_of_every_row_is_given_once_in_stretches_with_the_memory_they_began_with(
    parts: int, length: int, rows: int, batch_size: int
) -> None:
    buffer = filled(parts, length, rows)
    seen = []
    for batch in buffer.batches(batch_size):
        code = batch["actions"].flatten()
        stretches = code.view(length, -1)  # (L, b)
        assert stretches.shape[1] <= max(1, batch_size // length)
        assert torch.all(stretches[1:] - stretches[:-1] == 100), "one step after the other, of one row"
        assert torch.all(stretches[0] // 100 % length == 0), "cut where memories were kept"
        assert batch.memory["hidden"].shape == (stretches.shape[1], 2, 3)
        assert torch.equal(batch.memory["hidden"], stretches[0].view(-1, 1, 1).expand(-1, 2, 3))
        assert torch.equal(batch.observation["tokens"], code.view(-1, 1, 1).expand(-1, 2, 1))
        assert torch.equal(batch.starts, stretches % 3 == 0)
        assert torch.equal(batch["values"], code + 0.25)
        seen += code.tolist()
    assert sorted(seen) == [100.0 * step + row for step in range(parts * length) for row in range(rows)]


def test_every_pass_has_another_order() -> None:
    buffer = filled(6, 2, 4)
    orders = [torch.cat([batch["actions"] for batch in buffer.batches(8)]).flatten().tolist() for _ in "ab"]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def test_a_rollout_that_is_no_multiple_of_the_stretches_is_refused() -> None:
    env = sensor_vec(Cue(2), Senses())
    with pytest.raises(UserError, match="n_steps is 12, not a multiple of algorithm.sequence_length=5"):
        make_learner(for_env(DeepSet, env), env, n_steps=12, sequence_length=5)
    forgetful = for_env(DeepSet, env, recurrent=False)
    learner = make_learner(forgetful, env, n_steps=12, sequence_length=5)
    assert learner.buffer.length is None, "it has no stretches"


def for_env(cls: type[SensorPolicy], env: TokenVectorEnv, **values: Any) -> SensorPolicy:
    """A policy for an environment, from a fixed start."""
    torch.manual_seed(0)
    return cls(env.spec_of_tokens, **sizes_for(cls, env), **values)


class Walk(ArraySource):
    """Readings that walk at random; rewards of 1. Odd rows end after 5 steps, the others are cut after 7."""

    name, sensor_names = "walk", ("one", "two", "three")
    single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    max_episode_steps, end = 7, 5

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.place, self.time = np.zeros((num_envs, 3)), np.zeros(num_envs, int)
        self.rng = np.random.default_rng(0)

    def start_rows(self, rows: np.ndarray, rngs: list[np.random.Generator]) -> None:
        self.place[rows], self.time[rows] = [rng.normal(size=3) for rng in rngs], 0

    def step_rows(
        self, actions: np.ndarray, running: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.time += 1
        self.place += self.rng.normal(size=self.place.shape)
        odd = np.arange(self.num_envs) % 2 == 1
        return np.ones(self.num_envs), odd & (self.time == self.end), np.zeros(self.num_envs, bool)

    def read_rows(self) -> np.ndarray:
        return self.place.astype(np.float32)

    def close(self) -> None:
        pass


REMEMBERING = {
    "neuron": (AttentionNeuron, {"critic": "shared"}),
    "neuron_privileged": (AttentionNeuron, {"rows": 8, "head": 8, "bias": True, "scaled": True}),
    "deep_set": (DeepSet, {"width": 8, "critic": "shared"}),
}
L, B = 4, 6
ROLLOUT = 4 * L * B


def make(name: str, **settings: Any) -> PPOLearner:
    """A learner that learns nothing, with four stretches in a rollout."""
    env = sensor_vec(Walk(B), Senses(shuffle="episode", blinking=0.2))
    cls, values = REMEMBERING[name]
    policy = for_env(cls, env, **values)
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=0.6)
    learner = make_learner(policy, env, n_steps=4 * L, sequence_length=L, gamma=0.9, **settings)
    only_collect(learner)
    return learner


def collected(name: str, **settings: Any) -> PPOLearner:
    """The same after its second rollout, at whose start episodes go on."""
    learner = make(name, **settings)
    run(learner, 2 * ROLLOUT)
    return learner


def greatest_difference(learner: PPOLearner, change: Any = None) -> tuple[float, float]:
    """Of log-probabilities and values judged anew from those of the rollout."""
    found = []
    for batch in learner.buffer.batches(8 * L):
        if change:
            change(batch)
        with torch.no_grad():
            (outputs, values), _ = learner.network.learn(batch)
            log_prob = learner._explored(outputs, batch.observation).log_prob(batch["actions"])
        found.append([(log_prob - batch["log_probs"]).abs().max(), (values - batch["values"]).abs().max()])
    return tuple(torch.tensor(found).amax(0).tolist())


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_fresh_rollout_is_judged_as_it_was_made(name: str) -> None:
    """PPO's ratio starts at one, also where episodes end within stretches and between rollouts."""
    learner = collected(name)
    starts = learner.buffer.starts.reshape(4, L, B)
    assert starts[:, 1:].sum() > 5 and starts[:, 0].sum() > 0, "within stretches and at their beginnings"
    memories = learner.buffer._memories
    assert len(memories) == 4 and memories[0]["hidden"].abs().max() > 0, "remembered from the rollout before"
    log_prob, value = greatest_difference(learner)
    assert log_prob < 1e-5 and value < 1e-5


def test_bf16_judges_as_it_acted_within_its_rounding() -> None:
    log_prob, value = greatest_difference(collected("deep_set", precision="bf16"))
    assert log_prob < 0.1 and value < 0.1


def never_forgets(batch: Batch) -> None:
    batch.starts = torch.zeros_like(batch.starts)


def forgets_a_step_late(batch: Batch) -> None:
    batch.starts = batch.starts.roll(1, 0)


def begins_without_memory(batch: Batch) -> None:
    batch.memory = {key: torch.zeros_like(value) for key, value in batch.memory.items()}


@pytest.mark.parametrize("wrong", [never_forgets, forgets_a_step_late, begins_without_memory])
@pytest.mark.parametrize("name", REMEMBERING)
def test_with_a_wrong_memory_it_is_judged_otherwise(name: str, wrong: Any) -> None:
    log_prob, value = greatest_difference(collected(name), wrong)
    assert log_prob > 1e-2
    assert (value > 1e-2) == (REMEMBERING[name][1].get("critic") == "shared"), "or sees canonical readings"


@pytest.mark.parametrize("name", ["neuron", "deep_set"])
def test_a_cut_episode_is_bootstrapped_once_with_the_rows_own_memory(name: str) -> None:
    """Every episode of every row is told to the policy anew, from what the buffer holds of it."""
    learner = make(name, normalize_returns=False)
    step, infos_of_steps = learner.env.env.step, []

    def recorded(actions: np.ndarray) -> Any:
        result = step(actions)
        infos_of_steps.append(result[4])
        return result

    learner.env.env.step = recorded
    run(learner, ROLLOUT)
    buffer, policy = learner.buffer, learner.policy

    def value_of(observation: dict[str, np.ndarray], memory: dict[str, torch.Tensor]) -> tuple:
        tensors = {key: torch.from_numpy(np.asarray(value)[None]) for key, value in observation.items()}
        with torch.no_grad():
            features, memory = policy.encode(tensors, memory)
            return policy.value(features, tensors).item(), memory

    cuts, ends, forgotten = 0, 0, []
    for row in range(B):
        age, memory = 0, policy.initial_memory(1, 3)
        for t, info in enumerate(infos_of_steps):
            _, memory = value_of({key: values[t, row] for key, values in buffer.observations.items()}, memory)
            age += 1
            added = buffer["rewards"][t, row].item() - 1
            if age == (Walk.end if row % 2 else Walk.max_episode_steps):
                last = info["final_obs"][row]
                if row % 2:
                    assert added == 0, "it ended"
                    ends += 1
                else:
                    assert added == pytest.approx(0.9 * value_of(last, memory)[0], abs=1e-5)
                    forgotten.append(abs(added - 0.9 * value_of(last, policy.initial_memory(1, 3))[0]))
                    cuts += 1
                age, memory = 0, policy.initial_memory(1, 3)
            else:
                assert added == 0
    assert cuts == 3 * 2 and ends == 3 * 3
    assert np.median(forgotten) > 1e-2, "its memory matters"


def test_the_value_after_a_rollout_is_of_the_present_memory_and_changes_it_not() -> None:
    learner = make("deep_set")
    run(learner, ROLLOUT)
    network, policy, observation = learner.network, learner.policy, dict(learner.observation)
    kept = {key: value.clone() for key, value in network.memory.items()}
    with torch.no_grad():
        features, _ = policy.encode(observation, kept)
        wanted = policy.value(features, observation)
        assert torch.equal(network.value(observation), wanted)
        rows = torch.tensor([1, 4])
        some, memory = ({key: value[rows] for key, value in of.items()} for of in (observation, kept))
        torch.testing.assert_close(network.value(some, memory), wanted[rows])
    assert all(torch.equal(network.memory[key], value) for key, value in kept.items())
    network.forget(torch.arange(B) == 2)
    for key, value in network.memory.items():
        assert torch.all(value[2] == 0) and torch.equal(value[[0, 1, 3, 4, 5]], kept[key][[0, 1, 3, 4, 5]])
        assert kept[key][2].abs().max() > 0


class Cue(ArraySource):
    """The first reading tells which choice is right when, two steps later, the second sensor asks.

    Until then 2 is to be chosen, so that nothing of the cue can be kept in the actions. The best return
    is 1; guessing gives 0, and so does telling oneself the cue by a wrong choice.
    """

    name, sensor_names, single_action_space = "cue", ("cue", "question"), spaces.Discrete(3)
    max_episode_steps, wait = 100, 2

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.cue, self.time = np.zeros(num_envs, int), np.zeros(num_envs, int)

    def start_rows(self, rows: np.ndarray, rngs: list[np.random.Generator]) -> None:
        self.cue[rows], self.time[rows] = [rng.integers(2) for rng in rngs], 0

    def step_rows(
        self, actions: np.ndarray, running: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        asked = self.time == self.wait
        rewards = np.where(asked, np.where(actions == self.cue, 1.0, -1.0), np.where(actions == 2, 0.0, -2.0))
        self.time += 1
        return rewards, asked, np.zeros(self.num_envs, bool)

    def read_rows(self) -> np.ndarray:
        cue, question = (self.time == 0) * (2 * self.cue - 1), 2 * (self.time == self.wait)
        return np.stack((cue, question), 1).astype(np.float32)

    def close(self) -> None:
        pass


class Sign(Cue):
    """The sum of two readings tells by its sign which of two choices is right; an episode is one step."""

    name, single_action_space = "sign", spaces.Discrete(2)

    def start_rows(self, rows: np.ndarray, rngs: list[np.random.Generator]) -> None:
        if self.time.ndim == 1:
            self.time = np.zeros((self.num_envs, 2))
        self.time[rows] = [rng.uniform(-1, 1, 2) for rng in rngs]

    def step_rows(
        self, actions: np.ndarray, running: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        right = (self.time.sum(1) > 0) == (actions == 1)
        return right.astype(float), np.ones(self.num_envs, bool), np.zeros(self.num_envs, bool)

    def read_rows(self) -> np.ndarray:
        return self.time.astype(np.float32)


def mean_return(policy: SensorPolicy, source: type[Cue], episodes: int = 500) -> float:
    """Of whole episodes, deterministic."""
    env, agent, total = sensor_vec(source(episodes), Senses(), once=True), Agent(policy), 0.0
    observation, _ = env.reset(seed=99)
    for _ in range(Cue.wait + 1):
        observation, rewards, *_ = env.step(agent.act(observation))
        total += rewards.mean()
    return total


def learn(
    source: type[Cue], cls: type[SensorPolicy], updates: int, rate: float = 1e-2, **values: Any
) -> float:
    env = sensor_vec(source(64), Senses())
    policy = for_env(cls, env, **values)
    settings = {"n_steps": 12, "sequence_length": 6, "batch_size": 384, "n_epochs": 8}
    settings["total_steps"] = updates * 64 * 12
    learner = make_learner(policy, env, **settings, learning_rate=rate, gamma=0.9, ent_coef=0.01)
    run(learner, updates * 64 * 12)
    return mean_return(policy, source)


def test_a_task_that_needs_memory_is_learnt_with_memory() -> None:
    assert learn(Cue, DeepSet, 20, width=16) > 0.9


def test_a_task_that_needs_memory_is_not_learnt_without() -> None:
    assert learn(Cue, DeepSet, 20, width=16, recurrent=False) < 0.3


@pytest.mark.parametrize("cls", [SensorTransformer, AttentionNeuron])
def test_choices_are_learnt(cls: type[SensorPolicy]) -> None:
    assert learn(Sign, cls, 8, rate=3e-3) > 0.8, "guessing gives 0.5"


def test_parts_of_a_batch_on_threads_are_judged_as_the_whole() -> None:
    env = sensor_vec(Walk(B), Senses(history=3))
    policy = for_env(SensorTransformer, env, width=8, heads=1, critic="shared")
    observation = {key: torch.from_numpy(value) for key, value in env.reset(seed=0)[0].items()}
    observation = {key: value.repeat(5, *[1] * (value.dim() - 1)) for key, value in observation.items()}
    found = []
    for threads in (1, 2):
        policy.zero_grad()
        results, _ = Network(policy, threads=threads).learn(Batch(observation, {}))
        sum(result.square().sum() for result in results).backward()
        gradients = [
            parameter.grad.flatten() for parameter in policy.parameters() if parameter.grad is not None
        ]
        found.append(torch.cat([*(result.detach().flatten() for result in results), *gradients]))
    assert found[0].std() > 1e-2
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
