"""The random streams of a process: torch's, NumPy's global one and Python's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def take_random_states(device: torch.device) -> dict[str, Any]:
    """Where the streams are, as plain values and tensors.

    Args:
        device: of the learner; a GPU has a stream of its own.
    """
    numpy = np.random.get_state(legacy=False)
    states = {
        "torch": torch.get_rng_state(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
        "python": [list(random.getstate()[1]), random.getstate()[2]],
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def put_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Inverse of `take_random_states`; a GPU's stream stays where it is if none was kept."""
    torch.set_rng_state(states["torch"])
    numpy = states["numpy"]
    key = np.array(numpy["state"]["key"], np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
    numbers, gauss = states["python"]
    random.setstate((random.getstate()[0], tuple(numbers), gauss))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
