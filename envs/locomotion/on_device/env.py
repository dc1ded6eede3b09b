"""Rows of one or several morphologies on a device: simulated, observed, judged and reset there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from torch import Tensor

from ...errors import UserError, check_open
from ...in_place import replace
from ...snapshots import put, take
from ...token_env import Step, TokenEnv
from ...tokens import limb_action_space, limb_observation_space
from ..block import adjacent_rows
from ..bodies.morphology import Morphology
from ..features import LIMB_SPEC
from ..goals import Goals
from ..judge import Judge
from ..readings import Readings
from ..starts import draw_moves, padded_sizes, spread_rows
from ..task import LocomotionTask
from ..varied.conditions import why_not_varied
from ..varied.damage import Damage
from ..varied.variation import BodyVariation
from ..varied.world import World
from .device_block import DeviceBlock
from .launching import Launcher
from .prepared import prepare

_KEPT = ("_blocks", "_readings", "_judge", "_goals", "_steps", "_start_age", "_random_state")
_READ = ("root", "progress", "cos_tilt", "largest")


class LocomotionTensorEnv(TokenEnv):
    """The task of `LocomotionVectorEnv` on a device, by MuJoCo Warp.

    Observations, rewards and ends are computed by the same code, in single precision. What differs: episodes
    that start in the midst of a run draw from one generator of the device; a varied body is one of
    ``prepared`` ones that were drawn beforehand.

    Args:
        bodies: names of family members, or morphologies.
        num_envs: rows in all, spread evenly over the bodies.
        task: reward and termination.
        device: of all tensors; a CPU is possible and slow.
        frame_skip: substeps of a step; None: each body's own, of about 0.02 s.
        aligned: place each limb in the slot of the family's full body.
        stagger: give the first episode of every row a random age.
        once: of no effect: rows go on with new episodes.
        variation, world: what varies between episodes.
        damage: must be nothing.
        contacts, constraints: places for these in every simulation; None: as many as the body needs.
        prepared: drawn beforehand of each varied body.

    Raises:
        UserError: unknown body, one that cannot do the task or that Warp cannot simulate, something that is
            varied and cannot be on a device, fewer rows than bodies, or Warp is not installed.
    """

    kind = "limbs"
    spec_of_tokens = LIMB_SPEC

    def __init__(
        self,
        bodies: Sequence[str | Morphology],
        num_envs: int | None = None,
        task: LocomotionTask | None = None,
        *,
        device: torch.device | str = "cpu",
        frame_skip: int | None = 5,
        aligned: bool = False,
        stagger: bool = False,
        once: bool = False,
        variation: BodyVariation | None = None,
        damage: Damage | None = None,
        world: World | None = None,
        contacts: int | None = None,
        constraints: int | None = None,
        prepared: int = 128,
    ) -> None:
        why_not = why_not_varied(damage, world)
        if why_not:
            raise UserError(f"this cannot be simulated on a device: {why_not}. Use simulation=cpu")
        self.bodies, self.body_of_row = spread_rows(bodies, num_envs)
        self.task, self.device, self.stagger = task or LocomotionTask(), torch.device(device), stagger
        self.num_envs = len(self.body_of_row)
        self._make_spaces(aligned)
        variants = [prepare(body, self.task, frame_skip, variation, world, prepared) for body in self.bodies]
        own = [self.bodies[index] for index in self.body_of_row]
        room = (contacts, constraints)
        self._blocks = [
            DeviceBlock(
                own[rows],
                [variants[i] for i in self.body_of_row[rows]],
                rows,
                frame_skip,
                aligned,
                self.device,
                room,
            )
            for rows in adjacent_rows(own)
        ]
        self._readings = Readings(self._blocks, self.task, *self._sizes, device=self.device)
        self._goals = Goals(self.task, self.bodies, self.body_of_row, self.device)
        durations = np.concatenate([np.full(block.sim.n, block.sim.dt) for block in self._blocks])
        self._judge = Judge(self.task, own, durations, self._readings, self._goals)
        for block in self._blocks:
            block.adopt(self._readings.layout, self._judge)
        self._steps = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self._start_age = torch.zeros_like(self._steps)
        self._every = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self._generator = torch.Generator(self.device)
        self._rngs: list[np.random.Generator] = []
        self._launcher = Launcher([block.sim for block in self._blocks], self.device)

    def _make_spaces(self, aligned: bool) -> None:
        self._sizes = n, j = padded_sizes(self.bodies, aligned)
        self.single_observation_space = limb_observation_space(LIMB_SPEC, n, j)
        self.single_action_space = limb_action_space(n, j)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.sizes = {"n_tokens": n, "n_joints": j}
        self.body_names = tuple(body.name for body in self.bodies)
        self.max_episode_steps = self.task.max_episode_steps

    @property
    def step_duration(self) -> float:
        """Simulated seconds of a step, of the first body."""
        return float(self._blocks[0].sim.dt)

    @torch.no_grad()
    def reset(  # noqa: D102
        self, seed: int | Sequence[Any] | None = None, rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        check_open(self)
        if rows is not None:
            raise UserError("on a device all environments are reset at once")
        if seed is None and not self._rngs:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        if seed is not None:
            one = isinstance(seed, (int, np.integer))
            keys = [[seed, row] for row in range(self.num_envs)] if one else list(seed)
            if len(keys) != self.num_envs:
                raise UserError(f"{len(keys)} seeds for {self.num_envs} environments")
            self._rngs = [np.random.default_rng(key) for key in keys]
            words = np.random.SeedSequence([*np.ravel(keys).tolist()]).generate_state(2)
            self._generator.manual_seed(int(words[0]) << 32 | int(words[1]))
        for block in self._blocks:
            model, rows = block.sim.morphology.model, range(block.rows.start, block.rows.stop)
            drawn = [draw_moves(self.task, model.nq, model.nv, self._rngs[row]) for row in rows]
            for row in rows:
                self._goals.draw(row, self._rngs[row])
            moves, speeds = (
                torch.from_numpy(np.array(part)).to(self.device, torch.float32)
                for part in zip(*drawn, strict=True)
            )
            every = self._every[block.rows]
            block.vary(every, self._generator, self._readings.layout, self._judge)
            block.start(every, moves, speeds)
        self._goals.tell()
        self._steps.zero_()
        self._start_age.zero_()
        if self.stagger:
            limit = self.task.max_episode_steps
            self._start_age.copy_(torch.tensor([int(rng.integers(limit)) for rng in self._rngs]))
            self._steps.copy_(self._start_age)
        self._launcher.kinematics()
        self._readings.read()
        return self._readings.observe(self._goals.seen)

    @torch.no_grad()
    def finish(self) -> Step:  # noqa: D102
        check_open(self)
        if not self._rngs:
            raise UserError("step() before reset(): call reset() first")
        actions = self._begun
        if actions.shape != self.action_space.shape:
            raise UserError(f"actions have shape {tuple(actions.shape)}; expected {self.action_space.shape}")
        before = self._readings.progress.clone()
        costs = [block.act(actions) for block in self._blocks]
        self._launcher.launch()
        diverged = torch.cat([block.diverged() for block in self._blocks])
        self._steps += 1
        self._readings.read()
        verdict = self._judge.judge(before, torch.cat(costs), diverged)
        terminated, truncated = ~verdict.alive, self._steps >= self.task.max_episode_steps
        ended = terminated | truncated
        whole = ended & (self._start_age == 0)
        final = self._readings.observe(self._goals.seen)
        self._start_episodes(ended)
        observation = self._readings.observe(self._goals.seen)
        for name, last in final.items():  # of a simulation that diverged there is nothing to be read
            replace(last, diverged, observation[name])
        return Step(observation, verdict.reward, terminated, truncated, diverged, whole, final)

    def _start_episodes(self, rows: Tensor) -> None:
        """New episodes in ``rows`` (B,) bool; the others are left as they are."""
        task, random = self.task, {"generator": self._generator, "device": self.device}
        self._goals.draw_on_device(rows, self._generator)
        for block in self._blocks:
            model, n = block.sim.morphology.model, block.sim.n
            moves = task.reset_noise * (2 * torch.rand(n, model.nq, **random) - 1)
            if task.speed_noise == "uniform":
                speeds = task.reset_speed_noise * (2 * torch.rand(n, model.nv, **random) - 1)
            else:
                speeds = task.reset_speed_noise * torch.randn(n, model.nv, **random)
            own = rows[block.rows]
            block.vary(own, self._generator, self._readings.layout, self._judge)
            block.start(own, moves, speeds)
        self._steps.masked_fill_(rows, 0)
        self._start_age.masked_fill_(rows, 0)
        readings = self._readings
        # Readings of the rows that go on are one substep behind, and stay so.
        kept = [tensor.clone() for tensor in self._read_tensors()]
        self._launcher.kinematics()
        readings.read()
        for tensor, last in zip(self._read_tensors(), kept, strict=True):
            replace(tensor, ~rows, last)

    def _read_tensors(self) -> list[Tensor]:
        return [*vars(self._readings.state).values(), *(getattr(self._readings, name) for name in _READ)]

    def check(self) -> None:  # noqa: D102
        for block in self._blocks:
            block.sim.check()

    def set_state(self, row: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put one row into a state: positions (nq,), velocities (nv,) of its model."""
        check_open(self)
        for block in self._blocks:
            if block.rows.start <= row < block.rows.stop:
                chosen = torch.arange(block.rows.start, block.rows.stop, device=self.device) == row
                place = (torch.from_numpy(np.asarray(x)).to(self.device, torch.float32) for x in (qpos, qvel))
                block.sim.reset(chosen, *place)
        self._launcher.kinematics()
        self._readings.read()

    @property
    def _random_state(self) -> Tensor:
        return self._generator.get_state()

    @_random_state.setter
    def _random_state(self, state: Tensor) -> None:
        self._generator.set_state(state.cpu())

    def snapshot(self) -> dict[str, Any]:  # noqa: D102
        check_open(self)
        return take(self, _KEPT)

    def restore(self, taken: Mapping[str, Any]) -> dict[str, Tensor]:  # noqa: D102
        check_open(self)
        # A property's value is no memory to write into.
        put(self, _KEPT[:-1], {name: taken[name] for name in _KEPT[:-1]})
        self._random_state = taken[_KEPT[-1]]
        for block in self._blocks:
            block.adopt(self._readings.layout, self._judge)
        return self._readings.observe(self._goals.seen)

    def close(self) -> None:  # noqa: D102
        if not self.closed:
            self.closed = True
            self._launcher.close()
            del self._blocks, self._readings, self._judge, self._launcher
