"""Many cars of one process, and what they write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from .drawing import PAINTERS, SIZE
from .row import Row, Rules
from .state import STATE_NAMES, Tracks


@dataclass
class Results:
    """What B rows write.

    Attributes:
        pictures: (B, 96, 96, 3) uint8, of the world. frames: (B, 96, 96, 1 or 3) uint8, for the agent.
        states: (B, S) float32. rewards: (B,) float64. ended: (B,) bool. cut: (B,) bool.
        origins: (B,) int64, the tiles from which the present places on the tracks were looked for.
    """

    pictures: np.ndarray
    frames: np.ndarray
    states: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray
    cut: np.ndarray
    origins: np.ndarray

    @classmethod
    def layout(cls, num_envs: int, rules: Rules) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and type of each."""
        side = SIZE if rules.pictures else 0
        return {
            "pictures": ((num_envs, side, side, 3), np.uint8),
            "frames": ((num_envs, side, side, 1 if rules.grey else 3), np.uint8),
            "states": ((num_envs, len(STATE_NAMES)), np.float32),
            "rewards": ((num_envs,), np.float64),
            "ended": ((num_envs,), np.bool_),
            "cut": ((num_envs,), np.bool_),
            "origins": ((num_envs,), np.int64),
        }

    def part(self, rows: slice) -> Results:
        """Views of some rows."""
        return Results(**{name: values[rows] for name, values in vars(self).items()})


class Past(NamedTuple):
    """What the present of a row came of.

    Args:
        seeds: of its track and look.
        actions: (steps, 3) since.
        origin: as in `Results`.
    """

    seeds: tuple[int, int]
    actions: np.ndarray
    origin: int


class Rows(Protocol):
    """Rows that start, step and show themselves in `results`."""

    results: Results

    def start(self, seeds: dict[int, tuple[int, int]]) -> None:
        """Start an episode in some rows: the seeds of each one's track and look."""
        ...

    def step_begin(self, actions: np.ndarray, running: np.ndarray) -> None:
        """Act in the rows that are running: (B, 3) steering, gas, brake; (B,) bool.

        What is in `results` has no meaning until `step_finish`.
        """
        ...

    def step_finish(self) -> None:
        """Wait until the step that was begun is done."""
        ...

    def replay(self, pasts: Mapping[int, Past]) -> None:
        """Bring some rows to where their past leads: Box2D's states cannot be saved."""
        ...

    def close(self) -> None:
        """Let the simulations go."""
        ...


class LocalRows:
    """Rows of this process.

    Args:
        results: written to.
        rules: of each `Row`.
    """

    def __init__(self, results: Results, rules: Rules) -> None:
        self.results, self._pictures = results, rules.pictures
        self._rows = [Row(rules) for _ in range(len(results.rewards))]
        self._painter, self._tracks = PAINTERS[rules.renderer](len(self._rows)), Tracks(len(self._rows))

    def start(self, seeds: dict[int, tuple[int, int]]) -> None:
        """See `Rows`."""
        for index, seed in seeds.items():
            self._begin(index, seed)
        self._show(list(seeds))

    def _begin(self, index: int, seeds: tuple[int, int]) -> None:
        self._rows[index].start(*seeds)
        env = self._rows[index].env
        self._painter.start(index, env)
        self._tracks.set(index, env)

    def step_begin(self, actions: np.ndarray, running: np.ndarray) -> None:
        """See `Rows`. One process does one thing after another: all of it waits for `step_finish`."""
        self._begun = actions, running

    def step_finish(self) -> None:
        """See `Rows`."""
        self.step(*self._begun)

    def step(self, actions: np.ndarray, running: np.ndarray) -> None:
        """Both."""
        results = self.results
        indices = np.flatnonzero(running).tolist()
        for index in indices:
            reward, ended, cut = self._rows[index].step(actions[index])
            results.rewards[index], results.ended[index], results.cut[index] = reward, ended, cut
        self._show(indices)

    def replay(self, pasts: Mapping[int, Past]) -> None:
        """See `Rows`; nothing is drawn but the present."""
        for index, past in pasts.items():
            self._begin(index, past.seeds)
            for action in past.actions:
                self._rows[index].step(action)
            self._tracks.nearest[index] = past.origin
        self._show(list(pasts))

    def _show(self, indices: list[int]) -> None:
        if not indices:
            return
        results, envs = self.results, [self._rows[index].env for index in indices]
        results.origins[indices] = self._tracks.nearest[indices]
        self._tracks.read(indices, envs, results.states)
        if self._pictures:
            self._painter.draw(indices, envs, results.pictures)
            for index in indices:
                self._rows[index].finish(results.pictures[index], results.frames[index])

    def close(self) -> None:
        """See `Rows`."""
        for row in self._rows:
            row.close()
