"""Neighbours of patches: found in a moving picture, in any order of the slots, against plain statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.envs.errors import UserError
from somite.envs.images.patches import cut
from somite.envs.sensors import CartPoleSwingUp, Senses
from somite.envs.sensors.neighbors import EVERY, LEAST, SMALLEST, YOUNG
from somite.envs.sensors.neighbors import Neighbors as Tensors

SIDE, ROWS, COLUMNS = 6, 4, 5
N, D = ROWS * COLUMNS, SIDE * SIDE
seeds = st.integers(0, 2**31 - 1)


class Neighbors:
    """`Neighbors` of arrays."""

    def __init__(self, *sizes: int) -> None:
        self.own = Tensors(*sizes)
        self.neighbors, self.matches = self.own.neighbors.numpy(), self.own.matches.numpy()

    def enter(self, patches: np.ndarray, there: np.ndarray) -> None:
        self.own.enter(torch.from_numpy(patches), torch.from_numpy(there))


def film(seed: int, steps: int, batch: int = 1, colors: int = 1) -> np.ndarray:
    """Patches (steps, B, N, D * colours) of windows that wander over a smooth random picture."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (batch, 60, 60, colors))
    world = np.kron(coarse, np.ones((1, 4, 4, 1)))  # blobs of four pixels
    for _ in range(3):
        world = (world + np.roll(world, 1, 1) + np.roll(world, 1, 2)) / 3
    place, found = np.array([100, 100]), []
    for _ in range(steps):
        place = np.clip(place + rng.integers(-6, 7, 2), 0, 200)
        view = world[:, place[0] : place[0] + ROWS * SIDE, place[1] : place[1] + COLUMNS * SIDE]
        found.append(cut(view.astype(np.uint8), SIDE))
    return np.array(found)


def looked(patches: np.ndarray, length: float = 40, there: np.ndarray | None = None) -> Neighbors:
    """What is found after these steps."""
    steps, batch, slots, pixels = patches.shape
    kept = Neighbors(length, batch, slots, pixels)
    for step in range(steps):
        kept.enter(patches[step], np.ones((batch, slots), bool) if there is None else there[step])
    return kept


def truth() -> np.ndarray:
    """(N, 4) slots to the right, to the left, below and above in reading order; -1 beyond the picture."""
    slots = np.pad(np.arange(N).reshape(ROWS, COLUMNS), 1, constant_values=-1)
    sides = (slots[1:-1, 2:], slots[1:-1, :-2], slots[2:, 1:-1], slots[:-2, 1:-1])
    return np.stack([side.ravel() for side in sides], -1)


@pytest.mark.parametrize("colors", [1, 3])
def test_a_moving_picture_is_put_together(colors: int) -> None:
    kept, right = looked(film(0, 40, 2, colors)), truth()
    inside = right >= 0
    for row in range(2):
        assert (kept.neighbors[row] == right)[inside].mean() > 0.95
        mutual = kept.matches[row, :, 4:] == 1
        assert mutual[inside].mean() > 0.9 and mutual[~inside].mean() < 0.5
        assert kept.matches[row, :, :4][inside].mean() > 0.8


def test_a_picture_of_noise_tells_nothing() -> None:
    patches = np.random.default_rng(0).integers(0, 256, (40, 1, N, D)).astype(np.uint8)
    kept = looked(patches)
    assert (kept.neighbors[0] == truth()).mean() < 0.2
    assert kept.matches[..., :4].max() < 0.6


