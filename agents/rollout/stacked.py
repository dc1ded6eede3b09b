"""Many sets of parameters of one policy that act at once, each in rows of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..policies import AttentionNeuron, Policy
from ..policies.base import Memory, Observation
from .stacked_neuron import StackedAttentionNeuron, shares


def count_parameters(policy: Policy) -> int:
    """Numbers that :func:`set_parameters` takes."""
    return sum(parameter.numel() for parameter in policy.acting_parameters().values())


def get_parameters(policy: Policy) -> np.ndarray:
    """The acting parameters in a row, (n,) float64."""
    parameters = policy.acting_parameters().values()
    return torch.cat([p.detach().flatten() for p in parameters]).double().cpu().numpy()


def set_parameters(policy: Policy, values: np.ndarray) -> None:
    """Give the policy acting parameters (n,)."""
    parts = split_parameters(policy, values[None])
    with torch.no_grad():
        for name, parameter in policy.acting_parameters().items():
            parameter.copy_(parts[name][0])


def split_parameters(policy: Policy, values: np.ndarray) -> dict[str, Tensor]:
    """Acting parameters by name, each (P, ...), of P sets in rows (P, n)."""
    parameters = policy.acting_parameters()
    first = next(iter(parameters.values()))
    # Always a copy: matrix products round otherwise where memory does not begin at a multiple of 16 bytes, as
    # what another process has sent may not.
    own = torch.tensor(values, dtype=first.dtype, device=first.device)
    parts = own.split([p.numel() for p in parameters.values()], 1)
    return {
        name: part.unflatten(1, parameter.shape) if parameter.ndim else part.squeeze(1)
        for (name, parameter), part in zip(parameters.items(), parts, strict=True)
    }


class StackedPolicy:
    """Any policy with P sets of acting parameters at once, each with R rows of its own.

    Its tensors stay where they are, so that a CUDA graph of an action goes on to act for other sets.

    Args:
        policy: everything else is its own: architecture, buffers, what only the value uses.
        parameters: acting parameters by name, each (P, ...).
        observation: the first, (P, R, ...).
    """

    def __init__(self, policy: Policy, parameters: Mapping[str, Tensor], observation: Observation) -> None:
        # A copy, because a functional call puts the parameters into the module while it lasts, and several
        # threads make such calls at a time.
        self._policy, self._parameters = copy.deepcopy(policy), dict(parameters)
        whole = _Acting(self._policy)

        def act(parameters: dict[str, Tensor], *inputs: Any) -> tuple[Tensor, Memory]:
            return functional_call(whole, {f"policy.{k}": v for k, v in parameters.items()}, inputs)

        self._act = vmap(act)
        sets, rows, n_tokens = observation["tokens"].shape[:3]
        memory = self._policy.initial_memory(sets * rows, n_tokens)
        self._share({key: value.unflatten(0, (sets, rows)) for key, value in memory.items()}, sets, rows)
        self._trees = self._trees_of(observation)

    def begin(self, policy: Policy, parameters: Mapping[str, Tensor], observation: Observation) -> None:
        """Begin episodes with other sets of the same shapes, memory empty, in the same tensors.

        Args:
            policy: whose buffers hold what is not searched for, such as the normaliser.
            parameters: acting parameters by name.
            observation: the first, (P, R, ...).
        """
        for name, own in self._parameters.items():
            own.copy_(parameters[name])
        for own, other in zip(self._policy.buffers(), policy.buffers(), strict=True):
            own.copy_(other)
        sets, rows, n_tokens = observation["tokens"].shape[:3]
        for key, value in self._policy.initial_memory(sets * rows, n_tokens).items():
            for part, memory in zip(self._parts, self._memories, strict=True):
                memory[key].copy_(value.unflatten(0, (sets, rows))[part])
        for key, value in self._trees_of(observation).items():
            self._trees[key].copy_(value)

    def _share(self, memory: Memory, sets: int, rows: int) -> None:
        """Parts of the sets that are computed together, each with what it remembers."""
        on_cpu = next(iter(self._parameters.values())).device.type == "cpu"
        self._parts = shares(sets, rows) if on_cpu else [slice(0, sets)]
        # Parts of a memory may begin as one tensor, and are written to in place from now on.
        self._memories = [{k: value[part].clone() for k, value in memory.items()} for part in self._parts]

    def keep(self, sets: Tensor, rows: Tensor) -> None:
        """Go on with some sets (P',) and, of each, some rows (P', R') only."""
        self._parameters = {key: value[sets] for key, value in self._parameters.items()}
        whole = {key: torch.cat([memory[key] for memory in self._memories]) for key in self._memories[0]}
        chosen = sets.unsqueeze(1), rows
        self._share({key: value[chosen] for key, value in whole.items()}, *rows.shape)
        self._trees = {key: value[chosen] for key, value in self._trees.items()}

    def act(self, observation: Observation) -> Tensor:
        """Actions (P, R, ...), or logits, of observations (P, R, ...); the memory goes on."""
        prepared, actions = self._prepare(observation), []
        for part, memory in zip(self._parts, self._memories, strict=True):
            own = [{k: value[part] for k, value in values.items()} for values in (self._parameters, prepared)]
            found, new = self._act(*own, memory)
            for key, value in new.items():
                memory[key].copy_(value)
            actions.append(found)
        return torch.cat(actions)

    def _prepare(self, observation: Observation) -> Observation:
        """What depends on the data's values, and cannot run under vmap, is added."""
        if self._policy.kind == "limbs":
            return {**observation, **self._trees}
        return self._prepared(observation)

    def _prepared(self, observation: Observation) -> Observation:
        shape = observation["tokens"].shape[:2]
        prepared = self._policy.prepare({key: value.flatten(0, 1) for key, value in observation.items()})
        return {key: value.unflatten(0, shape) for key, value in prepared.items()}

    def _trees_of(self, observation: Observation) -> dict[str, Tensor]:
        """What a policy prepares of limbs; a body stays what it is, and a device would be waited for."""
        if self._policy.kind != "limbs":
            return {}
        return {key: value for key, value in self._prepared(observation).items() if key not in observation}


class _Acting(nn.Module):
    """Encoding and acting in one call, as ``functional_call`` wants them."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        features, memory = self.policy.encode(observation, memory)
        return self.policy.act(features, observation), memory


def stack(
    policy: Policy,
    parameters: Mapping[str, Tensor],
    observation: Observation,
    complete: bool | None = None,
) -> StackedPolicy | StackedAttentionNeuron:
    """The policy with P sets of acting parameters, ready to begin episodes.

    Args:
        policy: what they are parameters of.
        parameters: by name, each (P, ...).
        observation: the first, (P, R, ...).
        complete: as of `StackedAttentionNeuron`.
    """
    if type(policy) is AttentionNeuron:
        return StackedAttentionNeuron(policy, parameters, observation, complete)
    return StackedPolicy(policy, parameters, observation)
