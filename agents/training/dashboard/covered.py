"""Whether a condition is one that a run trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ....envs.locomotion.varied.ranges import intervals_of
from ....envs.locomotion.varied.variation import QUANTITIES

_HOW = ("_target_", "per", "draw", "variants", "seed", "extrapolation", "noise_std")
"""Keys that say how something is drawn, not what differs."""

_UNTOUCHED = (None, 0, 0.0, False, "never")


def is_trained_on(changes: Mapping[str, Any], environment: Mapping[str, Any]) -> bool:
    """Whether training has all of it: each change at least as hard, or drawn from a range that it lies in.

    Args:
        changes: of the environment's configuration, nodes and keys.
        environment: configuration that is trained in.
    """
    asked = [
        _has(key, value, (environment.get(node) or {}).get(key))
        for node, values in changes.items()
        for key, value in (values.items() if isinstance(values, Mapping) else ())
        if key not in _HOW
    ]
    plain = [
        environment.get(key) == value for key, value in changes.items() if not isinstance(value, Mapping)
    ]
    return bool(asked or plain) and all(asked + plain)


def _has(key: str, tried: Any, trained: Any) -> bool:
    """Whether the values ``trained`` with hold what is ``tried``."""
    if trained in _UNTOUCHED:
        return trained == tried
    if key in QUANTITIES:
        return any(
            low < end and start < high
            for low, high in intervals_of(tried)
            for start, end in intervals_of(trained)
        )
    if key == "shuffle":  # a number of steps is that often, and at the start of every episode
        return trained == tried or (
            trained != "episode" and (tried == "episode" or float(trained) <= float(tried))
        )
    listed = isinstance(trained, Sequence) and not isinstance(trained, str)
    if key == "noise_channels" and listed:
        low, high = (tried, tried) if not isinstance(tried, Sequence) else tried
        return trained[0] <= low and high <= trained[1]
    if listed:
        return tried in trained or tried == trained
    if isinstance(trained, (int, float)) and isinstance(tried, (int, float)):
        return trained >= tried
    return trained == tried
