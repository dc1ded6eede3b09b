"""Gymnasium's MuJoCo tasks on a device, by MuJoCo Warp."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from ...in_place import replace
from ...locomotion.backends.capacities import capacities
from ...locomotion.backends.warp import Launcher, WarpWorlds
from ..mujoco_source import MujocoTask
from .chance import Chance
from .source import TensorSource


class TensorMujoco(MujocoTask, TensorSource):
    """B rows of the task of `MujocoSource`, in single precision.

    A state that diverges ends the episode, with no forward reward for that step; its row is then at the
    model's start. A model that asks for PGS, the humanoid's, is solved by Newton's method. Rows that are not
    running are simulated, too, and put back to where they were.

    Args:
        num_envs: B.
        device: of all tensors; a CPU is possible and slow.
        env_id, kwargs, max_episode_steps, sensor_scales: as of `MujocoSource`.
        contacts, constraints: places for these in every simulation; None: as many as the body needs.

    Attributes:
        qpos: (B, nq) float32, the simulation's own memory.
        qvel: (B, nv), the same.

    Raises:
        UserError: Warp is not installed or cannot simulate this model.
    """

    can_be_captured = False
    kept = ("qpos", "qvel", "_warm_start", "_progress")

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        env_id: str,
        kwargs: Mapping[str, Any],
        max_episode_steps: int,
        sensor_scales: Sequence[float] | None = None,
        contacts: int | None = None,
        constraints: int | None = None,
    ) -> None:
        super().__init__(env_id, kwargs)
        self.num_envs, self.device, self.max_episode_steps = num_envs, device, max_episode_steps
        if int(self._model.opt.solver) == int(mujoco.mjtSolver.mjSOL_PGS):
            # MuJoCo Warp has no PGS. Newton's method solves the same problem, and to the end.
            self._model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        room = capacities(self._model, contacts, constraints)
        self._worlds = worlds = WarpWorlds(self._model, num_envs, self._frame_skip, device, room, env_id)
        self._launcher = Launcher([worlds], device)
        self.qpos, self.qvel = worlds.array("qpos"), worlds.array("qvel")
        self._warm_start = worlds.array("qacc_warmstart")
        self._xpos, self._com = worlds.array("xpos"), worlds.array("subtree_com")
        self._progress = torch.zeros(num_envs, device=device)
        self._diverged = torch.zeros(num_envs, dtype=torch.bool, device=device)

        def tensor(values: Any, kind: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(np.asarray(values), dtype=kind, device=device)

        self._scales = None if sensor_scales is None else tensor(sensor_scales)
        self._home = tensor(self._start_qpos), tensor(self._start_qvel)
        self._low, self._high = (
            tensor(bound, torch.float64) for bound in (self._controls.low, self._controls.high)
        )

    def seed(self, rngs: Sequence[np.random.Generator], stream: np.ndarray) -> None:
        """Start every row as Gymnasium's task does, with a seed of its generator."""
        qpos, qvel = (np.array(part)[stream] for part in zip(*map(self._draw_start, rngs), strict=True))
        everywhere = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self.place(everywhere, *(torch.from_numpy(part).to(self.qpos) for part in (qpos, qvel)))

    def start(self, where: Tensor, chance: Chance) -> None:
        """Start some rows with the same noise, drawn on the device."""
        (qpos, qvel), noise = self._home, self._noise
        qpos = qpos + noise * (2 * chance.uniform(len(qpos)) - 1)
        if self._rules.speed_noise == "normal":
            qvel = qvel + noise * chance.normal(len(qvel))
        else:
            qvel = qvel + noise * (2 * chance.uniform(len(qvel)) - 1)
        self.place(where, qpos, qvel)

    def place(self, where: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Put the rows that ``where`` (B,) names into states (B, nq), (B, nv), controls zero."""
        self._worlds.reset(where, qpos, qvel)
        if self._rules.progress != "state":
            self._launcher.kinematics()
        replace(self._progress, where, self._place())

    @property
    def diverged(self) -> Tensor:
        """(B,) bool, rows that diverged in the last step."""
        return self._diverged

    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step all rows, and put those that are not ``running`` back to where they were."""
        controls = self._physical_controls(actions)
        before, held = self._progress.clone(), (self.qpos.clone(), self.qvel.clone())
        self._worlds.set_controls(controls)
        self._launcher.launch()
        for state, old in zip((self.qpos, self.qvel), held, strict=True):
            replace(state, ~running, old)
        diverged = self._worlds.diverged()
        self._diverged.copy_(diverged)
        # No world goes on with what is no number, not even one whose only episode is over.
        self._worlds.reset(diverged, *self._home)
        replace(self._progress, running & ~diverged, self._place())
        velocity = (self._progress - before).double() / self._dt
        rewards, terminated = self._judge(velocity, self.qpos, self.qvel, controls.double(), diverged)
        return rewards, terminated, torch.zeros_like(running)

    def _physical_controls(self, actions: Tensor) -> Tensor:
        """(B, nu) float32; see `NominalActions`."""
        low, high = self._low, self._high
        # May be a rounding beyond the bounds.
        return ((low + high) / 2 + (high - low) / 2 * actions).clamp(low, high).float()

    def _place(self) -> Tensor:
        """(B,) m, what the forward velocity is measured by."""
        if self._rules.progress == "body":
            return self._xpos[:, 1, 0]  # body 0 is the world
        return self._com[:, 0, 0] if self._rules.progress == "center" else self.qpos[:, 0]

    def read(self) -> Tensor:
        """(B, S) float32: positions but for the place on the ground, then velocities."""
        limit = self._rules.speed_limit
        speeds = self.qvel.clamp(-limit, limit) if math.isfinite(limit) else self.qvel
        readings = torch.cat((self.qpos[:, self._skipped :], speeds), 1)
        return readings if self._scales is None else readings * self._scales

    def check(self) -> None:
        """Raises UserError: there was no room for all contacts or constraints; see `TensorSource.check`."""
        self._worlds.check()

    def close(self) -> None:
        """Let the simulations go."""
        self._launcher.close()
        del self.qpos, self.qvel, self._warm_start, self._xpos, self._com, self._worlds
