"""Policies of sensor tasks: what order, padding, copies and memory may do, and the published formulas."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from somite.agents import load_policy
from somite.agents.agent import Agent
from somite.agents.policies import AttentionNeuron, DeepSet, SensorMLP, SensorPolicy, SensorTransformer
from somite.agents.policies.layers import TokenLSTM
from somite.agents.storage.policy import save_policy
from somite.envs.errors import UserError
from somite.envs.sensors import CartPoleSwingUp, Senses
from tests.agents.policies.helpers import draw_large

A, S, N, B, T, K = 2, 5, 6, 3, 5, 4
"""Actions, canonical readings, slots, batch, steps, and the history of policies without memory."""

ONE, LONG = Senses().spec(), Senses(history=K).spec()
TOLD = {"n_actions": A, "n_privileged": S}
INVARIANT = {
    "neuron": lambda: AttentionNeuron(ONE, n_recent=1, critic="shared", **TOLD),
    "neuron_of_ant": lambda: AttentionNeuron(
        ONE, n_recent=1, rows=32, bias=True, scaled=True, head=32, **TOLD
    ),
    "neuron_with_history": lambda: AttentionNeuron(LONG, n_recent=K, **TOLD),
    "transformer": lambda: SensorTransformer(LONG, n_recent=K, width=16, feedforward=16, queries=4, **TOLD),
    "deep_set": lambda: DeepSet(LONG, n_recent=K, width=16, recurrent=False, critic="shared", **TOLD),
    "deep_set_recurrent": lambda: DeepSet(ONE, n_recent=1, width=16, **TOLD),
}
POLICIES = {
    **INVARIANT,
    "mlp": lambda: SensorMLP(LONG, N, n_recent=K, width=16, sees_actions=True, **TOLD),
}
REMEMBERING = ("neuron", "neuron_of_ant", "neuron_with_history", "deep_set_recurrent")
BLIND_TO_COPIES = ("transformer", "deep_set", "deep_set_recurrent")

# All is in float64: what must be equal differs by the rounding of other orders of addition alone, and what
# must differ does so by ten thousand times as much.
EQUAL = {"rtol": 1e-9, "atol": 1e-9}
MARGIN = 1e-5

seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=5, deadline=None)


def build(name: str, seed: int = 0) -> SensorPolicy:
    """The named policy with large random weights and biases and a normaliser that does something."""
    torch.manual_seed(seed)
    policy = POLICIES[name]()
    draw_large(policy, 1.2)
    if policy.normalizer.token_is_state.all():
        policy.normalizer.token_shift.copy_(torch.linspace(-0.2, 0.3, policy.spec.token_size))
        policy.normalizer.token_scale.copy_(torch.linspace(0.7, 1.4, policy.spec.token_size))
    policy.normalizer.privileged_shift.fill_(0.1)
    return policy.double()


def random_steps(policy: SensorPolicy, seed: int, steps: int = T, batch: int = B) -> list[dict[str, Tensor]]:
    """Observations of several steps; some sensors are missing now and then, the first row's never."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(steps):
        mask = (rng.random((batch, N)) < 0.7).astype(np.int8)
        mask[0] = 1
        tokens = rng.normal(size=(batch, N, policy.spec.token_size)) * mask[..., None]
        recent = rng.uniform(-1, 1, (batch, policy.n_recent, A))
        values = {"tokens": tokens, "mask": mask, "recent_actions": recent}
        values["privileged"] = rng.normal(size=(batch, S))
        found.append({key: torch.from_numpy(value) for key, value in values.items()})
    return found


def reorder(values: Tensor, order: Tensor) -> Tensor:
    """(B, N, ...) with row b's slot i taken from its slot ``order[b, i]``."""
    return torch.stack([row[which] for row, which in zip(values, order, strict=True)])


def random_order(rng: np.random.Generator, batch: int = B) -> Tensor:
    return torch.from_numpy(np.stack([rng.permutation(N) for _ in range(batch)]))


