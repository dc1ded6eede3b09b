"""Policies of every kind to export, and what is exported of them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from somite.agents.export.check import random_observation
from somite.agents.export.export import TRACED, runner, to_onnx
from somite.agents.export.graph import ActingGraph, fixed_sizes
from somite.agents.policies import AttentionNeuron, DeepSet, SensorTransformer
from tests.agents.policies import helpers, test_patch_policies, test_sensor_policies

TOLERANCE = 1e-5
SENSORS = test_sensor_policies
DISCRETE = {"n_actions": 4, "n_recent": SENSORS.K, "discrete": True, "critic": "shared"}


def limbs(name):
    policy = helpers.build(name)
    with torch.no_grad():  # large weights elsewhere; actions within their bounds, where differences show
        last = policy.actor[-1] if name == "mlp" else policy.action_head.action
        last.weight.mul_(0.1)
        last.bias.mul_(0.1)
    return policy


def silent():
    """As a new policy is: biases are 0, so that padding has no state and its messages are 0."""
    policy = limbs("smp_both")
    with torch.no_grad():
        for name, parameter in policy.trunk.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return policy


def small(kind, **more):
    """A policy with choices, and weights as large as those of a trained one."""
    torch.manual_seed(0)
    policy = kind(SENSORS.LONG, **{**DISCRETE, **more})
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5 if parameter.dim() else 1.0)
    return policy


POLICIES = {
    **{f"limbs/{name}": functools.partial(limbs, name) for name in helpers.POLICIES},
    **{f"sensors/{name}": functools.partial(SENSORS.build, name) for name in SENSORS.POLICIES},
    **{
        f"patches/{name}": functools.partial(test_patch_policies.build, name)
        for name in test_patch_policies.POLICIES
    },
    "silent/smp_both": silent,
    "choices/neuron": functools.partial(small, AttentionNeuron),
    "choices/transformer": functools.partial(small, SensorTransformer),
    "choices/deep_set": functools.partial(small, DeepSet),
    "decisions/deep_set": functools.partial(small, DeepSet, n_actions=6, discrete=[2, 3, 1]),
}
QUICK = ("limbs/mlp", "sensors/neuron", "decisions/deep_set")


def build(name):
    return POLICIES[name]().float().eval()


def marked(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@functools.cache
def exported(name):
    """The policy, its graph, the model, and the model in onnxruntime."""
    policy = build(name)
    sizes = TRACED._replace(**fixed_sizes(policy))
    example = random_observation(policy, sizes, np.random.default_rng(0))
    graph = ActingGraph(policy, {key: torch.from_numpy(value) for key, value in example.items()})
    model = to_onnx(graph, graph.arrays(example, policy.initial_memory(*sizes[:2])))
    return policy, graph, model, runner(model.SerializeToString())
