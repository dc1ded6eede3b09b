"""Normal numbers with a seed for each row."""

from __future__ import annotations

import numpy as np
import pytest

from somite.agents.rollout.candidates import Draw, Normal


@pytest.mark.parametrize("mirrored", [False, True])
def test_numbers_are_normal_and_rows_are_independent(mirrored: bool) -> None:
    found = Normal(3, mirrored)(400, 500)
    assert abs(found.mean()) < 0.01 and found.std() == pytest.approx(1, abs=0.01)
    assert np.mean(found**4) == pytest.approx(3, abs=0.1), "the tails, too"
    rows = found[:200]
    correlations = np.corrcoef(rows)[np.triu_indices(200, 1)]
    assert np.abs(correlations).max() < 0.25 and correlations.std() == pytest.approx(500**-0.5, rel=0.1)
    assert np.array_equal(found[200:], -rows) is mirrored


@pytest.mark.parametrize("mirrored", [False, True])
def test_any_rows_can_be_drawn_again_alone(mirrored: bool) -> None:
    normal = Normal(0, mirrored)
    assert normal.last is None
    found = normal(12, 7)
    draw = normal.last
    assert np.array_equal(draw.rows(7), found)
    assert np.array_equal(draw[4:9].rows(7), found[4:9])
    assert draw[:0].rows(7).shape == (0, 7)


def test_one_row_alone_is_no_sample() -> None:
    """pycma asks for one where it scales a direction, after the candidates or before."""
    normal = Normal(0)
    found = normal(4, 7)
    normal(1, 7)
    assert np.array_equal(normal.last.rows(7), found)


def test_a_seed_decides_and_samples_differ() -> None:
    one, same, other = Normal(1), Normal(1), Normal(2)
    first, second = one(3, 5), one(3, 5)
    assert np.array_equal(same(3, 5), first) and not np.isclose(first, second).any()
    assert not np.isclose(first, other(3, 5)).any()


def test_a_sign_turns_a_row_round() -> None:
    seeds = np.array([2**64 - 1, 5], np.uint64)
    plus = Draw(seeds, np.array([1, 1], np.int8)).rows(3)
    mixed = Draw(seeds, np.array([-1, 1], np.int8)).rows(3)
    assert np.array_equal(mixed, plus * [[-1], [1]])
