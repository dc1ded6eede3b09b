"""Many sets of parameters of the published neuron that act at once, computed by as few products as can be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..policies import AttentionNeuron
from ..policies.base import Observation

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

    Args:
        policy: the architecture.
        parameters: its acting parameters by name, each (P, ...).
        observation: like those to come, (P, R, ...).
        complete: whether no token is ever missing; None: it is looked at in every step.
    """

    def __init__(
        self,
        policy: AttentionNeuron,
        parameters: Mapping[str, Tensor],
        observation: Observation,
        complete: bool | None = None,
    ) -> None:
        self.hidden, self.discrete, self._complete = policy.hidden, policy.discrete, complete
        self._gates, self._scores, self._head = _weights(policy, parameters)
        p, _, inputs = self._gates.shape
        rows, n_tokens = observation["tokens"].shape[1:3]
        self._inputs = self._gates.new_zeros(p, inputs, n_tokens, rows)
        self._inputs[:, self.hidden] = 1
        self._cell = self._gates.new_zeros(p, self.hidden, n_tokens * rows)
        self._make_room()

    def begin(
        self, policy: AttentionNeuron, parameters: Mapping[str, Tensor], observation: Observation
    ) -> None:
        """Begin episodes with other sets of the same shapes, memory empty, in the same tensors."""
        gates, scores, head = _weights(policy, parameters)
        self._gates.copy_(gates)
        self._scores.copy_(scores)
        for own, new in zip(self._head, head, strict=True):
            for part, value in zip(own, new, strict=True):
                part.copy_(value)
        self._inputs.zero_()
        self._inputs[:, self.hidden].fill_(1)
        self._cell.zero_()

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
        """Go on with some sets and, of each, some rows only.

        Args:
            sets: (P',) indices of sets.
            rows: (P', R') indices of each one's rows.
        """
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


def _weights(
    policy: AttentionNeuron, p: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
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
    """Some of the sets, so few that the numbers of a step stay in the cache.

    Args:
        whole: of which it is a part; its arrays are shared.
        sets: which.
        gates, scores, bounded: room for what is computed on the way.
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

        Args:
            there: (P, 1, N * R), tokens that are there, the others keep their state; None: all are.
        """
        if there is None:
            self._remember()
        else:
            state, cell = self._state.clone(), self._cell.clone()
            self._remember()
            self._state.copy_(torch.where(there, self._state, state))
            self._cell.copy_(torch.where(there, self._cell, cell))
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


def shares(sets: int, rows: int) -> list[slice]:
    """Sets with so many rows each, in parts of about `ROWS_AT_ONCE` rows."""
    edges = np.linspace(0, sets, min(sets, -(-sets * rows // ROWS_AT_ONCE)) + 1).astype(int)
    return [slice(int(first), int(last)) for first, last in itertools.pairwise(edges)]
