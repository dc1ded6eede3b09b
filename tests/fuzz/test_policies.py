"""Policy folders: any content is a policy, or is refused in one sentence."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
import struct

import pytest
from hypothesis import given, settings

from somite.agents import load_policy
from somite.agents.bundled import bundled_folder
from somite.agents.composition import check_fit
from somite.agents.evaluation.runs import task_of
from somite.agents.storage.policy import CheckpointError
from somite.envs.errors import UserError

from .mutations import INTERESTING, from_random, mutated_bytes

AGENTS = ("cheetah-smp", "cartpole_swingup-sensor_transformer", "cartpole_swingup-attention_neuron")
VALUES = (
    *INTERESTING,
    None,
    True,
    -1,
    0,
    1,
    2,
    7,
    64,
    10**6,
    10**9,
    2**63,
    10**400,
    -(10**18),
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [1, 2, 3],
    [[[[]]]],
    {"_target_": "os.system", "command": "touch marker"},
    [{"_target_": "somite.agents.storage.atomic.remove_folder", "folder": "."}],
    "os.system",
    "somite.agents.policies.MLP",
    "somite.envs.locomotion.RobotSet",
)
"""Values that a key might be given."""


def places(node, found=None):
    """Every object and list inside."""
    found = [] if found is None else found
    if isinstance(node, (dict, list)) and node:
        found.append(node)
        for inner in node.values() if isinstance(node, dict) else node:
            places(inner, found)
    return found


def changed_description(values, rng: random.Random):
    """Keys and values removed, doubled, renamed, exchanged and replaced."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        node = rng.choice(places(values[rng.choice(["policy", "spec", "environment"])]) or [values])
        if rng.random() < 0.1:
            node = values
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        kind = rng.randrange(5)
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node[rng.choice(["_args_", "_partial_", "__class__", "spec", "extra", "morphology", ""])] = node[
                key
            ]
        elif kind == 2 and isinstance(node, list):
            node.extend([node[key]] * rng.choice([1, 100, 5000]))
        elif kind == 3:
            node[key] = copy.deepcopy(rng.choice(list(values.values())))
        else:
            node[key] = rng.choice(VALUES)
        if not all(isinstance(values.get(part), (dict, list)) for part in ("policy", "spec", "environment")):
            break
        values = json.loads(json.dumps(values))
    return values


def changed_tensors(data: bytes, rng: random.Random) -> bytes:
    """Damaged anywhere, or with a header that claims something else."""
    if rng.random() < 0.4:
        return mutated_bytes(data, rng)
    (size,) = struct.unpack("<Q", data[:8])
    if rng.random() < 0.3:
        return struct.pack("<Q", rng.choice([0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1])) + data[8:]
    told = json.loads(data[8 : 8 + size])
    for _ in range(rng.choice([1, 1, 3])):
        name = rng.choice(list(told))
        kind = rng.randrange(5)
        if kind == 0:
            told[name]["dtype"] = rng.choice(
                ["F16", "F64", "BF16", "F8_E4M3", "C64", "I64", "F4", "?", None, 3]
            )
        elif kind == 1:
            told[name]["shape"] = rng.choice([[], [0], [-1], [2**62, 2**62], [10**15], [1.5], None, "x"])
        elif kind == 2:
            told[name]["data_offsets"] = rng.choice([[0, 0], [0, 2**62], [-8, 0], [8, 4], None, [0]])
        elif kind == 3:
            told[rng.choice(["x", "log_std", "", "__metadata__"])] = told.pop(name)
            if not told or not all(isinstance(part, dict) for part in told.values()):
                break
        else:
            told[name] = dict(told[rng.choice(list(told))])
    header = json.dumps(told).encode()
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def prepare(folder, rng: random.Random):
    """A hostile copy of a bundled policy; a stranger makes the checksum fit."""
    source = bundled_folder(rng.choice(AGENTS))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tensors, text = (source / "policy.safetensors").read_bytes(), (source / "policy.json").read_text()
    values, kind = json.loads(text), rng.randrange(4)
    if kind == 0:
        tensors = changed_tensors(tensors, rng)
    elif kind < 3:
        values = changed_description(values, rng)
    if kind == 0 and rng.random() < 0.9:
        values["sha256"] = hashlib.sha256(tensors).hexdigest()
    data = json.dumps(values).encode()
    (folder / "policy.safetensors").write_bytes(tensors)
    (folder / "policy.json").write_bytes(mutated_bytes(data, rng) if kind == 3 else data)


def act(agent):
    """A step in the environment that the policy says that it comes from."""
    bodies = task_of(agent).for_evaluation()
    env = bodies.make_vec(bodies.seen[:1], 1, aligned=agent.policy.aligned_slots, threads=1)
    check_fit(agent.policy, env)
    observation, _ = env.reset(seed=0)
    env.step(agent.act(observation))
    env.close()


@pytest.mark.parametrize(
    "count", [400, pytest.param(8000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])]
)
def test_any_folder_is_a_policy_or_is_refused(watch, count, monkeypatch):
    monkeypatch.setattr("os.system", lambda command: pytest.fail("ran code from a file"))
    folder = watch.folder / "policy"
    built = []

    def load():
        agent = load_policy(folder)
        try:
            act(agent)
        except UserError as error:
            raise CheckpointError(f"{folder}: {error}") from error
        built.append(agent)

    @settings(settings.get_profile("fuzz"), max_examples=count)
    @given(from_random(lambda rng: rng))
    def each(rng):
        prepare(folder, rng)
        watch(load, CheckpointError, folder)

    each()
    assert 0 < len(built) < watch.inputs, "some are policies still"
