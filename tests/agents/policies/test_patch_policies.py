"""Policies of patches: order at reset has no influence, but on the control; formulas are the published."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from somite.agents.policies import PatchAttentionNeuron, PatchCNN, PatchJigsaw, PatchTransformer
from somite.envs.errors import UserError
from somite.envs.images.patches import cut
from somite.envs.sensors import Senses

SIDE, GRID, K, A, S = 6, (8, 9), 4, 3, 5
N = GRID[0] * GRID[1]
SPEC = Senses(history=K).spec((SIDE * SIDE,))
TRACED = Senses(history=K, traces=[30, 250]).spec((SIDE * SIDE,), A)
JIGSAW = Senses(history=K, traces=[30, 250], neighbors=40).spec((SIDE * SIDE,), A)
TOLD = {"n_actions": A, "n_recent": K, "n_privileged": S}
POLICIES = {
    "transformer": lambda: PatchTransformer(
        SPEC, **TOLD, width=16, latents=6, size=8, feedforward=16, layers=2
    ),
    "transformer_with_traces": lambda: PatchTransformer(
        TRACED, **TOLD, width=16, latents=6, size=8, feedforward=16, place=8, identify=0.1, grid=GRID
    ),
    "jigsaw": lambda: PatchJigsaw(JIGSAW, GRID, **TOLD, width=6, place=8, rounds=3, features=16),
    "neuron": lambda: PatchAttentionNeuron(SPEC, **TOLD, map_size=8),
    "cnn": lambda: PatchCNN(SPEC, GRID, SIDE, **TOLD, width=16),
}
INVARIANT = ("transformer", "transformer_with_traces", "jigsaw", "neuron")
seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=3, deadline=None)


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    policy = POLICIES[name]()
    for parameter in policy.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        nn.init.normal_(parameter, std=1.2 / math.sqrt(fan_in))
    return policy.double()


def random_steps(seed: int, steps: int = 3, batch: int = 2) -> list[dict[str, Tensor]]:
    """Pictures that change a little from step to step; the second row lacks some patches."""
    rng = np.random.default_rng(seed)
    frames = [rng.integers(0, 256, (batch, GRID[0] * SIDE, GRID[1] * SIDE, 1)) for _ in range(K)]
    found = []
    for _ in range(steps):
        frames = [(frames[0] + rng.integers(0, 30, frames[0].shape)) % 256, *frames[:-1]]
        tokens = np.stack([cut(frame, SIDE) for frame in frames], 2).reshape(batch, N, -1).astype(np.uint8)
        mask = np.ones((batch, N), np.int8)
        mask[1, rng.permutation(N)[:9]] = 0
        values = {"tokens": tokens * mask[..., None].astype(np.uint8), "mask": mask}
        values["recent_actions"] = rng.uniform(-1, 1, (batch, K, A))
        values["traces"] = rng.normal(size=(batch, N, JIGSAW.trace_size))
        values["neighbors"] = rng.integers(0, N, (batch, N, 4))
        values["sensor"] = np.tile(np.arange(N), (batch, 1))
        values["privileged"] = rng.normal(size=(batch, S))
        found.append({key: torch.from_numpy(value) for key, value in values.items()})
    return found


def told(policy: nn.Module, observation: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the traces that the policy reads."""
    return {**observation, "traces": observation["traces"][..., : policy.spec.trace_size]}


@torch.no_grad()
def play(policy: nn.Module, observations: list[dict[str, Tensor]]) -> Tensor:
    """(T, B, A + 1), actions and values of an episode."""
    observations = [told(policy, observation) for observation in observations]
    batch, tokens = observations[0]["mask"].shape
    memory, found = policy.initial_memory(batch, tokens), []
    for observation in observations:
        features, memory = policy.encode(observation, memory)
        found.append(
            torch.cat([policy.act(features, observation), policy.value(features, observation)[:, None]], -1)
        )
    return torch.stack(found)


def taken(observation: dict[str, Tensor], slots: Tensor) -> dict[str, Tensor]:
    of_slots = ("tokens", "mask", "traces", "sensor", "neighbors")
    found = {**observation, **{key: observation[key][:, slots] for key in of_slots}}
    # The first of the slots that show what a neighbour has shown; itself where none does.
    moved = (found["neighbors"][..., None] == slots).to(torch.int8)
    is_own = (found["neighbors"] == slots[:, None]) | ~moved.any(-1)
    found["neighbors"] = torch.where(is_own, torch.arange(len(slots))[:, None], moved.argmax(-1))
    return found


