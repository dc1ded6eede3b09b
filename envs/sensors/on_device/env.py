"""Any batch of sensors on a device as an environment of token sets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ...errors import UserError, check_open
from ...in_place import clear
from ...snapshots import Misfit
from ...token_env import Step, TokenEnv
from ...tokens import sensor_observation_space
from ..readings import LARGEST_REWARD
from ..senses import Senses
from .chance import Chance
from .channels import TensorChannels
from .kept import KeptTensors
from .readings import TensorReadings
from .seeds import generators, one_seed
from .slots import TensorSlots
from .source import TensorSource

logger = logging.getLogger(__name__)

_STATE = ("_recent", "_steps", "_start_age", "_running", "_have_diverged")
_PARTS = ("source", "_readings", "channels", "slots", "_chance")


class SensorTensorEnv(KeptTensors, TokenEnv):
    """Rows of one task whose sensors are tokens; what `SensorVectorEnv` is on the host.

    With the same seeds, rows have the starts, orders, losses and ages that they have there; what is drawn
    later (noise, blinking, orders in mid-episode, further episodes) comes from one generator of the device.
    Rows of the same seed draw the same. No step waits for the device, and all that steps go on from is
    written to in place, so that a CUDA graph can hold them.

    A row whose action, reward or reading is not a finite number, or whose simulation diverged, ends its
    episode: its reward is 0, and it observes its last reading again. An infinite action is clipped.

    Args:
        source: the task.
        senses: what happens to its readings.
        stagger: give the first episode of every row a random age, so that time limits do not fall together.
        once: one episode for each row: a row that has ended stays as it is, with rewards of 0, until the
            next reset.

    Attributes:
        can_be_captured: by a CUDA graph, with all `generators` registered.
        tokens_are_complete: whether no token is ever missing.
    """

    kind = "sensors"
    kept = (*_STATE, *_PARTS)

    def __init__(
        self,
        source: TensorSource,
        senses: Senses | None = None,
        *,
        stagger: bool = False,
        once: bool = False,
    ) -> None:
        self.source, self.senses, self.stagger, self.once = source, senses or Senses(), stagger, once
        self.num_envs, self.device = source.num_envs, source.device
        self.can_be_captured = source.can_be_captured
        b, device = self.num_envs, self.device
        self.max_episode_steps = source.max_episode_steps
        self.single_action_space = space = source.single_action_space
        self.discrete = isinstance(space, spaces.Discrete)
        self.n_actions = int(space.n) if self.discrete else int(space.shape[0])
        n_sensors = len(source.sensor_names)
        self.channels = TensorChannels(self.senses, b, n_sensors, device)
        self.tokens_are_complete = self.channels.complete
        self.slots = TensorSlots(
            self.senses, b, self.channels.n, self.n_actions, device, self.tokens_are_complete
        )
        self._varied = self.slots.shuffles or self.channels.draws
        self.spec_of_tokens = self.senses.spec((), self.n_actions)
        told = self.senses.history, self.n_actions
        self.single_observation_space = sensor_observation_space(
            self.spec_of_tokens, self.channels.n, told, n_sensors, n_sensors
        )
        self.body_names, self.body_of_row = (source.name,), np.zeros(b, int)
        self._chance, self._readings = Chance(b, device), TensorReadings(source)
        self._recent = torch.zeros(b, *told, device=device)
        self._steps, self._start_age = torch.zeros(2, b, dtype=torch.int64, device=device)
        self._running = torch.zeros(b, dtype=torch.bool, device=device)
        self._have_diverged = torch.zeros(b, dtype=torch.bool, device=device)
        self._everywhere = torch.ones(b, dtype=torch.bool, device=device)
        self._choices = torch.arange(self.n_actions, device=device)
        self._is_seeded = self._has_told = False

    @property
    def sizes(self) -> dict[str, Any]:
        """What a policy may be built for, by the names of its arguments."""
        n_sensors = len(self.source.sensor_names)
        return {
            "n_tokens": self.channels.n,
            "n_actions": self.n_actions,
            "n_recent": self.senses.history,
            "discrete": self.discrete,
            "n_privileged": n_sensors,
            "n_sensors": n_sensors,
        }

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """That steps draw from."""
        return (self._chance.generator,)

    @torch.no_grad()
    def reset(self, seed: int | Sequence[Any] | None = None, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Start an episode in every row; see `TokenEnv.reset`.

        Raises:
            UserError: another number of seeds, or episodes begin with what is not finite.
        """
        check_open(self)
        if seed is None and not self._is_seeded:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        clear(self._recent, self._everywhere)
        self._running.fill_(True)
        if seed is None:
            self.source.start(self._everywhere, self._chance)
            self.channels.start(self._everywhere, self._chance)
            self.slots.start(self._everywhere, self._chance)
            ages = (self._chance.uniform(dtype=torch.float64) * self.max_episode_steps).long()
        else:
            ages = self._seed(seed)
        self._start_age.copy_(ages if self.stagger else torch.zeros_like(ages))
        self._steps.copy_(self._start_age)
        if self._readings.read(self._everywhere).any():
            raise UserError(f"episodes of {self.source.name} begin with readings that are not finite")
        self._enter(self._everywhere)
        return self._observation()

    def _seed(self, seed: int | Sequence[Any]) -> Tensor:
        """Start as the host does with this seed; the rows' ages (B,), of which nothing is done yet."""
        rngs, stream = generators(seed, self.num_envs)
        self._is_seeded = True
        self._chance.seed(one_seed(rngs), stream)
        # Streams of their own: the starts are the same whatever is done to the senses.
        apart = [rng.spawn(2) for rng in rngs] if self._varied else []
        self.source.seed(rngs, stream)
        self.channels.seed([channels for _, channels in apart], stream)
        self.slots.start(self._everywhere, None)
        self.slots.seed([orders for orders, _ in apart], stream)
        ages = np.array([rng.integers(self.max_episode_steps) if self.stagger else 0 for rng in rngs])
        return torch.from_numpy(ages[stream]).to(self.device)

    @torch.no_grad()
    def finish(self) -> Step:
        """Advance every row; see `TokenEnv.step`.

        Raises:
            UserError: before the first reset, or actions of another shape.
        """
        check_open(self)
        if not self._is_seeded:
            raise UserError("step() before reset(): call reset() first")
        applied, lost = self._applied(self._begun)
        running = self._running.clone()
        rewards, terminated, cut = self.source.step(applied, running)
        self._steps += running
        lost = lost | ~(rewards.abs() <= LARGEST_REWARD)  # NaN, too
        if self.source.diverged is not None:
            lost = lost | self.source.diverged
        diverged = running & (lost | self._readings.read(running & ~lost))
        self._have_diverged |= diverged
        terminated = (terminated & running) | diverged
        truncated = (cut | (self._steps >= self.max_episode_steps)) & running
        if self.slots.every:
            made = torch.where(running, self._steps - self._start_age, 0)
            self.slots.shuffle((made % self.slots.every == 0) & (made > 0), self._chance)
        self._enter()
        ended = terminated | truncated
        whole = ended & (self._start_age == 0)
        observation = final = self._observation()
        if self.once:
            self._running &= ~ended
        else:
            self._start(ended)
            observation = self._observation()
        rewards = torch.where(running & ~diverged, rewards, 0.0).float()
        return Step(observation, rewards, terminated, truncated, diverged, whole, final)

    def _applied(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Actions as applied, which are remembered, and (B,) bool where one was no number, and 0 is done."""
        shape = (self.num_envs,) if self.discrete else (self.num_envs, self.n_actions)
        if tuple(actions.shape) != shape:
            raise UserError(f"actions have shape {tuple(actions.shape)}; expected {shape}")
        if self.discrete:
            undefined = ~self._everywhere
            newest = (actions.unsqueeze(1) == self._choices).float()
        else:
            undefined = actions.isnan().any(1)
            actions = torch.where(undefined.unsqueeze(1), 0.0, actions.double()).clamp(-1.0, 1.0)
            newest = actions.float()
        # The newest stands last.
        self._recent.copy_(torch.cat((self._recent[:, 1:], newest.unsqueeze(1)), 1))
        return actions, undefined

    def _start(self, where: Tensor) -> None:
        """Begin another episode in the rows that ``where`` (B,) names."""
        self.source.start(where, self._chance)
        for kept in (self._steps, self._start_age, self._recent):
            clear(kept, where)
        self.channels.start(where, self._chance)
        self.slots.start(where, self._chance)
        self._readings.read(where)
        self._enter(where)

    def _enter(self, where: Tensor | None = None) -> None:
        """Readings of all rows, or of those that have just been reset, to the slots."""
        values, present = self.channels.read(self._readings.values, self._chance, where)
        self.slots.enter(values, present, self._recent[:, -1], where)

    def _observation(self) -> dict[str, Tensor]:
        sensor = self.channels.sensor.expand(self.num_envs, -1)
        return {
            "tokens": self.slots.tokens(),
            "mask": self.slots.mask.clone(),
            "recent_actions": self._recent.clone(),
            "privileged": self._readings.values.clone(),
            "sensor": sensor.gather(1, self.slots.order) if self.slots.shuffles else sensor,
        }

    def check(self) -> None:
        """Say, the first time only, that rows have diverged; see `TokenEnv.check`."""
        self.source.check()
        if not self._has_told and self._have_diverged.any():
            self._has_told = True
            name, rows = self.source.name, self._have_diverged.nonzero().flatten().tolist()
            logger.warning("%s: rows %s diverged, and end their episodes; it is said once", name, rows)

    def snapshot(self) -> dict[str, Any]:
        """See `TokenEnv.snapshot`. Raises UserError: before the first reset."""
        check_open(self)
        if not self._is_seeded:
            raise UserError("snapshot() before reset(): call reset() first")
        return {"form": self._form, **super().snapshot()}

    @torch.no_grad()
    def restore(self, taken: Mapping[str, Any]) -> dict[str, Tensor]:
        """See `TokenEnv.restore`; nothing is changed where the snapshot does not fit.

        Raises:
            Misfit: the snapshot is of another task, other senses or another number of rows.
            UserError: before the first reset.
        """
        check_open(self)
        if not self._is_seeded:
            raise UserError("restore() before reset(): call reset() first")
        for name, own in self._form.items():
            other = taken["form"].get(name)
            if own != other:
                raise Misfit(f"the snapshot is of another environment: {name} {other}, here {own}")
        super().restore({name: value for name, value in taken.items() if name != "form"})
        return self._observation()

    @property
    def _form(self) -> dict[str, Any]:
        """What an environment must share with another to go on from its snapshot."""
        return {
            "task": self.source.name,
            "simulation": type(self.source).__name__,
            "num_envs": self.num_envs,
            "senses": repr(self.senses),
            "once": self.once,
            "device": self.device.type,
        }

    def close(self) -> None:
        """Let the simulations go."""
        if not self.closed:
            self.closed = True
            self.source.close()
