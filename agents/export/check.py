"""Whether an exported graph acts as the policy does: random observations, through both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..agent import Agent
from ..policies import PatchAttentionNeuron
from ..policies.base import Policy
from .graph import ActingGraph, Sizes

# What is tried, as far as it is free.
CHECKED = (Sizes(1, 1), Sizes(1, 6, 2), Sizes(3, 9), Sizes(2, 17, 3), Sizes(1, 64))
STEPS = 3  # that the memory is carried over
SURE = 1e-5  # of the largest vote: closer ones may change places by rounding
Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]  # from inputs to outputs, by name


def random_observation(
    policy: Policy, sizes: Sizes, rng: np.random.Generator, known: Mapping[str, Tensor] | None = None
) -> dict[str, np.ndarray]:
    """What an environment might tell, as NumPy arrays (B, ...): some tokens missing, in the first row none.

    States are drawn around what the normaliser has seen, so that it does not clip them. ``known``: parts that
    are what they are, (1, ...).
    """
    batch, n, _ = sizes
    mask = rng.random((batch, n)) < 0.8
    mask[0] = True
    mask[np.arange(batch), rng.integers(0, n, batch)] = True  # where nothing is there is nothing to do
    fixed = {key: np.repeat(value.numpy(), batch, 0) for key, value in (known or {}).items()}
    mask = fixed.get("mask", mask) != 0
    found = {"mask": mask.astype(np.int8), "tokens": _states(policy, "token", mask, rng)}
    if policy.kind == "limbs":
        has_joint = (rng.random(sizes) < 0.7) & mask[..., None]
        has_joint = fixed.get("joint_mask", has_joint) != 0
        is_driven = has_joint & (rng.random(sizes) < 0.8)
        limbs = {
            "parent": np.stack([random_parents(row, rng) for row in mask]),
            "joints": _states(policy, "joint", has_joint, rng),
            "joint_mask": has_joint.astype(np.int8),
            "action_mask": is_driven.astype(np.int8),
        }
        return {**found, **limbs, **fixed}
    if policy.kind == "patches":
        pixels = rng.integers(0, 256, (batch, n, policy.spec.token_size))
        found["tokens"] = (pixels * mask[..., None]).astype(np.uint8)
    shape = (batch, policy.n_recent, policy.n_actions)
    if policy.discrete:
        recent = np.eye(policy.n_actions)[rng.integers(0, policy.n_actions, shape[:2])]
    else:
        recent = rng.uniform(-1, 1, shape)
    found["recent_actions"] = recent.astype(np.float32)
    if policy.spec.trace_size:
        found["traces"] = _states(policy, "trace", mask, rng)
    if policy.spec.has_neighbors:
        found["neighbors"] = rng.integers(0, n, (batch, n, 4)).astype(np.int32)
    return found


def random_parents(exists: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) int32 of a random tree of the limbs that exist, in any order; -1 for its root and at padding."""
    parents = np.full(len(exists), -1, np.int32)
    slots = rng.permutation(np.flatnonzero(exists))
    for place in range(1, len(slots)):
        parents[slots[place]] = slots[rng.integers(max(0, place - 3), place)]  # trees that are deep
    return parents


