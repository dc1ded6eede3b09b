"""Beliefs that go from neighbour to neighbour: the plain formula, and a picture made of few hints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from somite.agents.policies.patch_policy import LEAST_BELIEF, Jigsaw
from tests.envs.sensors.test_neighbors import COLUMNS, ROWS, N, truth

GRID = (ROWS, COLUMNS)
seeds = st.integers(0, 2**31 - 1)
everywhere = torch.ones(1, N)


def jigsaw(rounds: int, trust: float | None = None) -> Jigsaw:
    """With random weights of messages, or the same of all."""
    torch.manual_seed(0)
    made = Jigsaw(GRID, rounds, 8).double()
    if trust is not None:
        nn.init.zeros_(made.trust[-1].weight)
        nn.init.constant_(made.trust[-1].bias, float(np.log(trust / (1 - trust))))
    return made


def neighbors() -> Tensor:
    """(1, N, 4), slots in reading order; itself beyond the picture."""
    right = truth()
    return torch.from_numpy(np.where(right < 0, np.arange(N)[:, None], right)).unsqueeze(0)


def by_hand(made: Jigsaw, evidence: Tensor, matches: Tensor, around: Tensor, mask: Tensor) -> Tensor:
    """One slot, one message, one place after the other."""
    beliefs = evidence.clone()
    weights = made.trust(matches).sigmoid()
    for _ in range(made.rounds):
        rows, columns = (b.log_softmax(-1).clamp(min=LEAST_BELIEF) for b in beliefs.split(GRID, -1))
        new = evidence.clone()
        for b, i, side in np.ndindex(*around.shape):
            j = around[b, i, side].item()
            if j == i or not mask[b, j]:
                continue
            # Where i is, if j is at the place p: as far as `shift` takes it.
            row_shift, column_shift = ((0, -1), (0, 1), (-1, 0), (1, 0))[side]
            parts = ((rows, row_shift, 0, ROWS), (columns, column_shift, ROWS, COLUMNS))
            for told, shift, first, size in parts:
                for place in range(size):
                    origin = place - shift
                    message = told[b, j, origin] if 0 <= origin < size else torch.tensor(LEAST_BELIEF)
                    new[b, i, first + place] += weights[b, i, side] * message
        beliefs = new
    return beliefs


@settings(max_examples=2, deadline=None)
@given(seed=seeds)
def test_messages_are_those_of_the_formula(seed: int) -> None:
    torch.manual_seed(seed)
    made = jigsaw(2)
    evidence, matches = torch.randn(2, N, sum(GRID)).double(), torch.randn(2, N, 8).double()
    around, mask = torch.randint(N, (2, N, 4)), (torch.rand(2, N) < 0.8).double()
    with torch.no_grad():
        found = made(evidence, matches, around.int(), mask)
        torch.testing.assert_close(found, by_hand(made, evidence, matches, around, mask))


def test_three_slots_that_know_their_place_tell_all_others() -> None:
    evidence = torch.zeros(1, N, sum(GRID)).double()
    for slot in (0, 7, N - 1):
        evidence[0, slot, slot // COLUMNS] = evidence[0, slot, ROWS + slot % COLUMNS] = 8
    around, matches = neighbors(), torch.zeros(1, N, 8).double()
    with torch.no_grad():
        believed = jigsaw(16, 0.4)(evidence, matches, around, everywhere)
        ignored = jigsaw(16, 1e-9)(evidence, matches, around, everywhere)
    rows, columns = (part.argmax(-1)[0] for part in believed.split(GRID, -1))
    assert torch.equal(COLUMNS * rows + columns, torch.arange(N))
    torch.testing.assert_close(ignored, evidence, atol=1e-6, rtol=0)


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_relabelled_slots_believe_the_same(seed: int) -> None:
    torch.manual_seed(seed)
    made, around = jigsaw(4), torch.randint(N, (1, N, 4))
    evidence, matches = torch.randn(1, N, sum(GRID)).double(), torch.randn(1, N, 8).double()
    order = torch.randperm(N)
    with torch.no_grad():
        plain = made(evidence, matches, around, everywhere)
        moved = made(evidence[:, order], matches[:, order], order.argsort()[around[:, order]], everywhere)
        wrong = made(evidence[:, order], matches[:, order], around[:, order], everywhere)
    torch.testing.assert_close(moved, plain[:, order])
    assert (wrong - plain[:, order]).abs().max() > 0.1, "neighbours that are not relabelled are others"


def test_gradients_are_those_of_the_last_round() -> None:
    torch.manual_seed(1)
    around, matches = neighbors(), torch.randn(1, N, 8).double()
    evidence = torch.randn(1, N, sum(GRID)).double().requires_grad_()
    made = jigsaw(3)
    made(evidence, matches, around, everywhere).square().sum().backward()
    with torch.no_grad():
        before = jigsaw(2)(evidence, matches, around, everywhere)
    told, weights = [torch.cat(pair, -1) for pair in made.messages(before)], made.trust(matches).sigmoid()
    weights = weights.masked_fill(around == torch.arange(N)[:, None], 0.0)
    sums = sum(weights[..., side, None] * told[side][0, around[..., side]] for side in range(4))
    wanted = torch.autograd.grad((evidence + sums).square().sum(), [evidence, *made.trust.parameters()])
    for found, right in zip([evidence.grad, *(p.grad for p in made.trust.parameters())], wanted, strict=True):
        torch.testing.assert_close(found, right)
    assert all(gradient.abs().max() > 0 for gradient in wanted)


@pytest.mark.parametrize("batch", [1, 3])
def test_rows_of_a_batch_do_not_talk(batch: int) -> None:
    torch.manual_seed(2)
    made = jigsaw(4)
    evidence, matches = torch.randn(batch, N, sum(GRID)).double(), torch.randn(batch, N, 8).double()
    around, mask = torch.randint(N, (batch, N, 4)), torch.ones(batch, N)
    with torch.no_grad():
        together = made(evidence, matches, around, mask)
        for row in range(batch):
            one = slice(row, row + 1)
            alone = made(evidence[one], matches[one], around[one], mask[one])
            torch.testing.assert_close(together[one], alone)
