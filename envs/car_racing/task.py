"""CarRacing as a task, and as Gymnasium makes it; what simulates is imported once it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from ..errors import check_installed
from ..gym import SingleEnv, TokenVectorEnv
from ..images.patches import check_patch
from ..numbers import EPISODE_STEPS, FLAG, PROBABILITY_BELOW_1, checked, one_of, part, whole
from ..sensors import Senses
from ..sensors.source import Source
from ..sensors.task import SensorTask, vector_env_of
from .scenery import SIZE, Scenery

VIEWS = ("patches", "state")
RENDERERS = ("somite", "gymnasium")
NEEDED = {"Box2D": "box2d", "pygame": "pygame-ce", "cv2": "opencv-python-headless"}


@checked("env")
class CarRacing(SensorTask):
    """Gymnasium's CarRacing; ``conf/env/car_racing.yaml`` says what the keys mean.

    Raises:
        UserError: an invalid value, or a package that is not installed.
    """

    name = "car_racing"
    parts = {"senses": Senses, "scenery": Scenery}

    def __init__(
        self,
        senses: Annotated[Senses | None, part(Senses)] = None,
        scenery: Annotated[Scenery | None, part(Scenery)] = None,
        view: Annotated[str, one_of(*VIEWS)] = "patches",
        patch_size: Annotated[int, whole(1, SIZE)] = 6,
        grey: Annotated[bool, FLAG] = True,
        indicators: Annotated[bool, FLAG] = False,
        renderer: Annotated[str, one_of(*RENDERERS)] = "somite",
        action_repeat: Annotated[int, whole(1, 1000)] = 1,
        max_episode_steps: Annotated[int, EPISODE_STEPS] = 1000,
        patience: Annotated[int, whole()] = 0,
        slips: Annotated[float, PROBABILITY_BELOW_1] = 0.0,
    ) -> None:
        check_installed(self.name, NEEDED, "car_racing")
        self.scenery, self.view, self.renderer = scenery or Scenery(), view, renderer
        self.draws = view == "patches"
        self.kind = "patches" if self.draws else "sensors"
        check_patch(SIZE, SIZE, patch_size)
        self.patch_size, self.action_repeat, self._max_frames = patch_size, action_repeat, max_episode_steps
        self.patience, self.slips, self.grey, self.indicators = patience, slips, grey, indicators
        super().__init__(senses, -(-max_episode_steps // action_repeat))

    @property
    def max_frames(self) -> int:
        """Frames after which an episode is cut."""
        return min(self._max_frames, self.max_episode_steps * self.action_repeat)

    @property
    def rules(self) -> Any:
        """`Rules`, what simulates a car needs to know."""
        from .cars import Rules

        return Rules(**{name: getattr(self, name) for name in Rules._fields})

    def for_evaluation(self) -> CarRacing:
        """Without slips and patience: until the lap is done, the field is left, or time is up."""
        return self.changed(patience=0, slips=0.0)

    @property
    def frames_per_second(self) -> float:
        """Of decisions, in the time of the simulation."""
        return 50 / self.action_repeat

    def make_source(self, num_envs: int, threads: int = 0, device: torch.device | str = "cpu") -> Source:
        """B cars; see `SensorTask.make_source`."""
        from .source import RacingSource

        return RacingSource(num_envs, self.rules, self.patch_size, threads)


def make_vec(
    num_envs: int = 1, senses: Senses | Mapping[str, Any] | None = None, **options: Any
) -> TokenVectorEnv:
    """What ``gymnasium.make_vec`` calls, with options of `vector_env_of`.

    A token is a patch in the last four frames unless ``senses`` say otherwise.
    """
    if not isinstance(senses, Senses):
        senses = {"history": 4, **(senses or {})}
    return vector_env_of(CarRacing, num_envs, senses=senses, **options)


class RacingEnv(SingleEnv):
    """One car as ``gymnasium.make`` makes it.

    Args:
        render_mode: None or ``rgb_array``, the picture of 96 x 96 in colours.
        options: of :func:`make_vec`.

    Raises:
        UserError: another render mode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        super().__init__(make_vec(1, autoreset_mode=AutoresetMode.DISABLED, **options), render_mode)

    def render(self) -> np.ndarray | None:
        """(96, 96, 3) uint8, what the world looks like."""
        return self.vector.source.pictures[0].copy() if self.render_mode else None
