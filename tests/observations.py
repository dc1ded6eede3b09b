"""Random valid limb observations: mixed topologies, any order of indices, padding anywhere."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from somite.envs.tokens import LIMB_KEYS, Feature, TokenSpec

SPEC = TokenSpec(
    token=(
        Feature("position", 3, "state", "m", "of the limb"),
        Feature("mass", 2, "descriptor", "kg", "of the limb"),
        Feature("speed", 1, "state", "m/s", "of the limb"),
    ),
    joint=(
        Feature("axis", 2, "descriptor", "1", "of the joint"),
        Feature("angle", 2, "state", "rad", "of the joint"),
    ),
)
"""A small specification whose state and descriptor columns are mixed: F = 6, G = 4."""

PER_JOINT = ("joints", "joint_mask", "action_mask")

Observation = dict[str, Tensor]


def random_parents(rng: np.random.Generator, n_limbs: int, n_roots: int = 1) -> np.ndarray:
    """(n_limbs,) parents of a random forest whose limbs stand in random order."""
    parents = np.array([-1 if i < n_roots else rng.integers(i) for i in range(n_limbs)])
    return relabel(parents, rng.permutation(n_limbs))


def relabel(parent: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Parents after limb ``order[i]`` has become limb i."""
    new_index = np.argsort(order)
    moved = parent[order]
    return np.where(moved < 0, -1, new_index[np.maximum(moved, 0)])


def random_observation(
    seed: int,
    batch: int = 4,
    n_tokens: int = 6,
    n_joints: int = 2,
    spec: TokenSpec = SPEC,
    max_roots: int = 2,
) -> Observation:
    """A batch of bodies of 1 to ``n_tokens`` limbs, each of its own topology, in random slots."""
    rng = np.random.default_rng(seed)
    observation = {
        "tokens": rng.normal(size=(batch, n_tokens, spec.token_size)).astype(np.float32),
        "mask": np.zeros((batch, n_tokens), np.int8),
        "parent": np.full((batch, n_tokens), -1, np.int32),
        "joints": rng.normal(size=(batch, n_tokens, n_joints, spec.joint_size)).astype(np.float32),
        "joint_mask": rng.integers(0, 2, (batch, n_tokens, n_joints)).astype(np.int8),
    }
    for row in range(batch):
        # The first body is full, so that something is always there to compare.
        n_limbs = n_tokens if row == 0 else int(rng.integers(1, n_tokens + 1))
        slots = rng.permutation(n_tokens)[:n_limbs]
        parents = random_parents(rng, n_limbs, int(rng.integers(1, min(max_roots, n_limbs) + 1)))
        observation["mask"][row, slots] = 1
        observation["parent"][row, slots] = np.where(parents < 0, -1, slots[np.maximum(parents, 0)])
    observation["joint_mask"][0, 0] = 1
    observation["joint_mask"] *= observation["mask"][..., None]
    actuated = rng.random(observation["joint_mask"].shape) < 0.8
    actuated[0, 0] = True
    observation["action_mask"] = observation["joint_mask"] * actuated.astype(np.int8)
    observation["tokens"] *= observation["mask"][..., None]
    observation["joints"] *= observation["joint_mask"][..., None]
    assert set(observation) == set(LIMB_KEYS)
    return {name: torch.from_numpy(values) for name, values in observation.items()}


def permute_limbs(observation: Observation, order: np.ndarray) -> Observation:
    """The same bodies after limb ``order[i]`` has become limb i."""
    moved = {name: values[:, order] for name, values in observation.items()}
    parents = [relabel(row, order) for row in observation["parent"].numpy()]
    moved["parent"] = torch.from_numpy(np.stack(parents).astype(np.int32))
    return moved


def permute_joints(observation: Observation, order: np.ndarray) -> Observation:
    """The same bodies after every limb's joint slot ``order[i]`` has become slot i."""
    moved = {name: observation[name][:, :, order] for name in PER_JOINT}
    return {**observation, **moved}


def pad(
    observation: Observation, limb_slots: np.ndarray, joint_slots: np.ndarray, n: int, j: int
) -> Observation:
    """The same bodies with limb i in slot ``limb_slots[i]`` of n, its joints likewise in j slots."""
    padded = {}
    for name, values in observation.items():
        shape = list(values.shape)
        shape[1] = n
        if name in PER_JOINT:
            shape[2] = j
        target = torch.full(shape, -1 if name == "parent" else 0, dtype=values.dtype)
        if name == "parent":
            slots = torch.from_numpy(limb_slots).to(values.dtype)
            values = torch.where(values < 0, -1, slots[values.clamp(min=0).long()])
        if name in PER_JOINT:
            target[:, limb_slots[:, None], joint_slots[None]] = values
        else:
            target[:, limb_slots] = values
        padded[name] = target
    return padded
