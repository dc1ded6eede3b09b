"""How a body's parameters vary from episode to episode, and apart from that in tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from ...errors import UserError, nearest
from ...numbers import NULL, SEED, VALUES, between, checked, listed, one_of, real, whole

QUANTITIES = ("length", "mass", "gear", "damping", "armature", "friction")
"""What can vary. Lengths are drawn from compiled variants, the others for every episode."""

EDITED = QUANTITIES[1:]
DRAWS = ("train", "interpolation", "extrapolation")

Interval = tuple[float, float]
FACTOR = between(real(0, 1000, above=True))
FACTORS = (FACTOR | listed(FACTOR, 1) | NULL).told(f"{FACTOR.wanted}, a list of these, or null")
"""``[low, high]``, or several of these; null: not varied."""

VARIANTS = whole(1, 1000)


@checked("env.variation")
@dataclass(frozen=True)
class BodyVariation:
    """Factors on a body's parameters, log-uniform in ranges ``[low, high]``; null: not varied.

    Args:
        length: everything along a limb: its geoms (capsules keep their radius), joints and where the next
            limbs hang. A limb gets heavier with its length.
        mass: mass and inertia.
        gear: force of the actuators. For a motor that is its gear.
        damping, armature: of the joints.
        friction: of what touches the ground: the factor on the larger of the limb's and the ground's.
        per: ``limb``: a factor for every limb; ``body``: one for all limbs.
        extrapolation: ranges of the extrapolation test by quantity, outside those of training; where none
            is given the quantity is that of the body. Several ranges may be given: [[0.5, 0.8], [1.25, 2]].
        draw: ``train``; ``interpolation``: from the ranges of training, by a stream and compiled variants
            of its own; ``extrapolation``; ``none``.
        variants: compiled variants of a body that lengths are drawn from.
        seed: of these variants.

    Attributes:
        intervals: ranges that ``draw`` takes each quantity from; none: it does not vary.

    Raises:
        UserError: a range that is none, an unknown name, or an extrapolation that overlaps training.
    """

    length: Annotated[Any, FACTORS] = None
    mass: Annotated[Any, FACTORS] = None
    gear: Annotated[Any, FACTORS] = None
    damping: Annotated[Any, FACTORS] = None
    armature: Annotated[Any, FACTORS] = None
    friction: Annotated[Any, FACTORS] = None
    per: Annotated[str, one_of("limb", "body")] = "limb"
    extrapolation: Annotated[Mapping[str, Any] | None, VALUES | NULL] = None
    draw: Annotated[str, one_of(*DRAWS, "none")] = "train"
    variants: Annotated[int, VARIANTS] = 16
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        for name in self.extrapolation or {}:
            if name not in QUANTITIES:
                hint = nearest(str(name), QUANTITIES)
                raise UserError(f"env.variation.extrapolation has no {name!r}; {hint}")
            FACTORS.read(f"env.variation.extrapolation.{name}", self.extrapolation[name])
        extrapolated = {name: intervals_of((self.extrapolation or {}).get(name)) for name in QUANTITIES}
        trained = {name: intervals_of(getattr(self, name)) for name in QUANTITIES}
        for name in QUANTITIES:
            for low, high in extrapolated[name]:
                for start, end in trained[name] or ((1.0, 1.0),):
                    if low < end and start < high or (low, high) == (start, end):
                        raise UserError(
                            f"env.variation.extrapolation.{name} [{low:g}, {high:g}] overlaps "
                            f"[{start:g}, {end:g}], which is trained on; it must lie outside"
                        )
        if self.draw == "extrapolation" and not any(extrapolated.values()):
            raise UserError(
                "env.variation.draw=extrapolation, but env.variation.extrapolation gives no range, for "
                "example env.variation.extrapolation.mass=[1.25,2]"
            )
        drawn = {"none": dict.fromkeys(QUANTITIES, ()), "extrapolation": extrapolated}
        object.__setattr__(self, "intervals", drawn.get(self.draw, trained))

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of the quantities that vary."""
        return tuple(name for name in QUANTITIES if self.intervals[name])

    @property
    def stream(self) -> int:
        """Which of a row's streams episodes are drawn from: training and tests share none."""
        return DRAWS.index(self.draw) if self.draw != "none" else 0

    def draw_lengths(self, n_limbs: int) -> np.ndarray | None:
        """(variants, N) factors on the limbs' lengths of all variants of a body; None: they do not vary."""
        if not self.intervals["length"]:
            return None
        rng = np.random.default_rng([self.seed, self.stream])
        return log_uniform(self.intervals["length"], self._uniform(rng, self.variants, n_limbs))

    def draw_edits(self, rng: np.random.Generator, n_limbs: int) -> dict[str, np.ndarray]:
        """(N,) factors for an episode of every quantity of ``EDITED`` that varies.

        As many numbers are drawn whatever varies, so that ranges can be added and nothing else changes.
        """
        drawn = zip(EDITED, self._uniform(rng, len(EDITED), n_limbs), strict=True)
        return {name: log_uniform(self.intervals[name], row) for name, row in drawn if self.intervals[name]}

    def _uniform(self, rng: np.random.Generator, count: int, n_limbs: int) -> np.ndarray:
        if self.per == "limb":
            return rng.random((count, n_limbs))
        return np.repeat(rng.random((count, 1)), n_limbs, axis=1)


def intervals_of(factors: Any) -> tuple[Interval, ...]:
    """What `FACTORS` lets through, as one, several or no intervals."""
    if factors is None:
        return ()
    return tuple(factors) if isinstance(factors[0], Sequence) else (tuple(factors),)


def log_uniform(intervals: Sequence[Interval], uniform: np.ndarray) -> np.ndarray:
    """Factors, of equal density in their logarithm over all ``intervals``, one of each draw from [0, 1)."""
    if len(intervals) == 1:
        low, high = intervals[0]
        return np.clip(low * (high / low) ** uniform, low, high)
    lows, highs = np.log(np.array(intervals)).T
    widths = highs - lows
    if not widths.any():  # points, equally likely
        widths = np.ones(len(intervals))
    ends = np.cumsum(widths)
    place = uniform * ends[-1]
    chosen = np.minimum(np.searchsorted(ends, place, side="right"), len(intervals) - 1)
    share = (place - (ends - widths)[chosen]) / widths[chosen]
    return np.exp(lows[chosen] + np.clip(share, 0, 1) * (highs - lows)[chosen])
