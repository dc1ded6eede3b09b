"""One car: its physics, its picture, its state, and the rewards of the frames that an action lasts."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .indicators import INDICATOR_ROWS
from .physics import Racing
from .scenery import Scenery

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

    def close(self) -> None:
        """Let the simulation go."""
        self.env.close()
