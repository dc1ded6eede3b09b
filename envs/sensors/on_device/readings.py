"""The last readings that were finite, on a device; what `somite.envs.sensors.readings` is on the host."""

from __future__ import annotations

import torch
from torch import Tensor

from ...in_place import replace
from ..readings import LARGEST_READING
from .kept import KeptTensors
from .source import TensorSource


class TensorReadings(KeptTensors):
    """What B rows read last that was finite.

    Args:
        source: the task.

    Attributes:
        values: (B, S) float32.
    """

    kept = ("values",)

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        self.values = torch.zeros(source.num_envs, len(source.sensor_names), device=source.device)

    def read(self, goes: Tensor) -> Tensor:
        """Take the readings of the rows that ``goes`` (B,) names; the others keep their last.

        Returns:
            (B,) bool, those of them that read what is not a finite number, or too large a one: they keep
            their last, too.
        """
        values = self._source.read()
        finite = (values.abs() <= LARGEST_READING).all(1)  # NaN is not
        replace(self.values, goes & finite, values)
        return goes & ~finite
