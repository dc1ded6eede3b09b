"""Whole populations at once give what each candidate gives alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from somite.agents.agent import Agent
from somite.agents.composition import sizes_for
from somite.agents.evaluation.episodes import run_episodes
from somite.agents.policies import (
    MLP,
    SMP,
    AttentionNeuron,
    DeepSet,
    LimbTransformer,
    Policy,
    SensorMLP,
    SensorTransformer,
)
from somite.agents.rollout import population as population_module
from somite.agents.rollout.population import Population, Simulator, automatic_shard_size, shards_of
from somite.agents.rollout.stacked import (
    ROWS_AT_ONCE,
    StackedAttentionNeuron,
    StackedPolicy,
    get_parameters,
    shares,
    split_parameters,
    stack,
)
from somite.envs.locomotion import LIMB_SPEC, BodySet, LocomotionTask
from somite.envs.sensors import CartPoleSwingUp, Senses, SensorTask
from tests.envs.sensors.worlds import ArraySource
from tests.observations import SPEC, random_observation

N_TOKENS, ROWS = 5, 3


@pytest.fixture(autouse=True)
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The swing-up stands for tasks whose episodes are simulated step by step; C++ is in `test_swingup`."""
    monkeypatch.setattr(population_module, "library", lambda: None)


def sensors(cls: type[Policy], history: int = 1, n_actions: int = 2, **more: object) -> Policy:
    given = {"n_actions": n_actions, "n_privileged": 5}
    if cls is SensorMLP:
        given["n_tokens"] = N_TOKENS
    return cls(Senses(history=history).spec(), n_recent=history, **given, **more)


POLICIES: dict[str, Callable[[], Policy]] = {
    "neuron": lambda: sensors(AttentionNeuron),
    "neuron_of_the_ant": lambda: sensors(AttentionNeuron, bias=True, scaled=True, head=12, rows=20),
    "neuron_with_history": lambda: sensors(AttentionNeuron, history=3, hidden=5, key_size=7),
    "neuron_that_chooses": lambda: sensors(AttentionNeuron, n_actions=3, discrete=True),
    "deep_set": lambda: sensors(DeepSet),
    "sensor_transformer": lambda: sensors(SensorTransformer, history=2, width=8, queries=3),
    "sensor_mlp": lambda: sensors(SensorMLP, width=9),
    "smp": lambda: SMP(SPEC, width=8, message=4),
    "limb_transformer": lambda: LimbTransformer(SPEC, width=8, tree_encoding=True),
    "mlp": lambda: MLP(SPEC, N_TOKENS, 2, width=8),
}
NEURONS = [name for name in POLICIES if name.startswith("neuron")]


def build(name: str) -> Policy:
    torch.manual_seed(0)
    return POLICIES[name]()


def draw(policy: Policy, size: int, seed: int = 0, scale: float = 0.5) -> np.ndarray:
    """(P, n) parameters that make every part of the network matter."""
    return scale * np.random.default_rng(seed).standard_normal((size, len(get_parameters(policy))))


def observe(policy: Policy, sets: int, seed: int, missing: float = 0.3) -> dict[str, Tensor]:
    """What ``sets`` times `ROWS` rows observe, (P, R, ...)."""
    if policy.kind == "limbs":
        observation = random_observation(seed, sets * ROWS, N_TOKENS)
        fixed = random_observation(0, sets * ROWS, N_TOKENS)  # a body stays what it is
        observation |= {key: fixed[key] for key in ("parent", "mask", "joint_mask", "action_mask")}
        return {key: value.unflatten(0, (sets, ROWS)) for key, value in observation.items()}
    rng = np.random.default_rng(seed)
    mask = (rng.random((sets, ROWS, N_TOKENS)) >= missing).astype(np.int8)
    tokens = rng.normal(size=(sets, ROWS, N_TOKENS, policy.spec.token_size)).astype(np.float32)
    recent = rng.uniform(-1, 1, (sets, ROWS, policy.n_recent, policy.n_actions)).astype(np.float32)
    # What stands at a missing sensor must not get through, whatever it is.
    observation = {"tokens": tokens, "mask": mask, "recent_actions": recent}
    return {key: torch.from_numpy(value) for key, value in observation.items()}


class Alone:
    """The policy with one set of parameters, as it acts on its own."""

    def __init__(self, policy: Policy, values: np.ndarray) -> None:
        self.policy, self.values = policy, values
        self.memory = policy.initial_memory(ROWS, N_TOKENS)

    @torch.no_grad()
    def act(self, observation: dict[str, Tensor]) -> Tensor:
        self.policy.set_flat(self.values)
        prepared = self.policy.prepare(observation)
        features, self.memory = self.policy.encode(prepared, self.memory)
        return self.policy.act(features, prepared)


