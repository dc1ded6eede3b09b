"""Arrays of a simulator, NumPy's on the host and torch's on a device, read in one way."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor
"""What a simulator's array is read as: of the kind that the simulator has."""

NAMES = (
    "qpos",
    "qvel",
    "act",
    "ctrl",
    "xpos",
    "xmat",
    "cvel",
    "xaxis",
    "subtree_com",
    "actuator_length",
    "actuator_velocity",
)
"""What is read of every simulator, in MuJoCo's names; (n, ...) for n rows, rotations (n, bodies, 9)."""


class Indices:
    """Turns lists of indices into what reads an array fastest.

    Args:
        arrays: of a simulator.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        first = next(iter(arrays.values()))
        self._device = first.device if isinstance(first, Tensor) else None

    def __call__(self, indices: Sequence[int]) -> slice | list[int] | Tensor:
        """A slice where the indices are consecutive, since that reads without a copy.

        Else a list, or a tensor where the arrays are tensors: a list would go to the device in every step.
        """
        found = as_slice([int(index) for index in indices])
        if isinstance(found, slice) or self._device is None:
            return found
        return torch.tensor(found, dtype=torch.int64, device=self._device)


def as_slice(indices: list[int]) -> slice | list[int]:
    """A slice where the indices are consecutive."""
    if indices and indices == list(range(indices[0], indices[0] + len(indices))):
        return slice(indices[0], indices[0] + len(indices))
    return indices


def as_tensor(array: Array) -> Tensor:
    """The same memory as a tensor."""
    if isinstance(array, Tensor):
        return array
    with warnings.catch_warnings():
        # Some of what a simulator gives is for reading only; nothing here writes to it.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def like(tensor: Tensor, array: Array) -> Array:
    """A tensor as an array of the same kind as ``array``; shares memory."""
    return tensor if isinstance(array, Tensor) else tensor.numpy()


def constant(values: np.ndarray | Sequence[float], array: Array) -> Tensor:
    """Numbers as a tensor of the type and on the device of ``array``."""
    tensor = as_tensor(array)
    return torch.as_tensor(np.asarray(values, float), dtype=tensor.dtype, device=tensor.device)
