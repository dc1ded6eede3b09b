"""A task of scalar sensors as training and evaluation want it: what they make environments from."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from gymnasium.vector import AutoresetMode

from ..errors import UserError, nearest, shown
from ..gym import TokenVectorEnv, resets_itself
from ..numbers import EPISODE_STEPS, NULL, listed, real
from ..task_set import TaskSet
from .env import SensorEnv
from .senses import Senses
from .source import Source

SCALES = listed(real(), 1) | NULL


class SensorTask(TaskSet):
    """One task, with what is done to its senses.

    It is the only variant of itself: nothing is held out but what is done to its senses.

    Args:
        senses: what happens to the readings.
        max_episode_steps: steps after which an episode is cut.

    Raises:
        UserError: a number that is invalid.
    """

    parts: ClassVar[Mapping[str, type]] = {"senses": Senses}
    kind = "sensors"
    name: str
    renders = False
    """Whether its environments draw themselves; see `for_filming`."""

    unseen: tuple[str, ...] = ()
    max_episode_steps: int = 0
    sensor_scales: tuple[float, ...] | None = None

    def __init__(self, senses: Senses | None, max_episode_steps: int) -> None:
        self.senses = senses or Senses()
        self.max_episode_steps = EPISODE_STEPS.read("env.max_episode_steps", max_episode_steps)

    @abc.abstractmethod
    def make_source(self, num_envs: int, threads: int = 0, device: torch.device | str = "cpu") -> Source:
        """So many simulations.

        Args:
            num_envs: B.
            threads: that step them on the CPU; 0: one per core.
            device: of its tensors; another than the CPU only where `simulation` is `device_simulation`.
        """

    @property
    def seen(self) -> tuple[str, ...]:
        """The task itself."""
        return (self.name,)

    def choose(self, bodies: str | Sequence[str]) -> tuple[str, ...]:
        """The task, for ``all``, ``seen`` or its own name. Raises UserError."""
        choices = ("all", "seen", self.name)
        for name in [bodies] if isinstance(bodies, str) else bodies:
            if name not in choices:
                raise UserError(f"{self.name} has no body {name!r}; {nearest(name, choices)}")
        return self.seen

    def for_filming(self) -> SensorTask:
        """The same task, made to be drawn: its source has ``pictures``, or ``render`` if it ``renders``.

        Raises:
            UserError: it has no pictures, or they cannot be drawn on this machine.
        """
        if self.kind == "patches":
            return self
        raise UserError(
            f"there are no pictures of {self.name}; there are of bodies, of tasks of pictures, and of "
            "environments of Gymnasium that render"
        )

    def notes(self) -> tuple[str, ...]:
        """Constants of single sensors, if there are any."""
        scales = self.sensor_scales
        return () if scales is None else (f"readings scaled sensor by sensor: {list(scales)}",)

    def make_env(
        self,
        names: Sequence[str] | None = None,
        num_envs: int | None = None,
        device: torch.device | str = "cpu",
        *,
        aligned: bool = False,
        threads: int = 0,
        **options: Any,
    ) -> SensorEnv:
        """See `TaskSet.make_env`; names and ``aligned`` mean nothing here, ``options`` are `SensorEnv`'s."""
        source = self.make_source(num_envs or 1, threads, self.simulated_on(device))
        return SensorEnv(source, self.senses, sensor_scales=self.sensor_scales, **options)


def vector_env_of(
    kind: type[SensorTask],
    num_envs: int = 1,
    threads: int = 0,
    autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    **options: Any,
) -> TokenVectorEnv:
    """A task as Gymnasium's vector environment, without a configuration.

    Args:
        kind: of task.
        num_envs: B.
        threads: see `SensorTask.make_source`.
        autoreset_mode: ``SAME_STEP`` or ``DISABLED``.
        options: of the task, whose `parts` may be their arguments, and of `SensorEnv`.
    """
    own = {name: options.pop(name) for name in inspect.signature(kind).parameters if name in options}
    for name, part in kind.parts.items():
        if isinstance(own.get(name), Mapping):
            own[name] = part(**own[name])
    task, options["autoreset"] = kind(**own), resets_itself(autoreset_mode)
    return task.make_vec(num_envs=num_envs, threads=threads, **options)


def checked_scales(scales: Any, sensors: Sequence[str]) -> tuple[float, ...] | None:
    """A factor for each of the ``sensors``, or None for raw units. Raises UserError."""
    if scales is not None and len(scales) != len(sensors):
        wanted = f"{len(sensors)} numbers, for {shown(', '.join(sensors), 300)}"
        raise UserError(f"env.sensor_scales must be {wanted}; got {scales!r}")
    return None if scales is None else tuple(float(scale) for scale in scales)
