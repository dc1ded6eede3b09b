"""The rival is a policy like any other: shapes, masks, no influence of padding and order."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from somite.scripts.benchmarks.training import NaiveTransformer
from tests.agents.policies.helpers import draw_large
from tests.observations import SPEC, pad, permute_joints, permute_limbs, random_observation

CLOSE = {"rtol": 1e-3, "atol": 1e-3}
MARGIN = 0.1  # a hundred times the tolerance


@pytest.fixture
def policy():
    """With weights so large that wrong wiring cannot hide in rounding, acting (not learning)."""
    torch.manual_seed(0)
    policy = NaiveTransformer(SPEC, width=16, feedforward=32)
    draw_large(policy, 1.5)
    return policy.eval()


@torch.no_grad()
def run(policy, observation):
    features, memory = policy.encode(observation, policy.initial_memory(*observation["mask"].shape))
    assert memory == {}
    return policy.act(features, observation), policy.value(features, observation)


@pytest.mark.parametrize("training", [False, True], ids=["acting", "learning"])
def test_shapes_and_masks(policy, training):
    observation = random_observation(0)
    action, value = run(policy.train(training), observation)
    assert action.shape == observation["action_mask"].shape and value.shape == (4,)
    assert torch.all(action[observation["action_mask"] == 0] == 0)
    assert action.abs().max() > MARGIN and value.std() > MARGIN


def test_acting_and_learning_compute_the_same(policy):
    """PyTorch takes another path without gradients; dropout would make a third result."""
    acting = run(policy.eval(), random_observation(0))
    torch.testing.assert_close(run(policy.train(), random_observation(0)), acting, **CLOSE)


@pytest.mark.parametrize("training", [False, True], ids=["acting", "learning"])
def test_padding_has_no_influence(policy, training):
    policy.train(training)
    observation = random_observation(0)
    limb_slots, joint_slots = np.array([7, 0, 3, 8, 5, 2]), np.array([2, 0])
    action, value = run(policy, observation)
    padded = pad(observation, limb_slots, joint_slots, 9, 3)
    # What stands at padding is not read.
    padded["tokens"][padded["mask"] == 0] = 1e3
    padded["joints"][padded["joint_mask"] == 0] = 1e3
    padded_action, padded_value = run(policy, padded)
    torch.testing.assert_close(padded_action[:, limb_slots[:, None], joint_slots[None]], action, **CLOSE)
    torch.testing.assert_close(padded_value, value, **CLOSE)


def test_order_carries_no_information(policy):
    observation = random_observation(0)
    action, value = run(policy, observation)
    order, joint_order = np.array([3, 5, 0, 1, 4, 2]), np.array([1, 0])
    moved_action, moved_value = run(policy, permute_joints(permute_limbs(observation, order), joint_order))
    torch.testing.assert_close(moved_action, action[:, order][:, :, joint_order], **CLOSE)
    torch.testing.assert_close(moved_value, value, **CLOSE)


def test_architecture_rebuilds_it(policy):
    rebuilt = NaiveTransformer(SPEC, **json.loads(json.dumps(policy.architecture()))).eval()
    rebuilt.load_state_dict(policy.state_dict())
    observation = random_observation(0)
    for one, other in zip(run(policy, observation), run(rebuilt, observation), strict=True):
        assert torch.equal(one, other)


def test_every_parameter_learns_and_the_critic_has_its_own(policy):
    observation = random_observation(0, batch=32)
    features, _ = policy.encode(observation, {})
    policy.value(features, observation).square().sum().backward()
    assert all(parameter.grad is None for parameter in policy.trunk.parameters())
    features, _ = policy.encode(observation, {})
    (policy.act(features, observation) * policy.log_std.exp()).square().sum().backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
