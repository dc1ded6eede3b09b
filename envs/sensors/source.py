"""What a task of sensors gives: readings in its own order, rewards and ends, of many simulations at once."""

from __future__ import annotations

import abc
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..draws import RandomNumbers
from ..errors import EnvironmentFault
from ..in_place import replace
from ..snapshots import Kept, Misfit

logger = logging.getLogger(__name__)

LARGEST_REWARD = 1e18
"""What is larger is as good as infinite: learners compute in float32, which cannot hold its square."""

LARGEST_READING = 1e30
"""The same of readings: their differences are taken and scaled in float32."""

MOST_STARTS = 10
"""Starts that are drawn for an episode until its first reading is finite."""


class Source(Kept, abc.ABC):
    """A batch of B simulations, each read by the same S sensors.

    Tensors are of one device. On a CPU they may share their memory with arrays. On another device nothing in
    mid-run may wait for it, and what is gone on from is written to in place (`kept` names it).

    Attributes:
        name: of the task.
        num_envs: B.
        device: of all tensors.
        sensor_names: of the S sensors, in the task's own order.
        single_action_space: ``Box`` in [-1, 1] of shape (A,) (nominal), ``Discrete``, or ``MultiDiscrete`` of
            one dimension.
        max_episode_steps: steps after which an episode is truncated.
        reading_shape: of one sensor's reading: () for a number, (D,) for a patch of D grey levels, uint8.
        step_duration: simulated seconds of a step, for those who look on; a guess where a task has no time.
        sizes: what else a policy may be built for, by the names of its arguments.
        can_be_captured: whether a CUDA graph can hold a step; not where it launches graphs of its own.
    """

    name: str
    num_envs: int
    device = torch.device("cpu")
    sensor_names: tuple[str, ...]
    single_action_space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete
    max_episode_steps: int
    reading_shape: tuple[int, ...] = ()
    step_duration = 0.02
    sizes: Mapping[str, Any] = {}
    can_be_captured = False

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of what `read_state` tells."""
        return self.sensor_names

    @abc.abstractmethod
    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        """Start episodes in the simulations that ``where`` (B,) bool names."""

    def begin(self, actions: Tensor, running: Tensor) -> None:
        """Begin a step and return; worker processes, where there are some, simulate until `finish`.

        Args:
            actions: (B, A) float64, clipped to [-1, 1], or whole numbers (B,) or (B, K).
            running: (B,) bool, whose episode goes on; what is told of the others has no meaning.
        """
        self._begun = actions, running

    def finish(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Finish it; what `step` returns."""
        return self.step(*self._begun)

    @abc.abstractmethod
    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Both: rewards (B,) float64, terminated (B,) bool, and (B,) bool where the task cut the episode.

        None in its place: it never does.
        """

    @abc.abstractmethod
    def read(self) -> Tensor:
        """(B, S, *reading_shape) readings of the present states: float32 in raw units, or uint8."""

    @property
    def diverged(self) -> Tensor | None:
        """(B,) bool, whose state the last step broke; None: readings and rewards say so."""
        return None

    def read_state(self, readings: Tensor) -> Tensor:
        """(B, P) float32, what critics and teachers may see: the last readings, or the state behind them."""
        return readings

    def restore(self, taken: Mapping[str, Any]) -> Sequence[int]:
        """Inverse of ``snapshot``; indices of those that could not be brought back and are to start anew.

        Raises:
            Misfit: the snapshot is of another source.
        """
        super().restore(taken)
        return ()

    def check(self) -> None:  # noqa: B027
        """Look at what steps have left unsaid. Raises UserError: a capacity that was too small."""

    def close(self) -> None:  # noqa: B027
        """Let the simulations go."""


class Readings(Kept):
    """What B simulations read last that was finite: a source may break, but nobody reads NaN.

    Args:
        source: the task.
        looks: whether the host may look at values.
        scales: (S,) factors of the readings; None: raw units.

    Attributes:
        values: (B, S, *reading_shape).
        state: (B, P) float32, what critics and teachers may see.
    """

    kept = ("values", "state")

    def __init__(self, source: Source, looks: bool, scales: Sequence[float] | None = None) -> None:
        self._source, self._looks, b = source, looks, source.num_envs
        self._scales = None if scales is None else torch.tensor(scales, device=source.device)
        self._broken: Tensor | None = None  # readings of the last step in which some were not finite
        self._has_told = False
        kind = torch.uint8 if source.reading_shape else torch.float32
        shape = (b, len(source.sensor_names), *source.reading_shape)
        self.values = self.state = torch.zeros(shape, dtype=kind, device=source.device)
        self._has_state = type(source).read_state is not Source.read_state
        if self._has_state:
            self.state = torch.zeros(b, len(source.state_names), device=source.device)

    def read(self, goes: Tensor | None) -> Tensor | None:
        """Take the readings of those that ``goes`` (B,) names (None: of all); the others keep their last.

        Returns:
            (B,) bool, those of them that read what is not finite, or too large: they keep their last, too.
            None: the host knows that there are none.
        """
        values = self._source.read()
        if self._scales is not None:
            values = values * self._scales
        state = self._source.read_state(values) if self._has_state else None
        broken = None
        if not (self._looks and sums_up(values) and (state is None or sums_up(state))):
            finite = _are_finite(values)
            if state is not None:
                finite = finite & _are_finite(state)
            broken = ~finite if goes is None else goes & ~finite
            goes = finite if goes is None else goes & finite
            self._broken = values
        replace(self.values, goes, values)
        if state is not None:
            replace(self.state, goes, state)
        return broken

    def read_starts(self, where: Tensor, draws: RandomNumbers) -> None:
        """Take first readings where (B,) an episode starts; one that is not finite is started again.

        Raises:
            EnvironmentFault: it never begins with a finite one.
        """
        name = self._source.name
        for again in range(MOST_STARTS):
            broken = self.read(where)
            may_look = self._looks or draws.is_first  # a seeded reset may wait for the device
            if broken is None or not may_look or not broken.any():
                if again:
                    logger.warning("%s: first readings were not finite; started anew %d times", name, again)
                return
            where = broken
            self._source.start(where, draws)
        raise EnvironmentFault(
            f"{MOST_STARTS} episodes of {name} in a row began with readings that are not finite: it gave "
            f"{self._wrong_reading(int(where.nonzero()[0])) or 'a state that is not finite'}"
        )

    def _wrong_reading(self, row: int) -> str | None:
        """The first reading of a simulation that is not finite, or too large, and which sensor's it is."""
        fits = None if self._broken is None else _fits(self._broken[row])
        if fits is None or fits.all():
            return None
        place = int(fits.int().argmin())
        return f"{_told(float(self._broken[row][place]))} as observation ({self._source.sensor_names[place]})"

    def tell(self, diverged: Tensor, undefined: Tensor | None = None, rewards: Tensor | None = None) -> None:
        """Log, the first time only, that environments have diverged, and why the first one did.

        Args:
            diverged: (B,) bool.
            undefined: (B,) bool, whose action was NaN; None: nobody's, or it is not known.
            rewards: (B,) of the step; None: it is not known.
        """
        if self._has_told:
            return
        self._has_told = True
        rows = diverged.nonzero().flatten().tolist()
        name, first, broke = self._source.name, rows[0], self._source.diverged
        has_broken = broke is not None and bool(broke[first])
        if undefined is not None and undefined[first]:
            why = f"{name}: environments {rows} got NaN as action"
        elif rewards is not None and not abs(float(rewards[first])) <= LARGEST_REWARD:
            why = f"{name} gave {_told(float(rewards[first]))} as reward in environments {rows}"
        elif not has_broken and (wrong := self._wrong_reading(first)):
            why = f"{name} gave {wrong} in environments {rows}"
        else:
            pictures = "gave pictures that hold NaN or infinite numbers"
            why = f"{name}: environments {rows} {pictures if self._source.reading_shape else 'diverged'}"
        logger.warning("%s, which ends their episodes; later ones are not told", why)


