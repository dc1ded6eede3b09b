"""Any Gymnasium task of pictures: each patch of the picture is a sensor."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Annotated, Any

import torch

from ..errors import UserError
from ..numbers import EPISODE_STEPS, FLAG, NAMES, NULL, TEXT, VALUES, checked, listed, part, whole
from ..sensors.gymnasium_envs import episode_limit, find_spec, make_env
from ..sensors.gymnasium_source import NominalActions
from ..sensors.gymnasium_task import RenderedTask
from ..sensors.senses import Senses
from ..sensors.source import Source
from ..sensors.task import checked_kwargs
from .gymnasium_pictures import GymnasiumPictures, PictureForm
from .patches import check_patch

logger = logging.getLogger(__name__)

_PIXELS = whole(1, 4096)
_SIZE = (listed(_PIXELS, 2, 2) | NULL).told("height and width from 1 to 4,096, such as [84,84], or null")


@checked("env")
class GymnasiumImage(RenderedTask):
    """The keys of ``conf/env/gymnasium_image.yaml``.

    Args:
        id: of a registered environment that observes a picture (see `PictureForm`) and acts by a bounded
            ``Box`` of one dimension, or by ``Discrete`` actions.
        kwargs: arguments of the environment's own.
        senses: what happens to the patches.
        size: height and width that pictures are shrunk to; None: as they are.
        patch_size: pixels of a patch's side.
        grey: grey levels, or colours.
        max_episode_steps: None: the task's own.
        imports: modules of the user's own that register environments; see `find_spec`.

    Raises:
        UserError: an environment that is not registered, cannot be made or shows no pictures, patches that
            do not divide them, or an invalid value.
    """

    kind = "patches"
    has_physics = False  # none that is known

    def __init__(
        self,
        id: Annotated[str | None, TEXT | NULL] = None,
        kwargs: Annotated[Mapping[str, Any] | None, VALUES | NULL] = None,
        senses: Annotated[Senses | None, part(Senses)] = None,
        size: Annotated[Sequence[int] | None, _SIZE] = None,
        patch_size: Annotated[int, _PIXELS] = 6,
        grey: Annotated[bool, FLAG] = True,
        max_episode_steps: Annotated[int | None, EPISODE_STEPS | NULL] = None,
        imports: Annotated[str | Sequence[str] | None, NAMES | NULL] = None,
    ) -> None:
        if importlib.util.find_spec("cv2") is None:
            raise UserError("pictures need opencv-python-headless; 'somite[car_racing]' brings it")
        spec = find_spec(id, imports)
        super().__init__(senses, episode_limit(spec, max_episode_steps))
        self.name, self.kwargs, self.grey = spec.id, checked_kwargs(kwargs), grey
        self.patch_size = patch_size
        with closing(make_env(self.name, self.kwargs)) as env:
            form = PictureForm(env)
            NominalActions(env)  # refuses those that do not fit
        own = form.height, form.width
        self.size = None if size is None else _checked_size(size, own)
        check_patch(*(self.size or own), self.patch_size, own)
        if form.notes:
            logger.info("%s: %s", self.name, "; ".join(form.notes))

    def for_filming(self) -> GymnasiumImage:
        """With what the environment draws of itself, where it does; else by what it observes alone."""
        try:
            return super().for_filming()
        except UserError as error:
            logger.info("filmed by what is observed: %s", error)
            return self

    def make_source(self, num_envs: int, threads: int = 0, device: torch.device | str = "cpu") -> Source:
        """So many environments, one after another."""
        given = (num_envs, self.name, self.kwargs, self.max_episode_steps)
        return GymnasiumPictures(*given, self.size, self.patch_size, self.grey)


def _checked_size(size: Any, own: tuple[int, int]) -> tuple[int, int]:
    """The key ``env.size`` of pictures whose ``own`` size is this. Raises UserError."""
    height, width = size
    if height > own[0] or width > own[1]:
        raise UserError(
            f"env.size=[{height},{width}] is larger than the picture, which is {own[0]} x {own[1]}: pictures "
            "are shrunk; leave env.size out to keep them as they are"
        )
    return height, width
