"""CarRacing as training and evaluation want it; nothing that simulates is imported before it is needed."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

from .. import sensors
from ..errors import UserError, nearest
from ..images.patches import check_patch
from ..numbers import is_number, whole_number
from ..sensors.senses import Senses
from ..sensors.source import Source
from ..sensors.task import SensorTask
from ..task_set import build_parts, known_class
from .scenery import Scenery

SIZE = 96
VIEWS = ("patches", "state")
RENDERERS = ("somite", "gymnasium")
NEEDED = {"Box2D": "box2d", "pygame": "pygame-ce", "cv2": "opencv-python-headless"}


class CarRacing(SensorTask):
    """The keys of ``conf/env/car_racing.yaml``.

    Args:
        senses: what happens to the patches.
        scenery: what is drawn otherwise than in the original.
        view: ``patches`` of the picture, or the ``state`` behind it, for teachers.
        patch_size: pixels of a patch's side.
        grey: grey levels, or colours.
        indicators: show the bar at the bottom.
        renderer: ``somite``, or ``gymnasium`` for its own drawing, which is slow.
        action_repeat: frames that an action lasts; each counts.
        max_episode_steps: frames after which an episode is cut.
        patience: frames without reward in a row after which an episode ends, for training; 0: it never does.
        slips: probability of an action to slip, for training: a random one takes its place and that of the
            next three, so that a driver learns to come back to the road.

    Raises:
        UserError: a value that cannot be meant, or a package that is not installed.
    """

    name = "car_racing"

    def __init__(
        self,
        senses: Senses | None = None,
        scenery: Scenery | None = None,
        view: str = "patches",
        patch_size: int = 6,
        grey: bool = True,
        indicators: bool = False,
        renderer: str = "somite",
        action_repeat: int = 1,
        max_episode_steps: int = 1000,
        patience: int = 0,
        slips: float = 0.0,
    ) -> None:
        check_packages()
        for name, value, choices in (("view", view, VIEWS), ("renderer", renderer, RENDERERS)):
            if value not in choices:
                raise UserError(f"env.{name} cannot be {value!r}; {nearest(str(value), choices)}")
        self.kind = "patches" if view == "patches" else "sensors"
        self.scenery, self.view, self.renderer = scenery or Scenery(), view, renderer
        self.patch_size = whole_number(patch_size, "env.patch_size", 1)
        check_patch(SIZE, SIZE, self.patch_size)
        self.action_repeat = whole_number(action_repeat, "env.action_repeat", 1)
        self.max_frames = whole_number(max_episode_steps, "env.max_episode_steps", 1)
        self.patience = whole_number(patience, "env.patience", 0)
        if not is_number(slips) or not 0 <= slips < 1:
            raise UserError(f"env.slips is a probability, in [0, 1), got {slips!r}")
        self.slips = slips
        for name, value in (("grey", grey), ("indicators", indicators)):
            if not isinstance(value, bool):
                raise UserError(f"env.{name} is true or false, got {value!r}")
        self.grey, self.indicators = grey, indicators
        super().__init__(senses, -(-self.max_frames // self.action_repeat))

    def for_evaluation(self) -> CarRacing:
        """Without patience: an episode lasts until the lap is done, the field is left, or time is up.

        And without slips.
        """
        other = copy.copy(self)
        other.patience, other.slips = 0, 0.0
        return other

    @property
    def frames_per_second(self) -> float:
        """Of decisions, in the time of the simulation."""
        return 50 / self.action_repeat

    def make_source(self, num_envs: int, threads: int = 0) -> Source:
        """So many cars."""
        from .row import Rules
        from .source import RacingSource

        rules = Rules(
            action_repeat=self.action_repeat,
            max_frames=min(self.max_frames, self.max_episode_steps * self.action_repeat),
            patience=self.patience,
            slips=self.slips,
            pictures=self.view == "patches",
            grey=self.grey,
            indicators=self.indicators,
            renderer=self.renderer,
            scenery=self.scenery,
        )
        return RacingSource(num_envs, rules, self.patch_size, threads)


def check_packages() -> None:
    """Raises UserError: a package that CarRacing needs is not installed."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(
            f"car_racing needs {', '.join(missing)}: pip install 'somite[car_racing]' brings what it needs"
        )


def task_from_config(config: Any) -> CarRacing:
    """Rebuild the task from a saved node of ``conf/env``. Raises UserError; see `build_parts`."""
    known_class(config.get("_target_"), __package__, (CarRacing,))
    parts = {"senses": (Senses, sensors.__name__), "scenery": (Scenery, __package__)}
    return build_parts(CarRacing, config, parts)