def _states(policy: Policy, kind: str, exists: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(..., F) float32 around the running mean of a kind of features, 0 where there is nothing."""
    shift, scale = (getattr(policy.normalizer, f"{kind}_{part}").numpy() for part in ("shift", "scale"))
    values = shift + rng.normal(size=(*exists.shape, shift.shape[-1])) / scale
    return np.where(exists[..., None], values, 0).astype(np.float32)


class Check(NamedTuple):
    """What a comparison found."""

    # The largest of an action, a logit or a number of the memory: absolute below 1 and relative above; of
    # choices, that of their logits; infinite if one is NaN or shapes differ.
    difference: float
    sizes: tuple[Sizes, ...]  # that were tried
    compared: int  # actions of an environment that were compared
    within: float  # share of the numbers in them that were not at a bound, where a difference cannot show


def check(policy: Policy, graph: ActingGraph, run: Run, seed: int = 0) -> Check:
    """How far the exported graph, run elsewhere, is from ``Agent.act`` at most, over several sizes and steps.

    What the graph has fixed replaces the sizes' own.
    """
    only = {**graph.sizes, **({} if policy.kind == "limbs" else {"joints": 1})}
    tried = tuple(dict.fromkeys(size._replace(**only) for size in CHECKED))
    rng = np.random.default_rng(seed)
    steps = [step for size in tried for step in _episode(policy, graph, run, size, rng)]
    differences, rows, actions = zip(*steps, strict=True)
    actions = np.concatenate([part.ravel() for part in actions])
    within = float(np.mean(np.abs(actions) < 1)) if len(actions) and not graph.discrete else 1.0
    return Check(max(differences), tried, sum(rows), within)


def _episode(
    policy: Policy, graph: ActingGraph, run: Run, sizes: Sizes, rng: np.random.Generator
) -> Iterator[tuple[float, int, np.ndarray]]:
    """Of each step the difference, the rows that were compared, and what was to come out.

    The graph and the policy each carry their own memory on.
    """
    agent, memory = Agent(policy), policy.initial_memory(sizes.batch, sizes.tokens)
    own = {f"memory.{key}": value.numpy() for key, value in memory.items()}
    sure = np.ones(sizes.batch, bool)
    for _ in range(STEPS):
        observation = random_observation(policy, sizes, rng, graph.constants)
        outputs = run({**{key: observation[key] for key in graph.keys}, **own})
        own = {key: outputs[f"{key}.next"] for key in own}
        wanted = agent.act(observation)
        with torch.inference_mode():  # actions before they are clipped, or logits, and the next memory
            prepared = policy.prepare({key: torch.from_numpy(value) for key, value in observation.items()})
            features, memory = policy.encode(prepared, memory)
            action = policy.act(features, prepared).numpy()
            if isinstance(policy, PatchAttentionNeuron):
                sure &= _is_sure(policy, memory)
        if graph.discrete:
            chosen = (_chosen(policy, action, choice) for choice in (outputs["choice"], wanted))
            parts = [(outputs["action"], action), tuple(chosen)]
        else:
            parts = [(outputs["action"], wanted)]
        parts += [(own[f"memory.{key}"], value.numpy()) for key, value in memory.items()]
        difference = max(_apart(found, wanted, sure) for found, wanted in parts)
        driven = observation["action_mask"] != 0 if policy.kind == "limbs" else np.ones(action.shape, bool)
        yield difference, int(sure.sum()), parts[0][1][driven & sure.reshape(-1, *(1,) * (action.ndim - 1))]


def _is_sure(policy: PatchAttentionNeuron, memory: Mapping[str, Tensor]) -> np.ndarray:
    """(B,) whether the places that it has just chosen do not hang on rounding: their votes are apart.

    Others may be chosen elsewhere, and nothing that follows is comparable. With a single patch all places
    have the same votes.
    """
    picture = memory["map"]
    votes = torch.matmul(policy.vote_query(picture), policy.vote_key(picture).mT).softmax(-1).sum(-2)
    first = votes.topk(policy.places + 1, dim=-1).values
    return ((first[:, :-1] - first[:, 1:]).amin(-1) > SURE * first[:, 0]).numpy()


def _chosen(policy: Policy, logits: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """The logits (B, K) of each choice (B,) or (B, K): of equal ones, either may be chosen."""
    counts = [logits.shape[1]] if policy.discrete is True else policy.discrete
    first = np.cumsum(counts) - counts
    return np.take_along_axis(logits, choice.reshape(len(logits), -1) + first, 1)


def _apart(found: np.ndarray, wanted: np.ndarray, rows: np.ndarray) -> float:
    """Largest difference of the rows that count; infinite where shapes differ or something is NaN."""
    if found.shape != wanted.shape:
        return float("inf")
    found, wanted = found[rows], wanted[rows]
    difference = float(np.max(np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted)), initial=0.0))
    return float("inf") if np.isnan(difference) else difference
