"""The acting part of a policy as one function of arrays: what an environment tells in, actions out.

Modules of a policy whose code depends on the sizes, or that ONNX has no operations for, are replaced in a
copy by others with the same parameters and arguments. These give the same numbers but for rounding, which
every export checks.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.nn import functional

from ...envs.tokens import LIMB_KEYS, SENSOR_KEYS
from ..policies import SMP, LimbTransformer, PatchCNN, PatchJigsaw, smp
from ..policies.base import Memory, Observation, Policy
from ..policies.limb_policy import parents_of
from ..policies.patch_policy import Jigsaw

DOUBLINGS = 10  # of the number of steps up a tree, which holds for trees of 1024 levels


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
        discrete: whether actions are choices.
    """

    def __init__(
        self, policy: Policy, example: Observation, constants: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.sizes, self.discrete = fixed_sizes(policy, constants), bool(policy.discrete)
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

    def inputs(self) -> tuple[Array, ...]:
        """The observation's parts that are read, then the memory."""
        policy, spec, limbs = self.policy, self.policy.spec, ("batch", "tokens")
        declared = {
            "tokens": ("uint8" if policy.kind == "patches" else "float32", (*limbs, spec.token_size)),
            "mask": ("int8", limbs),
            "parent": ("int32", limbs),
            "joints": ("float32", (*limbs, "joints", spec.joint_size)),
            "joint_mask": ("int8", (*limbs, "joints")),
            "action_mask": ("int8", (*limbs, "joints")),
            "traces": ("float32", (*limbs, spec.trace_size)),
            "neighbors": ("int32", (*limbs, 4)),
        }
        if policy.kind != "limbs":
            declared["recent_actions"] = ("float32", ("batch", policy.n_recent, policy.n_actions))
        arrays = [Array(key, *declared[key]) for key in self.keys]
        return self._with_fixed([*arrays, *self._memories("")])

    def outputs(self) -> tuple[Array, ...]:
        """The action, the choice where it is one, and the next memory."""
        axes = ("tokens", "joints") if self.policy.kind == "limbs" else (self.policy.n_actions,)
        arrays = [Array("action", "float32", ("batch", *axes))]
        if self.discrete:
            decisions = () if self.policy.discrete is True else (len(self.policy.discrete),)
            arrays.append(Array("choice", "int64", ("batch", *decisions)))
        return self._with_fixed([*arrays, *self._memories(".next")])

    def _memories(self, ending: str) -> list[Array]:
        """Of each part of the memory, which of its axes go with the batch and with the tokens."""
        few, many = (self.policy.initial_memory(batch, tokens) for batch, tokens in ((2, 5), (3, 7)))
        names = {(2, 3): "batch", (5, 7): "tokens"}
        found = []
        for key, one in few.items():
            shape = tuple(names.get(pair, pair[0]) for pair in zip(one.shape, many[key].shape, strict=True))
            found.append(Array(f"memory.{key}{ending}", str(one.dtype).removeprefix("torch."), shape))
        return found

    def _with_fixed(self, arrays: list[Array]) -> tuple[Array, ...]:
        return tuple(a._replace(shape=tuple(self.sizes.get(str(x), x) for x in a.shape)) for a in arrays)

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


def free_axes(arrays: tuple[Array, ...]) -> tuple[str, ...]:
    """Names of the axes that are free, in their order."""
    names = itertools.chain.from_iterable(a.shape for a in arrays)
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def exportable(policy: Policy) -> Policy:
    """A copy of the policy that acts alike, without `prepare`, and whose graph is the same for all sizes."""
    made = copy.deepcopy(policy).eval().requires_grad_(False)
    if isinstance(made, SMP) and made.messages != "none":
        made.trunk = MessagesByParent(made.trunk)
    elif isinstance(made, LimbTransformer) and made.tree_encoding:
        made.trunk.doublings = DOUBLINGS
    elif isinstance(made, PatchJigsaw) and made.spec.has_neighbors:
        made.jigsaw = JigsawByGathering(made.jigsaw)
    return made


class MessagesByParent(nn.Module):
    """The trunk of `SMP` from ``parent`` as it is: all limbs send messages until no limb changes.

    In training, limbs are sorted by their depth beforehand, by code whose shapes depend on the data. A limb
    is right as soon as those that it hears from are, so this comes to the same.
    """

    def __init__(self, trunk: smp.Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, tokens: Tensor, joints: Tensor, observation: Observation) -> Tensor:
        """From (B, N, F) and (B, N, J, G) to (B, N, width)."""
        x = self.trunk.reader(tokens, joints, observation["joint_mask"])  # x: (B, N, width)
        above = parents_of(observation["parent"], observation["mask"])  # above: (B, N, N), [limb, parent]
        if self.trunk.bottom_up is not None:
            x = self._settle(self.trunk.bottom_up, x, above.mT.contiguous())
        if self.trunk.top_down is None:
            return functional.relu(self.trunk.alone(x))
        return self._settle(self.trunk.top_down, x, above)

    def _settle(self, messages: smp.Messages, x: Tensor, tells: Tensor) -> Tensor:
        """Hidden states (B, N, width) of limbs that hear those that ``tells`` (B, N, N), [limb, whom]."""
        limbs = messages.limb(x)

        def hear(hidden: Tensor) -> Tensor:
            told = torch.matmul(tells, unit(messages.message(hidden)))  # told: (B, N, message)
            return messages.activation(limbs + messages.heard(told))

        return settled(hear, messages.activation(limbs))


class JigsawByGathering(nn.Module):
    """`Jigsaw` with the slots of each sample for themselves, gathered: ONNX has no sums of bags."""

    def __init__(self, jigsaw: Jigsaw) -> None:
        super().__init__()
        self.jigsaw = jigsaw

    def forward(self, evidence: Tensor, matches: Tensor, neighbors: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, N, R + C), of the arguments of `Jigsaw.forward`."""
        jigsaw, slots = self.jigsaw, neighbors.long()  # slots: (B, N, 4)
        own = torch.arange(slots.shape[1], device=slots.device).unsqueeze(-1)
        is_there = (mask != 0).long().unsqueeze(-1).expand(-1, -1, 4).gather(1, slots)  # (B, N, 4)
        silent = (slots == own) | (is_there == 0)
        weights = jigsaw.trust(matches).sigmoid().masked_fill(silent, 0.0)  # weights: (B, N, 4)
        beliefs = evidence  # beliefs: (B, N, R + C)
        for _ in range(jigsaw.rounds):
            heard = 0.0
            for direction, pair in enumerate(jigsaw.messages(beliefs)):
                messages = torch.cat(pair, -1)  # messages: (B, N, R + C)
                index = slots[..., direction : direction + 1].expand(-1, -1, messages.shape[-1])
                heard = heard + weights[..., direction : direction + 1] * messages.gather(1, index)
            beliefs = evidence + heard
        return beliefs


def unit(values: Tensor) -> Tensor:
    """As `smp.unit`, scaled: the exporter takes 1e-8 for 0, and a message of 0 would become NaN."""
    return values * torch.rsqrt(1e4 * values.square().sum(-1, keepdim=True) + 1e-4) * 100


def settled(step: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """``step`` applied to (B, N, ...) until nothing changes, N times at most.

    Along trees of N limbs nothing changes after N - 1 steps. Limbs that hang from each other in a ring,
    which training refuses, come to an end, too.
    """
    left = torch.ones_like(start[:1, :, 0].sum(0)).sum()  # N, as a tensor

    def goes_on(value: Tensor, changed: Tensor, left: Tensor) -> Tensor:
        return changed & (left > 0)

    def once(value: Tensor, changed: Tensor, left: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        after = step(value)
        return after, (after != value).any(), left - 1

    state = start, left > 0, left
    if torch.compiler.is_exporting():
        return while_loop(goes_on, once, state)[0]
    while goes_on(*state):
        state = once(*state)
    return state[0]
