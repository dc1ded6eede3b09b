"""From a task's readings to channels: copies and noise are added, some channels stick or are lost."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..draws import Draws, RandomNumbers
from ..errors import UserError
from ..in_place import replace, wide
from ..snapshots import Kept
from .senses import Senses


class Channels(Kept):
    """Channels of B environments: first the sensors, then their copies, then noise.

    Args:
        senses: what is added and taken away.
        num_envs: B.
        n_sensors: S.
        reading_shape: of a reading, as in `Source`.
        device: of all tensors.

    Attributes:
        n: C, channels.
        sensor: (C,) int32, which of the task's sensors each shows, S for noise.
        complete: whether every channel is there in every step.
        draws: whether anything here is random.

    Raises:
        UserError: more shall stick than there are, or so small a share be lost that it is none.
    """

    kept = ("_exists", "_stuck", "_held", "_noise", "_there")

    def __init__(
        self,
        senses: Senses,
        num_envs: int,
        n_sensors: int,
        reading_shape: tuple[int, ...] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self.senses, self.reading_shape = senses, reading_shape
        self.n_real = n_sensors * (1 + senses.duplicates)
        self.n_lost = round(senses.missing * self.n_real)
        if senses.stuck > self.n_real:
            raise UserError(
                f"env.senses.stuck is {senses.stuck}, but the sensors have {self.n_real} channels"
            )
        if senses.missing and not self.n_lost:
            raise UserError(
                f"env.senses.missing={senses.missing:g} is less than half a channel: the sensors have "
                f"{self.n_real}; {1 / self.n_real:.2g} is one of them"
            )
        self.n = senses.n_channels(n_sensors)
        least, most = senses.noise_range
        self._varies = bool(self.n_lost or senses.stuck or least < most)
        self.complete = not (self.n_lost or senses.blinking or least < most)
        self.draws = bool(self._varies or most or senses.blinking)
        kinds = [*range(n_sensors)] * (1 + senses.duplicates) + [n_sensors] * most
        self.sensor = torch.tensor(kinds, dtype=torch.int32, device=device)
        flags = torch.ones(3, num_envs, self.n, dtype=torch.bool, device=device)
        self._exists, self._there, self._stuck = flags[0], flags[1], ~flags[2]
        room = {"dtype": torch.uint8 if reading_shape else torch.float32, "device": device}
        self._held = torch.zeros(num_envs, self.n if senses.stuck else 0, *reading_shape, **room)
        self._noise = torch.zeros(num_envs, self.n - self.n_real, *reading_shape, **room)
        self._rank = torch.arange(self.n, device=device)

    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        """Draw what is lost, what sticks and how much noise there is, where (B,) episodes start."""
        if not self._varies:
            return
        least, most = self.senses.noise_range
        noise = least + draws.integers(most + 1 - least)
        exists = self._rank < self.n_real + noise.unsqueeze(1)
        replace(self._exists, where, exists & ~self._some_of_the_real(self.n_lost, draws))
        replace(self._stuck, where, self._some_of_the_real(self.senses.stuck, draws))

    def _some_of_the_real(self, count: int, draws: RandomNumbers) -> Tensor:
        """(B, C) bool, so many of the sensors' channels in every environment."""
        chosen = draws.permutations(self.n_real)[:, :count]
        return torch.zeros_like(self._exists).scatter_(1, chosen, True)

    def read(self, readings: Tensor, draws: Draws, where: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Values (B, C, *reading_shape) and whether each channel is there (B, C) bool.

        Readings are the task's, (B, S, *reading_shape); ``where`` (B,) names those that have just been reset,
        while the others stepped before; None: all step.
        """
        senses = self.senses
        values = readings if self.n == readings.shape[1] else self._with_more(readings, draws, where)
        if senses.stuck:
            if where is not None:
                replace(self._held, where, values)
            values = torch.where(wide(self._stuck, values), self._held, values)
        if senses.blinking:
            there = draws.uniform(self.n, dtype=torch.float32) >= senses.blinking
            replace(self._there, where, there)
            return values, self._exists & self._there
        return values, self._exists

    def _with_more(self, readings: Tensor, draws: Draws, where: Tensor | None) -> Tensor:
        """Readings, their copies, noise, side by side."""
        parts = [readings] * (1 + self.senses.duplicates)
        n_noise = self.n - self.n_real
        if n_noise:
            if self.reading_shape:
                drawn = draws.integers(256, n_noise * math.prod(self.reading_shape), dtype=torch.uint8)
            else:
                drawn = draws.normal(n_noise, dtype=torch.float32).mul_(self.senses.noise_std)
            replace(self._noise, where, drawn.view_as(self._noise))
            parts.append(self._noise)
        return torch.cat(parts, 1)
