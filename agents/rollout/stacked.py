"""Many sets of parameters of one policy that act at once, each in rows of its own."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..policies import AttentionNeuron, Policy
from ..policies.base import Memory, Observation
from .native import call

Parameters = Mapping[str, Tensor]
"""Acting parameters of P sets by name, each (P, ...)."""

EPISODES_AT_ONCE = 4096
"""Whole ones, that are simulated before anybody asks whether to stop: a second or two."""

ROWS_AT_ONCE = 1024
"""Rows of stacked policies that are computed together: more would leave the processor's cache."""


class StackedAttentionNeuron:
    """`AttentionNeuron` for P sets of parameters at once, each with R rows of its own, without gradients.

    What ``torch.func.vmap`` makes of the policy gives the same actions but for rounding, in four times the
    time. Here the memory and what is read lie in one array, of which one product per step makes all gates;
    both projections of the attention are one small matrix for each set; arrays are used again and again; and
    tanh(x) is computed as 2 sigma(2x) - 1, with an absolute error of 1e-7, because torch's own takes six
    times as long as the logistic function. Its factors are kept in the weights, in a hidden state that is
    halved and in a cell that is doubled.

    Arguments are those of `stack`.
    """

    def __init__(
        self, policy: AttentionNeuron, parameters: Parameters, observation: Observation, complete: bool | None
    ) -> None:
        self.hidden, self.discrete, self._complete = policy.hidden, policy.discrete, complete
        self._gates, self._scores, self._head = _weights(policy, parameters)
        p, _, inputs = self._gates.shape
        rows, n_tokens = observation["tokens"].shape[1:3]
        self._inputs = self._gates.new_zeros(p, inputs, n_tokens, rows)
        self._inputs[:, self.hidden] = 1
        self._cell = self._gates.new_zeros(p, self.hidden, n_tokens * rows)
        self._make_room()

    def tensors(self) -> list[Tensor]:
        """All that the next actions depend on."""
        return [self._gates, self._scores, *itertools.chain(*self._head), self._inputs, self._cell]

    def _make_room(self) -> None:
        p, _, n, r = self._inputs.shape
        # On a GPU no part of it has a cache of its own to fit into.
        parts = shares(p, r) if self._cell.device.type == "cpu" else [slice(0, p)]
        # What a step computes on the way stands in the same place for all parts.
        most, columns = max(part.stop - part.start for part in parts), n * r
        sizes = 4 * self.hidden, self._scores.shape[1], self.hidden
        room = [self._cell.new_empty(most, size, columns) for size in sizes]
        self._parts = [_Part(self, part, *room) for part in parts]

    def keep(self, sets: Tensor, rows: Tensor) -> None:
        """Go on with some sets (P',) and, of each, some rows (P', R') only."""
        self._gates, self._scores = self._gates[sets], self._scores[sets]
        self._head = [(weight[sets], bias[sets]) for weight, bias in self._head]
        tokens_and_rows = self._inputs.shape[2:]

        def chosen(values: Tensor) -> Tensor:
            return values[sets.unsqueeze(1), :, :, rows].permute(0, 2, 3, 1).contiguous()  # (P', ., N, R')

        self._inputs = chosen(self._inputs)
        self._cell = chosen(self._cell.unflatten(2, tokens_and_rows)).flatten(2)
        self._make_room()

    def act(self, observation: Observation) -> Tensor:
        """Actions (P, R, A), or logits, of observations (P, R, ...); the memory goes on."""
        tokens, mask = observation["tokens"], observation["mask"]
        last = self.hidden + 1 + tokens.shape[-1]
        own = self._inputs[:, self.hidden + 1 : last]  # own: (P, F, N, R)
        own.copy_(tokens.permute(0, 3, 2, 1))
        self._inputs[:, last:] = observation["recent_actions"].flatten(2).mT.unsqueeze(2)
        there = None
        if not (mask.all() if self._complete is None else self._complete):
            there = (mask != 0).mT.unsqueeze(1)  # there: (P, 1, N, R)
            own *= there
            there = there.flatten(2)
        answers = [part.step(None if there is None else there[part.sets]) for part in self._parts]
        actions = torch.cat(answers).mT  # actions: (P, R, A)
        return actions if self.discrete else actions.tanh()

    def swing_up(
        self, starts: Tensor, steps: int, stop: Callable[[], bool]
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Whole episodes of the swing-up by ``swingup.cpp``, from starts (4, P, R) float64.

        Agrees with stepping the environment except for rounding; an episode's result does not depend on the
        others of the batch.

        Args:
            starts: x, x_dot, theta, theta_dot.
            steps: of an episode, at most.
            stop: asked now and then; True ends all of it.

        Returns:
            Returns, lengths and whether they diverged, (P, R) each; None: stopped.
        """
        sets, rows = starts.shape[1:]
        heads = torch.cat([part.flatten(1) for layer in self._head for part in layer], 1)  # (P, n)
        outputs = torch.tensor([weight.shape[1] for weight, _ in self._head])
        found = [torch.zeros(sets, rows, dtype=kind) for kind in (torch.float64, torch.int64, torch.uint8)]
        for own in shares(sets, rows, EPISODES_AT_ONCE):
            arrays = self._gates[own], self._scores[own], heads[own], outputs
            begun, results = starts[:, own].contiguous(), [values[own] for values in found]
            sizes = own.stop - own.start, rows, self.hidden, *self._scores.shape[1:]
            call("somite_swingup", *arrays, len(outputs), begun, *results, steps, *sizes)
            if stop():
                return None
        return tuple(found)


def _weights(policy: AttentionNeuron, p: Parameters) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Of the gates, of the scores and of the head's layers, with the factors of `StackedAttentionNeuron`."""
    h = policy.hidden
    bias = (p["cell.bias_ih"] + p["cell.bias_hh"]).unsqueeze(-1)
    # Columns as the rows of the inputs: hidden state, 1, reading, recent actions.
    gates = torch.cat((2 * p["cell.weight_hh"], bias, p["cell.weight_ih"]), 2)
    gates[:, 2 * h : 3 * h] *= 2  # the candidate's tanh
    query = torch.matmul(policy.table, p["query.weight"].mT)  # query: (P, M, key_size)
    key = 2 * p["key.weight"]  # key: (P, key_size, H or, with its bias, H + 1)
    if policy.bias:
        query += p["query.bias"].unsqueeze(1)
        key = torch.cat((key, p["key.bias"].unsqueeze(-1)), 2)
    scores = 2 * torch.bmm(query, key)  # (P, M, H or H + 1)
    if policy.scaled:
        scores /= math.sqrt(policy.key_size)
    names = [name[:-7] for name in p if name.startswith("action") and name.endswith(".weight")]
    head = [(p[f"{name}.weight"], p[f"{name}.bias"].unsqueeze(-1)) for name in names]
    weight, bias = head[0]
    head[0] = 2 * weight, bias - weight.sum(2, keepdim=True)  # it gets sigma, not tanh
    return gates, scores, head


class _Part:
    """Some ``sets`` of the ``whole``, whose arrays it shares: so few that a step's numbers stay in the cache.

    ``gates``, ``scores`` and ``bounded`` are room for what is computed on the way.
    """

    def __init__(
        self, whole: StackedAttentionNeuron, sets: slice, gates: Tensor, scores: Tensor, bounded: Tensor
    ) -> None:
        h, count = whole.hidden, sets.stop - sets.start
        self.sets, inputs = sets, whole._inputs[sets]
        self._gates, self._scores, self._cell = whole._gates[sets], whole._scores[sets], whole._cell[sets]
        self._head = [(weight[sets], bias[sets]) for weight, bias in whole._head]
        self._flat = inputs.flatten(2)  # (P, inputs, N * R), still the same memory
        self._state, self._reading = self._flat[:, :h], self._flat[:, h + 1 : h + 2]
        self._keyed = self._flat[:, : self._scores.shape[2]]  # hidden, and 1 where the key has a bias
        self._gate_values, self._score_values = gates[:count], scores[:count]
        self._bounded = bounded[:count]
        self._by_token = self._score_values.unflatten(2, inputs.shape[2:]), inputs[:, h + 1 : h + 2]

    def step(self, there: Tensor | None) -> Tensor:
        """Advance the memory; what the actions are the tanh of, (P, A, R).

        Tokens that are not ``there`` (P, 1, N * R) keep their state; None: all are.
        """
        before = None if there is None else (self._state.clone(), self._cell.clone())
        self._remember()
        if before is not None:
            for now, earlier in zip((self._state, self._cell), before, strict=True):
                now.copy_(torch.where(there, now, earlier))
        return self._answer()

    def _remember(self) -> None:
        torch.bmm(self._gates, self._flat, out=self._gate_values).sigmoid_()
        enter, keep, candidate, leave = self._gate_values.chunk(4, 1)  # each (P, H, N * R)
        torch.addcmul(keep.mul_(self._cell), enter, candidate.sub_(0.5), value=4, out=self._cell)
        torch.sigmoid(self._cell, out=self._bounded).sub_(0.5)
        torch.mul(leave, self._bounded, out=self._state)

    def _answer(self) -> Tensor:
        torch.bmm(self._scores, self._keyed, out=self._score_values).sigmoid_()
        self._score_values *= self._reading
        scores, reading = self._by_token  # scores: (P, M, N, R), reading: (P, 1, N, R)
        # Twice the sum over tokens of (2 sigma - 1) times the reading.
        values = scores.sum(2).mul_(4).sub_(reading.sum(2), alpha=2).sigmoid_()  # values: (P, M, R)
        for index, (weight, bias) in enumerate(self._head):
            values = torch.baddbmm(bias, weight, values if index == 0 else values.tanh_())
        return values


def shares(sets: int, rows: int, at_once: int | None = None) -> list[slice]:
    """Sets with so many rows each, in parts of about ``at_once`` rows; None: `ROWS_AT_ONCE`."""
    edges = np.linspace(0, sets, min(sets, -(-sets * rows // (at_once or ROWS_AT_ONCE))) + 1).astype(int)
    return [slice(int(first), int(last)) for first, last in itertools.pairwise(edges)]


def get_parameters(policy: Policy) -> np.ndarray:
    """The acting parameters in a row, (n,) float64."""
    parameters = policy.acting_parameters().values()
    return torch.cat([p.detach().flatten() for p in parameters]).double().cpu().numpy()


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

    What is not searched for is the policy's own: architecture, buffers, what only the value uses. Arguments
    are those of `stack`.
    """

    def __init__(self, policy: Policy, parameters: Parameters, observation: Observation) -> None:
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
        # A body stays what it is, and a device would be waited for.
        prepared = self._prepared(observation) if policy.kind == "limbs" else {}
        self._trees = {key: value for key, value in prepared.items() if key not in observation}

    def tensors(self) -> list[Tensor]:
        """All that the next actions depend on."""
        kept = [self._parameters, *self._memories, self._trees]
        return [*self._policy.buffers(), *(value for tensors in kept for value in tensors.values())]

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
        """With what depends on the data's values, and cannot run under vmap."""
        if self._policy.kind == "limbs":
            return {**observation, **self._trees}
        return self._prepared(observation)

    def _prepared(self, observation: Observation) -> Observation:
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


def stack(
    policy: Policy, parameters: Parameters, observation: Observation, complete: bool | None = None
) -> StackedPolicy | StackedAttentionNeuron:
    """The policy with P sets of acting parameters, ready to begin episodes.

    Args:
        policy: what they are parameters of.
        parameters: of the sets.
        observation: the first, (P, R, ...), or one like it.
        complete: whether no token is ever missing; None: it is looked at in every step.
    """
    if type(policy) is AttentionNeuron:
        return StackedAttentionNeuron(policy, parameters, observation, complete)
    return StackedPolicy(policy, parameters, observation)
