"""The pages of curves under TensorBoard's tab *Custom Scalars*."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Charts = Mapping[str, Sequence[str]]
"""By title regular expressions, from the beginning of a scalar's name.

TensorBoard puts charts of several runs together where title and scalars are the same, so both are the same
for all algorithms.
"""

RETURNS: Charts = {
    "Return": ("rollout/ep_rew_mean$", "validation/mean_reward$"),
    "Length of an episode": ("rollout/ep_len_mean$",),
}
DIVERGED: Charts = {"Simulations that diverged": ("rollout/diverged$",)}
BODIES: Charts = {"Return of each body": ("bodies/.+",)}
BAND = "All bodies: mean, worst, best", ("rollout/body_mean", "rollout/body_worst", "rollout/body_best")
ZERO_SHOT: Charts = {
    "Mean of the conditions, and undisturbed": ("zero_shot/mean$", "zero_shot/undisturbed$"),
    "Each condition": ("zero_shot/(?!mean$).+",),
}
SPEED: Charts = {
    "Environment steps per second": ("time/fps$",),
    "Share of the time": ("time/.+_share$",),
}


def pages(own: Charts, several: bool, tries: bool) -> dict[str, dict[str, list[Any]]]:
    """Pages for a run, as `SummaryWriter.add_custom_scalars` takes them.

    Args:
        own: charts of its algorithm.
        several: whether it trains on several bodies.
        tries: whether it has a zero-shot suite.

    Returns:
        By page and title the kind of chart and its scalars; only what the run logs.
    """
    title, scalars = BAND
    found = {"Training": _lines({**RETURNS, **own, **DIVERGED})}
    found["Bodies"] = {title: ["Margin", list(scalars)]} if several else {}
    found["Bodies"] |= _lines(BODIES)
    if tries:
        found["Zero-shot"] = _lines(ZERO_SHOT)
    return {**found, "Speed": _lines(SPEED)}


def _lines(charts: Charts) -> dict[str, list[Any]]:
    return {title: ["Multiline", list(scalars)] for title, scalars in charts.items()}
