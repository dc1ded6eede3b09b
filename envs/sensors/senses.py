"""What may be done to the senses of an agent: shuffled, doubled, drowned in noise, lost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from ..errors import UserError
from ..numbers import PROBABILITY_BELOW_1, between, checked, listed, one_of, real, whole
from ..tokens import Feature, TokenSpec
from .neighbors import Neighbors
from .traces import Traces

ORDERS = ("never", "episode")
_LENGTH, _CHANNELS = real(1, 1e6), whole(0, 10_000)
_TRACES = listed(_LENGTH).told("a list of numbers of steps from 1 to 1,000,000, such as [10,50]")
_NOISE = (_CHANNELS | between(_CHANNELS)).told(f"{_CHANNELS.wanted}, or [fewest, most]")


@checked("env.senses")
@dataclass(frozen=True)
class Senses:
    """How readings become tokens; the keys of ``env.senses``.

    One rule orders all of it: the task gives readings; channels are added (duplicates, noise), stuck or
    blanked; a permutation takes channels to slots; the history belongs to the slot.

    Args:
        history: K, readings of each slot that its token holds, the newest and K - 1 differences; as many
            of the last actions are told.
        difference_scale: the differences of successive readings are multiplied by it.
        traces: T lengths in steps, over each of which a slot keeps running statistics, see `Traces`: by them
            an agent without memory knows its sensors over times longer than the history.
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
        UserError: an invalid value.
    """

    history: Annotated[int, whole(1, 1000)] = 1
    difference_scale: Annotated[float, real(0)] = 20.0
    traces: Annotated[tuple[float, ...], _TRACES] = ()
    neighbors: Annotated[float, real(0, 0) | _LENGTH] = 0
    scale: Annotated[float, real(0)] = 1.0
    shuffle: Annotated[str | int, one_of(*ORDERS) | whole(1)] = "never"
    duplicates: Annotated[int, whole(0, 1000)] = 0
    noise_channels: Annotated[int | tuple[int, int], _NOISE] = 0
    noise_std: Annotated[float, real(0)] = 0.1
    missing: Annotated[float, PROBABILITY_BELOW_1] = 0.0
    blinking: Annotated[float, PROBABILITY_BELOW_1] = 0.0
    stuck: Annotated[int, whole(0, 100_000)] = 0

    @property
    def noise_range(self) -> tuple[int, int]:
        """Channels of noise that every episode has, and slots for them."""
        noise = self.noise_channels
        return (noise, noise) if isinstance(noise, int) else noise

    def n_channels(self, n_sensors: int) -> int:
        """N, slots of a task with S sensors."""
        return n_sensors * (1 + self.duplicates) + self.noise_range[1]

    def spec(self, reading_shape: tuple[int, ...] = (), n_actions: int = 0) -> TokenSpec:
        """What the columns of a token mean, for readings of this shape and A actions.

        Raises:
            UserError: pixels shall be scaled, or readings that are no patches shall have neighbours.
        """
        traces = self._traces(n_actions, are_patches=bool(reading_shape))
        if reading_shape:
            if self.scale != 1.0:
                raise UserError(f"pixels have their own scale: leave env.senses.scale={self.scale:g} out")
            size = self.history * math.prod(reading_shape)
            meaning = f"the patch in the last {self.history} pictures, newest first; rows, columns, colours"
            if self.neighbors:
                told = f"over {self.neighbors:g} steps: {Neighbors.told}"
                traces = (*traces, Feature("match", Neighbors.size, "state", "-1 to 1", told))
            pixels = Feature("pixels", size, "state", "grey levels, 0 to 255", meaning)
            return TokenSpec(token=(pixels,), trace=traces)
        if self.neighbors:
            raise UserError("only patches of pictures have edges: leave env.senses.neighbors out")
        meaning = "newest reading of the slot, times the shared scale"
        features = [Feature("reading", 1, "state", "raw", meaning)]
        if self.history > 1:
            meaning = (
                f"differences of successive readings, newest first, times scale and {self.difference_scale:g}"
            )
            features.append(Feature("change", self.history - 1, "state", "raw", meaning))
        return TokenSpec(token=(*features, *traces))

    def _traces(self, n_actions: int, are_patches: bool) -> tuple[Feature, ...]:
        if not self.traces:
            return ()
        lengths = ", ".join(f"{length:g}" for length in self.traces)
        meaning = f"for {lengths} steps: {Traces.meaning(are_patches)}"
        size = len(self.traces) * Traces.size(n_actions, are_patches)
        return (Feature("trace", size, "state", "mixed", meaning),)
