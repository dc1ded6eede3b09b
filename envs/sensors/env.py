"""Any batch of sensors as an environment of token sets."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..cores import check_memory_of_environments
from ..draws import Draws, FirstDraws, RandomNumbers, generators, keys_of, seeds_of
from ..errors import UserError, check_open
from ..snapshots import Kept, Misfit, put, take
from ..token_env import Step, TokenEnv
from ..tokens import sensor_observation_space
from .channels import Channels
from .senses import Senses
from .slots import Slots
from .source import LARGEST_REWARD, Readings, Source, sums_up

COPIES = 5
"""Bytes of an environment for each of its observation, at least; 5.6 when measured with a long history."""

_KEPT = (
    "_recent",
    "_steps",
    "_start_age",
    "_running",
    "_all_run",
    "_have_diverged",
    "_draws",
    "_readings",
    "channels",
    "slots",
    "_beside",
)

_AT_STARTS = ("starts", "orders", "channels")
_IN_STEPS = ("steps of orders", "steps of channels")
"""What is drawn for, each from a stream of its own: starts are the same whatever is done to the senses, and
an episode that starts changes nothing of what the others draw in their steps."""


class SensorEnv(TokenEnv):
    """B environments of one task whose sensors are tokens, on whatever device the task is simulated.

    Observations are the sensor token sets of :mod:`somite.envs.tokens`. Actions are nominal, (B, A) in
    [-1, 1], or whole numbers (B,), of several decisions (B, K).

    With the same seeds, environments have the same starts, orders, losses and ages on any device; what is
    drawn later comes from one generator for each purpose. Where the host does not know the ends, no step
    waits for the device, and all that steps go on from is written to in place, so that a CUDA graph can hold
    them.

    An environment whose action, reward or reading is not finite (a reward beyond `LARGEST_REWARD` counts as
    infinite), or whose simulation diverged, ends its episode: its reward is 0, and it observes its last
    reading again. An infinite action is clipped like any other.

    Args:
        source: the task.
        senses: what happens to its readings.
        stagger, once, autoreset: as of `TaskSet.make_env`.
        privileged: tell which sensor stands where, too, and the task's state if it tells one, for training.
        beside: senses of a teacher, who meets the same episodes; see `beside_observation`.
        beside_sees: what the teacher reads: the task's ``state``, or its ``readings``, which differ where
            these are pictures.
        sensor_scales: (S,) factors of the task's readings; None: raw units.

    Attributes:
        can_be_captured: by a CUDA graph, with all `generators` registered.
        tokens_are_complete: whether no token is ever missing.
    """

    def __init__(
        self,
        source: Source,
        senses: Senses | None = None,
        *,
        stagger: bool = False,
        once: bool = False,
        autoreset: bool = True,
        privileged: bool = True,
        beside: Senses | None = None,
        beside_sees: str = "state",
        sensor_scales: Sequence[float] | None = None,
    ) -> None:
        self.source, self.senses = source, senses or Senses()
        self.stagger, self.once, self.autoreset = stagger, once, autoreset
        self.sensor_scales = sensor_scales
        self.num_envs, self.device = source.num_envs, source.device
        self.max_episode_steps, self.step_duration = source.max_episode_steps, source.step_duration
        self.body_names, self.body_of_row = (source.name,), np.zeros(self.num_envs, int)
        self.can_be_captured = source.can_be_captured
        b, device, shape = self.num_envs, self.device, source.reading_shape
        self.kind = "patches" if shape else "sensors"
        n_state, n_sensors = len(source.state_names), len(source.sensor_names)
        self.privileged, self._tells_state = privileged, privileged and n_state > 0
        self.single_action_space = space = source.single_action_space
        self.discrete = self._choices(space)
        counts = [int(space.n)] if self.discrete is True else self.discrete or []
        self._counts = torch.tensor(counts, dtype=torch.int64, device=device)
        self.n_actions = sum(counts) if self.discrete else int(space.shape[0])
        self.channels = Channels(self.senses, b, n_sensors, shape, device)
        self.spec_of_tokens = self.senses.spec(shape, self.n_actions)
        self.single_observation_space = sensor_observation_space(
            self.spec_of_tokens,
            self.channels.n,
            (self.senses.history, self.n_actions),
            n_state if privileged else 0,
            n_sensors if privileged else 0,
            are_pictures=bool(shape),
        )
        if device.type == "cpu":
            check_memory_of_environments(b, self.single_observation_space, COPIES)
        self.tokens_are_complete = self.channels.complete
        self.slots = Slots(self.channels, b, self.n_actions, device)
        self._beside = None if beside is None else _Teacher(self, beside, beside_sees)
        self._senses = [(self.channels, self.slots)]
        if self._beside:
            self._senses.append((self._beside.channels, self._beside.slots))
        remembered = max(slots.senses.history for _, slots in self._senses)
        # (K, B, A), newest last: each age lies together, and moves on as a whole.
        self._recent = torch.zeros(remembered, b, self.n_actions, device=device)
        self._actions = self._recent.unbind()
        self._steps, self._start_age = torch.zeros(2, b, dtype=torch.int64, device=device)
        self._running, self._have_diverged, self.begun_anew = torch.zeros(3, b, dtype=bool, device=device)
        self._everywhere = torch.ones(b, dtype=torch.bool, device=device)
        self._nowhere = ~self._everywhere
        self._all_run = self._is_seeded = self._is_stepping = False
        self._draws = {purpose: Draws(b, device) for purpose in (*_AT_STARTS, *_IN_STEPS)}

    @staticmethod
    def _choices(space: spaces.Space) -> bool | list[int]:
        """Whether actions are choices: False; True, one; or how many of each of K decisions."""
        if isinstance(space, spaces.MultiDiscrete):
            return [int(count) for count in space.nvec]
        return isinstance(space, spaces.Discrete)

    @cached_property
    def sizes(self) -> dict[str, Any]:  # noqa: D102
        return {
            "n_tokens": self.channels.n,
            "n_actions": self.n_actions,
            "n_recent": self.senses.history,
            "discrete": self.discrete,
            "n_privileged": len(self.source.state_names) if self._tells_state else 0,
            "n_sensors": len(self.source.sensor_names),
            **self.source.sizes,
        }

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """That steps draw from."""
        return tuple(draws.generator for draws in self._draws.values())

    def reset(self, seed: int | Sequence[Any] | None = None, rows: Tensor | None = None) -> dict[str, Tensor]:
        """See `TokenEnv.reset`. Raises EnvironmentFault: episodes begin with what is not finite."""
        check_open(self)
        if self._is_stepping:
            raise UserError("reset() in the midst of a step: call finish() first")
        if rows is not None and not self._is_seeded:
            raise UserError("the first reset() starts every environment; give no reset_mask or rows")
        where = self._everywhere if rows is None else rows
        if seed is None and not self._is_seeded:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        draws = None if seed is None else self._seed(seed, rows)
        starts = self._start(where, draws)
        if self.stagger and rows is None:
            self._start_age.copy_(starts.integers(self.max_episode_steps))
            self._steps.copy_(self._start_age)
        self._enter_starts(where, starts)
        self._all_run = self.knows_ends and bool(self._running.all())
        return self._observation()

    def _seed(self, seed: int | Sequence[Any], rows: Tensor | None) -> list[FirstDraws]:
        """Starts, orders and channels of those that are seeded: starts are the same whatever senses do."""
        keys = keys_of(seed, self.num_envs)
        chosen = None if rows is None else rows.cpu().numpy()
        if chosen is not None:  # the others draw nothing: any key will do
            keys = [key if goes else 0 for key, goes in zip(keys, chosen, strict=True)]
        rngs, stream = generators(keys)
        for draws, own in zip(self._draws.values(), seeds_of(rngs, len(self._draws)), strict=True):
            draws.seed(own, stream, chosen)
        self._is_seeded = True
        orders = channels = rngs  # nothing is drawn
        if self.slots.shuffles or self.channels.draws:
            orders, channels = zip(*(rng.spawn(2) for rng in rngs), strict=True)
        return [FirstDraws(own, stream, self.device) for own in (rngs, orders, channels)]

    def _start(self, where: Tensor, draws: Sequence[RandomNumbers] | None = None) -> RandomNumbers:
        """Begin episodes; None: from what is drawn for later ones. Returns what starts are drawn from."""
        of_starts, of_orders, of_channels = draws or [self._draws[purpose] for purpose in _AT_STARTS]
        self.source.start(where, of_starts)
        self._steps.masked_fill_(where, 0)
        self._start_age.masked_fill_(where, 0)
        self._recent.masked_fill_(where.unsqueeze(-1), 0)
        self._running |= where
        for channels, slots in self._senses:
            channels.start(where, of_channels)
            slots.start(where, of_orders)
        return of_starts

    def _enter_starts(self, where: Tensor, draws: RandomNumbers) -> None:
        self._readings.read_starts(where, draws)
        self._enter(where)

    @cached_property
    def _readings(self) -> Readings:
        return Readings(self.source, self.knows_ends, self.sensor_scales)

    def _enter(self, where: Tensor | None = None) -> None:
        """Readings of all, or of those that have just been reset, to the slots."""
        draws = self._draws["steps of channels" if where is None else "channels"]
        for channels, slots in self._senses:
            sees_state = slots is not self.slots and self._beside.sees == "state"
            readings = self._readings.state if sees_state else self._readings.values
            slots.enter(*channels.read(readings, draws, where), self._actions[-1], where)

    def begin(self, actions: Tensor) -> None:
        """See `TokenEnv.begin`. Raises UserError, also where some ended and wait for their reset."""
        self._check_ready("step()")
        if not self.autoreset and not self.once and not self._all_run:
            ended = (~self._running).nonzero().flatten().tolist()
            if ended:
                raise UserError(f"environments {ended} have ended; reset them first")
        applied, newest, self._undefined = self._applied(actions.detach())
        for older, newer in itertools.pairwise(self._actions):
            older.copy_(newer)
        self._actions[-1].copy_(newest)
        self._is_stepping = True
        self.source.begin(applied, self._running)

    def _applied(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Actions as applied and, (B, A), as remembered, and (B,) bool where one was NaN, and 0 is done."""
        shape = (self.num_envs, *self.single_action_space.shape)
        if tuple(actions.shape) != shape:
            raise UserError(f"actions have shape {tuple(actions.shape)}; expected {shape}")
        if self.discrete:
            actions = actions.long()
            if self.knows_ends and ((actions < 0) | (actions >= self._counts)).any():
                last = (self._counts - 1).tolist()
                found = f"{int(actions.min())} to {int(actions.max())}"
                raise UserError(f"actions are 0 to {last[0] if len(last) == 1 else last}, got {found}")
            first = self._counts.cumsum(0) - self._counts
            chosen = actions.reshape(self.num_envs, -1) + first
            remembered = torch.zeros(self.num_envs, self.n_actions, device=self.device)
            return actions, remembered.scatter_(1, chosen, 1), None
        undefined, actions = None, actions.double()
        if not (self.knows_ends and sums_up(actions)):
            undefined = actions.isnan().any(1)
            actions = actions.masked_fill(undefined.unsqueeze(1), 0.0)
        actions = actions.clamp(-1.0, 1.0)
        return actions, actions, undefined

    def finish(self) -> Step:
        """See `TokenEnv.finish`."""
        if self.kind == "sensors":
            return self._finish()
        # Pictures are copied by one thread: others that had been woken would wait on the simulation's cores.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._finish()
        finally:
            torch.set_num_threads(threads)

    def _finish(self) -> Step:
        check_open(self)
        if not self._is_stepping:
            raise UserError("finish() before begin()")
        rewards, terminated, cut = self.source.finish()
        self._is_stepping = False
        looks, all_run = self.knows_ends, self._all_run
        running = self._running if all_run else self._running.clone()
        self._steps += running
        diverged = self._lost(rewards, running)
        truncated = self._steps >= self.max_episode_steps
        if cut is not None:
            truncated |= cut
        if not all_run:
            terminated, truncated = terminated & running, truncated & running
            rewards = rewards.masked_fill(~running, 0.0)
        if diverged is None:
            diverged = self._nowhere
        elif not looks or diverged.any():
            if looks:
                self._readings.tell(diverged, self._undefined, rewards)
            self._have_diverged |= diverged
            terminated, rewards = terminated | diverged, rewards.masked_fill(diverged, 0.0)
        if self.slots.every:
            made = torch.where(running, self._steps - self._start_age, 0)
            self.slots.shuffle((made % self.slots.every == 0) & (made > 0), self._draws["steps of orders"])
        self._enter()
        ended = terminated | truncated
        if looks and not ended.any():
            return Step(self._observation(), rewards, terminated, truncated, diverged, self._nowhere)
        whole = ended & (self._start_age == 0)
        observation = final = self._observation()
        if self.once or not self.autoreset:
            self._running &= ~ended
            self._all_run = False
        else:
            final = {key: value.clone() for key, value in observation.items()}
            self._enter_starts(ended, self._start(ended))
            observation = self._observation()
        return Step(observation, rewards, terminated, truncated, diverged, whole, final)

    def _lost(self, rewards: Tensor, running: Tensor) -> Tensor | None:
        """(B,) bool, whose episode something ends that is not finite; None: nobody's. Others are read."""
        signs = [] if self._undefined is None else [self._undefined]
        if not (self.knows_ends and float(torch.linalg.vector_norm(rewards)) <= LARGEST_REWARD):
            signs.append(~(rewards.abs() <= LARGEST_REWARD))  # NaN is not
        broke = self.source.diverged
        if broke is not None and not (self.knows_ends and not broke.any()):
            signs.append(broke)
        if not signs:
            return self._readings.read(None if self._all_run else running)
        lost = functools.reduce(torch.bitwise_or, signs)
        broken = self._readings.read(running & ~lost)
        return running & (lost if broken is None else lost | broken)

    def _check_ready(self, what: str) -> None:
        check_open(self)
        if not self._is_seeded:
            raise UserError(f"{what} before reset(): call reset() first")
        if self._is_stepping:
            raise UserError(f"{what} in the midst of a step: call finish() first")

    def _observation(self) -> dict[str, Tensor]:
        observation = self._seen_by(self.slots)
        if self._tells_state:
            observation["privileged"] = self._readings.state
        if self.privileged:
            observation["sensor"] = self.slots.sensor
        return observation

    def _seen_by(self, slots: Slots) -> dict[str, Tensor]:
        recent = self._recent[-slots.senses.history :].transpose(0, 1)
        return {**slots.observed(), "recent_actions": recent}

    def beside_observation(self) -> dict[str, Tensor]:
        """What the teacher observes now: tokens, mask and recent actions of its own senses."""
        return self._seen_by(self._beside.slots)

    def reorder(self, row: int, rng: np.random.Generator) -> None:
        """Put an environment's sensors into an order that ``rng`` draws, until its episode ends."""
        order = rng.random(self.channels.n).argsort()
        self.slots.reorder(row, torch.from_numpy(order).to(self.device))

    def check(self) -> None:
        """See `TokenEnv.check`; logs, the first time only, that environments have diverged."""
        self.source.check()
        if not self.knows_ends and self._have_diverged.any():
            self._readings.tell(self._have_diverged)

    def snapshot(self) -> dict[str, Any]:
        """See `TokenEnv.snapshot`. Raises UserError: before the first reset, or in the midst of a step."""
        self._check_ready("snapshot()")
        return {"form": self._form, "source": self.source.snapshot(), **take(self, _KEPT)}

    def restore(self, taken: Mapping[str, Any]) -> dict[str, Tensor]:
        """Go on from where another environment, made in the same way, was; to the last bit.

        Simulations that cannot be saved are replayed from the start of their episodes. Those that come to
        another place begin a new episode, which is logged; `begun_anew` tells which.

        Raises:
            Misfit: the snapshot is of another task, other senses or another number of environments.
            UserError: before the first reset.
        """
        self._check_ready("restore()")
        for name, own in self._form.items():
            other = taken["form"].get(name)
            if own != other:
                raise Misfit(f"the snapshot is of another environment: {name} {other}, here {own}")
        lost = self.source.restore(taken["source"])
        put(self, _KEPT, {name: taken[name] for name in _KEPT})
        self.begun_anew.zero_()
        if len(lost):
            self.begun_anew[torch.as_tensor(lost)] = True
            self._enter_starts(self.begun_anew, self._start(self.begun_anew))
        return self._observation()

    @property
    def _form(self) -> dict[str, Any]:
        """What an environment must share with another to go on from its snapshot."""
        beside = self._beside
        return {
            "task": self.source.name,
            "simulation": type(self.source).__name__,
            "num_envs": self.num_envs,
            "senses": repr(self.senses),
            "beside": None if beside is None else f"{beside.slots.senses!r} of {beside.sees}",
            "once": self.once,
            "autoreset": self.autoreset,
            "device": self.device.type,
        }

    def close(self) -> None:
        """Let the simulations go."""
        if not self.closed:
            self.closed = True
            self.source.close()


class _Teacher(Kept):
    """Channels and slots of somebody else. Raises UserError: senses that are disturbed."""

    kept = ("channels", "slots")

    def __init__(self, env: SensorEnv, senses: Senses, sees: str) -> None:
        self.sees, source = sees, env.source
        shape = () if sees == "state" else source.reading_shape
        names = source.state_names if sees == "state" else source.sensor_names
        self.channels = Channels(senses, env.num_envs, len(names), shape, env.device)
        self.slots = Slots(self.channels, env.num_envs, env.n_actions, env.device)
        if self.channels.draws or self.slots.shuffles:
            raise UserError(f"a teacher's senses must be undisturbed, got {senses}")
