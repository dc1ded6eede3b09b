"""CartPoleSwingUpHarder: swing a pole up from wild starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch

from ..numbers import EPISODE_STEPS, checked, one_of, part
from .carts import SENSORS, STARTS, CartPoles
from .on_device.carts import TensorCarts
from .on_device.source import TensorSource
from .senses import Senses
from .task import SCALES, SensorTask, checked_scales, describe_scales


@checked("env")
class CartPoleSwingUp(SensorTask):
    """The keys of ``conf/env/cartpole_swingup.yaml``.

    Args:
        senses: what happens to the readings.
        max_episode_steps: 1000 in the publication.
        starts: ``random``, or ``fixed`` for the 1000 of the repository.
        sensor_scales: factors of the five readings, which then stand beside every score; None: raw units.

    Raises:
        UserError: a name or number that cannot be meant.
    """

    name = CartPoles.name
    device_simulation = "torch"

    def __init__(
        self,
        senses: Annotated[Senses | None, part(Senses)] = None,
        max_episode_steps: Annotated[int, EPISODE_STEPS] = 1000,
        starts: Annotated[str, one_of(*STARTS)] = "random",
        sensor_scales: Annotated[Sequence[float] | None, SCALES] = None,
    ) -> None:
        super().__init__(senses, max_episode_steps)
        self.starts = starts
        self.sensor_scales = checked_scales(sensor_scales, SENSORS)

    def make_source(self, num_envs: int, threads: int = 0) -> CartPoles:
        """So many carts; they need no threads."""
        return CartPoles(num_envs, self.max_episode_steps, self.starts, self.sensor_scales)

    def make_tensor_source(self, num_envs: int, device: torch.device) -> TensorSource:
        """So many carts on a device."""
        return TensorCarts(num_envs, device, self.max_episode_steps, self.starts, self.sensor_scales)

    def notes(self) -> tuple[str, ...]:
        """Constants of single sensors, if there are any."""
        return describe_scales(self.sensor_scales)