def act_alone(alone: Sequence[Alone], observation: dict[str, Tensor]) -> Tensor:
    return torch.stack([a.act({k: v[i] for k, v in observation.items()}) for i, a in enumerate(alone)])


@pytest.mark.parametrize("name", POLICIES)
def test_a_stack_acts_as_each_of_its_policies_alone(name: str) -> None:
    policy = build(name)
    values = draw(policy, 4)
    alone = [Alone(policy, one) for one in values]
    with torch.inference_mode():
        stacked = stack(policy, split_parameters(policy, values), observe(policy, 4, 0))
        for step in range(6):
            observation = observe(policy, 4, step)
            found, wanted = stacked.act(observation), act_alone(alone, observation)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert (found[0] - act_alone(alone[:1] * 4, observation)[1]).abs().max() > 1e-2, "sets that differ"


@pytest.mark.parametrize("name", POLICIES)
def test_a_stack_goes_on_with_some_rows_of_some_sets(name: str) -> None:
    policy = build(name)
    values = draw(policy, 4)
    alone = [Alone(policy, one) for one in values]
    sets, rows = torch.tensor([3, 1]), torch.tensor([[2, 0], [1, 2]])
    with torch.inference_mode():
        stacked = stack(policy, split_parameters(policy, values), observe(policy, 4, 0))
        for step in range(3):
            stacked.act(observe(policy, 4, step))
            act_alone(alone, observe(policy, 4, step))
        stacked.keep(sets, rows)
        for step in range(3, 6):
            observation = observe(policy, 4, step)
            kept = {key: value[sets.unsqueeze(1), rows] for key, value in observation.items()}
            wanted = act_alone(alone, observation)[sets.unsqueeze(1), rows]
            torch.testing.assert_close(stacked.act(kept), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*NEURONS, "deep_set"])
