"""CartPoleSwingUpHarder: swing a pole up from wild starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import UserError, nearest
from .carts import SENSORS, STARTS, CartPoles
from .on_device.carts import TensorCarts
from .on_device.source import TensorSource
from .senses import Senses
from .task import SensorTask, checked_scales, describe_scales


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
        senses: Senses | None = None,
        max_episode_steps: int = 1000,
        starts: str = "random",
        sensor_scales: Sequence[float] | None = None,
    ) -> None:
        super().__init__(senses, max_episode_steps)
        if starts not in STARTS:
            raise UserError(f"env.starts cannot be {starts!r}; {nearest(str(starts), STARTS)}")
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
