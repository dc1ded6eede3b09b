"""CarRacing as a source of sensors: patches of the picture, or the state behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from ..cores import thread_count
from ..images.patches import cut, patch_names
from ..sensors.episodes import Episodes, tell_lost
from ..sensors.source import Source
from ..snapshots import put
from .drawing import SIZE
from .rows import HIGH, LOW, Past, Rules
from .simulation import STATE_NAMES
from .workers import make_rows

MOST_SEED = 2**31
"""Seeds of tracks are drawn below it."""

ROWS_OF_A_WORKER = 4
"""With fewer, what a process does in a step is less than what telling it costs."""


class RacingSource(Source):
    """B cars.

    Box2D's solver cannot be saved: a snapshot holds seeds and actions, by which the physics of the present
    episodes are replayed, in this process or in workers, and the states that this is to lead to.

    Args:
        num_envs: B.
        rules: of each.
        patch_size: P, pixels of a patch's side.
        threads: worker processes; 0 for one per core, where there are rows enough.
    """

    name = "car_racing"
    kept = ("_episodes", "_origins", "_states")

    def __init__(self, num_envs: int, rules: Rules, patch_size: int = 6, threads: int = 0) -> None:
        self.num_envs, self.rules, self._patch = num_envs, rules, patch_size
        self.single_action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.max_episode_steps = math.ceil(rules.max_frames / rules.action_repeat)
        colors = 1 if rules.grey else 3
        self.reading_shape = (patch_size * patch_size * colors,) if rules.pictures else ()
        grid = SIZE // patch_size
        self.sensor_names = patch_names(grid, grid) if rules.pictures else STATE_NAMES
        self.sizes = {"grid": (grid, grid), "patch_size": patch_size} if rules.pictures else {}
        workers = thread_count(threads, num_envs // ROWS_OF_A_WORKER)
        self._episodes = Episodes(num_envs, n_seeds=2, action=(3,), dtype=np.float64)
        self._rows = make_rows(num_envs, workers, rules, self._episodes)
        self._origins, self._states = self._rows.results.origins, self._rows.results.states

    @property
    def state_names(self) -> tuple[str, ...]:
        """As in `STATE_NAMES`."""
        return STATE_NAMES

    @property
    def pictures(self) -> np.ndarray:
        """(B, 96, 96, 3) uint8, what the worlds look like."""
        return self._rows.results.pictures

    def start(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """New tracks; the generators draw the seeds that Gymnasium makes them from."""
        drawn = [rng.integers(MOST_SEED, size=2).tolist() for rng in rngs]
        self._rows.start({int(row): Past(tuple(seeds)) for row, seeds in zip(rows, drawn, strict=True)})
        self._episodes.start(rows, drawn)

    def step(self, actions: np.ndarray, running: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nominal actions (B, 3), affine to the car's controls; see `Source`."""
        self.step_begin(actions, running)
        return self.step_finish()

    def step_begin(self, actions: np.ndarray, running: np.ndarray) -> None:
        """Worker processes, where there are some, simulate and draw from now on; see `Source`."""
        self._begun = LOW + (actions + 1.0) * (HIGH - LOW) / 2.0, running.copy()
        self._rows.step_begin(*self._begun)

    def step_finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Source`."""
        self._rows.step_finish()
        self._episodes.enter(*self._begun)
        results = self._rows.results
        return results.rewards.copy(), results.ended.copy(), results.cut.copy()

    def read(self) -> np.ndarray:
        """(B, patches, pixels) uint8, or the state (B, S) float32."""
        if not self.rules.pictures:
            return self._rows.results.states.copy()
        return cut(self._rows.results.frames, self._patch)

    def read_state(self, readings: np.ndarray) -> np.ndarray:
        """(B, S) float32."""
        return self._rows.results.states.copy()

    def restore(self, taken: Mapping[str, Any]) -> np.ndarray:
        """Replay the episodes; see `Source.restore`."""
        put(self, self.kept, taken)
        wanted, origins = self._states.copy(), self._origins.tolist()
        self._rows.start({row: Past(*self._episodes.of(row), origins[row]) for row in range(self.num_envs)})
        lost = np.flatnonzero((self._states != wanted).any(1))
        tell_lost(self.name, len(lost), self.num_envs)
        return lost

    def close(self) -> None:
        """End the worker processes."""
        self._rows.close()