@few
@given(seed=seeds)
@pytest.mark.parametrize("name", INVARIANT)
def test_an_order_drawn_at_reset_has_no_influence(name: str, seed: int) -> None:
    policy, observations = build(name, seed), random_steps(seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(N))
    plain, moved = play(policy, observations), play(policy, [taken(o, order) for o in observations])
    torch.testing.assert_close(moved, plain, rtol=1e-9, atol=1e-9)
    assert plain[..., :A].std() > 1e-3, "it does something"


def test_the_control_depends_on_the_order() -> None:
    policy, observations = build("cnn"), random_steps(0)
    order = torch.from_numpy(np.random.default_rng(0).permutation(N))
    plain, moved = play(policy, observations), play(policy, [taken(o, order) for o in observations])
    assert (moved - plain)[..., :A].abs().max() > 1e-3


@few
@given(seed=seeds)
@pytest.mark.parametrize("name", INVARIANT)
def test_doubled_patches_have_no_influence(name: str, seed: int) -> None:
    policy, observations = build(name, seed), random_steps(seed)
    twice = torch.arange(N).repeat(2)
    plain, doubled = play(policy, observations), play(policy, [taken(o, twice) for o in observations])
    torch.testing.assert_close(doubled, plain, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", INVARIANT)
def test_missing_patches_are_as_if_they_were_not_there(name: str) -> None:
    policy, observations = build(name), [{k: v[1:] for k, v in o.items()} for o in random_steps(0)]
    there = [observation["mask"][0].nonzero()[:, 0] for observation in observations]
    only = [taken(o, slots) for o, slots in zip(observations, there, strict=True)]
    assert len(there[0]) == N - 9
    torch.testing.assert_close(play(policy, only), play(policy, observations), rtol=1e-9, atol=1e-9)
    spoiled = [dict(o, tokens=torch.where(o["mask"][..., None] == 0, 255, o["tokens"])) for o in observations]
    torch.testing.assert_close(play(policy, spoiled), play(policy, observations), rtol=1e-9, atol=1e-9)


def test_the_transformer_reads_the_newest_frame_and_the_differences() -> None:
    policy, observation = build("transformer"), random_steps(0, 1)[0]
    frames = policy.frames(observation)  # (B, N, K, D)
    differences = 4 * (frames[:, :, :-1] - frames[:, :, 1:])
    both = torch.cat([frames[:, :, :1], differences], 2).flatten(2)
    recent = policy.actions(policy.recent(observation))[:, None]
    x = torch.relu(policy.embed(torch.relu(policy.patch(both) + recent)))
    wanted = nn.functional.layer_norm(x, x.shape[-1:])
    torch.testing.assert_close(policy._patches(observation, None)[0], wanted, rtol=1e-5, atol=1e-5)


def test_the_cnn_sees_the_picture_that_was_cut() -> None:
    policy = build("cnn")
    seen = []
    policy.convolve.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    frame = np.random.default_rng(0).integers(0, 256, (1, 48, 54, 1)).astype(np.uint8)
    older = 255 - frame
    tokens = np.stack([cut(frame, SIDE), *[cut(older, SIDE)] * 3], 2).reshape(1, N, -1)
    observation = random_steps(0, 1, 2)[0]
    observation = {key: value[:1] for key, value in observation.items()}
    policy.encode({**observation, "tokens": torch.from_numpy(tokens)}, {})
    assert seen[0].shape == (1, K, 48, 54)
    np.testing.assert_allclose((seen[0][0, 0].numpy() + 0.5) * 255, frame[0, ..., 0])
    np.testing.assert_allclose((seen[0][0, 3].numpy() + 0.5) * 255, older[0, ..., 0])
    with pytest.raises(UserError, match=r"built for 72 patches \(8 x 9\), got 60"):
        policy.encode(taken(observation, torch.arange(60)), {})


def test_the_control_learns_from_pictures_that_differ_little() -> None:
    """As those of a race do: without normalised features its head came to its bounds and stayed there."""
    torch.manual_seed(0)
    policy = PatchCNN(SPEC, GRID, SIDE, **TOLD)
    rng = np.random.default_rng(0)
    ground = rng.integers(80, 120, (1, N, K * SIDE**2))
    wanted = torch.from_numpy(rng.uniform(-0.8, 0.8, 24)).float()
    tokens = np.repeat(ground, 24, 0)
    tokens[:, N // 2 : N // 2 + 6] += (20 * wanted[:, None, None]).numpy().astype(int)  # a brighter spot
    observation = {"tokens": torch.from_numpy(tokens.astype(np.uint8)), "mask": torch.ones(24, N)}
    labels = torch.stack([wanted, torch.full((24,), 0.9), torch.full((24,), -0.9)], 1)
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    for _ in range(70):
        errors = policy.act(policy.encode(observation, {})[0], observation) - labels
        optimizer.zero_grad()
        errors.square().mean().backward()
        optimizer.step()
    assert errors[:, 0].square().mean() < 0.1 * wanted.var()


class Published(nn.Module):
    """The published agent from torch's own modules, one set at a time (Tang and Ha 2021, section 4.4)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(8, 16), nn.Linear(111, 16), nn.Linear(144, 16)
        self.vote_query, self.vote_key = nn.Linear(16, 4), nn.Linear(16, 4)
        self.cell, self.head = nn.LSTMCell(20, 16), nn.Linear(16, 3)
        self.mix = nn.Sequential(nn.Linear(19, 16), nn.Tanh(), nn.Linear(16, 1), nn.Sigmoid())

    def start(self) -> None:
        self.alpha, self.before, self.state = 0.0, torch.zeros(1024, 16).double(), None

    def forward(self, frames: Tensor, action: Tensor) -> Tensor:
        """frames (4, 96, 96) in [0, 1], oldest first; action (1, 3)."""
        angle = torch.arange(1024).double()[:, None] / 10000 ** (2 * (torch.arange(8) // 2) / 8)
        table = torch.where(torch.arange(8) % 2 == 0, angle.sin(), angle.cos()).float().double()
        patches = frames.unfold(1, 6, 6).unfold(2, 6, 6)  # (4, 16, 16, 6, 6)
        patches = patches.reshape(4, 256, 36)
        changes = (patches[1:] - patches[:-1]).permute(1, 2, 0).reshape(256, 108)
        keys = self.key(torch.cat([changes, action.expand(256, 3)], 1))
        values = self.value(nn.functional.layer_norm(patches, (36,)).permute(1, 0, 2).reshape(256, 144))
        weights = torch.softmax(self.query(table) @ keys.T / 4, -1)
        gathered = nn.functional.layer_norm(torch.relu(weights @ values), (16,))
        gathered = (1 - self.alpha) * gathered + self.alpha * self.before
        self.before = gathered
        votes = torch.softmax(self.vote_query(gathered) @ self.vote_key(gathered).T, -1).sum(0)
        chosen = votes.argsort(descending=True)[:10]
        places = torch.stack([chosen // 32, chosen % 32], 1).double().flatten() / 32
        self.state = self.cell(places[None], self.state)
        action = torch.tanh(self.head(self.state[0]))
        self.alpha = self.mix(torch.cat([self.state[0], action], 1))[0]
        return action


def test_the_published_agent_has_its_7212_parameters_in_their_order() -> None:
    torch.manual_seed(3)
    published = Published().double()
    for parameter in published.parameters():
        nn.init.normal_(parameter, std=0.5)
    flat = torch.cat([p.detach().flatten() for p in published.parameters()]).numpy()
    assert flat.size == 7212
    policy = PatchAttentionNeuron(SPEC, n_actions=3, n_recent=4, n_privileged=S).double()
    policy.set_flat(flat)
    flat32 = torch.from_numpy(flat.astype(np.float32)).double()
    nn.utils.vector_to_parameters(flat32, published.parameters())
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (96, 96)) for _ in range(4)]  # newest first
    published.start()
    memory, action = policy.initial_memory(1, 256), torch.zeros(1, 3).double()
    with torch.no_grad():
        for _ in range(5):
            frames = [(frames[0] + rng.integers(0, 60, (96, 96))) % 256, *frames[:3]]
            tokens = np.stack([cut(f[None, ..., None], 6) for f in frames], 2).reshape(1, 256, 144)
            recent = torch.zeros(1, 4, 3).double()
            recent[:, -1] = action
            observation = {
                "tokens": torch.from_numpy(tokens.astype(np.uint8)),
                "mask": torch.ones(1, 256),
                "recent_actions": recent,
            }
            features, memory = policy.encode(observation, memory)
            found = policy.act(features, observation)
            oldest_first = torch.from_numpy(np.stack(frames[::-1])).double() / 255
            action = published(oldest_first, action)
            torch.testing.assert_close(found, action, rtol=1e-9, atol=1e-9)
    assert action.abs().max() > 0.05
    with pytest.raises(UserError, match=r"\(7211,\) parameters given; this PatchAttentionNeuron has 7212"):
        policy.set_flat(flat[:-1])


@pytest.mark.parametrize("name", POLICIES)
def test_the_number_of_patches_is_in_no_shape(name: str) -> None:
    policy = build(name)
    shapes = {size for p in policy.parameters() for size in p.shape}
    assert name == "cnn" or N not in shapes
    rebuilt = type(policy)(policy.spec, **policy.architecture())
    assert rebuilt.architecture() == policy.architecture()
    rebuilt.double().load_state_dict(policy.state_dict())
    observations = random_steps(1)
    torch.testing.assert_close(play(rebuilt, observations), play(policy, observations))


@pytest.mark.parametrize("name", ["transformer", "transformer_with_traces", "jigsaw", "cnn"])
def test_every_acting_parameter_gets_a_gradient(name: str) -> None:
    policy = build(name)
    observation = told(policy, random_steps(0, 1)[0])
    features, _ = policy.encode(observation, {})
    policy.act(features, observation).square().sum().backward()
    for parameter_name, parameter in policy.acting_parameters().items():
        if name == "jigsaw" and parameter_name.startswith(("guess.", "jigsaw.")):
            assert parameter.grad is None, "the question alone teaches where patches are"
        else:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name
    if name == "jigsaw":
        policy.encode_to_learn(observation)[1].sum().backward()
        for parameter_name, parameter in policy.acting_parameters().items():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", ["transformer_with_traces", "jigsaw"])
def test_training_asks_where_each_patch_is(name: str) -> None:
    policy = build(name)
    observation = told(policy, random_steps(0, 1)[0])
    observation["sensor"][1, :5] = N  # channels of noise
    features, losses = policy.encode_to_learn(observation)
    assert torch.equal(features, policy.encode(observation, {})[0])
    traces = policy.normalizer.traces(observation)
    if name == "jigsaw":
        around, mask = observation["neighbors"], observation["mask"]
        guesses = policy.jigsaw(policy.guess(traces), traces[..., -8:], around, mask)
    else:
        guesses = policy.identity(policy.guess(traces))
    rows, columns = (guess.log_softmax(-1) for guess in guesses.split(GRID, -1))
    for row in range(2):
        asked = [i for i in range(N) if observation["mask"][row, i] and observation["sensor"][row, i] < N]
        assert (row == 0) == (len(asked) == N)
        chances = [rows[row, i, i // GRID[1]] + columns[row, i, i % GRID[1]] for i in asked]
        torch.testing.assert_close(losses[row], -0.1 * torch.stack(chances).mean())


@pytest.mark.parametrize("name", POLICIES)
def test_a_batch_may_be_empty(name: str) -> None:
    policy = build(name)  # a thread's part of a small batch is
    nobody = {key: value[:0] for key, value in told(policy, random_steps(0, 1)[0]).items()}
    assert play(policy, [nobody]).shape == (1, 0, A + 1)
    if policy.has_auxiliary_loss:
        assert policy.encode_to_learn(nobody)[1].shape == (0,)


def test_patches_whose_places_are_known_make_the_picture() -> None:
    policy, observation = build("jigsaw"), random_steps(0, 1)[0]
    where = observation["sensor"]
    sure = [
        50.0 * nn.functional.one_hot(part, size)
        for part, size in zip((where // 9, where % 9), GRID, strict=True)
    ]
    seen = []
    policy.convolve.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    policy._see(observation, torch.cat(sure, -1).double())
    frames = policy.frames(observation)  # (B, N, K, D)
    both = torch.cat([frames[:, :, :1], 4 * (frames[:, :, :-1] - frames[:, :, 1:])], 2).flatten(2)
    held = torch.relu(policy.patch(both)).mT.unflatten(-1, GRID)  # (B, width, R, C)
    torch.testing.assert_close(seen[0][0, :-1], held[0].detach() / 1.1, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen[0][0, -1], torch.ones(GRID).double())
    missing = (observation["mask"][1] == 0).unflatten(0, GRID)
    assert missing.any() and seen[0][1, :, missing].max() < 1e-9 and (seen[0][1, -1, ~missing] > 1).all()


def test_what_the_traces_tell_matters_and_is_needed() -> None:
    policy, observations = build("transformer_with_traces"), random_steps(0)
    other = [{**o, "traces": o["traces"].flip(1)} for o in observations]
    assert (play(policy, observations) - play(policy, other))[..., :A].abs().max() > 1e-3
    policy = build("jigsaw")
    other = [{**o, "neighbors": o["neighbors"].flip(1)} for o in observations]
    assert (play(policy, observations) - play(policy, other))[..., :A].abs().max() > 1e-3
    with pytest.raises(UserError, match=r"guess where patches are: say env.senses.traces"):
        PatchJigsaw(SPEC, GRID, **TOLD)
    with pytest.raises(UserError, match=r"asks where a patch is: say env.senses.traces"):
        PatchTransformer(SPEC, **TOLD, identify=0.1, grid=GRID)
