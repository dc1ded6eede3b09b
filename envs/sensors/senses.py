"""What may be done to the senses of an agent: shuffled, doubled, drowned in noise, lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UserError, nearest
from ..numbers import is_number, whole_number
from ..tokens import Feature, TokenSpec
from .neighbors import Neighbors
from .traces import PatchTraces, ReadingTraces

ORDERS = ("never", "episode")


@dataclass(frozen=True)
class Senses:
    """How readings become tokens; the keys of ``env.senses``.

    One rule orders all of it: the task gives readings; channels are added (duplicates, noise), stuck or
    blanked; a permutation takes channels to slots; the history belongs to the slot.

    Args:
        history: K, readings of each slot that its token holds, the newest and K - 1 differences; as many
            of the last actions are told.
        difference_scale: the differences of successive readings are multiplied by it.
        traces: T lengths in steps, over each of which a slot keeps running statistics: see `ReadingTraces`
            and `PatchTraces`. By them an agent without memory knows its sensors over times longer than
            the history.
        neighbors: of patches, the length in steps over which edges are compared to find out which slots
            show what lies side by side, see `Neighbors`; 0: that is not looked for.
        scale: one factor for all readings, applied last; readings are in raw units without it.
        shuffle: ``never``; ``episode``, a new order of the slots for every episode; or a number of steps,
            after which the order is drawn anew, too.
        duplicates: further copies of every sensor.
        noise_channels: channels that hold nothing but noise.
        noise_std: its standard deviation, in raw units.
        missing: share of the sensors' channels, rounded, that are lost for a whole episode, in [0, 1).
        blinking: probability of each channel to be lost in a step, in [0, 1).
        stuck: channels that keep the first reading of an episode.

    Raises:
        UserError: a value that cannot be meant.
    """

    history: int = 1
    difference_scale: float = 20.0
    traces: tuple[float, ...] = ()
    neighbors: float = 0
    scale: float = 1.0
    shuffle: str | int = "never"
    duplicates: int = 0
    noise_channels: int | tuple[int, int] = 0
    noise_std: float = 0.1
    missing: float = 0.0
    blinking: float = 0.0
    stuck: int = 0

    def __post_init__(self) -> None:
        whole: dict[str, Any] = {
            name: whole_number(getattr(self, name), f"senses.{name}", least)
            for name, least in (("history", 1), ("duplicates", 0), ("stuck", 0))
        }
        noise = self.noise_channels
        if isinstance(noise, Sequence) and not isinstance(noise, str):
            bounds = tuple(whole_number(number, "senses.noise_channels", 0) for number in noise)
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                raise UserError(f"senses.noise_channels must be a number or [fewest, most], got {noise!r}")
            whole["noise_channels"] = bounds
        else:
            whole["noise_channels"] = whole_number(noise, "senses.noise_channels", 0)
        whole["traces"] = _lengths(self.traces)
        if not is_number(self.neighbors) or not (self.neighbors == 0 or self.neighbors >= 1):
            raise UserError(f"senses.neighbors is 0, or 1 step or more, such as 40, got {self.neighbors!r}")
        for name in ("missing", "blinking"):
            if not is_number(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise UserError(f"senses.{name} is a share, in [0, 1), got {getattr(self, name)!r}")
        for name in ("noise_std", "scale", "difference_scale"):
            if not is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise UserError(f"senses.{name} must be a number of 0 or more, got {getattr(self, name)!r}")
        if isinstance(self.shuffle, str):
            if self.shuffle not in ORDERS:
                raise UserError(
                    f"senses.shuffle is never, episode or a number of steps, got {self.shuffle!r}; "
                    f"{nearest(self.shuffle, ORDERS)}"
                )
        else:
            whole["shuffle"] = whole_number(self.shuffle, "senses.shuffle", 1)
        for name, value in whole.items():
            object.__setattr__(self, name, value)  # 1e2 is a whole number, too

    @property
    def most_noise(self) -> int:
        """Slots for channels of noise."""
        noise = self.noise_channels
        return noise if isinstance(noise, int) else noise[1]

    @property
    def least_noise(self) -> int:
        """Channels of noise that every episode has."""
        noise = self.noise_channels
        return noise if isinstance(noise, int) else noise[0]

    def n_channels(self, n_sensors: int) -> int:
        """N, slots of a task with S sensors."""
        return n_sensors * (1 + self.duplicates) + self.most_noise

    def spec(self, reading_shape: tuple[int, ...] = (), n_actions: int = 0) -> TokenSpec:
        """What the columns of a token mean, for readings of this shape and A actions.

        Raises:
            UserError: pixels shall be scaled, or readings that are no patches shall have neighbours.
        """
        if reading_shape:
            if self.scale != 1.0:
                raise UserError(f"pixels have their own scale: leave env.senses.scale={self.scale:g} out")
            size = self.history * math.prod(reading_shape)
            meaning = f"the patch in the last {self.history} pictures, newest first; rows, columns, colours"
            pixels = Feature("pixels", size, "state", "grey levels, 0 to 255", meaning)
            traces = self._traces(PatchTraces, n_actions)
            if self.neighbors:
                meaning = f"over {self.neighbors:g} steps: {Neighbors.told}"
                traces = (*traces, Feature("match", Neighbors.size, "state", "-1 to 1", meaning))
            return TokenSpec(token=(pixels,), trace=traces)
        if self.neighbors:
            raise UserError("only patches of pictures have edges: leave env.senses.neighbors out")
        reading = Feature("reading", 1, "state", "raw", "newest reading of the slot, times the shared scale")
        features = [reading]
        if self.history > 1:
            meaning = (
                f"differences of successive readings, newest first, times scale and {self.difference_scale:g}"
            )
            features.append(Feature("change", self.history - 1, "state", "raw", meaning))
        return TokenSpec(token=(*features, *self._traces(ReadingTraces, n_actions)))

    def _traces(self, kind: type[ReadingTraces | PatchTraces], n_actions: int) -> tuple[Feature, ...]:
        if not self.traces:
            return ()
        lengths = ", ".join(f"{length:g}" for length in self.traces)
        size = len(self.traces) * kind.size(n_actions)
        return (Feature("trace", size, "state", "mixed", f"for {lengths} steps: {kind.told}"),)

    def with_values(self, **values: Any) -> Senses:
        """The same with other values."""
        return replace(self, **values)


def _lengths(traces: Any) -> tuple[float, ...]:
    """Lengths of traces. Raises UserError."""
    listed = isinstance(traces, Sequence) and not isinstance(traces, str)
    if not listed or not all(is_number(length) and length >= 1 for length in traces):
        raise UserError(f"senses.traces is a list of steps of 1 or more, such as [10,50], got {traces!r}")
    return tuple(float(length) for length in traces)
