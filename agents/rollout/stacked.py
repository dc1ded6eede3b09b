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

WORTHWHILE = 0.95
"""Ended rows are dropped when no more than this share of the present ones would remain."""


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

    Args:
        policy: everything else is its own: architecture, buffers, what only the value uses.
        parameters: acting parameters by name, each (P, ...).
    """

    def __init__(self, policy: Policy, parameters: Mapping[str, Tensor]) -> None:
        # A copy, because a functional call puts the parameters into the module while it lasts, and several
        # threads make such calls at a time.
        self._policy, self._parameters = copy.deepcopy(policy), dict(parameters)
        whole = _Acting(self._policy)

        def act(parameters: dict[str, Tensor], *inputs: Any) -> tuple[Tensor, Memory]:
            return functional_call(whole, {f"policy.{k}": v for k, v in parameters.items()}, inputs)

        self._act = vmap(act)

    def start(self, rows: int, n_tokens: int) -> None:
        """Begin episodes: R rows of N tokens for every set, memory empty."""
        p = len(next(iter(self._parameters.values())))
        memory = self._policy.initial_memory(p * rows, n_tokens)
        self._share({key: value.unflatten(0, (p, rows)) for key, value in memory.items()}, rows)

    def _share(self, memory: Memory, rows: int) -> None:
        """Parts of the sets, each with what it remembers."""
        self._parts = self._divide(len(next(iter(self._parameters.values()))), rows)
        self._memories = [{key: value[part] for key, value in memory.items()} for part in self._parts]

    def _divide(self, sets: int, rows: int) -> list[slice]:
        """Sets that are computed together."""
        return shares(sets, rows)

    def keep(self, sets: Tensor, rows: Tensor) -> None:
        """Go on with some sets (P',) and, of each, some rows (P', R') only."""
        self._parameters = {key: value[sets] for key, value in self._parameters.items()}
        whole = {key: torch.cat([memory[key] for memory in self._memories]) for key in self._memories[0]}
        self._share({key: value[sets.unsqueeze(1), rows] for key, value in whole.items()}, rows.shape[1])

    def act(self, observation: Observation) -> Tensor:
        """Actions (P, R, ...), or logits, of observations (P, R, ...); the memory goes on."""
        prepared, actions = self._prepare(observation), []
        for index, part in enumerate(self._parts):
            own = [
                {key: value[part] for key, value in values.items()} for values in (self._parameters, prepared)
            ]
            found, self._memories[index] = self._act(*own, self._memories[index])
            actions.append(found)
        return torch.cat(actions)

    def _prepare(self, observation: Observation) -> Observation:
        """What depends on the data's values, and cannot run under vmap, is added."""
        shape = observation["tokens"].shape[:2]
        prepared = self._policy.prepare({key: value.flatten(0, 1) for key, value in observation.items()})
        return {key: value.unflatten(0, shape) for key, value in prepared.items()}


class _Acting(nn.Module):
    """Encoding and acting in one call, as ``functional_call`` wants them."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        features, memory = self.policy.encode(observation, memory)
        return self.policy.act(features, observation), memory


def stack(policy: Policy, parameters: Mapping[str, Tensor]) -> StackedPolicy | StackedAttentionNeuron:
    """The policy with P sets of acting parameters, each (P, ...)."""
    kind = StackedAttentionNeuron if type(policy) is AttentionNeuron else StackedPolicy
    return kind(policy, parameters)


class Actors:
    """Candidates that act in rows of an environment, each in its own.

    Args:
        policy: what the candidates are parameters of.
        candidates: (P, n).
        rows: (P, ...) of the environment.
        n_tokens: N.

    Attributes:
        rows: (P', R), those that are still acted in.
    """

    def __init__(self, policy: Policy, candidates: np.ndarray, rows: np.ndarray, n_tokens: int) -> None:
        self.rows = rows.reshape(len(candidates), -1)
        self._choose = policy.choose
        self._device = next(iter(policy.parameters())).device
        self._stacked = stack(policy, split_parameters(policy, candidates))
        self._stacked.start(self.rows.shape[1], n_tokens)

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Actions (P', R, ...) in these rows."""
        chosen = {
            key: torch.from_numpy(value.take(self.rows, 0)).to(self._device)  # (P', R, ...)
            for key, value in observation.items()
            if key not in ("privileged", "sensor")
        }
        return self._choose(self._stacked.act(chosen)).cpu().numpy()

    def drop_ended(self, running: np.ndarray) -> None:
        """Go on without candidates whose episodes have all ended, and with as few rows as the others need.

        Args:
            running: rows of the environment whose episodes go on, at least one of them here.
        """
        runs = running[self.rows]  # runs: (P', R)
        counts = runs.sum(1)
        sets, width = np.flatnonzero(counts), int(counts.max())
        if len(sets) * width <= WORTHWHILE * runs.size:
            rows = np.argsort(~runs[sets], 1, kind="stable")[:, :width]  # the running ones first
            self._stacked.keep(*(torch.from_numpy(index).to(self._device) for index in (sets, rows)))
            self.rows = np.take_along_axis(self.rows[sets], rows, 1)
