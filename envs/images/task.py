"""Any Gymnasium task of pictures: each patch of the picture is a sensor."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium

from ..errors import UserError
from ..numbers import whole_number
from ..sensors.gymnasium_source import NominalActions, episode_limit, find_spec, make_env
from ..sensors.senses import Senses
from ..sensors.source import Source
from ..sensors.task import SensorTask
from .gymnasium_pictures import GymnasiumPictures, picture_shape
from .patches import check_patch

ATARI = "ALE/"
"""What the ids of Atari games begin with; they are registered by a package of their own."""

FRAMES_PER_SECOND = 30


class GymnasiumImage(SensorTask):
    """The keys of ``conf/env/gymnasium_image.yaml``.

    Args:
        id: of a registered environment that observes a picture (a ``Box`` of uint8) and acts by a bounded
            ``Box`` of one dimension, or by ``Discrete`` actions.
        kwargs: arguments of the environment's own.
        senses: what happens to the patches.
        size: height and width that pictures are shrunk to; None: as they are.
        patch_size: pixels of a patch's side.
        grey: grey levels, or colours.
        max_episode_steps: None: the task's own.

    Raises:
        UserError: an environment that is not registered, cannot be made or shows no pictures, patches that
            do not divide them, or a value that cannot be meant.
    """

    kind = "patches"

    def __init__(
        self,
        id: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        senses: Senses | None = None,
        size: Sequence[int] | None = None,
        patch_size: int = 6,
        grey: bool = True,
        max_episode_steps: int | None = None,
    ) -> None:
        if importlib.util.find_spec("cv2") is None:
            raise UserError("pictures need opencv-python-headless; 'somite[car_racing]' brings it")
        _register_atari(id)
        spec = find_spec(id)
        super().__init__(senses, episode_limit(spec, max_episode_steps))
        self.name, self.kwargs, self.grey = spec.id, dict(kwargs or {}), bool(grey)
        self.patch_size = whole_number(patch_size, "env.patch_size", 1)
        self.size = None
        if size is not None:
            if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 2:
                raise UserError(f"env.size is height and width, such as [84, 84]; got {size!r}")
            self.size = tuple(whole_number(side, "env.size", 1) for side in size)
        env = make_env(self.name, self.kwargs)
        height, width, _ = picture_shape(env)
        NominalActions(env)  # refuses those that do not fit
        env.close()
        check_patch(*(self.size or (height, width)), self.patch_size)

    @property
    def frames_per_second(self) -> float:
        """Of videos."""
        return FRAMES_PER_SECOND

    def make_source(self, num_envs: int, threads: int = 0) -> Source:
        """So many rows, one after another."""
        given = (num_envs, self.name, self.kwargs, self.max_episode_steps)
        return GymnasiumPictures(*given, self.size, self.patch_size, self.grey)


def _register_atari(env_id: Any) -> None:
    """Atari games are known once their package has been imported, which is done for their ids alone."""
    if not str(env_id).startswith(ATARI) or env_id in gymnasium.registry:
        return
    if importlib.util.find_spec("ale_py") is None:
        raise UserError(f"{env_id} needs ale-py: pip install 'somite[atari]' brings it")
    import ale_py

    gymnasium.register_envs(ale_py)
