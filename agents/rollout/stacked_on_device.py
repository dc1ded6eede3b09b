"""Many sets of parameters that act on a device: nothing waits for it, and tensors stay where they are.

So a CUDA graph of an action goes on to act for other sets of the same shapes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..policies import AttentionNeuron, Policy
from ..policies.base import Observation
from .stacked import StackedPolicy
from .stacked_neuron import StackedAttentionNeuron, _Part


def stack_on_device(
    policy: Policy, parameters: Mapping[str, Tensor], observation: Observation, complete: bool = False
) -> DevicePolicies | DeviceNeurons:
    """The policy with P sets of acting parameters, ready to begin.

    Args:
        policy: on the device.
        parameters: acting parameters by name, each (P, ...).
        observation: like those to come, (P, R, ...).
        complete: whether no token is ever missing.
    """
    if type(policy) is AttentionNeuron:
        return DeviceNeurons(policy, parameters, observation, complete)
    return DevicePolicies(policy, parameters, observation)


class DevicePolicies(StackedPolicy):
    """Any policy; see `StackedPolicy`.

    Args:
        policy: everything else is its own: architecture, buffers, what only the value uses.
        parameters: acting parameters by name, each (P, ...).
        observation: like those to come, (P, R, ...).
    """

    def __init__(self, policy: Policy, parameters: Mapping[str, Tensor], observation: Observation) -> None:
        super().__init__(policy, parameters)
        self._sizes = observation["tokens"].shape[:3]  # P, R, N
        self.start(*self._sizes[1:])
        # Parts of a memory may begin as one tensor, and are written to in place from now on.
        self._memories = [{k: v.clone() for k, v in memory.items()} for memory in self._memories]
        self._trees = self._trees_of(observation)

    def begin(self, policy: Policy, parameters: Mapping[str, Tensor], observation: Observation) -> None:
        """Begin episodes with other sets of the same shapes, memory empty.

        Args:
            policy: whose buffers hold what is not searched for, such as the normaliser.
            parameters: acting parameters by name.
            observation: the first, (P, R, ...).
        """
        for name, own in self._parameters.items():
            own.copy_(parameters[name])
        for own, other in zip(self._policy.buffers(), policy.buffers(), strict=True):
            own.copy_(other)
        sets, rows, n_tokens = self._sizes
        for key, value in self._policy.initial_memory(sets * rows, n_tokens).items():
            for part, memory in zip(self._parts, self._memories, strict=True):
                memory[key].copy_(value.unflatten(0, (sets, rows))[part])
        for key, value in self._trees_of(observation).items():
            self._trees[key].copy_(value)

    def _trees_of(self, observation: Observation) -> dict[str, Tensor]:
        """What a policy prepares of limbs, which waits for the device; a body stays what it is."""
        if self._policy.kind != "limbs":
            return {}
        prepared = super()._prepare(observation)
        return {key: value for key, value in prepared.items() if key not in observation}

    def _prepare(self, observation: Observation) -> Observation:
        if self._policy.kind != "limbs":
            return super()._prepare(observation)
        return {**observation, **self._trees}

    def _divide(self, sets: int, rows: int) -> list[slice]:
        on_cpu = next(iter(self._parameters.values())).device.type == "cpu"
        return super()._divide(sets, rows) if on_cpu else [slice(0, sets)]

    def act(self, observation: Observation) -> Tensor:
        """Actions (P, R, ...), or logits, of observations (P, R, ...); the memory goes on, in place."""
        held = self._memories
        self._memories = list(held)
        actions = super().act(observation)
        for own, new in zip(held, self._memories, strict=True):
            for key, value in new.items():
                own[key].copy_(value)
        self._memories = held
        return actions


class DeviceNeurons(StackedAttentionNeuron):
    """The attention neuron; see `StackedAttentionNeuron`.

    Args:
        policy: the architecture.
        parameters: its acting parameters by name, each (P, ...).
        observation: like those to come, (P, R, ...).
        complete: whether no token is ever missing.
    """

    def __init__(
        self,
        policy: AttentionNeuron,
        parameters: Mapping[str, Tensor],
        observation: Observation,
        complete: bool,
    ) -> None:
        super().__init__(policy, parameters)
        self._complete = complete
        self.start(*observation["tokens"].shape[1:3])

    def begin(
        self, policy: AttentionNeuron, parameters: Mapping[str, Tensor], observation: Observation
    ) -> None:
        """Begin episodes with other sets of the same shapes, memory empty; see `DevicePolicies.begin`."""
        other = StackedAttentionNeuron(policy, parameters)
        self._gates.copy_(other._gates)
        self._scores.copy_(other._scores)
        for own, new in zip(self._head, other._head, strict=True):
            for part, value in zip(own, new, strict=True):
                part.copy_(value)
        self._inputs.zero_()
        self._inputs[:, self.hidden].fill_(1)
        self._cell.zero_()

    def _make_room(self) -> None:
        if self._gates.device.type == "cpu":
            super()._make_room()
            return
        # No part of it has a cache of its own to fit into.
        p, _, n, r = self._inputs.shape
        sizes = 4 * self.hidden, self._scores.shape[1], self.hidden
        self._parts = [_Part(self, slice(0, p), *(self._cell.new_empty(p, size, n * r) for size in sizes))]

    def _is_complete(self, mask: Tensor) -> bool:
        return self._complete  # to look would wait for the device
