"""Statistics beside what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from somite.agents.evaluation.statistics import (
    interquartile_mean,
    mean_difference,
    mean_of,
    mean_of_ratios,
    paired,
    probability_of_improvement,
    profile,
    ratio_of_sums,
)


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0])
    half = stats.sem(values) * stats.t.ppf(0.975, 3)
    estimate = mean_of(values)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((3.5, 3.5 - half, 3.5 + half))
    assert np.isnan(mean_of(np.array([2.0])).low), "of one value there is none"
    same = mean_of(np.full(5, 2.0))
    assert (same.low, same.high) == (2.0, 2.0)


def test_the_interquartile_mean_leaves_out_the_quarters() -> None:
    scores = np.array([[0.0, 1.0, 2.0, 1000.0], [0.0, 1.0, 2.0, -1000.0]])
    assert interquartile_mean(scores).value == pytest.approx(1.0)  # of 0, 1, 1, 2
    assert scores.mean() == pytest.approx(0.75)


def test_runs_are_drawn_as_wholes() -> None:
    """One run does all tasks: to draw its tasks apart would make the interval too narrow."""
    rng = np.random.default_rng(0)
    seeds = rng.normal(size=(6, 1))
    scores = np.repeat(seeds, 40, axis=1)  # a good run is good on all bodies
    joint = interquartile_mean(scores)
    apart = stats.bootstrap(
        tuple(scores.T),
        lambda *samples, axis: stats.trim_mean(np.concatenate(samples, axis), 0.25, axis=axis),
        method="percentile", n_resamples=200, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert joint.high - joint.low > 2 * (apart.high - apart.low)
    assert joint.low < float(np.median(seeds)) < joint.high


def test_intervals_hold_what_they_promise() -> None:
    """Of many experiments of ten runs, nearly all intervals hold the mean: percentiles are a bit narrow."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        estimate = interquartile_mean(rng.normal(size=(10, 1)) + rng.normal(scale=0.1, size=(10, 8)))
        held += estimate.low <= 0 <= estimate.high
    assert held >= 48


def test_one_run_has_no_interval() -> None:
    estimate = interquartile_mean(np.array([[1.0, 2.0, 3.0]]))
    assert estimate.value == 2.0 and np.isnan(estimate.low) and np.isnan(estimate.high)


def test_improvement_is_that_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 5, (4, 3)).astype(float), rng.integers(0, 5, (5, 3)).astype(float)
    expected = np.mean([stats.mannwhitneyu(x[:, t], y[:, t]).statistic / 20 for t in range(3)])
    estimate = probability_of_improvement(x, y)
    assert estimate.value == pytest.approx(expected)
    assert estimate.low <= estimate.value <= estimate.high
    assert probability_of_improvement(y, x).value == pytest.approx(1 - expected)
    assert probability_of_improvement(x + 10, y).low == 1.0


def test_a_profile_falls_from_all_to_none() -> None:
    found = profile(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.0, 1.5, 2.5, 5.0]))
    assert found.value.tolist() == [1.0, 0.75, 0.5, 0.0]
    assert (found.low <= found.value).all() and (found.value <= found.high).all()


def test_a_report_made_again_says_the_same() -> None:
    scores = np.random.default_rng(3).normal(size=(5, 4))
    assert interquartile_mean(scores) == interquartile_mean(scores)


def bodies_of(rng: np.random.Generator, n: int = 15, seeds: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Returns (seeds, bodies) of which one side is 0.6 of the other, and bodies differ tenfold."""
    joint = rng.uniform(500, 5000, (1, n)) * rng.normal(1, 0.1, (seeds, n))
    return 0.6 * joint + rng.normal(0, 200, (seeds, n)), joint


def test_an_interval_of_a_ratio_covers_it() -> None:
    rng = np.random.default_rng(0)
    found = [paired(ratio_of_sums, *bodies_of(rng)) for _ in range(200)]
    covered = np.mean([one.low <= 0.6 <= one.high for one in found])
    assert 0.9 <= covered <= 0.99
    assert 0.02 < np.mean([one.high - one.low for one in found]) < 0.12, "and it says something"


def test_pairing_narrows_and_seeds_widen() -> None:
    rng = np.random.default_rng(1)
    own, joint = bodies_of(rng)
    pair = paired(ratio_of_sums, own, joint)
    apart = paired(ratio_of_sums, own, joint[:, rng.permutation(15)])  # bodies no longer belong together
    assert pair.value == pytest.approx(apart.value)
    assert 3 * (pair.high - pair.low) < apart.high - apart.low
    luck = rng.normal(1, 0.2, (3, 1))  # of a seed, on all bodies
    same, other = paired(ratio_of_sums, luck * own, luck * joint), paired(ratio_of_sums, luck * own, joint)
    assert same.high - same.low < other.high - other.low, "seeds go together where both sides have as many"
    assert pair.high - pair.low < other.high - other.low
    assert paired(mean_difference, own, own) == (0, 0, 0)


def test_a_body_that_hardly_moves_wrecks_no_ratio_of_sums() -> None:
    own, joint = np.array([[60.0, 600.0, -40.0]]), np.array([[100.0, 1000.0, 0.5]])
    assert paired(ratio_of_sums, own, joint).value == pytest.approx(0.563, abs=1e-3)
    assert mean_of_ratios(own, joint) < -20
    joint[0, 2] = -0.5
    assert np.isnan(mean_of_ratios(own, joint)) and ratio_of_sums(own, joint) > 0.5
    assert np.isnan(ratio_of_sums(own, -joint)), "of a sum below zero there is no share"
    assert np.isnan(paired(ratio_of_sums, own[:, :1], joint[:, :1]).low), "one body, one seed: no interval"
