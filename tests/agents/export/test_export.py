"""Exported graphs act as the policies do: for all sizes, with padding, with memory, in any order."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from somite.agents import Agent
from somite.agents.export.check import CHECKED, check, random_observation
from somite.agents.export.graph import Sizes, exportable
from tests.agents.export.exports import POLICIES, TOLERANCE, build, exported, marked
from tests.agents.policies import helpers, test_patch_policies, test_sensor_policies
from tests.observations import permute_limbs
from tests.observations import random_observation as bodies_observation

pytest.importorskip("onnxruntime", reason="the export needs its extra")

FIXED = {
    "limbs/mlp": {"tokens": helpers.N_TOKENS, "joints": helpers.N_JOINTS},
    "sensors/mlp": {"tokens": test_sensor_policies.N},
    "patches/cnn": {"tokens": test_patch_policies.N},
}
LIMB_INPUTS = ["tokens", "mask", "joints", "joint_mask", "action_mask"]
"""What modular policies read that do not look at the tree."""


def started(policy, graph, sizes):
    memory = policy.initial_memory(sizes.batch, sizes.tokens)
    return {f"memory.{key}": memory[key].numpy() for key in graph.memory_keys}


@pytest.mark.parametrize("name", marked(POLICIES))
def test_the_graph_is_the_policy(name):
    policy, graph, model, run = exported(name)
    found = check(policy, graph, run, seed=1)
    assert found.difference < TOLERANCE and found.compared > 10 and found.within > 0.3
    assert graph.sizes == FIXED.get(name, {})
    tried = {size.tokens for size in found.sizes}
    assert len(tried) == 1 if "tokens" in graph.sizes else len(tried) == len(CHECKED)
    assert [i.name for i in model.graph.input] == [array.name for array in graph.inputs()]
    weights = [i.name for i in model.graph.initializer]
    assert weights and not [w for w in weights if "critic" in w or "value_head" in w or "log_std" in w]
    text = model.SerializeToString()
    assert str(Path(__file__).parents[3]).encode() not in text and b"site-packages" not in text


@pytest.mark.parametrize("name", marked(["limbs/transformer", "limbs/smp_none", "limbs/mlp"]))
def test_only_what_is_read_is_an_input(name):
    assert [array.name for array in exported(name)[1].inputs()] == LIMB_INPUTS


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["limbs/transformer_tree", "limbs/smp_both", "limbs/smp_up", "limbs/smp_down"]
)
def test_trees_are_told_by_parents(name):
    assert [a.name for a in exported(name)[1].inputs()] == ["tokens", "mask", "parent", *LIMB_INPUTS[2:]]


def test_memory_has_inputs_and_outputs():
    _, graph, model, _ = exported("sensors/neuron")
    assert [a.name for a in graph.inputs()][-2:] == ["memory.hidden", "memory.cell"]
    assert [o.name for o in model.graph.output] == ["action", "memory.hidden.next", "memory.cell.next"]
    shape = model.graph.input[3].type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in shape] == ["batch", "tokens", 8]


@pytest.mark.parametrize(
    "name", ["limbs/transformer_tree", "limbs/smp_both", "limbs/smp_up", "limbs/smp_down", "patches/jigsaw"]
)
def test_parts_that_are_computed_otherwise_give_the_same(name):
    """Before they are ONNX: on deep trees, several roots, patches that are missing."""
    policy = build(name)
    other = exportable(policy)
    for seed, sizes in enumerate((Sizes(3, 9, 2), Sizes(1, 1), Sizes(2, 40))):
        if name.startswith("limbs"):
            several = bodies_observation(seed, *sizes[:2], max_roots=3)
            told = random_observation(policy, sizes, np.random.default_rng(seed))
            observations = [several, {key: torch.from_numpy(value) for key, value in told.items()}]
        else:
            told = random_observation(policy, sizes, np.random.default_rng(seed))
            observations = [{key: torch.from_numpy(value) for key, value in told.items()}]
        for observation in observations:
            with torch.no_grad():
                prepared = policy.prepare(observation)
                wanted = policy.act(policy.encode(prepared, {})[0], prepared)
                found = other.act(other.encode(observation, {})[0], observation)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
            assert wanted.abs().max() > 1e-3


def test_limbs_in_a_ring_come_to_an_end():
    policy = exportable(build("limbs/smp_both"))
    observation = bodies_observation(0)
    observation["mask"][:], observation["parent"][:] = 1, torch.tensor([1, 2, 0, 4, 5, 3])
    with torch.no_grad():
        assert policy.encode(observation, {})[0].isfinite().all()


@pytest.mark.parametrize("name", ["sensors/neuron", "decisions/deep_set"])
def test_memory_is_carried_over_steps_with_missing_sensors(name):
    policy, graph, _, run = exported(name)
    rng, sizes = np.random.default_rng(5), Sizes(4, 11)
    agent, memory = Agent(policy), started(policy, graph, sizes)
    forgetful = []
    for _ in range(6):
        observation = random_observation(policy, sizes, rng)
        given = {key: observation[key] for key in graph.keys}
        outputs = run({**given, **memory})
        memory = {key: outputs[f"{key}.next"] for key in memory}
        wanted = agent.act(observation)
        if graph.discrete:
            assert wanted.shape == (4, 3) and (outputs["choice"] == wanted).all()
            assert (policy.choose(torch.from_numpy(outputs["action"])).numpy() == wanted).all()
        else:
            np.testing.assert_allclose(outputs["action"], wanted, atol=TOLERANCE)
        forgetful.append(run({**given, **started(policy, graph, sizes)})["action"] - outputs["action"])
    assert np.abs(forgetful[0]).max() == 0 and np.abs(forgetful[-1]).max() > 1e-3, "the memory matters"


@pytest.mark.parametrize("name", ["sensors/neuron", "decisions/deep_set"])
def test_shuffled_sensors_give_the_same_action(name):
    policy, graph, _, run = exported(name)
    rng, sizes = np.random.default_rng(5), Sizes(2, 9)
    observation, order = random_observation(policy, sizes, rng), rng.permutation(9)
    shuffled = {**observation, **{key: observation[key][:, order] for key in ("tokens", "mask")}}
    memory = started(policy, graph, sizes)
    first, second = (run({**{key: o[key] for key in graph.keys}, **memory}) for o in (observation, shuffled))
    np.testing.assert_allclose(second["action"], first["action"], atol=TOLERANCE)
    hidden = "memory.hidden.next"
    np.testing.assert_allclose(second[hidden], first[hidden][:, order], atol=TOLERANCE)


@pytest.mark.parametrize("name", marked(["limbs/smp_both", "limbs/transformer_tree", "limbs/mlp"]))
def test_relabelled_limbs_give_relabelled_actions_but_in_the_control(name):
    policy, graph, _, run = exported(name)
    observation = bodies_observation(3, n_tokens=helpers.N_TOKENS)
    order = np.random.default_rng(1).permutation(helpers.N_TOKENS)
    moved = permute_limbs(observation, order)
    first, second = (run({key: o[key].numpy() for key in graph.keys})["action"] for o in (observation, moved))
    difference = np.abs(second - first[:, order]).max()
    assert difference > 0.1 if name == "limbs/mlp" else difference < TOLERANCE


def test_a_fixed_axis_refuses_other_sizes():
    policy, graph, _, run = exported("limbs/mlp")
    sizes = Sizes(2, helpers.N_TOKENS + 1, helpers.N_JOINTS)
    observation = random_observation(policy, sizes, np.random.default_rng(0))
    with pytest.raises(Exception, match=r"Got: 7 Expected: 6"):
        run({key: observation[key] for key in graph.keys})


def test_the_check_finds_another_weight_a_lost_memory_and_what_is_no_number():
    policy, graph, _, run = exported("sensors/neuron")
    other = copy.deepcopy(policy)
    with torch.no_grad():
        other.action.bias.add_(1e-3)
    assert 1e-4 < check(other, graph, run).difference < 1e-2

    def forgets(inputs):
        return run({**inputs, "memory.hidden": np.zeros_like(inputs["memory.hidden"])})

    def is_no_number(inputs):
        return {**run(inputs), "action": np.full((len(inputs["mask"]), 2), np.nan, np.float32)}

    assert check(policy, graph, forgets).difference > 1e-3
    assert np.isinf(check(policy, graph, is_no_number).difference)