def reordered(observation: dict[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    moved = {key: reorder(observation[key], order) for key in ("tokens", "mask")}
    return {**observation, **moved}


@torch.no_grad()
def step(policy: SensorPolicy, observation: dict[str, Tensor], memory: dict[str, Tensor]) -> tuple:
    """Actions and values side by side, (B, A + 1), and the next memory."""
    features, memory = policy.encode(observation, memory)
    parts = policy.act(features, observation), policy.value(features, observation)[:, None]
    return torch.cat(parts, -1), memory


def play(policy: SensorPolicy, observations: list[dict[str, Tensor]]) -> Tensor:
    """(T, B, A + 1) of an episode."""
    memory = policy.initial_memory(*observations[0]["mask"].shape)
    found = []
    for observation in observations:
        outputs, memory = step(policy, observation, memory)
        found.append(outputs)
    return torch.stack(found)


def assert_equal(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, **EQUAL)


@pytest.mark.parametrize("name", INVARIANT)
@few
@given(seed=seeds)
def test_an_order_drawn_at_reset_has_no_influence(name: str, seed: int) -> None:
    policy, rng = build(name), np.random.default_rng(seed)
    observations, order = random_steps(policy, seed), random_order(rng)
    moved = [reordered(observation, order) for observation in observations]
    assert_equal(play(policy, moved), play(policy, observations))


@settings(max_examples=8, deadline=None)
@given(seed=seeds)
def test_the_ordinary_network_fails_where_the_invariant_ones_pass(seed: int) -> None:
    policy, rng = build("mlp"), np.random.default_rng(seed)
    observations, order = random_steps(policy, seed), torch.arange(N).roll(rng.integers(1, N)).expand(B, N)
    moved = [reordered(observation, order) for observation in observations]
    difference = play(policy, moved) - play(policy, observations)
    assert difference[..., :A].abs().amax((0, 2)).min() > MARGIN


@pytest.mark.parametrize("name", INVARIANT)
@few
@given(seed=seeds)
def test_an_order_drawn_at_every_step_has_no_influence_where_memory_moves_along(name: str, seed: int) -> None:
    policy, rng = build(name), np.random.default_rng(seed)
    observations = random_steps(policy, seed)
    memory = policy.initial_memory(B, N)
    order, found = torch.arange(N).expand(B, N), []
    for observation in observations:
        new = random_order(rng)
        # Slot i shows new[i], which stood in the slot where order is new[i].
        came_from = reorder(order.argsort(1), new)
        memory = {key: reorder(value, came_from) for key, value in memory.items()}
        outputs, memory = step(policy, reordered(observation, new), memory)
        found.append(outputs)
        order = new
    assert_equal(torch.stack(found), play(policy, observations))


@pytest.mark.parametrize("name", REMEMBERING)
@few
@given(seed=seeds)
def test_an_order_drawn_in_mid_episode_matters_where_memory_stays_behind(name: str, seed: int) -> None:
    policy, shuffle = build(name), 3
    observations = random_steps(policy, seed)
    order = torch.arange(N).roll(1).expand(B, N)  # every sensor moves
    moved = observations[:shuffle] + [reordered(obs, order) for obs in observations[shuffle:]]
    found, wanted = play(policy, moved), play(policy, observations)
    assert_equal(found[:shuffle], wanted[:shuffle])
    assert (found - wanted)[shuffle:, 0, :A].abs().max() > MARGIN, "the first row lacks no sensor"


@pytest.mark.parametrize("name", INVARIANT)
@few
@given(seed=seeds, more=st.integers(0, 4))
def test_missing_sensors_and_padding_have_no_influence_whatever_stands_there(
    name: str, seed: int, more: int
) -> None:
    policy, rng = build(name), np.random.default_rng(seed)
    slots = torch.from_numpy(np.sort(rng.permutation(N + more)[:N]))
    observations, padded = random_steps(policy, seed), []
    for observation in observations:
        tokens = torch.full((B, N + more, policy.spec.token_size), math.nan, dtype=torch.float64)
        mask = torch.zeros((B, N + more), dtype=torch.int8)
        tokens[:, slots], mask[:, slots] = observation["tokens"], observation["mask"]
        junk = torch.from_numpy(rng.choice([math.nan, math.inf, 1e6], (B, N + more, 1)))
        tokens = torch.where(mask[..., None] == 1, tokens, junk)
        padded.append({**observation, "tokens": tokens, "mask": mask})
    assert_equal(play(policy, padded), play(policy, observations))


@pytest.mark.parametrize("name", POLICIES)
def test_a_sensor_that_is_there_has_influence(name: str) -> None:
    """Lest all the tests of absent influence pass for a policy that looks at nothing."""
    policy = build(name)
    observations = random_steps(policy, 0)
    found = play(policy, observations)
    for sensor in range(N):
        changed = copy.deepcopy(observations)
        changed[-1]["tokens"][0, sensor] += 0.5
        difference = (play(policy, changed) - found)[-1].abs()
        assert difference[0, :A].max() > MARGIN and difference[1:].max() < 1e-9
    changed = copy.deepcopy(observations)
    changed[-1]["recent_actions"] *= -1
    assert (play(policy, changed) - found)[-1, :, :A].abs().amax(-1).min() > MARGIN
    remembered = copy.deepcopy(observations)
    remembered[0]["tokens"][0] += 0.5
    assert ((play(policy, remembered) - found)[-1, 0].abs().max() > MARGIN) == (name in REMEMBERING)


def doubled(observations: list[dict[str, Tensor]], times: int = 2) -> list[dict[str, Tensor]]:
    return [
        {**obs, "tokens": obs["tokens"].repeat(1, times, 1), "mask": obs["mask"].repeat(1, times)}
        for obs in observations
    ]


@pytest.mark.parametrize("name", BLIND_TO_COPIES)
@few
@given(seed=seeds, times=st.integers(2, 4))
def test_copies_of_every_sensor_change_nothing_where_sensors_are_averaged(
    name: str, seed: int, times: int
) -> None:
    policy = build(name)
    observations = random_steps(policy, seed)
    assert_equal(play(policy, doubled(observations, times)), play(policy, observations))


def test_copies_change_the_published_agent_which_adds_sensors_up() -> None:
    policy = build("neuron")
    observations = random_steps(policy, 0)
    difference = play(policy, doubled(observations)) - play(policy, observations)
    assert difference[..., :A].abs().max() > MARGIN


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_is_there_at_all(name: str) -> None:
    policy = build(name)
    observations = random_steps(policy, 0)
    for observation in observations:
        observation["mask"].zero_()
    assert play(policy, observations).isfinite().all()


class _Episode(nn.Module):
    """Two steps in one call, as ``functional_call`` wants them."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, first: dict, second: dict, memory: dict) -> tuple[Tensor, Tensor, dict]:
        _, memory = self.policy.encode(first, memory)
        features, memory = self.policy.encode(second, memory)
        return self.policy.act(features, second), self.policy.value(features, second), memory


@pytest.mark.parametrize("shared", [True, False], ids=["one_observation", "an_observation_each"])
@pytest.mark.parametrize("name", POLICIES)
def test_a_population_runs_under_vmap(name: str, shared: bool) -> None:
    """Three policies at once give what each gives alone, memory included."""
    policies = [build(name, seed) for seed in range(3)]
    parameters, buffers = stack_module_state([_Episode(policy) for policy in policies])
    whole = copy.deepcopy(_Episode(policies[0])).to("meta")
    each = [random_steps(policies[0], 0 if shared else i, steps=2) for i in range(3)]
    if shared:
        first, second = each[0]
    else:
        first, second = ({k: torch.stack([own[i][k] for own in each]) for k in each[0][i]} for i in (0, 1))
    memory = policies[0].initial_memory(B, N)

    def one(parameters: dict, buffers: dict, first: dict, second: dict) -> tuple:
        return functional_call(whole, (parameters, buffers), (first, second, memory))

    dims = (0, 0, None, None) if shared else (0, 0, 0, 0)
    with torch.no_grad():
        actions, values, memories = vmap(one, dims)(parameters, buffers, first, second)
        for i, policy in enumerate(policies):
            action, value, after = _Episode(policy)(*each[i], memory)
            assert_equal(actions[i], action)
            assert_equal(values[i], value)
            assert list(after) == list(memories) == (["hidden", "cell"] if name in REMEMBERING else [])
            for key, kept in after.items():
                assert_equal(memories[key][i], kept)
    assert (actions[0] - actions[1]).abs().max() > MARGIN


@few
@given(seed=seeds, own=st.integers(1, 3), common=st.integers(0, 3), hidden=st.integers(1, 9))
def test_the_cell_of_a_token_is_torchs(seed: int, own: int, common: int, hidden: int) -> None:
    """With its parameters by their names; a token that is missing keeps its state."""
    torch.manual_seed(seed)
    theirs = nn.LSTMCell(own + common, hidden).double()
    ours = TokenLSTM(own + common, hidden).double()
    ours.load_state_dict(theirs.state_dict())
    memory = ours.initial(B, N)
    flat = [memory["hidden"].flatten(0, 1), memory["cell"].flatten(0, 1)]
    for _ in range(3):
        each, all_of_them = torch.randn(B, N, own).double(), torch.randn(B, common).double()
        mask = torch.randint(0, 2, (B, N))
        inputs = torch.cat([each, all_of_them[:, None].expand(B, N, common)], -1)
        with torch.no_grad():
            stepped = theirs(inputs.flatten(0, 1), tuple(flat))
            memory = ours(each, all_of_them, memory, mask)
        there = mask.flatten()[:, None] == 1
        flat = [torch.where(there, new, old) for new, old in zip(stepped, flat, strict=True)]
        for key, wanted in zip(("hidden", "cell"), flat, strict=True):
            assert_equal(memory[key].flatten(0, 1), wanted)


def test_a_new_cell_has_torchs_parameters_and_start() -> None:
    ours, theirs = TokenLSTM(3, 400), nn.LSTMCell(3, 400)
    for (name, one), (other_name, other) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == other_name and one.shape == other.shape
        assert one.abs().max() <= 0.05 and one.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("name", POLICIES)
def test_actions_depend_on_the_acting_parameters_alone_and_on_all_of_them(name: str) -> None:
    policy = build(name)
    observations = random_steps(policy, 0, steps=3)
    acting = policy.acting_parameters()
    assert list(acting) == [n for n, _ in policy.named_parameters() if n in acting], "a fixed order"
    before = play(policy, observations)
    for parameter_name, parameter in policy.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter += 0.3 * torch.randn_like(parameter)
        difference = (play(policy, observations) - before)[..., :A].abs().max()
        assert (difference > 1e-5) == (parameter_name in acting), parameter_name
        assert difference == 0 or parameter_name in acting, parameter_name
        with torch.no_grad():
            parameter.copy_(kept)


@pytest.mark.parametrize("name", POLICIES)
def test_the_actor_never_sees_the_canonical_readings_and_the_critic_only_if_it_is_told(name: str) -> None:
    policy = build(name)
    observations = random_steps(policy, 0, steps=2)
    before = play(policy, observations)
    for observation in observations:
        observation["privileged"] = observation["privileged"] + 0.5
    difference = (play(policy, observations) - before).abs()
    assert difference[..., :A].max() == 0
    value = difference[..., A]
    assert value.min() > MARGIN if policy.critic == "privileged" else value.max() == 0
    policy.normalizer.privileged_shift += 0.5
    assert_equal(play(policy, observations), before)


@pytest.mark.parametrize("name", POLICIES)
def test_every_parameter_learns(name: str) -> None:
    policy = build(name)
    observations = random_steps(policy, 0, steps=2, batch=16)
    features, memory = policy.encode(observations[0], policy.initial_memory(16, N))
    features, memory = policy.encode(observations[1], memory)
    noise = (policy.act(features, observations[1]) * policy.log_std.exp()).square().sum()
    (noise + policy.value(features, observations[1]).square().sum()).backward()
    for parameter_name, parameter in policy.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", POLICIES)
def test_dtypes_follow_the_parameters(name: str) -> None:
    policy = build(name).float()
    observations = random_steps(policy, 0, steps=1)
    single = [{k: v.float() if v.is_floating_point() else v for k, v in obs.items()} for obs in observations]
    assert play(policy, single).dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in policy.initial_memory(1, 1).values())


@pytest.mark.parametrize("name", POLICIES)
def test_architecture_rebuilds_the_policy(name: str) -> None:
    policy = build(name)
    rebuilt = type(policy)(policy.spec, **json.loads(json.dumps(policy.architecture()))).double()
    rebuilt.load_state_dict(policy.state_dict())
    observations = random_steps(policy, 0)
    assert torch.equal(play(rebuilt, observations), play(policy, observations))


KINDS = {
    "neuron": (AttentionNeuron, 1),
    "transformer": (SensorTransformer, K),
    "deep_set": (DeepSet, 1),
    "mlp": (SensorMLP, K),
}


@pytest.mark.parametrize("discrete", [False, True], ids=["box", "discrete"])
@pytest.mark.parametrize("name", KINDS)
def test_a_saved_and_loaded_policy_acts_and_remembers_as_before(
    name: str, discrete: bool, tmp_path: Path
) -> None:
    """Through `Agent`: batches and single observations, rows that are reset, choices and nominal actions."""
    cls, history = KINDS[name]
    torch.manual_seed(0)
    slots = {"n_tokens": N} if cls is SensorMLP else {}
    policy = cls(Senses(history=history).spec(), n_recent=history, discrete=discrete, **TOLD, **slots)
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=0.7)
    save_policy(tmp_path / "policy", policy, environment={}, training={})
    agent = load_policy(tmp_path / "policy")
    assert type(agent.policy) is cls and agent.policy.architecture() == policy.architecture()

    def arrays(observation: dict[str, Tensor]) -> dict[str, np.ndarray]:
        return {k: v.float().numpy() if v.is_floating_point() else v.numpy() for k, v in observation.items()}

    observations = [arrays(observation) for observation in random_steps(policy, 0)]
    found = np.array([agent.act(observation) for observation in observations])
    wanted, memory = [], policy.initial_memory(B, N)
    for observation in observations:
        tensors = {key: torch.from_numpy(value) for key, value in observation.items()}
        with torch.no_grad():
            features, memory = policy.encode(tensors, memory)
            outputs = policy.act(features, tensors)
        assert discrete == bool(outputs.abs().max() > 1), "logits have no bounds, actions have"
        wanted.append(outputs.argmax(-1) if discrete else outputs)
    assert found.shape == ((T, B) if discrete else (T, B, A))
    np.testing.assert_allclose(found, torch.stack(wanted).numpy(), rtol=1e-6, atol=1e-6)
    assert (np.issubdtype(found.dtype, np.integer) and np.ptp(found) == 1) if discrete else found.std() > 0.1

    agent.reset()
    alone = [agent.act({key: value[0] for key, value in obs.items()}) for obs in observations]
    np.testing.assert_allclose(alone, found[:, 0], rtol=1e-5, atol=1e-5)

    agent.reset()
    agent.act(observations[-1])
    agent.reset(np.array([True, False, True]))
    before = agent._memory
    again = agent.act(observations[0])
    np.testing.assert_allclose(again[[0, 2]], found[0, [0, 2]], rtol=1e-5, atol=1e-5)
    if memory:
        assert before["hidden"][1].abs().max() > 0 == before["hidden"][[0, 2]].abs().max()
        with pytest.raises(ValueError, match=r"remembers \(3, 6\).*call reset"):
            agent.act({key: value[:2] for key, value in observations[0].items()})


def test_choices_are_drawn_with_the_probabilities_of_their_logits() -> None:
    torch.manual_seed(0)
    policy = DeepSet(ONE, n_actions=3, n_recent=1, discrete=True, n_privileged=S, recurrent=False)
    nn.init.normal_(policy.action[2].weight, std=2.0)
    (observation,) = random_steps(policy, 0, steps=1, batch=1)
    observation = {key: value.repeat(4000, *[1] * (value.dim() - 1)) for key, value in observation.items()}
    observation["recent_actions"] = torch.zeros(4000, 1, 3)
    arrays = {key: value.numpy() for key, value in observation.items()}
    with torch.no_grad():
        floats = {k: v.float() if v.is_floating_point() else v for k, v in observation.items()}
        wanted = policy.act(policy.encode(floats, {})[0], floats)[0].softmax(-1).numpy()
    drawn = Agent(policy, seed=1).act(arrays, deterministic=False)
    assert wanted.min() > 0.01
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 4000, wanted, atol=5 * 0.5 / 4000**0.5)
    assert np.array_equal(drawn, Agent(policy, seed=1).act(arrays, deterministic=False))
    assert not np.array_equal(drawn, Agent(policy, seed=2).act(arrays, deterministic=False))


def test_of_several_decisions_each_is_taken_by_its_own_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = DeepSet(ONE, n_actions=5, n_recent=1, discrete=[3, 2], n_privileged=S, recurrent=False)
    nn.init.normal_(policy.action[2].weight, std=2.0)
    save_policy(tmp_path / "policy", policy, environment={}, training={})
    agent = load_policy(tmp_path / "policy")
    assert agent.policy.architecture() == policy.architecture()
    (observation,) = random_steps(policy, 0, steps=1, batch=1)
    observation["recent_actions"] = torch.zeros(1, 1, 5)
    arrays = {key: value.float().numpy() for key, value in observation.items()}
    many = {key: value.repeat(4000, 0) for key, value in arrays.items()}
    with torch.no_grad():
        floats = {key: torch.from_numpy(value) for key, value in arrays.items()}
        first, second = policy.act(policy.encode(floats, {})[0], floats)[0].softmax(-1).split([3, 2])
    assert agent.act({key: value[0] for key, value in arrays.items()}).tolist() == [
        first.argmax(),
        second.argmax(),
    ]
    drawn = agent.act(many, deterministic=False)
    for column, wanted in ((0, first / first.sum()), (1, second / second.sum())):
        shares = np.bincount(drawn[:, column], minlength=len(wanted)) / 4000
        np.testing.assert_allclose(shares, wanted, atol=5 * 0.5 / 4000**0.5)
    with pytest.raises(UserError, match=r"between \[3, 3\] choices have 6 logits, not 5"):
        DeepSet(ONE, n_actions=5, n_recent=1, discrete=[3, 3], n_privileged=S)


def swing_up(policy: SensorPolicy, shuffle: str | int, carry: bool = False) -> np.ndarray:
    """What the policy would do in the same episodes, driven by fixed actions, (T, B)."""
    env = CartPoleSwingUp(senses=Senses(history=policy.n_recent, shuffle=shuffle)).make_env(None, B)
    rng = np.random.default_rng(0)
    observation = env.reset(NO_END)
    memory, order, found = policy.initial_memory(B, 5), env.slots.order.clone(), []
    for _ in range(RUN):
        if carry:
            came_from = order.argsort(1).gather(1, env.slots.order)
            memory = {key: reorder(value, came_from) for key, value in memory.items()}
        order = env.slots.order.clone()
        tensors = {k: v.double() if v.is_floating_point() else v for k, v in observation.items()}
        outputs, memory = step(policy, tensors, memory)
        found.append(outputs[:, 0].numpy())
        after = env.step(torch.from_numpy(rng.uniform(-0.3, 0.3, (B, 1))))
        observation = after.observation
        assert not after.ended.any(), "an end would start another episode"
    return np.array(found)


EVERY, RUN = 10, 30
NO_END = 6
"""A seed whose carts all stay on the track for so long."""


def for_swing_up(name: str) -> SensorPolicy:
    """A policy as it starts, but for a last layer that is not near zero."""
    cls, history = KINDS[name]
    torch.manual_seed(2)
    sizes = {"n_tokens": 5} if cls is SensorMLP else {}
    policy = cls(Senses(history=history).spec(), n_actions=1, n_recent=history, n_privileged=5, **sizes)
    nn.init.normal_(list(policy.action.parameters())[-2], std=0.3)
    return policy.double()


@pytest.mark.parametrize("name", ["neuron", "deep_set"])
def test_in_the_swing_up_a_shuffle_matters_only_where_memory_stays_behind(name: str) -> None:
    policy = for_swing_up(name)
    plain = swing_up(policy, "never")
    np.testing.assert_allclose(swing_up(policy, "episode"), plain, **EQUAL)
    np.testing.assert_allclose(swing_up(policy, EVERY, carry=True), plain, **EQUAL)
    left = swing_up(policy, EVERY)
    np.testing.assert_allclose(left[:EVERY], plain[:EVERY], **EQUAL)
    assert np.abs(left - plain)[EVERY].max() > MARGIN


def test_in_the_swing_up_a_policy_without_memory_has_recovered_after_its_history() -> None:
    """A history of K: K - 1 steps after the shuffle's own, every reading in it is of the new order."""
    policy = for_swing_up("transformer")
    plain, found = swing_up(policy, "never"), swing_up(policy, EVERY)
    np.testing.assert_allclose(swing_up(policy, "episode"), plain, **EQUAL)
    for t in range(RUN):
        if t >= EVERY and t % EVERY < K - 1:
            assert np.abs(found[t] - plain[t]).max() > MARGIN, "disturbed"
        else:
            np.testing.assert_allclose(found[t], plain[t], **EQUAL)


def test_in_the_swing_up_the_ordinary_network_never_recovers() -> None:
    policy = for_swing_up("mlp")
    plain, found = swing_up(policy, "never"), swing_up(policy, EVERY)
    assert np.all(np.abs(found - plain).max(1)[EVERY:] > MARGIN)
    assert np.all(np.abs(swing_up(policy, "episode") - plain).max(1) > MARGIN)


def test_refusals_say_what_came_and_what_was_wanted() -> None:
    with pytest.raises(UserError, match="agent.critic must be one of auto, privileged, shared, got 'own'"):
        DeepSet(ONE, n_actions=1, n_recent=1, n_privileged=5, critic="own")
    with pytest.raises(UserError, match="say agent.critic=shared, or auto"):
        AttentionNeuron(ONE, n_actions=1, n_recent=1, critic="privileged")
    with pytest.raises(UserError, match="got 10 and 4"):
        SensorTransformer(ONE, n_actions=1, n_recent=1, n_privileged=5, width=10, heads=4)
    policy = SensorMLP(ONE, 5, 1, 1, n_privileged=5)
    observation = {
        "tokens": torch.zeros(1, 7, 1),
        "mask": torch.ones(1, 7),
        "recent_actions": torch.zeros(1, 1, 1),
    }
    with pytest.raises(UserError, match="built for 5 sensors, got 7; .* use an invariant policy"):
        policy.encode(observation, {})
