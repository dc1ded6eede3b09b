"""Cars of one process: what a car obeys, its frames, pictures and states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class Rules(NamedTuple):
    """What simulates a car needs to know of `CarRacing`, whose arguments say what the keys mean."""

    scenery: Scenery
    draws: bool
    grey: bool
    indicators: bool
    renderer: str
    action_repeat: int
    max_frames: int
    patience: int
    slips: float


class Past(NamedTuple):
    """What the present of a car came of; without actions it is the start of an episode."""

    seeds: tuple[int, int]  # of its track and look
    actions: np.ndarray = np.zeros((0, 3))  # (steps, 3) since
    origin: int = 0  # as in `record_of`


class Row:
    """One car."""

    def __init__(self, rules: Rules) -> None:
        self.env, self.rules = Racing(), rules

    def start(self, track_seed: int, look_seed: int) -> None:
        """A new track, that of Gymnasium's seed, which looks as another seed says."""
        self.env.reset(seed=track_seed)
        self.look = self.rules.scenery.draw(np.random.default_rng(look_seed))
        self.frames = self._unrewarded = self._slipping = 0
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
            self.frames += 1
            self._unrewarded = 0 if reward > 0 else self._unrewarded + 1
            if terminated or 0 < rules.patience < self._unrewarded:
                return total, True, False
            if self.frames == rules.max_frames:
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
        """Change the drawn ``picture`` (96, 96, 3) uint8 to what the world looks like.

        What the agent receives is written to ``frame`` (96, 96, 1 or 3) uint8.
        """
        self.look.apply(picture, self.frames, INDICATOR_ROWS.start)
        if self.rules.grey:
            cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY, dst=frame[..., 0])
        else:
            frame[:] = picture
        if not self.rules.indicators:
            frame[INDICATOR_ROWS] = 0


def record_of(rules: Rules) -> np.dtype:
    """What a car is told and tells; the results of B cars are an array (B,) of it."""
    side = SIZE if rules.draws else 0
    fields = [
        ("actions", np.float64, (3,)),  # steering, gas, brake
        ("running", np.bool_),  # whether it acts
        ("pictures", np.uint8, (side, side, 3)),  # of the world
        ("frames", np.uint8, (side, side, 1 if rules.grey else 3)),  # for the agent
        ("states", np.float32, (len(STATE_NAMES),)),
        ("rewards", np.float64),
        ("ended", np.bool_),
        ("cut", np.bool_),
        ("origins", np.int64),  # the tile from which the present place on the track was looked for
    ]
    return np.dtype(fields, align=True)


class LocalRows:
    """B cars of this process, which write to ``results`` (B,), see `record_of`."""

    def __init__(self, results: np.ndarray, rules: Rules) -> None:
        cv2.setNumThreads(1)  # pictures are small: threads within a call only wait for each other
        self.results, self._draws = results, rules.draws
        self._rows = [Row(rules) for _ in results]
        self._painter, self._tracks = PAINTERS[rules.renderer](len(results)), Tracks(len(results))

    def start(self, pasts: Mapping[int, Past]) -> None:
        """Bring cars to where their past leads: Box2D's states cannot be saved. Only the present is drawn."""
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
        """Act with those that are running: (B, 3) steering, gas, brake; (B,) bool.

        What is in `results` has no meaning until `step_finish`, for which all of it waits here.
        """
        self.results["actions"], self.results["running"] = actions, running

    def step_finish(self) -> None:
        """Wait until the step that was begun is done."""
        results = self.results
        indices, actions = np.flatnonzero(results["running"]).tolist(), results["actions"]
        rewards, ended, cut = results["rewards"], results["ended"], results["cut"]
        for index in indices:
            rewards[index], ended[index], cut[index] = self._rows[index].step(actions[index])
        self._show(indices)

    def _show(self, indices: Sequence[int]) -> None:
        if not indices:
            return
        results, envs = self.results, [self._rows[index].env for index in indices]
        results["origins"][indices] = self._tracks.nearest[indices]
        self._tracks.read(indices, envs, results["states"])
        if self._draws:
            pictures, frames = results["pictures"], results["frames"]
            self._painter.draw(indices, envs, pictures)
            for index in indices:
                self._rows[index].finish(pictures[index], frames[index])

    def close(self) -> None:
        """Let the simulations go."""
        for row in self._rows:
            row.env.close()
