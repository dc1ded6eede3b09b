"""Any batch of sensors as a Gymnasium vector environment of token sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from ..errors import UserError, check_open
from ..resets import rows_to_reset
from ..snapshots import Misfit, put, take
from ..tokens import check_rows, sensor_observation_space
from .actions import Actions
from .channels import Channels
from .onlooker import Onlooker
from .readings import LARGEST_REWARD, Readings
from .senses import Senses
from .slots import Slots
from .source import Source

STREAMS = 2
"""Of a row beside that of its starts: the order of its slots, and its channels."""

Step = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]
"""Observation, rewards (B,) float64, terminated (B,), truncated (B,), info."""

COPIES = 5
"""Bytes of a row for each of its observation, at least; 5.6 when measured with a long history."""

_PARTS = ("_readings", "channels", "slots", "_beside")
_KEPT = ("_recent", "_steps", "_start_age", "_running", "_rngs", "_orders", "_channel_rngs", *_PARTS)


class SensorVectorEnv(gymnasium.vector.VectorEnv):
    """Rows of one task whose sensors are tokens.

    Observations are the sensor token sets of :mod:`somite.envs.tokens`. Actions are nominal, (B, A) in
    [-1, 1], or whole numbers (B,), of several decisions (B, K). A row that ends is reset in the same step:
    its observation is then the first of the next episode, ``info["final_obs"][row]`` the last of the one that
    ended.

    A row whose action, reward or reading is not a finite number (a reward beyond `LARGEST_REWARD` counts as
    none), or whose simulation diverged, ends its episode: ``info["diverged"]`` (B,) tells so, its reward is
    0, and it observes its last reading again.
    An infinite action is clipped like any other.

    Args:
        source: the task.
        senses: what happens to its readings.
        stagger: give the first episode of every row a random age, so that time limits do not fall
            together. ``info["episode_is_whole"]`` tells such shortened episodes apart.
        once: one episode for each row: a row that has ended stays as it is, with rewards of 0, until the
            next reset.
        privileged: tell which sensor stands where, too, and the task's state if it tells one, for training.
        beside: senses of an onlooker (a teacher), who meets the same episodes; see `beside_observation`.
        beside_sees: what the onlooker reads: the task's ``state``, or its ``readings``, which differ where
            these are pictures.
        autoreset_mode: ``SAME_STEP``, or ``DISABLED`` for a caller that resets rows by
            ``reset(options={"reset_mask": ...})``.

    Attributes:
        actions: what they mean.
        begun_anew: (B,) bool, rows that the last `restore` could not bring back.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        source: Source,
        senses: Senses | None = None,
        *,
        stagger: bool = False,
        once: bool = False,
        privileged: bool = True,
        beside: Senses | None = None,
        beside_sees: str = "state",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ) -> None:
        self.source, self.senses = source, senses or Senses()
        self.stagger, self.once = stagger, once
        self.autoreset_mode = AutoresetMode(getattr(autoreset_mode, "value", autoreset_mode))
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.num_envs = b = source.num_envs
        shape, n_state = source.reading_shape, len(source.state_names)
        self.kind = "patches" if shape else "sensors"
        self.privileged, self._tells_state = privileged, privileged and n_state > 0
        self.channels = Channels(self.senses, b, len(source.sensor_names), shape)
        space = source.single_action_space
        self.actions = Actions(space, b)
        self.discrete, self.n_actions = self.actions.discrete, self.actions.n
        self.spec_of_tokens = self.senses.spec(shape, self.n_actions)
        self.single_action_space = space
        self.single_observation_space = sensor_observation_space(
            self.spec_of_tokens,
            self.channels.n,
            (self.senses.history, self.n_actions),
            n_state if privileged else 0,
            len(source.sensor_names) if privileged else 0,
            are_pictures=bool(shape),
        )
        check_rows(b, self.single_observation_space, COPIES)
        self.slots = Slots(self.senses, b, self.channels.n, shape, self.n_actions)
        self._beside = None if beside is None else Onlooker(beside, source, beside_sees, self.n_actions)
        remembered = max(self.senses.history, beside.history if beside else 0)
        self._recent = np.zeros((b, remembered, self.n_actions), np.float32)
        self.observation_space = batch_space(self.single_observation_space, b)
        self.action_space = batch_space(self.single_action_space, b)
        self.body_of_row = np.zeros(b, int)
        self._steps, self._start_age = np.zeros(b, int), np.zeros(b, int)
        self._running, self.begun_anew = np.zeros((2, b), bool)
        self._begun: np.ndarray | None = None  # of a step that is not finished: (B,) bool, no number to act
        self._readings = Readings(source)
        self._rngs: list[np.random.Generator] = []
        self._orders: list[np.random.Generator] = []
        self._channel_rngs: list[np.random.Generator] = []

    @property
    def body_names(self) -> tuple[str, ...]:
        """The task, which is all that rows are of."""
        return (self.source.name,)

    @property
    def sizes(self) -> dict[str, Any]:
        """What a policy may be built for, by the names of its arguments."""
        return {
            "n_tokens": self.channels.n,
            "n_actions": self.n_actions,
            "n_recent": self.senses.history,
            "discrete": self.discrete,
            "n_privileged": len(self.source.state_names) if self._tells_state else 0,
            "n_sensors": len(self.source.sensor_names),
            **getattr(self.source, "sizes", {}),
        }

    def reset(
        self, *, seed: int | Sequence[Any] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start episodes.

        Args:
            seed: one for all (row i then draws from ``(seed, i)``) or one for each row.
            options: ``reset_mask`` (B,) bool, to reset (and seed) these rows only.
        """
        check_open(self)
        if self._begun is not None:
            raise UserError("reset() in the midst of a step: call step_finish() first")
        rows = rows_to_reset(options, self.num_envs, bool(self._rngs))
        if not self._rngs and seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        if seed is not None:
            self._seed(seed, rows)
        self._start(rows)
        if self.stagger and len(rows) == self.num_envs:
            limit = self.source.max_episode_steps
            self._start_age[:] = [rng.integers(limit) for rng in self._rngs]
            self._steps[:] = self._start_age
        self._enter_starts(rows)
        return self._observation(), {}

    def _seed(self, seed: int | Sequence[Any], rows: np.ndarray) -> None:
        one = isinstance(seed, (int, np.integer))
        keys = [[seed, row] for row in range(self.num_envs)] if one else list(seed)
        if len(keys) != self.num_envs:
            raise UserError(f"{len(keys)} seeds for {self.num_envs} environments")
        self._rngs = self._rngs or [None] * self.num_envs
        varied = self.slots.shuffles or self.channels.draws
        if varied and not self._orders:
            self._orders, self._channel_rngs = [None] * self.num_envs, [None] * self.num_envs
        for row in rows:
            self._rngs[row] = rng = np.random.default_rng(keys[row])
            if varied:  # streams of their own: the starts are the same whatever is done to the senses
                self._orders[row], self._channel_rngs[row] = rng.spawn(STREAMS)
        self.channels.restart(rows)

    def _start(self, rows: np.ndarray) -> None:
        self.source.start(rows, [self._rngs[row] for row in rows])
        self._steps[rows] = self._start_age[rows] = 0
        self._recent[rows] = 0
        self._running[rows] = True
        if self._orders:
            self.channels.start(rows, [self._channel_rngs[row] for row in rows])
            self.slots.start(rows, [self._orders[row] for row in rows])
        else:
            self.channels.start(rows, ())
            self.slots.start(rows, ())
        if self._beside:
            self._beside.start(rows)

    def _enter_starts(self, rows: np.ndarray) -> None:
        self._readings.read_starts(rows, self._rngs)
        self._enter(rows)

    def _enter(self, rows: np.ndarray | None = None) -> None:
        """Readings of all rows, or of those that have just been reset, to the slots."""
        readings = self._readings
        values, present = self.channels.read(readings.values, self._channel_rngs, rows)
        newest = self._recent[:, -1]
        self.slots.enter(values, present, newest, rows)
        if self._beside:
            self._beside.enter(readings.values, readings.state, newest, rows)

    def step(self, actions: np.ndarray) -> Step:
        """Advance every row. Rewards (B,) float64; see the class for the rest."""
        self.step_begin(actions)
        return self.step_finish()

    def step_begin(self, actions: np.ndarray) -> None:
        """Begin a step and return; where processes simulate they do so until `step_finish` is called.

        Raises:
            UserError: actions that do not fit, or rows that are not ready.
        """
        check_open(self)
        self._check_ready("step()")
        if self.autoreset_mode == AutoresetMode.DISABLED and not self.once and not self._running.all():
            raise UserError(f"rows {np.flatnonzero(~self._running).tolist()} have ended; reset them first")
        actions, newest, self._begun = self.actions.applied(actions)
        self._recent[:, :-1] = self._recent[:, 1:].copy()  # the newest stands last
        self._recent[:, -1] = newest
        self.source.step_begin(actions, self._running)

    def step_finish(self) -> Step:
        """Finish the step that `step_begin` began; what `step` returns."""
        check_open(self)
        if self._begun is None:
            raise UserError("step_finish() before step_begin()")
        undefined, self._begun = self._begun, None
        running = self._running
        rewards, terminated, cut = self.source.step_finish()
        self._steps += running
        bad = ~(np.abs(rewards) <= LARGEST_REWARD)  # NaN, too
        lost = undefined | self.source.diverged | bad
        diverged = running & (lost | self._readings.read(running & ~lost))
        terminated = terminated & running
        truncated = (cut | (self._steps >= self.source.max_episode_steps)) & running
        rewards = np.where(running, rewards, 0.0)
        if diverged.any():
            self._readings.tell(diverged, undefined, np.where(bad, rewards, 0.0))
            rewards[diverged], terminated[diverged] = 0.0, True
        if self._orders:
            self.slots.shuffle(np.where(running, self._steps - self._start_age, 0), self._orders)
        self._enter()
        ended = terminated | truncated
        info: dict[str, Any] = {"diverged": diverged}
        if self.once or self.autoreset_mode == AutoresetMode.DISABLED:
            self._running = running & ~ended
        elif ended.any():
            info |= self._finish(np.flatnonzero(ended), ended)
        return self._observation(), rewards, terminated, truncated, info

    def _check_ready(self, what: str) -> None:
        if not self._rngs:
            raise UserError(f"{what} before reset(): call reset() first")
        if self._begun is not None:
            raise UserError(f"{what} in the midst of a step: call step_finish() first")

    def reorder(self, row: int, rng: np.random.Generator) -> None:
        """Put the sensors of a row into another order by hand, from the next step to the episode's end.

        Args:
            row: which.
            rng: draws the order.
        """
        self.slots.reorder(np.array([row]), [rng])

    def snapshot(self) -> dict[str, Any]:
        """All that the rows' futures depend on, random streams included; see `somite.envs.snapshots`.

        Raises:
            UserError: before the first reset, or in the midst of a step.
        """
        check_open(self)
        self._check_ready("snapshot()")
        return {"form": self._form, "source": self.source.snapshot(), **take(self, _KEPT)}

    def restore(self, taken: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Go on from where another environment, made in the same way, was; to the last bit.

        The environment must have been reset once. Simulations that cannot be saved are replayed from the
        start of their episodes. Rows of those that give something else then begin a new episode, which is
        logged; `begun_anew` tells which.

        Args:
            taken: of `snapshot`.

        Returns:
            The observation.

        Raises:
            Misfit: the snapshot is of another task, other senses or another number of rows. Nothing has been
                changed then.
            UserError: before the first reset.
        """
        check_open(self)
        self._check_ready("restore()")
        for name, own in self._form.items():
            other = taken["form"].get(name)
            if own != other:
                raise Misfit(f"the snapshot is of another environment: {name} {other}, here {own}")
        rows = self.source.restore(taken["source"])
        put(self, _KEPT, {name: taken[name] for name in _KEPT})
        self.begun_anew = np.isin(np.arange(self.num_envs), rows)
        if len(rows):
            self._start(rows)
            self._enter_starts(rows)
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
            "onlooker": None if beside is None else f"{beside.slots.senses!r} of {beside.sees}",
            "once": self.once,
            "autoreset": self.autoreset_mode.value,
        }

    def _finish(self, rows: np.ndarray, ended: np.ndarray) -> dict[str, Any]:
        """Reset ended rows in the same step; keep their last observation."""
        last = self._observation()
        final = np.full(self.num_envs, None, object)
        for row in rows:
            final[row] = {key: value[row].copy() for key, value in last.items()}
        whole = (self._start_age == 0) & ended
        self._start(rows)
        self._enter_starts(rows)
        return {"final_obs": final, "_final_obs": ended.copy(), "episode_is_whole": whole}

    def _observation(self) -> dict[str, np.ndarray]:
        observation = {
            "tokens": self.slots.tokens(),
            "mask": self.slots.mask,
            "recent_actions": self._recent[:, -self.senses.history :].copy(),
        }
        observation.update(self.slots.beside_tokens())
        if self._tells_state:
            observation["privileged"] = self._readings.state.astype(np.float32)
        if self.privileged:
            observation["sensor"] = self.channels.sensor[self.slots.order]
        return observation

    def beside_observation(self) -> dict[str, np.ndarray]:
        """What the onlooker observes now: tokens, mask and recent actions of its own senses."""
        slots = self._beside.slots
        recent = self._recent[:, -slots.senses.history :].copy()
        observation = {"tokens": slots.tokens(), "mask": slots.mask, "recent_actions": recent}
        return {**observation, **slots.beside_tokens()}

    def close_extras(self, **kwargs: Any) -> None:
        """Let the simulations go."""
        self.source.close()
