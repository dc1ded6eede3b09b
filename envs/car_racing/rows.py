"""Cars of one process: their physics, pictures and states, and the rewards of the frames of an action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from .drawing import INDICATOR_ROWS, PAINTERS, SIZE
from .scenery import Scenery
from .simulation import STATE_NAMES, Racing, Tracks

SLIP = 4
"""Actions that a slip lasts."""

LOW, HIGH = np.array([-1.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0])
"""Steering, gas, brake."""


@dataclass(frozen=True)
class Rules:
    """What all rows have in common.

    Args:
        action_repeat: frames that an action lasts.
        max_frames: frames after which an episode is cut.
        patience: frames without reward in a row after which the episode ends; 0: it never does.
        slips: probability of an action to be replaced, with the next ones, by a random one.
        pictures: whether pictures are drawn at all.
        grey: whether frames are grey levels, or colours.
        indicators: whether frames show the bar at the bottom.
        renderer: who draws: ``somite`` or ``gymnasium``.
        scenery: what is drawn otherwise than in the original.
    """

    action_repeat: int = 1
    max_frames: int = 1000
    patience: int = 0
    slips: float = 0.0
    pictures: bool = True
    grey: bool = True
    indicators: bool = False
    renderer: str = "somite"
    scenery: Scenery = Scenery()


class Row:
    """One simulation of CarRacing."""

    def __init__(self, rules: Rules) -> None:
        self.env, self.rules = Racing(), rules
        self._is_original = rules.scenery.is_original

    def start(self, track_seed: int, look_seed: int) -> None:
        """A new track, that of Gymnasium's seed, which looks as another seed says."""
        self.env.reset(seed=track_seed)
        self._look = self.rules.scenery.draw(np.random.default_rng(look_seed))
        self._frames = self._unrewarded = self._slipping = 0
        self._slips = np.random.default_rng([look_seed, track_seed])

    def step(self, action: np.ndarray) -> tuple[float, bool, bool]:
        """Act for some frames.

        Args:
            action: (3,) steering in [-1, 1], gas and brake in [0, 1].

        Returns:
            The sum of the frames' rewards, whether the episode ended, and whether its time was up.
        """
        rules, total = self.rules, 0.0
        if rules.slips:
            action = self._slipped(action)
        for _ in range(rules.action_repeat):
            _, reward, terminated, _, _ = self.env.step(action)
            total += reward
            self._frames += 1
            self._unrewarded = 0 if reward > 0 else self._unrewarded + 1
            if terminated or 0 < rules.patience < self._unrewarded:
                return total, True, False
            if self._frames == rules.max_frames:
                return total, False, True
        return total, False, False

    def _slipped(self, action: np.ndarray) -> np.ndarray:
        """The action, or what comes of it."""
        if not self._slipping and self._slips.random() < self.rules.slips:
            self._slipping, self._wrong = SLIP, self._slips.uniform(LOW, HIGH)
        if not self._slipping:
            return action
        self._slipping -= 1
        return self._wrong

    def finish(self, picture: np.ndarray, frame: np.ndarray) -> None:
        """What becomes of the present picture.

        Args:
            picture: (96, 96, 3) uint8, as drawn; written to: what the world looks like.
            frame: (96, 96, 1 or 3) uint8, written to: what the agent receives.
        """
        if not self._is_original:
            self._look.apply(picture, self._frames, INDICATOR_ROWS.start)
        if self.rules.grey:
            cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY, dst=frame[..., 0])
        else:
            frame[:] = picture
        if not self.rules.indicators:
            frame[INDICATOR_ROWS] = 0


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
    """What the present of a row came of; without actions it is the start of an episode.

    Args:
        seeds: of its track and look.
        actions: (steps, 3) since.
        origin: as in `Results`.
    """

    seeds: tuple[int, int]
    actions: np.ndarray = np.zeros((0, 3))
    origin: int = 0


class LocalRows:
    """Rows of this process; see `WorkerRows` for rows of several.

    Args:
        results: written to.
        rules: of each `Row`.
    """

    def __init__(self, results: Results, rules: Rules) -> None:
        self.results, self._pictures = results, rules.pictures
        self._rows = [Row(rules) for _ in range(len(results.rewards))]
        self._painter, self._tracks = PAINTERS[rules.renderer](len(self._rows)), Tracks(len(self._rows))

    def start(self, pasts: Mapping[int, Past]) -> None:
        """Bring rows to where their past leads: Box2D's states cannot be saved. Only the present is drawn."""
        for index, past in pasts.items():
            row = self._rows[index]
            row.start(*past.seeds)
            self._painter.start(index, row.env)
            self._tracks.set(index, row.env)
            for action in past.actions:
                row.step(action)
            self._tracks.nearest[index] = past.origin
        self._show(list(pasts))

    def step_begin(self, actions: np.ndarray, running: np.ndarray) -> None:
        """Act in the rows that are running: (B, 3) steering, gas, brake; (B,) bool.

        What is in `results` has no meaning until `step_finish`, for which all of it waits here.
        """
        self._begun = actions, running

    def step_finish(self) -> None:
        """Wait until the step that was begun is done."""
        self.step(*self._begun)

    def step(self, actions: np.ndarray, running: np.ndarray) -> None:
        """Begin and finish."""
        results = self.results
        indices = np.flatnonzero(running).tolist()
        for index in indices:
            reward, ended, cut = self._rows[index].step(actions[index])
            results.rewards[index], results.ended[index], results.cut[index] = reward, ended, cut
        self._show(indices)

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
        """Let the simulations go."""
        for row in self._rows:
            row.env.close()
