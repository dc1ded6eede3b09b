"""Shared modular policies: who hears whom, and the level schedule against plain recursion."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from somite.agents.policies import SMP
from tests.observations import random_observation

from .helpers import CLOSE, build, run

N = 7
# Limb 4 is the root: 4 -> (1, 5), 1 -> (0, 6), 5 -> 2, 6 -> 3. Indices of parents may be larger.
PARENT = torch.tensor([[1, 4, 5, 6, -1, 4, 1]], dtype=torch.int32)
DESCENDANTS = {0: set(), 1: {0, 6, 3}, 2: set(), 3: set(), 4: {0, 1, 2, 3, 5, 6}, 5: {2}, 6: {3}}


def _heard(messages: str, limb: int) -> set[int]:
    below = DESCENDANTS[limb]
    above = {other for other, under in DESCENDANTS.items() if limb in under}
    return {limb} | {"none": set(), "up": below, "down": above, "both": set(range(N))}[messages]


@pytest.mark.parametrize("messages", ["none", "up", "down", "both"])
def test_a_limb_hears_exactly_those_whose_messages_reach_it(messages: str) -> None:
    observation = random_observation(0, batch=1, n_tokens=N, n_joints=1)
    observation["parent"] = PARENT
    for name in ("joint_mask", "action_mask"):
        observation[name] = torch.ones(1, N, 1, dtype=torch.int8)
    policy = build(f"smp_{messages}").double()
    action, _ = run(policy, observation)
    for changed in range(N):
        other = {**observation, "tokens": observation["tokens"].clone()}
        other["tokens"][0, changed] += 1
        moved = (run(policy, other)[0] - action).abs()[0, :, 0]
        for limb in range(N):
            if changed in _heard(messages, limb):
                # Messages fade with distance; in double precision rounding stays below 1e-12.
                assert moved[limb] > (1e-2 if limb == changed else 1e-9), (limb, changed)
            else:
                assert moved[limb] == 0, (limb, changed)


def _reference(policy: SMP, observation: dict[str, torch.Tensor], body: int) -> dict[int, torch.Tensor]:
    """Features of one body's limbs by plain recursion over its tree, limb by limb."""
    trunk = policy.trunk
    tokens, joints = policy.normalizer(observation)
    read = trunk.reader(tokens, joints, observation["joint_mask"])[body]
    parent = observation["parent"][body].tolist()
    limbs = observation["mask"][body].nonzero().flatten().tolist()

    def below(limb: int) -> torch.Tensor:
        if trunk.bottom_up is None:
            return read[limb]
        net = trunk.bottom_up
        hidden = net.limb(read[limb])
        for child in (other for other in limbs if parent[other] == limb):
            hidden = hidden + net.from_children(functional.normalize(net.message(below(child)), dim=-1))
        return torch.tanh(hidden)

    def after(limb: int) -> torch.Tensor:
        if trunk.top_down is None:
            return functional.relu(trunk.alone(below(limb)))
        net = trunk.top_down
        hidden = net.limb(below(limb))
        if parent[limb] >= 0:
            hidden = hidden + net.from_parent(functional.normalize(net.message(after(parent[limb])), dim=-1))
        return functional.relu(hidden)

    return {limb: after(limb) for limb in limbs}


@pytest.mark.parametrize("messages", ["none", "up", "down", "both"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_batched_trees_equal_plain_recursion(messages: str, seed: int) -> None:
    observation = random_observation(seed, n_tokens=N)
    policy = build(f"smp_{messages}")
    with torch.no_grad():
        features, _ = policy.encode(policy.prepare(observation), {})
        for body in range(4):
            for limb, expected in _reference(policy, observation, body).items():
                torch.testing.assert_close(features[body, limb], expected, **CLOSE)


def test_preparing_a_cyclic_body_is_refused() -> None:
    observation = random_observation(0, batch=1, n_tokens=2)
    observation["parent"] = torch.tensor([[1, 0]])
    with pytest.raises(ValueError, match="cycle"):
        build("smp_up").prepare(observation)