def _told(value: float) -> str:
    return "NaN" if math.isnan(value) else "an infinite number" if math.isinf(value) else f"{value:g}"


def sums_up(values: Tensor) -> bool:
    """Whether all are finite. False if some are not, or so large that each is to be looked at."""
    return values.dtype == torch.uint8 or math.isfinite(torch.linalg.vector_norm(values))


def _are_finite(values: Tensor) -> Tensor:
    """(B,) bool, of (B, ...)."""
    if values.dtype == torch.uint8:
        return torch.ones(len(values), dtype=torch.bool, device=values.device)
    return _fits(values).flatten(1).all(1)


def _fits(values: Tensor) -> Tensor:
    """Where readings can be computed with; NaN cannot."""
    return values.abs() <= LARGEST_READING


FIRST = 64
"""Steps that there is room for at first; it doubles whenever an episode is longer."""


class Episodes:
    """How the present episodes came about, for simulations that can be replayed but not saved.

    Of each of B simulations, the seeds that its episode began with, and all actions since.

    Args:
        num_envs: B.
        n_seeds: of an episode.
        action: shape of an action.
        dtype: of an action.
    """

    def __init__(self, num_envs: int, n_seeds: int, action: tuple[int, ...], dtype: Any) -> None:
        self._seeds = np.zeros((num_envs, n_seeds), np.int64)
        self._steps = np.full(num_envs, -1)  # -1: no episode has begun
        self._actions = np.zeros((num_envs, FIRST, *action), dtype)

    def start(self, rows: Sequence[int] | np.ndarray, seeds: Any) -> None:
        """Episodes begin in ``rows`` (n,) with ``seeds`` (n, seeds)."""
        self._seeds[rows], self._steps[rows] = seeds, 0

    def enter(self, actions: np.ndarray, running: np.ndarray) -> None:
        """Those that are ``running`` (B,) bool do ``actions`` (B, ...)."""
        rows = np.flatnonzero(running)
        if len(rows) and self._steps[rows].max() == self._actions.shape[1]:
            self._actions = np.concatenate((self._actions, np.zeros_like(self._actions)), 1)
        self._actions[rows, self._steps[rows]] = actions[rows]
        self._steps[rows] += 1

    def begun(self, row: int) -> bool:
        """Whether there is an episode."""
        return bool(self._steps[row] >= 0)

    def of(self, row: int) -> tuple[tuple[int, ...], np.ndarray]:
        """Seeds, and a copy of the actions (steps, ...) of an episode."""
        return tuple(self._seeds[row].tolist()), self._actions[row, : self._steps[row]].copy()

    def snapshot(self) -> dict[str, Tensor]:
        """All of it, no longer than the longest episode."""
        length = max(int(self._steps.max()), 0)
        parts = {"seeds": self._seeds, "steps": self._steps, "actions": self._actions[:, :length]}
        return {name: torch.from_numpy(values.copy()) for name, values in parts.items()}

    def restore(self, taken: Mapping[str, Any]) -> None:
        """Inverse of `snapshot`. Raises Misfit: of others; nothing is changed then."""
        seeds, steps, actions = (taken[name].numpy() for name in ("seeds", "steps", "actions"))
        other = (seeds.shape, steps.shape, actions.shape[:1] + actions.shape[2:], actions.dtype)
        kept = self._actions
        own = (self._seeds.shape, self._steps.shape, kept.shape[:1] + kept.shape[2:], kept.dtype)
        if own != other:
            raise Misfit(f"episodes have seeds, steps and actions of {own}, the snapshot of {other}")
        length = actions.shape[1]
        if steps.max() > length:
            raise Misfit(f"an episode of the snapshot has {steps.max()} steps and {length} actions")
        self._seeds[:], self._steps[:] = seeds, steps
        self._actions = np.zeros((len(kept), max(FIRST, length), *kept.shape[2:]), kept.dtype)
        self._actions[:, :length] = actions


def tell_lost(task: str, lost: int, num_envs: int) -> None:
    """Log that of so many simulations so many came to another place when they were replayed."""
    if lost:
        which = f"{lost} of {num_envs} environments begin anew"
        logger.warning("episodes of %s cannot be replayed; %s, so the run is no longer exact", task, which)
