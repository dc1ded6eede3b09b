"""What configurations of runs of earlier versions say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def carried_over(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration with the keys of today.

    ``precision`` was a key of PPO, and every task was simulated on the CPU. Nothing that is there already is
    replaced.

    Args:
        config: plain values, as they were saved.
    """
    found = dict(config)
    algorithm = found.get("algorithm")
    if "precision" not in found:
        found["precision"] = "float32"
        if isinstance(algorithm, Mapping) and "precision" in algorithm:
            found["precision"] = algorithm["precision"]
            found["algorithm"] = {key: value for key, value in algorithm.items() if key != "precision"}
    found.setdefault("simulation", "cpu")
    found.setdefault("warp", {"contacts": None, "constraints": None})
    return found
