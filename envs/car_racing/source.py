"""CarRacing as a source of sensors: patches of the picture, or the state behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..cores import thread_count
from ..draws import RandomNumbers
from ..images.patches import cut, patch_names
from ..sensors.source import Episodes, Source, tell_lost
from .cars import HIGH, LOW, Past, Rules, make_cars
from .scenery import SIZE
from .simulation import STATE_NAMES

MOST_SEED = 2**31  # seeds of tracks are drawn below it
CARS_OF_A_WORKER = 4  # with fewer, what a process does in a step is less than what telling it costs


class RacingSource(Source):
    """B cars.

    Box2D's solver cannot be saved: a snapshot holds seeds and actions, by which the present episodes are
    replayed, and the states that this is to lead to.

    Args:
        num_envs: B.
        rules: of all cars.
        patch_size: pixels of a patch's side.
        threads: worker processes; 0 for one per core, where there are cars enough.
    """

    name = "car_racing"
    kept = ("_episodes", "_origins", "_states")

    def __init__(self, num_envs: int, rules: Rules, patch_size: int, threads: int = 0) -> None:
        self.num_envs, self._draws, self._patch = num_envs, rules.draws, patch_size
        self.single_action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.max_episode_steps = -(-rules.max_frames // rules.action_repeat)
        self.sensor_names = STATE_NAMES
        if rules.draws:
            grid = SIZE // patch_size
            self.reading_shape = (patch_size * patch_size * (1 if rules.grey else 3),)
            self.sensor_names = patch_names(grid, grid)
            self.sizes = {"grid": (grid, grid), "patch_size": patch_size}
        workers = thread_count(threads, num_envs // CARS_OF_A_WORKER)
        self._episodes = Episodes(num_envs, n_seeds=2, action=(3,), dtype=np.float64)
        self._cars = make_cars(num_envs, workers, rules, self._past)
        self._results = self._cars.results
        self._origins, self._states = self._results["origins"], self._results["states"]

    def _past(self, index: int) -> Past | None:
        return Past(*self._episodes.of(index)) if self._episodes.begun(index) else None

    @property
    def state_names(self) -> tuple[str, ...]:
        """As in `STATE_NAMES`."""
        return STATE_NAMES

    @property
    def pictures(self) -> np.ndarray:
        """(B, 96, 96, 3) uint8, what the worlds look like."""
        return self._results["pictures"]

    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        """New tracks, from the seeds that Gymnasium makes them from."""
        chosen = where.nonzero().flatten().tolist()
        drawn = draws.integers(MOST_SEED, 2)[chosen].tolist()
        self._cars.start({index: Past(tuple(seeds)) for index, seeds in zip(chosen, drawn, strict=True)})
        self._episodes.start(chosen, drawn)

    def begin(self, actions: Tensor, running: Tensor) -> None:
        """Worker processes, where there are some, simulate and draw from now on; see `Source`."""
        self._results["actions"] = LOW + (actions.numpy() + 1.0) * (HIGH - LOW) / 2.0
        self._results["running"] = running.numpy()
        self._cars.step_begin()

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """See `Source`."""
        self._cars.step_finish()
        self._episodes.enter(self._results["actions"], self._results["running"])
        return tuple(torch.from_numpy(self._results[name].copy()) for name in ("rewards", "ended", "cut"))

    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nominal actions (B, 3), affine to the car's controls; see `Source`."""
        self.begin(actions, running)
        return self.finish()

    def read(self) -> Tensor:
        """(B, patches, pixels) uint8, or the state (B, S) float32."""
        if not self._draws:
            return torch.from_numpy(self._states.copy())
        return torch.from_numpy(cut(self._results["frames"], self._patch))

    def read_state(self, readings: Tensor) -> Tensor:
        """(B, S) float32."""
        return torch.from_numpy(self._states.copy())

    def restore(self, taken: Mapping[str, Any]) -> Sequence[int]:
        """Replay the episodes; see `Source.restore`."""
        super().restore(taken)
        wanted, origins = self._states.copy(), self._origins.tolist()
        self._cars.start({i: Past(*self._episodes.of(i), origins[i]) for i in range(self.num_envs)})
        lost = np.flatnonzero((self._states != wanted).any(1)).tolist()
        tell_lost(self.name, len(lost), self.num_envs)
        return lost

    def close(self) -> None:
        """End the worker processes."""
        self._cars.close()