@settings(max_examples=10, deadline=None)
@given(seed=seeds, steps=st.integers(2, 30))
def test_matches_are_weighted_correlations(seed: int, steps: int) -> None:
    length, patches = 7.0, film(seed, EVERY * steps)  # so that the last step is one in which it looks
    kept = looked(patches, length)
    weights = np.exp(-np.arange(len(patches))[::-1] / length)
    weights /= weights.sum()
    pixels = patches[:, 0].reshape(len(patches), N, SIDE, SIDE) / 255
    edges = (pixels[..., -1], pixels[..., 0], pixels[..., -1, :], pixels[..., 0, :])  # (steps, N, SIDE)
    apart = [edge - np.tensordot(weights, edge, 1) for edge in edges]
    deviations = [np.sqrt(np.einsum("t,tnp->n", weights, a**2).clip(SMALLEST)) for a in apart]
    for side, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        covariance = np.einsum("t,tip,tjp->ij", weights, apart[side], apart[other])
        fits = covariance / (deviations[side][:, None] * deviations[other])
        np.fill_diagonal(fits, -1)
        best = np.where(fits.max(1) < LEAST, 0, fits.max(1))
        np.testing.assert_allclose(kept.matches[0, :, side], best, atol=2e-3)
        chosen = kept.neighbors[0, :, side]
        found = chosen != np.arange(N)
        np.testing.assert_allclose(fits[np.arange(N), chosen][found], best[found], atol=2e-3)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_slots_in_another_order_find_the_same(seed: int) -> None:
    patches, order = film(seed, 24), np.random.default_rng(seed).permutation(N)
    plain, moved = looked(patches), looked(patches[:, :, order])
    back = np.argsort(order)
    np.testing.assert_allclose(moved.matches, plain.matches[:, order], atol=1e-5)
    same = moved.neighbors[0] == back[plain.neighbors[0][order]]
    assert same.mean() > 0.99  # but for twins
    assert (moved.neighbors[0] == plain.neighbors[0][order]).mean() < 0.6, "slots are named anew"


def test_what_never_changes_has_no_neighbours() -> None:
    kept = looked(np.full((20, 1, N, D), 77, np.uint8))
    assert np.array_equal(kept.neighbors[0], np.tile(np.arange(N)[:, None], (1, 4)))
    assert not kept.matches.any()


def test_slots_that_show_nothing_are_nobodys_neighbours() -> None:
    patches, there = film(1, 40), np.ones((40, 1, N), bool)
    there[:, 0, 7] = False
    spoiled = patches.copy()
    spoiled[:, 0, 7] = np.random.default_rng(0).integers(0, 256, (40, D))
    kept, same = looked(patches, there=there), looked(spoiled, there=there)
    assert np.array_equal(kept.matches, same.matches) and np.array_equal(kept.neighbors, same.neighbors)
    others = np.arange(N) != 7
    assert not (kept.neighbors[0, others] == 7).any() and (kept.neighbors[0, 7] == 7).all()
    assert (kept.neighbors[0] == truth())[others & (truth() != 7).all(1)].mean() > 0.6


def test_rows_begin_anew_and_wait_for_nobody() -> None:
    patches, there = film(2, 60, 2), np.ones((2, N), bool)
    kept, alone = Neighbors(40, 2, N, D), Neighbors(40, 1, N, D)
    for step in range(60):
        if step == 33:
            before = kept.matches[1].copy()
            kept.own.start(torch.tensor([True, False]))
            assert not kept.matches[0].any() and np.array_equal(kept.matches[1], before)
            assert np.array_equal(kept.neighbors[0, :, 2], np.arange(N))
        kept.enter(patches[step], there)
        if step >= 33:
            alone.enter(patches[step, :1], there[:1])
    assert np.array_equal(kept.matches[0], alone.matches[0])
    assert np.array_equal(kept.neighbors[0], alone.neighbors[0])


def test_an_old_row_looks_every_few_steps() -> None:
    patches, kept, changed = film(3, 40), Neighbors(40, 1, N, D), []
    for step in range(40):
        before = kept.matches.copy()
        kept.enter(patches[step], np.ones((1, N), bool))
        changed.append(not np.array_equal(before, kept.matches))
    assert all(changed[1 : YOUNG - 1])
    assert [step + 1 for step in range(YOUNG - 1, 40) if changed[step]] == list(range(YOUNG, 41, EVERY))


@pytest.mark.parametrize("given", [-1, 0.5, "40", True, None])
def test_lengths_that_cannot_be_meant_are_refused(given: object) -> None:
    with pytest.raises(UserError, match=r"senses.neighbors must be 0 or a number from 1 to 1,000,000, got"):
        Senses(neighbors=given)


def test_numbers_have_no_edges() -> None:
    with pytest.raises(
        UserError, match="only patches of pictures have edges: leave env.senses.neighbors out"
    ):
        CartPoleSwingUp(Senses(neighbors=40)).make_vec(num_envs=2)
