"""Gymnasium's MuJoCo tasks, all environments in one batch: the same episodes, faster.

Gymnasium's own environment gives the model and the start, and the arguments of its constructor give every
weight and bound. What stands here is only what no argument says.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium
import mujoco.batch
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from torch import Tensor

# Its import also keeps MuJoCo's warnings out of the user's folder.
from ..cores import thread_count
from ..draws import RandomNumbers
from ..in_place import replace
from ..locomotion.backends.mujoco import DIVERGED, tensor_of
from .gymnasium_envs import find_spec, make_env
from .gymnasium_source import SEEDS_OF_EPISODES, NominalActions
from .source import Source


@dataclass(frozen=True)
class Rules:
    """What the arguments of a Gymnasium task do not say.

    Args:
        progress: whose place gives the forward velocity: the first coordinate of the ``state``; the torso's
            ``body``, one substep behind; or the ``center`` of mass of all, a substep behind, too.
        speed_noise: of the start velocities: the noise scale times a normal deviate, or uniform within it.
        height: index of the height that must stay in range among the positions.
        speed_limit: observed velocities are clipped to it, either way.
        needed: arguments without which the task reads more than the state, such as contact forces, which
            the batch does not compute.
    """

    progress: Literal["state", "body", "center"] = "state"
    speed_noise: Literal["normal", "uniform"] = "uniform"
    height: int = 1
    speed_limit: float = np.inf
    needed: Mapping[str, Any] = field(default_factory=dict)


RULES = {
    "ant_v5:AntEnv": Rules(
        progress="body",
        speed_noise="normal",
        height=2,
        needed={"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0},
    ),
    "half_cheetah_v5:HalfCheetahEnv": Rules(speed_noise="normal"),
    "hopper_v5:HopperEnv": Rules(speed_limit=10.0),
    "humanoid_v5:HumanoidEnv": Rules(
        progress="center",
        height=2,
        needed={
            "include_cinert_in_observation": False,
            "include_cvel_in_observation": False,
            "include_qfrc_actuator_in_observation": False,
            "include_cfrc_ext_in_observation": False,
            "contact_cost_weight": 0,
        },
    ),
    "swimmer_v5:SwimmerEnv": Rules(),
    "walker2d_v5:Walker2dEnv": Rules(speed_limit=10.0),
}
"""By module of ``gymnasium.envs.mujoco`` and class."""

FREE = (
    "forward_reward_weight",
    "ctrl_cost_weight",
    "healthy_reward",
    "terminate_when_unhealthy",
    "healthy_z_range",
    "healthy_angle_range",
    "healthy_state_range",
    "reset_noise_scale",
    "exclude_current_positions_from_observation",
    "frame_skip",
)
"""Arguments that may have any value."""


def rules_of(env_id: str) -> Rules | None:
    """Those of a registered task; None where there is no batch for it. Raises UserError: unknown id."""
    return _rules_of(find_spec(env_id))


def _rules_of(spec: EnvSpec) -> Rules | None:
    return RULES.get(str(spec.entry_point).removeprefix("gymnasium.envs.mujoco."))


def why_not_batched(env_id: str, kwargs: Mapping[str, Any]) -> str | None:
    """Why a task with these arguments is not simulated in a batch; None: it is. Raises UserError."""
    rules = rules_of(env_id)
    if rules is None:
        ids = sorted(name for name, spec in gymnasium.registry.items() if _rules_of(spec))
        return f"there is a batched simulation of {', '.join(ids)} only, not of {env_id}"
    given = {**find_spec(env_id).kwargs, **kwargs}
    if any(given.get(name) != value for name, value in rules.needed.items()):
        wanted = ", ".join(f"{name}: {str(value).lower()}" for name, value in rules.needed.items())
        return f'the batched simulation of {env_id} needs "env.kwargs={{{wanted}}}"'
    others = sorted(set(given) - set(FREE) - set(rules.needed))
    if others:
        return f"the batched simulation of {env_id} has no {', '.join(others)}; it has {', '.join(FREE)}"
    return None


class _MujocoTask(Source):
    """One of these tasks, whoever simulates it.

    Args:
        num_envs: B.
        device: of all tensors.
        env_id: of a task for which `why_not_batched` finds nothing.
        kwargs: its own arguments.
        max_episode_steps: steps after which an episode is truncated.

    Attributes:
        sensor_names: of the S sensors: positions but for the place on the ground, then velocities.
        qpos: (B, nq) and qvel: (B, nv), the simulation's own memory.
    """

    qpos: Tensor
    qvel: Tensor

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        env_id: str,
        kwargs: Mapping[str, Any],
        max_episode_steps: int,
    ) -> None:
        env = make_env(env_id, kwargs)
        task, self._rules = env.unwrapped, rules_of(env_id)
        self.name, self.num_envs, self._settings = env_id, num_envs, _settings(task)
        self.max_episode_steps, self.device = max_episode_steps, device
        self._physical = NominalActions(env, device)
        self.single_action_space = self._physical.space
        self._skipped = task.observation_structure["skipped_qpos"]
        self._start_qpos, self._start_qvel = task.init_qpos, task.init_qvel
        self._frame_skip, self.step_duration = task.frame_skip, float(task.dt)
        self._model = task.model
        positions, speeds = state_names(task.model)
        self.sensor_names = (*positions[self._skipped :], *speeds)
        self._noise = self._settings["reset_noise_scale"]
        env.close()

    def _starts(self, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (n, nq) and velocities (n, nv) of the episodes that seeds (n,) start in Gymnasium."""
        distinct, which = np.unique(seeds.cpu().numpy(), return_inverse=True)
        drawn = [self._start_of(int(seed)) for seed in distinct]
        qpos, qvel = (np.array(part)[which] for part in zip(*drawn, strict=True))
        return torch.from_numpy(qpos), torch.from_numpy(qvel)

    def _start_of(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        own, _ = gymnasium.utils.seeding.np_random(seed)
        noise, nq, nv = self._noise, len(self._start_qpos), len(self._start_qvel)
        qpos = self._start_qpos + own.uniform(-noise, noise, nq)
        if self._rules.speed_noise == "normal":
            return qpos, self._start_qvel + noise * own.standard_normal(nv)
        return qpos, self._start_qvel + own.uniform(-noise, noise, nv)

    def _judge(self, before: Tensor, controls: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a step gives: rewards, terminated, cut, (B,) each.

        Args:
            before: (B,) m, the place before the step.
            controls: (B, nu), physical.
        """
        settings, diverged = self._settings, self._diverged
        healthy = self._are_healthy(~diverged)
        velocity = (self._progress - before).double().masked_fill(diverged, 0.0) / self.step_duration
        rewards = (
            settings["forward_reward_weight"] * velocity
            + settings.get("healthy_reward", 0.0) * healthy
            - settings["ctrl_cost_weight"] * controls.square().sum(1)
        )
        ends = diverged | (~healthy & settings.get("terminate_when_unhealthy", False))
        return rewards, ends, torch.zeros_like(ends)

    def _are_healthy(self, healthy: Tensor) -> Tensor:
        """(B,) bool, those of ``healthy`` that are within every range that the task has."""
        settings, qpos = self._settings, self.qpos
        for name, column in (("healthy_z_range", self._rules.height), ("healthy_angle_range", 2)):
            if name in settings:
                low, high = settings[name]
                healthy = healthy & (low < qpos[:, column]) & (qpos[:, column] < high)
        if "healthy_state_range" in settings:
            low, high = settings["healthy_state_range"]
            for state in (qpos[:, 2:], self.qvel):
                healthy = healthy & ((low < state) & (state < high)).all(1)
        return healthy

    def _place(self) -> Tensor:
        """(B,) m, what the forward velocity is measured by."""
        if self._rules.progress == "body":
            return self._xpos[:, 1, 0]  # body 0 is the world
        return self._com[:, 0, 0] if self._rules.progress == "center" else self.qpos[:, 0]

    def read(self) -> Tensor:
        """(B, S) float32: positions but for the place on the ground, then velocities."""
        limit = self._rules.speed_limit
        speeds = self.qvel.clamp(-limit, limit) if math.isfinite(limit) else self.qvel
        return torch.cat((self.qpos[:, self._skipped :], speeds), 1).float()

    @property
    def diverged(self) -> Tensor:
        """(B,) bool, those that diverged in the last step; they are at the model's start."""
        return self._diverged


class MujocoSource(_MujocoTask):
    """B simulations in one batch on the CPU.

    Started from the same seeds as `GymnasiumSource`, it gives the same episodes. One thing differs: a
    state that diverges ends the episode, with no forward reward for that step, where Gymnasium goes on
    from the model's start.

    Args:
        num_envs: B.
        task: its id and what follows, as of `_MujocoTask`.
        threads: that step the simulations; 0: one per core.
    """

    kept = ("_state", "_progress")

    def __init__(self, num_envs: int, *task: Any, threads: int = 0) -> None:
        super().__init__(num_envs, torch.device("cpu"), *task)
        threads = thread_count(threads, num_envs)
        self._batch = mujoco.batch.Batch(self._model, nsim=num_envs, nthread=threads)
        names = ("qpos", "qvel", "ctrl", "xpos", "subtree_com")
        bound = (tensor_of(self._batch.bind(name)) for name in names)
        self.qpos, self.qvel, self._ctrl, self._xpos, self._com = bound
        self._state = self._batch.state  # (B, all that MuJoCo integrates), warm starts included
        # Kept, since what it is derived from is a substep behind the state, and no part of it.
        self._progress = self._place().clone()
        self._diverged = torch.zeros(num_envs, dtype=torch.bool)

    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        """Start as Gymnasium's task does, with a seed that is drawn."""
        rows = where.nonzero().flatten()
        self.place(rows.numpy(), *self._starts(draws.integers(SEEDS_OF_EPISODES)[rows]))

    def place(self, rows: np.ndarray, qpos: Tensor, qvel: Tensor) -> None:
        """Put simulations (n,) into states (n, nq), (n, nv), controls zero."""
        self._batch.reset(rows, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self.qpos[rows], self.qvel[rows] = qpos, qvel
        self._batch.forward(rows)
        self._progress[rows] = self._place()[rows]
        self._diverged[rows] = False

    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step those that are ``running``; the others stay as they are."""
        controls = self._physical(actions).double()
        rows = None if running.all() else running.nonzero().flatten().numpy()
        before, warned = self._progress.clone(), self._batch.warning[:, DIVERGED, 1].copy()
        self._ctrl.copy_(controls)
        if rows is None or len(rows):
            self._batch.step(rows, nstep=self._frame_skip)
        diverged = torch.from_numpy((self._batch.warning[:, DIVERGED, 1] != warned).any(1))
        self._diverged = diverged | ~(self.qpos.sum(1) + self.qvel.sum(1)).isfinite()
        replace(self._progress, running, self._place())
        return self._judge(before, controls)

    def simulated(self, row: int) -> tuple[mujoco.MjModel, mujoco.MjData, int]:
        """One simulation's model, a copy of its state with kinematics, and its root body, to be drawn."""
        data = self._batch.get_data(row)
        mujoco.mj_forward(self._model, data)
        return self._model, data, 1  # body 0 is the world

    def close(self) -> None:
        """Let the simulations go."""
        del self.qpos, self.qvel, self._ctrl, self._xpos, self._com, self._state, self._batch


class WarpSource(_MujocoTask):
    """B simulations on a device by MuJoCo Warp, in single precision.

    A model that asks for PGS, the humanoid's, is solved by Newton's method. Simulations that are not running
    are stepped, too, and put back to where they were.

    Args:
        num_envs: B.
        device: of all tensors; a CPU is possible and slow.
        task: its id and what follows, as of `_MujocoTask`.
        contacts, constraints: places for these in every simulation; None: as many as the body needs.
        layouts: of no effect, there is one body.

    Raises:
        UserError: Warp is not installed or cannot simulate this model.
    """

    kept = ("qpos", "qvel", "_warm_start", "_progress")

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        *task: Any,
        contacts: int | None = None,
        constraints: int | None = None,
        layouts: int | None = None,
    ) -> None:
        from ..locomotion.backends.warp import Launcher, WarpWorlds  # which few need

        super().__init__(num_envs, device, *task)
        if int(self._model.opt.solver) == int(mujoco.mjtSolver.mjSOL_PGS):
            # MuJoCo Warp has no PGS. Newton's method solves the same problem, and to the end.
            self._model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        room = contacts, constraints
        self._worlds = worlds = WarpWorlds([self._model], num_envs, self._frame_skip, device, self.name, room)
        self._launcher = Launcher([worlds], device)
        self.qpos, self.qvel = worlds.array("qpos"), worlds.array("qvel")
        self._warm_start = worlds.array("qacc_warmstart")
        self._xpos, self._com = worlds.array("xpos"), worlds.array("subtree_com")
        self._progress = torch.zeros(num_envs, device=device)
        self._diverged = torch.zeros(num_envs, dtype=torch.bool, device=device)
        own = (self._start_qpos, self._start_qvel)
        self._home = [torch.tensor(part, dtype=torch.float32, device=device) for part in own]

    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        """At a seeded reset as Gymnasium's task does; later with the same noise, drawn on the device."""
        if draws.is_first:
            qpos, qvel = (part.to(self.qpos) for part in self._starts(draws.integers(SEEDS_OF_EPISODES)))
        else:
            (qpos, qvel), noise = self._home, self._noise
            qpos = qpos + noise * (2 * draws.uniform(len(qpos)) - 1).float()
            is_normal, size = self._rules.speed_noise == "normal", len(qvel)
            drawn = draws.normal(size) if is_normal else 2 * draws.uniform(size) - 1
            qvel = qvel + noise * drawn.float()
        self.place(where, qpos, qvel)

    def place(self, where: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Put those that ``where`` (B,) names into states (B, nq), (B, nv), controls zero."""
        self._worlds.reset(where, qpos, qvel)
        if self._rules.progress != "state":
            self._launcher.kinematics()
        replace(self._progress, where, self._place())

    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step all, and put those that are not ``running`` back to where they were."""
        controls = self._physical(actions).float()
        before, held = self._progress.clone(), (self.qpos.clone(), self.qvel.clone())
        self._worlds.array("ctrl").copy_(controls)
        self._launcher.launch()
        for state, old in zip((self.qpos, self.qvel), held, strict=True):
            replace(state, ~running, old)
        self._diverged.copy_(self._worlds.diverged())
        # No world goes on with what is not finite, not even one whose only episode is over.
        self._worlds.reset(self._diverged, *self._home)
        replace(self._progress, running & ~self._diverged, self._place())
        return self._judge(before, controls.double())

    def check(self) -> None:
        """Raises UserError: there was no room for all contacts or constraints."""
        self._worlds.check()

    def close(self) -> None:
        """Let the simulations go."""
        self._launcher.close()
        del self.qpos, self.qvel, self._warm_start, self._xpos, self._com, self._worlds


def _settings(task: gymnasium.Env) -> dict[str, Any]:
    """Arguments that an environment was made with, defaults included."""
    parameters = inspect.signature(type(task)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return defaults | task.spec.kwargs


_OF_A_FREE_JOINT = ("x", "y", "z", "qw", "qx", "qy", "qz"), ("vx", "vy", "vz", "wx", "wy", "wz")


def state_names(model: mujoco.MjModel) -> tuple[list[str], list[str]]:
    """Names of (nq,) positions and (nv,) velocities of a model of free joints, slides and hinges."""
    positions, speeds = [], []
    for index in range(model.njnt):
        joint = model.joint(index)
        if int(joint.type[0]) == int(mujoco.mjtJoint.mjJNT_FREE):
            positions += [f"{joint.name}_{part}" for part in _OF_A_FREE_JOINT[0]]
            speeds += [f"{joint.name}_{part}" for part in _OF_A_FREE_JOINT[1]]
        else:
            positions.append(joint.name)
            speeds.append(f"{joint.name}_speed")
    return positions, speeds
