"""From readings to channels on a device; what `somite.envs.sensors.channels` is on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...in_place import replace
from ..channels import Channels
from ..senses import Senses
from .chance import Chance
from .kept import KeptTensors


class TensorChannels(KeptTensors):
    """Channels of B rows: first the sensors, then their copies, then noise.

    Args:
        senses: what is added and taken away.
        num_envs: B.
        n_sensors: S.
        device: of all tensors.

    Attributes:
        n: C, channels.
        sensor: (C,) int32, which of the task's sensors each shows, S for noise.
        complete: whether every channel is there in every step.

    Raises:
        UserError: as `Channels`.
    """

    kept = ("_exists", "_stuck", "_held", "_noise", "_there")

    def __init__(self, senses: Senses, num_envs: int, n_sensors: int, device: torch.device) -> None:
        self.senses, self._n_sensors = senses, n_sensors
        form = Channels(senses, 1, n_sensors)  # looks whether the senses can be meant
        self.n, self.n_real, self.n_lost = form.n, form.n_real, form.n_lost
        self.draws = form.draws
        self.varies = bool(self.n_lost or senses.stuck or senses.least_noise < senses.most_noise)
        self.complete = not (self.n_lost or senses.blinking or senses.least_noise < senses.most_noise)
        self.sensor = torch.from_numpy(form.sensor).to(device)
        self._is_real = torch.arange(self.n, device=device) < self.n_real

        def flags(value: bool) -> Tensor:
            return torch.full((num_envs, self.n), value, device=device)

        self._exists, self._there, self._stuck = flags(True), flags(True), flags(False)
        self._held = torch.zeros(num_envs, self.n if senses.stuck else 0, device=device)
        self._noise = torch.zeros(num_envs, self.n - self.n_real, device=device)
        self._rank = torch.arange(self.n, device=device)

    def seed(self, rngs: Sequence[np.random.Generator], stream: np.ndarray) -> None:
        """Draw what is lost, what sticks and how much noise there is as the host does.

        Args:
            rngs: of the channels, one for each distinct seed.
            stream: (B,) which of them is a row's.
        """
        if self.varies:
            form = Channels(self.senses, len(rngs), self._n_sensors)
            form.start(np.arange(len(rngs)), rngs)
            taken = form.snapshot()
            self._exists.copy_(taken["_exists"][stream])
            self._stuck.copy_(taken["_stuck"][stream])

    def start(self, where: Tensor, chance: Chance) -> None:
        """Draw the same anew for episodes that start in the rows that ``where`` (B,) names."""
        if not self.varies:
            return
        senses = self.senses
        counts = senses.most_noise + 1 - senses.least_noise
        noise = senses.least_noise + (counts * chance.uniform(1)).long()  # noise: (B, 1)
        exists = self._rank < self.n_real + noise
        replace(self._exists, where, exists & ~self._some_of_the_real(self.n_lost, chance))
        replace(self._stuck, where, self._some_of_the_real(senses.stuck, chance))

    def _some_of_the_real(self, count: int, chance: Chance) -> Tensor:
        """(B, C) bool, so many of the sensors' channels in every row."""
        places = torch.where(self._is_real, chance.uniform(self.n), 2.0).argsort(1).argsort(1)
        return places < count

    def read(self, readings: Tensor, chance: Chance, where: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Values (B, C) and whether each channel is there (B, C) bool.

        Args:
            readings: (B, S) of the task.
            chance: draws noise and what blinks.
            where: (B,) rows that have just been reset, in the midst of a step of the others; None: all step.
        """
        senses = self.senses
        values = readings if self.n == readings.shape[1] else self._with_more(readings, chance, where)
        if senses.stuck:
            if where is not None:
                replace(self._held, where, values)
            values = torch.where(self._stuck, self._held, values)
        if senses.blinking:
            self._draw(self._there, chance.uniform(self.n) >= senses.blinking, where)
            return values, self._exists & self._there
        return values, self._exists

    def _with_more(self, readings: Tensor, chance: Chance, where: Tensor | None) -> Tensor:
        """Readings, their copies, noise, side by side."""
        parts = [readings] * (1 + self.senses.duplicates)
        if self.n > self.n_real:
            drawn = chance.normal(self.n - self.n_real) * self.senses.noise_std
            self._draw(self._noise, drawn, where)
            parts.append(self._noise)
        return torch.cat(parts, 1)

    @staticmethod
    def _draw(values: Tensor, drawn: Tensor, where: Tensor | None) -> None:
        """Take in what was drawn, for the rows that were reset or for all."""
        if where is None:
            values.copy_(drawn)
        else:
            replace(values, where, drawn)
