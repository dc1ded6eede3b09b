"""Any Gymnasium task that observes numbers, each of which is a sensor."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Annotated, Any

import torch

from ..errors import UserError, shown
from ..numbers import EPISODE_STEPS, NAMES, NULL, TEXT, VALUES, checked, is_number, one_of, part
from .boundary import Sensors
from .gymnasium_envs import find_spec, make_env, picture_of
from .gymnasium_source import GymnasiumSource, NominalActions
from .mujoco_source import MujocoSource, WarpSource, rules_of, why_not_batched
from .senses import Senses
from .source import Source
from .task import SCALES, SensorTask, checked_scales

logger = logging.getLogger(__name__)

MODE = "rgb_array"
"""Of ``render``: it returns what it draws."""

FRAMES_PER_SECOND = 30
"""Of environments that say nothing of it (``metadata["render_fps"]``)."""

SIMULATIONS = ("auto", "batched", "gymnasium")


class RenderedTask(SensorTask):
    """A task of one Gymnasium environment, which is filmed by its own ``render``.

    Args:
        id, imports: see `find_spec`.
        kwargs: arguments of the environment's own.
        senses: what happens to its readings.
        max_episode_steps: None: the environment's own.

    Attributes:
        frames_per_second: of its videos, where it is made by `for_filming`.

    Raises:
        UserError: an environment that is not registered, or without a limit to its episodes.
    """

    frames_per_second: float = FRAMES_PER_SECOND

    def __init__(
        self, id: Any, kwargs: Any, senses: Senses | None, max_episode_steps: int | None, imports: Any
    ) -> None:
        spec = find_spec(id, imports)
        limit = spec.max_episode_steps if max_episode_steps is None else max_episode_steps
        if limit is None:
            raise UserError(f"{spec.id} sets no limit to its episodes; say env.max_episode_steps=<steps>")
        super().__init__(senses, limit)
        self.name, self.kwargs = spec.id, dict(kwargs or {})

    def for_filming(self) -> RenderedTask:
        """The same, stepped by Gymnasium and drawn. Raises UserError: it cannot be, as one picture shows."""
        with closing(make_env(self.name, self.kwargs)) as env:
            metadata = env.metadata or {}
        modes = metadata.get("render_modes") or ()
        if MODE not in modes:
            offered = f"only {', '.join(map(str, modes))}" if modes else "no render mode"
            raise UserError(f"{self.name} cannot be filmed: it offers {offered}, and not {MODE}")
        kwargs, rate = {**self.kwargs, "render_mode": MODE}, metadata.get("render_fps")
        rate = float(rate) if is_number(rate) and rate > 0 else FRAMES_PER_SECOND
        other = self.changed(kwargs=kwargs, batched=False, renders=True, frames_per_second=rate)
        with closing(make_env(other.name, other.kwargs)) as env:
            env.reset(seed=0)
            picture_of(env)
        return other


@functools.cache
def _tell_sensors(name: str, names: tuple[str, ...]) -> None:
    """Log, once in a process, what an environment's sensors are called, if they have names of their own."""
    if not all(sensor.startswith("obs_") for sensor in names):
        logger.info("%s: %d sensors: %s", name, len(names), shown(", ".join(names), 300))


@checked("env")
class GymnasiumTask(RenderedTask):
    """The keys of ``conf/env/gymnasium.yaml``.

    Args:
        id: of a registered environment that observes what `Sensors` reads and acts as `NominalActions` can.
        kwargs: arguments of the environment's own.
        senses: what happens to the readings.
        sensor_scales: factors of the readings, which then stand beside every score; None: raw units.
        max_episode_steps: None: the task's own.
        simulation: what steps it: ``gymnasium`` itself, one by one; one ``batched`` simulation, for the
            MuJoCo tasks with the arguments in `mujoco_source`; or ``auto``, the batched one where there is
            one. Episodes are the same.
        imports: modules of the user's own that register environments; see `find_spec`.

    Raises:
        UserError: an environment that is not registered, cannot be made or has other spaces, or a value
            that is invalid.
    """

    def __init__(
        self,
        id: Annotated[str | None, TEXT | NULL] = None,
        kwargs: Annotated[Mapping[str, Any] | None, VALUES | NULL] = None,
        senses: Annotated[Senses | None, part(Senses)] = None,
        sensor_scales: Annotated[Sequence[float] | None, SCALES] = None,
        max_episode_steps: Annotated[int | None, EPISODE_STEPS | NULL] = None,
        simulation: Annotated[str, one_of(*SIMULATIONS)] = "auto",
        imports: Annotated[str | Sequence[str] | None, NAMES | NULL] = None,
    ) -> None:
        super().__init__(id, kwargs, senses, max_episode_steps, imports)
        with closing(make_env(self.name, self.kwargs)) as env:
            names = Sensors(self.name, env.observation_space).names
            NominalActions(env)  # refuses those that do not fit
        self.sensor_scales = checked_scales(sensor_scales, names)
        self._stepped_by = simulation
        reason = why_not_batched(self.name, self.kwargs)
        if simulation == "batched" and reason:
            raise UserError(f"env.simulation=batched: {reason}")
        self.batched = reason is None and simulation != "gymnasium"
        if self.batched:
            logger.info("%s: all environments simulated in one batch", self.name)
            return
        if reason and rules_of(self.name) and simulation != "gymnasium":
            logger.info("%s: each environment stepped by Gymnasium: %s", self.name, reason)
        _tell_sensors(self.name, names)

    @property
    def has_physics(self) -> bool:  # type: ignore[override]
        """Of others' environments nothing is known."""
        return self.batched

    def why_not_on_device(self) -> str | None:  # noqa: D102
        reason = why_not_batched(self.name, self.kwargs)
        if rules_of(self.name) is None:
            return f"{reason}, which is simulated on the CPU only"
        if self._stepped_by == "gymnasium":
            return "env.simulation=gymnasium steps each environment by itself, on the CPU only"
        return reason

    @property
    def device_simulation(self) -> str | None:  # type: ignore[override]
        """MuJoCo Warp, of tasks that can be simulated in a batch; not with all arguments."""
        return "warp" if rules_of(self.name) else None

    def make_source(  # noqa: D102
        self, num_envs: int, threads: int = 0, device: torch.device | str = "cpu"
    ) -> Source:
        given = (self.name, self.kwargs, self.max_episode_steps)
        if self.simulation == "warp":
            return WarpSource(num_envs, torch.device(device), *given, **self.device_options)
        if self.batched:
            return MujocoSource(num_envs, *given, threads=threads)
        return GymnasiumSource(num_envs, *given)
