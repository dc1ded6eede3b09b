"""Normal numbers with a seed for each row."""

from __future__ import annotations

import numpy as np
import pytest

from somite.agents.rollout.candidates import Normal


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
def test_a_row_is_the_same_however_many_are_drawn(mirrored: bool) -> None:
    found = Normal(0, mirrored)(12, 7)
    own = np.random.default_rng(0).integers(2**64, size=6, dtype=np.uint64)
    again = [np.random.Generator(np.random.SFC64(int(seed))).standard_normal(7) for seed in own]
    assert np.array_equal(found[:6], again)
    one = Normal(0, mirrored)
    assert np.array_equal([one(1, 7)[0] for _ in range(6)], again), "pycma asks for one to scale a direction"


def test_a_seed_decides_and_samples_differ() -> None:
    one, same, other = Normal(1), Normal(1), Normal(2)
    first, second = one(3, 5), one(3, 5)
    assert np.array_equal(same(3, 5), first) and not np.isclose(first, second).any()
    assert not np.isclose(first, other(3, 5)).any()
