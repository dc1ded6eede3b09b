"""Statistics of returns, all by SciPy.

Across training seeds: interquartile mean with a stratified bootstrap interval, probability of improvement
and performance profiles after Agarwal, Schwarzer, Castro, Courville and Bellemare, "Deep reinforcement
learning at the edge of the statistical precipice", NeurIPS 2021, sections 4 and 5.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .results import half_width

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0
"""Of the resampling, so that a report can be made again."""


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval; NaN where there is none to be had."""

    value: float
    low: float
    high: float


def mean_of(values: np.ndarray) -> Estimate:
    """Mean of values (n,) with the interval of Student's t; of one value, without."""
    values = np.asarray(values, float)
    mean, half = float(values.mean()), half_width(values) if len(values) > 1 else np.nan
    return Estimate(mean, mean - half, mean + half)


def interquartile_mean(scores: np.ndarray) -> Estimate:
    """Mean of the middle half of scores (runs, tasks), bootstrapped over runs; of one run, without interval.

    Runs are drawn as wholes. The publication draws the runs of each task by themselves, as each task had
    runs of its own; here one policy does all tasks, and to draw them apart would make intervals too narrow.
    """
    return _over_runs([scores], lambda drawn: stats.trim_mean(_flat(drawn), 0.25, axis=-1))


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> Estimate:
    """How probable it is that a run of X returns more than a run of Y, on average over the tasks.

    Args:
        x: (runs, tasks).
        y: (other runs, the same tasks).
    """

    def statistic(own: np.ndarray, others: np.ndarray) -> np.ndarray:
        a, b = own[..., :, None, :], others[..., None, :, :]  # (..., runs, other runs, tasks)
        return ((a > b) + 0.5 * (a == b)).mean((-3, -2, -1))

    return _over_runs([x, y], statistic)


def profile(scores: np.ndarray, thresholds: Sequence[float]) -> list[Estimate]:
    """Share of the scores (runs, tasks) that lie above each threshold, bootstrapped over runs."""
    return [
        _over_runs([scores], lambda drawn, least=threshold: (_flat(drawn) > least).mean(-1))
        for threshold in thresholds
    ]


def normalized(returns: np.ndarray, random: np.ndarray, specialist: np.ndarray) -> np.ndarray:
    """Returns on the scale from random actions, 0, to a specialist of the same body, 1."""
    return (np.asarray(returns) - random) / (np.asarray(specialist) - random)


def _flat(scores: np.ndarray) -> np.ndarray:
    """Runs and tasks in one dimension, the last."""
    return scores.reshape(*scores.shape[:-2], -1)


def _over_runs(groups: Sequence[np.ndarray], statistic: Callable[..., np.ndarray]) -> Estimate:
    """A statistic of one or more groups of scores (runs, tasks), with the runs of each group drawn anew."""
    groups = [np.asarray(group, float) for group in groups]
    value = float(statistic(*groups))
    if min(len(group) for group in groups) < 2:
        return Estimate(value, np.nan, np.nan)

    def of_places(*places: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(*(group[place] for group, place in zip(groups, places, strict=True)))

    return _bootstrapped(tuple(np.arange(len(group)) for group in groups), value, of_places)


def _bootstrapped(
    samples: tuple[np.ndarray, ...], value: float, statistic: Callable[..., np.ndarray]
) -> Estimate:
    with warnings.catch_warnings():
        # Where all resamples agree, SciPy warns that the interval is a point, which it then is.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            samples,
            statistic,
            n_resamples=RESAMPLES,
            vectorized=True,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(SEED),
        )
    return Estimate(value, float(result.confidence_interval.low), float(result.confidence_interval.high))
