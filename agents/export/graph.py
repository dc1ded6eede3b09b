"""The acting part of a policy as one function of arrays: what an environment tells in, actions out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...envs.tokens import LIMB_KEYS, SENSOR_KEYS
from ..policies import PatchCNN
from ..policies.base import Memory, Observation, Policy
from .parts import exportable


class Sizes(NamedTuple):
    """How many environments (B), tokens of each (N), and joint slots of each limb (J)."""

    batch: int
    tokens: int
    joints: int = 1


class Array(NamedTuple):
    """An input or output: its name, type, and the name (free) or the size (fixed) of each axis."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


def fixed_sizes(policy: Policy, constants: Mapping[str, Tensor] | None = None) -> dict[str, int]:
    """The sizes of `Sizes` that the policy, or what is known of its body, does not leave free."""
    if constants:
        _, tokens, joints = constants["joint_mask"].shape
        return {"tokens": tokens, "joints": joints}
    if isinstance(policy, PatchCNN):
        return {"tokens": math.prod(policy.grid)}
    sizes = {"tokens": getattr(policy, "n_tokens", None), "joints": getattr(policy, "n_joints", None)}
    return {name: size for name, size in sizes.items() if size is not None}


class ActingGraph(nn.Module):
    """What ``Agent.act`` computes, without noise, as a function of arrays in a fixed order.

    Args:
        policy: which acts; float32, on the CPU.
        example: an observation (B, ...), to find out what the policy reads.
        constants: parts of every observation that are known beforehand, (1, ...), such as a body's
            ``parent``; they are no inputs then.

    Attributes:
        keys: of the observation that are inputs, in their order.
        memory_keys: of the memory, in their order.
        sizes: what is fixed, by the names of `Sizes`.
        constants: as given.
    """

    def __init__(
        self, policy: Policy, example: Observation, constants: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.sizes = fixed_sizes(policy, constants)
        self.constants = dict(constants or {})
        if constants:  # the tree is known, and with it the order in which messages pass along it
            self.policy, prepared = policy.eval(), policy.prepare(self.constants)
            example = policy.prepare(example)
        else:
            self.policy, prepared = exportable(policy), {}
        read = keys_read(self.policy, example)
        self.known = tuple(key for key in prepared if key in read)
        for key in self.known:
            self.register_buffer(f"known_{key}", prepared[key])
        order = LIMB_KEYS if policy.kind == "limbs" else SENSOR_KEYS
        self.keys = tuple(key for key in order if key in read and key not in self.known)
        self.memory_keys = tuple(policy.initial_memory(1, 1))

    @property
    def discrete(self) -> bool:
        """Whether actions are choices."""
        return bool(self.policy.discrete)

    def inputs(self) -> tuple[Array, ...]:
        """The observation's parts that are read, then the memory."""
        free = [Array(key, *_declared(self.policy, key)) for key in self.keys]
        arrays = [*free, *(Array(f"memory.{a.name}", a.dtype, a.shape) for a in self._memories())]
        return tuple(self._with_fixed(array) for array in arrays)

    def outputs(self) -> tuple[Array, ...]:
        """The action, the choice where it is one, and the next memory."""
        if self.policy.kind == "limbs":
            arrays = [Array("action", "float32", ("batch", "tokens", "joints"))]
        else:
            arrays = [Array("action", "float32", ("batch", self.policy.n_actions))]
        if self.discrete:
            decisions = () if self.policy.discrete is True else (len(self.policy.discrete),)
            arrays.append(Array("choice", "int64", ("batch", *decisions)))
        arrays += [Array(f"memory.{a.name}.next", a.dtype, a.shape) for a in self._memories()]
        return tuple(self._with_fixed(array) for array in arrays)

    def arrays(self, observation: Mapping[str, np.ndarray], memory: Memory) -> tuple[Tensor, ...]:
        """The arguments of `forward` for an observation (B, ...) as an environment gives it, and a memory."""
        told = (torch.from_numpy(np.ascontiguousarray(observation[key])) for key in self.keys)
        # Copies: two parts of a memory that share theirs would be taken for one input.
        return (*told, *(memory[key].clone() for key in self.memory_keys))

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """Actions in [-1, 1], or logits (B, A) and choices (B,) or (B, K); then the next memory."""
        batch = arrays[0].shape[0]
        observation = {
            # Flags and indices come in small types, for which few operations of ONNX are there.
            key: value if value.is_floating_point() or value.dtype == torch.uint8 else value.to(torch.int32)
            for key, value in zip(self.keys, arrays, strict=False)
        }
        for key in self.known:
            value = getattr(self, f"known_{key}")
            observation[key] = value.expand(batch, *value.shape[1:])
        memory = dict(zip(self.memory_keys, arrays[len(self.keys) :], strict=True))
        features, after = self.policy.encode(observation, memory)
        action = self.policy.act(features, observation).float()
        told = (action, self.policy.choose(action)) if self.discrete else (action.clamp(-1.0, 1.0),)
        return (*told, *(after[key] for key in self.memory_keys))

    def _memories(self) -> list[Array]:
        """Of each part of the memory, which of its axes go with the batch and with the tokens."""
        few, many = (self.policy.initial_memory(batch, tokens) for batch, tokens in ((2, 5), (3, 7)))
        names = {(2, 3): "batch", (5, 7): "tokens"}
        return [
            Array(key, str(few[key].dtype).removeprefix("torch."), tuple(names.get(p, p[0]) for p in pairs))
            for key, pairs in ((key, list(zip(few[key].shape, many[key].shape, strict=True))) for key in few)
        ]

    def _with_fixed(self, array: Array) -> Array:
        return array._replace(shape=tuple(self.sizes.get(str(axis), axis) for axis in array.shape))


def keys_read(policy: Policy, example: Observation) -> set[str]:
    """Names of what `encode` and `act` read of an observation."""
    read: set[str] = set()

    class Recorder(dict):
        def __getitem__(self, key: str) -> Tensor:
            read.add(key)
            return super().__getitem__(key)

    with torch.no_grad():
        observation = Recorder(example)
        features, _ = policy.encode(observation, policy.initial_memory(*example["mask"].shape))
        policy.act(features, observation)
    return read


def _declared(policy: Policy, key: str) -> tuple[str, tuple[str | int, ...]]:
    """Type and shape of a part of an observation, all its axes that may be free named."""
    spec, limbs = policy.spec, ("batch", "tokens")
    pixels = "uint8" if policy.kind == "patches" else "float32"
    declared: dict[str, tuple[str, tuple[str | int, ...]]] = {
        "tokens": (pixels, (*limbs, spec.token_size)),
        "mask": ("int8", limbs),
        "parent": ("int32", limbs),
        "joints": ("float32", (*limbs, "joints", spec.joint_size)),
        "joint_mask": ("int8", (*limbs, "joints")),
        "action_mask": ("int8", (*limbs, "joints")),
        "traces": ("float32", (*limbs, spec.trace_size)),
        "neighbors": ("int32", (*limbs, 4)),
    }
    if key == "recent_actions":
        return "float32", ("batch", policy.n_recent, policy.n_actions)
    return declared[key]


def axis_names(arrays: tuple[Array, ...]) -> tuple[dict[int, str], ...]:
    """Of each array, its free axes and their names, as ``torch.onnx.export`` wants them."""
    return tuple({i: axis for i, axis in enumerate(a.shape) if isinstance(axis, str)} for a in arrays)


def free_axes(arrays: tuple[Array, ...]) -> tuple[str, ...]:
    """Names of the axes that are free, in their order."""
    names = itertools.chain.from_iterable(a.shape for a in arrays)
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))