def test_parts_of_a_stack_do_not_mix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stacks of many rows are computed in parts, of equal size or not; one part gives the same."""
    policy = build(name)
    values = draw(policy, 5)
    answers = []
    for at_once in (2 * ROWS, 10**6):
        monkeypatch.setattr("somite.agents.rollout.stacked.ROWS_AT_ONCE", at_once)
        assert len(shares(5, ROWS)) == (3 if at_once < 100 else 1)
        with torch.inference_mode():
            stacked = stack(policy, split_parameters(policy, values), observe(policy, 5, 0))
            answers.append(torch.stack([stacked.act(observe(policy, 5, step)) for step in range(5)]))
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)


@given(
    st.sampled_from(NEURONS), st.integers(0, 10**6), st.floats(0.01, 1.5), st.sampled_from([0.0, 0.4, 1.0])
)
@settings(max_examples=40, deadline=None)
def test_the_fast_stack_of_neurons_is_the_plain_one(
    name: str, seed: int, scale: float, missing: float
) -> None:
    policy = build(name)
    parameters = split_parameters(policy, draw(policy, 2, seed, scale))
    with torch.inference_mode():
        first = observe(policy, 2, seed)
        fast, plain = stack(policy, parameters, first), StackedPolicy(policy, parameters, first)
        assert isinstance(fast, StackedAttentionNeuron)
        for step in range(4):
            observation = observe(policy, 2, seed + step, missing)
            torch.testing.assert_close(
                fast.act(observation), plain.act(observation), rtol=1e-3, atol=2e-5 * (1 + scale)
            )


@given(st.integers(1, 300), st.integers(1, 5000))
def test_shares_are_all_sets_in_order_none_too_large(sets: int, rows: int) -> None:
    parts = shares(sets, rows)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(sets))
    sizes = [part.stop - part.start for part in parts]
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
    assert max(sizes) == 1 or max(sizes) * rows <= 2 * ROWS_AT_ONCE


@pytest.mark.parametrize("name", POLICIES)
def test_parameters_go_in_and_out_in_the_same_order(name: str) -> None:
    policy = build(name)
    others = {key: value.clone() for key, value in policy.state_dict().items()}
    values = draw(policy, 1)[0]
    policy.set_flat(values)
    assert np.array_equal(get_parameters(policy), values.astype(np.float32))
    acting = set(policy.acting_parameters())
    assert not acting & {"log_std", "value_head.limb.weight", "value_head.weight", "value_head.0.weight"}
    for key, value in policy.state_dict().items():
        assert torch.equal(value, others[key]) is (key not in acting), key


def test_the_published_agent_has_913_parameters() -> None:
    assert len(get_parameters(sensors(AttentionNeuron, n_actions=1))) == 913


def alone_in(task: CartPoleSwingUp | BodySet, policy: Policy, values: np.ndarray, episodes: int) -> tuple:
    """Returns and lengths (P, M, E) of candidates that are evaluated one by one."""
    found = []
    for one in values:
        policy.set_flat(one)
        results = run_episodes(
            Agent(policy).act, task, task.seen, episodes, 7, aligned=policy.aligned_slots, threads=1
        )
        found.append([(result.returns, result.lengths) for result in results])
    return tuple(np.array([[body[which] for body in one] for one in found]) for which in (0, 1))


STARTS = [[7, episode] for episode in range(4)]

TASKS: dict[str, Callable[[], tuple]] = {
    # Short enough for rounding not to grow, long enough for carts to leave the track.
    "swingup": lambda: (CartPoleSwingUp(max_episode_steps=60), sensors(AttentionNeuron, n_actions=1)),
    "senses": lambda: (
        CartPoleSwingUp(Senses(2, shuffle=7, noise_channels=[0, 2], blinking=0.2), 40),
        sensors(DeepSet, history=2, n_actions=1),
    ),
}


def limbs(family: str, agent: str, steps: int = 12, lowest: float | None = None, **more: object) -> tuple:
    heights = None if lowest is None else [lowest, 2.0]
    task = BodySet(family, task=LocomotionTask(max_episode_steps=steps, relative_height=heights), **more)
    env = task.make_vec(task.seen, len(task.seen), aligned=agent == "mlp", threads=1)
    torch.manual_seed(0)
    small = {"smp": SMP, "limb_transformer": LimbTransformer, "mlp": MLP}[agent]
    sizes = env.sizes if agent == "mlp" else {}
    env.close()
    return task, small(env.spec_of_tokens, width=8, **sizes)


# Hoppers that may not stoop, and start again then; the two cheetahs have different numbers of limbs. Where
# feet strike the ground rounding grows tenfold in four steps: 25 of them show the order of sums.
TASKS["hopper"] = lambda: limbs("hopper", "smp", 25, 0.95, bodies=["hopper_4"])
TASKS["cheetahs"] = lambda: limbs("cheetah", "limb_transformer", bodies=["cheetah_2_back", "cheetah_3_front"])
TASKS["cheetahs_aligned"] = lambda: limbs("cheetah", "mlp", bodies=["cheetah_2_back", "cheetah_3_front"])


@pytest.mark.parametrize("name", TASKS)
def test_a_population_scores_as_its_candidates_alone(name: str) -> None:
    task, policy = TASKS[name]()
    values = draw(policy, 5)
    population = Population(policy, task, 5, 4, threads=2)
    scores = population.evaluate(values, STARTS)
    again = population.evaluate(values, STARTS)
    population.close()
    returns, lengths = alone_in(task, policy, values, 4)
    assert scores.returns.shape == (5, len(task.seen), 4)
    assert np.array_equal(scores.lengths, lengths)
    np.testing.assert_allclose(scores.returns, returns, rtol=1e-3, atol=1e-3)
    assert np.array_equal(scores.returns, again.returns), "the same environments, once more"
    assert np.ptp(returns.mean((1, 2))) > 1e-2, "candidates that differ"
    if name in ("swingup", "hopper"):
        assert lengths.min() < lengths.max(), "episodes that end before others"


def test_all_candidates_meet_the_same_starts_and_other_seeds_others() -> None:
    task, policy = TASKS["swingup"]()
    population = Population(policy, task, 6, 4, threads=1)
    twins = np.repeat(draw(policy, 1), 6, 0)
    scores = population.evaluate(twins, STARTS)
    others = population.evaluate(twins, [[8, episode] for episode in range(4)])
    population.close()
    np.testing.assert_allclose(scores.returns, scores.returns[:1].repeat(6, 0), rtol=1e-5)
    assert (scores.lengths == scores.lengths[0]).all()
    assert np.ptp(scores.returns[0]) > 1, "episodes of a candidate differ"
    assert not np.isclose(scores.returns[0], others.returns[0]).any()


def evaluated(name: str, size: int, threads: int, shard_size: int | None, times: int = 1) -> np.ndarray:
    """Returns of `size` candidates, of the last of several equal generations."""
    task, policy = TASKS[name]()
    population = Population(policy, task, size, 4, threads, shard_size=shard_size)
    for _ in range(times):
        scores = population.evaluate(draw(policy, size), STARTS)
    population.close()
    return scores.returns


@pytest.mark.parametrize("name", TASKS)
def test_threads_change_nothing_to_the_last_bit(name: str) -> None:
    """Seven candidates in shards of two: the last one alone, each after and beside other ones."""
    counts = (1, 2, 3, 9) if name == "senses" else (1, 3)
    one, *others = (evaluated(name, 7, threads, 2) for threads in counts)
    for other in others:
        assert np.array_equal(one, other)
    assert np.array_equal(one, evaluated(name, 7, 2, 2, times=2)), "a second generation"


def test_the_size_of_a_shard_changes_rounding_and_nothing_else() -> None:
    """Negative control of the test above: the numbers are such that rounding shows."""
    found = [evaluated("swingup", 7, 1, size) for size in (1, 2, 7)]
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, rtol=1e-4, atol=1e-4)
    assert not all(np.array_equal(found[0], other) for other in found[1:])


@given(st.integers(1, 300), st.integers(1, 400))
def test_shards_are_all_candidates_in_order_and_of_one_size(size: int, shard_size: int) -> None:
    shards = shards_of(size, shard_size)
    assert [i for shard in shards for i in range(shard.start, shard.stop)] == list(range(size))
    assert {shard.stop - shard.start for shard in shards[:-1]} <= {shard_size}
    assert 1 <= shards[-1].stop - shards[-1].start <= shard_size


def automatic(size: int, bodies: int, episodes: int, kind: str, device: str = "cpu", **asked: object) -> int:
    """The size of a shard of a task like this."""
    parameter = SimpleNamespace(device=torch.device(device))
    policy = SimpleNamespace(kind=kind, parameters=lambda: iter([parameter]))
    task = SimpleNamespace(seen=range(bodies), simulation=asked.pop("simulation", "cpu"))
    return automatic_shard_size(policy, task, size, episodes, **asked)


def test_the_automatic_size_of_a_shard() -> None:
    assert automatic(256, 1, 16, "sensors") == 256
    assert automatic(256, 1, 16, "sensors", spread=True) == 64
    assert automatic(64, 1, 4, "limbs") == 32
    assert automatic(256, 12, 16, "limbs") == 2
    assert automatic(256, 200, 16, "limbs") == 2, "32 rows of each body"
    assert automatic(8, 12, 100, "limbs") == 1
    assert automatic(256, 12, 16, "limbs", "cuda") == 256
    assert automatic(256, 12, 16, "limbs", "cuda", spread=True) == 2, "the processors of a cluster"
    assert automatic(500, 1, 16, "sensors", simulation="torch") == 500
    assert automatic(256, 12, 16, "limbs", simulation="warp") == 256


@pytest.mark.parametrize("name", ["swingup", "senses"])
def test_rows_that_have_ended_are_dropped_without_influence(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, policy = TASKS[name]()
    values = draw(policy, 8)
    acted, step = [], population_module._Loop._step

    def watched(loop: population_module._Loop) -> None:
        acted.append(loop._rows.numel())
        step(loop)

    monkeypatch.setattr(population_module._Loop, "_step", watched)
    found = []
    for worthwhile in (-1.0, population_module.WORTHWHILE):
        monkeypatch.setattr(population_module, "WORTHWHILE", worthwhile)
        acted.clear()
        population = Population(policy, task, 8, 4)
        found.append((population.evaluate(values, STARTS), list(acted)))
        population.close()
    (kept, all_rows), (dropped, fewer) = found
    np.testing.assert_allclose(kept.returns, dropped.returns, rtol=1e-4, atol=1e-4)
    assert np.array_equal(kept.lengths, dropped.lengths)
    assert set(all_rows) == {32} and fewer[0] == 32 and sum(fewer) < 0.8 * sum(all_rows)


class Signs(ArraySource):
    """Each row shows +1 or -1 for a whole episode; the choice 1 is right for +1, 0 for -1."""

    name, sensor_names, single_action_space = "signs", ("sign", "one"), spaces.Discrete(2)

    def __init__(self, num_envs: int, max_episode_steps: int) -> None:
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.signs = np.zeros(num_envs)

    def start_rows(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        self.signs[rows] = [rng.choice([-1, 1]) for rng in rngs]

    def step_rows(
        self, actions: np.ndarray, running: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert actions.shape == (self.num_envs, *self.single_action_space.shape) and actions.dtype == np.int64
        none, actions = np.zeros(self.num_envs, bool), actions.reshape(self.num_envs, -1)[:, -1]
        return ((actions == 1) == (self.signs > 0)).astype(float), none, none

    def read_rows(self) -> np.ndarray:
        return np.stack((self.signs, np.ones(self.num_envs)), 1).astype(np.float32)

    def close(self) -> None:
        pass


class TwoDecisions(Signs):
    """The same by the second of two decisions."""

    single_action_space = spaces.MultiDiscrete([3, 2])


class SignTask(SensorTask):
    name, source = "signs", Signs

    def make_source(self, num_envs: int, threads: int = 0, device: torch.device | None = None) -> Signs:
        return self.source(num_envs, self.max_episode_steps)


@pytest.mark.parametrize("source", [Signs, TwoDecisions])
@pytest.mark.parametrize("cls", [AttentionNeuron, SensorMLP])
def test_the_most_probable_choice_is_taken_where_actions_are_discrete(
    cls: type[Policy], source: type[Signs]
) -> None:
    task = SignTask(None, 3)
    task.source = source
    env = task.make_vec(task.seen, 1)
    policy = cls(env.spec_of_tokens, **sizes_for(cls, env))
    values = np.zeros((3, len(get_parameters(policy))))
    values[0, -2:], values[1, -2:] = [5, -5], [-5, 5]  # the last bias: always 0, always 1
    population = Population(policy, task, 3, 40)
    returns = population.evaluate(values, [[1, i] for i in range(40)]).returns[:, 0]
    population.close()
    assert set(returns[0]) == {0.0, 3.0} and np.array_equal(returns[0] + returns[1], np.full(40, 3.0))


def test_a_population_stops_when_told_and_can_be_asked_again() -> None:
    task, policy = CartPoleSwingUp(), sensors(AttentionNeuron, n_actions=1)
    population = Population(policy, task, 4, 2, threads=2, shard_size=2)
    asked = []
    values = draw(policy, 4)
    starts = [[7, episode] for episode in range(2)]
    assert population.evaluate(values, starts, stop=lambda: asked.append(1) or len(asked) > 5) is None
    assert len(asked) <= 5 + 2
    whole = population.evaluate(values, starts)
    assert np.array_equal(whole.returns, population.evaluate(values, starts).returns)
    population.close()


def test_an_error_in_one_thread_ends_the_others() -> None:
    task, policy = CartPoleSwingUp(), sensors(AttentionNeuron, n_actions=1)
    population = Population(policy, task, 4, 2, threads=2, shard_size=2)

    def broken(*arguments: object) -> None:
        raise RuntimeError("the simulation is gone")

    environments = [simulator.make_env(2) for simulator in population._simulators]
    environments[0].step = broken
    for simulator, env in zip(population._simulators, environments, strict=True):
        simulator.make_env = lambda count, env=env: env
    values = np.zeros((4, len(get_parameters(policy))))
    steps, step = [], environments[1].step
    failed = threading.Event()

    def counted(actions: Tensor) -> object:
        failed.wait(0.01)
        steps.append(1)
        return step(actions)

    environments[1].step = counted
    with pytest.raises(RuntimeError, match="the simulation is gone"):
        population.evaluate(values, [[7, 0], [7, 3]])
    population.close()
    assert len(steps) < 100, "not to the end of the episodes"


def test_the_policy_and_its_random_streams_are_left_alone() -> None:
    task, policy = TASKS["swingup"]()
    before = get_parameters(policy)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    population = Population(policy, task, 3, 4)
    population.evaluate(draw(policy, 3), STARTS)
    population.close()
    assert np.array_equal(get_parameters(policy), before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])


def test_scores_are_those_of_their_body_where_bodies_stand_in_another_order() -> None:
    task = BodySet("cheetah", bodies=["cheetah_2_back", "cheetah_7_full", "cheetah_2_front"])
    task = task.cut_short(3)
    torch.manual_seed(0)
    policy = SMP(LIMB_SPEC, width=8, message=4)
    candidates, found = draw(policy, 2), []
    for layouts in (None, 2):
        there = task.changed(make_env=partial(task.make_env, layouts=layouts))
        simulator = Simulator(policy, there, episodes=2)
        found.append(simulator.run(candidates, [[5, 0], [5, 1]], stop=lambda: False))
        order = simulator.make_env(2).body_of_row
        assert (np.diff(order) >= 0).all() == (layouts is None)
        simulator.close()
    np.testing.assert_allclose(found[0].returns, found[1].returns, rtol=1e-5)
    assert np.ptp(found[0].returns.mean((0, 2))) > 0
