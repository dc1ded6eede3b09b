"""Gymnasium's MuJoCo tasks, all rows in one batch: the same episodes, faster.

Gymnasium's own environment gives the model and the start, and the arguments of its constructor give every
weight and bound. What stands here is only what no argument says.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium
import mujoco.batch
import numpy as np

# Its import also keeps MuJoCo's warnings out of the user's folder.
from ..cores import thread_count
from ..locomotion.backends.mujoco import DIVERGED as DIVERGED
from .carts import Numbers
from .gymnasium_source import NominalActions, find_spec, make_env, start_seed
from .source import Source


@dataclass(frozen=True)
class Rules:
    """What the arguments of a Gymnasium task do not say.

    Args:
        progress: whose place gives the forward velocity: the first coordinate of the ``state``; the torso's
            ``body``, one substep behind; or the ``center`` of mass of all, likewise.
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
    return RULES.get(str(find_spec(env_id).entry_point).removeprefix("gymnasium.envs.mujoco."))


def why_not_batched(env_id: str, kwargs: Mapping[str, Any]) -> str | None:
    """What keeps a task with these arguments from being simulated in a batch; None: nothing does.

    Raises:
        UserError: unknown id.
    """
    rules = rules_of(env_id)
    if rules is None:
        ids = sorted(name for name in gymnasium.registry if _has_rules(name))
        return f"there is a batched simulation of {', '.join(ids)} only, not of {env_id}"
    given = {**find_spec(env_id).kwargs, **kwargs}
    if any(given.get(name) != value for name, value in rules.needed.items()):
        wanted = ", ".join(f"{name}: {str(value).lower()}" for name, value in rules.needed.items())
        return f'the batched simulation of {env_id} needs "env.kwargs={{{wanted}}}"'
    others = sorted(set(given) - set(FREE) - set(rules.needed))
    if others:
        return f"the batched simulation of {env_id} has no {', '.join(others)}; it has {', '.join(FREE)}"
    return None


def _has_rules(env_id: str) -> bool:
    return str(gymnasium.registry[env_id].entry_point).removeprefix("gymnasium.envs.mujoco.") in RULES


class MujocoTask:
    """One of these tasks, for whoever simulates it: formulas take arrays of the host or tensors of a device.

    Args:
        env_id: of a task for which `why_not_batched` finds nothing.
        kwargs: its own arguments.

    Attributes:
        name: of the task.
        sensor_names: of the S sensors: positions but for the place on the ground, then velocities.
        single_action_space: the nominal one.
        step_duration: simulated seconds of a step.
    """

    def __init__(self, env_id: str, kwargs: Mapping[str, Any]) -> None:
        env = make_env(env_id, kwargs)
        task, self._rules = env.unwrapped, rules_of(env_id)
        self.name, self._settings = env_id, _settings(task)
        self._physical = NominalActions(env)
        self.single_action_space, self._controls = self._physical.space, task.action_space
        self._skipped = task.observation_structure["skipped_qpos"]
        self._start_qpos, self._start_qvel = task.init_qpos, task.init_qvel
        self._frame_skip, self._dt = task.frame_skip, task.dt
        self.step_duration, self._model = float(task.dt), task.model
        positions, speeds = state_names(task.model)
        self.sensor_names = (*positions[self._skipped :], *speeds)
        env.close()

    @property
    def _noise(self) -> float:
        """Of starts: how far positions and velocities may be from the model's own."""
        return self._settings["reset_noise_scale"]

    def _draw_start(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Positions (nq,) and velocities (nv,) of the episode that a generator's seed starts in Gymnasium."""
        own, _ = gymnasium.utils.seeding.np_random(start_seed(rng))
        noise, nq, nv = self._noise, len(self._start_qpos), len(self._start_qvel)
        qpos = self._start_qpos + own.uniform(-noise, noise, nq)
        if self._rules.speed_noise == "normal":
            return qpos, self._start_qvel + noise * own.standard_normal(nv)
        return qpos, self._start_qvel + own.uniform(-noise, noise, nv)

    def _judge(
        self, velocity: Numbers, qpos: Numbers, qvel: Numbers, controls: Numbers, diverged: Numbers
    ) -> tuple[Numbers, Numbers]:
        """Rewards and which episodes are terminated, (B,) each.

        Args:
            velocity: (B,) forward, m/s; 0 where a simulation diverged.
            qpos: (B, nq) after the step.
            qvel: (B, nv), the same.
            controls: (B, nu), physical.
            diverged: (B,) bool.
        """
        settings, healthy = self._settings, self._is_healthy(qpos, qvel, ~diverged)
        rewards = (
            settings["forward_reward_weight"] * velocity
            + settings.get("healthy_reward", 0.0) * healthy
            - settings["ctrl_cost_weight"] * (controls * controls).sum(1)
        )
        return rewards, diverged | (~healthy & settings.get("terminate_when_unhealthy", False))

    def _is_healthy(self, qpos: Numbers, qvel: Numbers, healthy: Numbers) -> Numbers:
        """(B,) bool, those of ``healthy`` that are within every range that the task has."""
        settings = self._settings
        for name, column in (("healthy_z_range", self._rules.height), ("healthy_angle_range", 2)):
            if name in settings:
                low, high = settings[name]
                healthy = healthy & (low < qpos[:, column]) & (qpos[:, column] < high)
        if "healthy_state_range" in settings:
            low, high = settings["healthy_state_range"]
            for state in (qpos[:, 2:], qvel):
                healthy = healthy & ((low < state) & (state < high)).all(1)
        return healthy


class MujocoSource(MujocoTask, Source):
    """B simulations in one batch; a :class:`~somite.envs.sensors.source.Source`.

    Started from the same generators as `GymnasiumSource`, it gives the same episodes. One thing differs: a
    state that diverges ends the episode, with no forward reward for that step, where Gymnasium goes on
    from the model's start. `diverged` tells which did.

    Args:
        num_envs: B.
        env_id: of a task for which `why_not_batched` finds nothing.
        kwargs: its own arguments.
        max_episode_steps: steps after which an episode is cut.
        sensor_scales: (S,) factors of the readings; None: raw units.
        threads: that step the simulations; 0 for one per core.
    """

    kept = ("_state", "_progress")

    def __init__(
        self,
        num_envs: int,
        env_id: str,
        kwargs: Mapping[str, Any],
        max_episode_steps: int,
        sensor_scales: Sequence[float] | None = None,
        threads: int = 0,
    ) -> None:
        super().__init__(env_id, kwargs)
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.scales = None if sensor_scales is None else np.asarray(sensor_scales, np.float32)
        threads = thread_count(threads, num_envs)
        self._batch = mujoco.batch.Batch(self._model, nsim=num_envs, nthread=threads)
        self.qpos, self.qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._ctrl = self._batch.bind("ctrl")
        self._xpos, self._com = self._batch.bind("xpos"), self._batch.bind("subtree_com")
        self._state = self._batch.state  # (B, all that MuJoCo integrates), warm starts included
        # Kept, since what it is derived from is a substep behind the state, and no part of it.
        self._progress = self._place()
        self._diverged = np.zeros(num_envs, bool)

    def start(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """Start as Gymnasium's task does, with a seed of each row's generator."""
        qpos = np.tile(self._start_qpos, (len(rows), 1))
        qvel = np.tile(self._start_qvel, (len(rows), 1))
        for i, rng in enumerate(rngs):
            qpos[i], qvel[i] = self._draw_start(rng)
        self.place(rows, qpos, qvel)

    def place(self, rows: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put ``rows`` (n,) into states (n, nq), (n, nv), controls zero."""
        self._batch.reset(rows, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self.qpos[rows], self.qvel[rows] = qpos, qvel
        self._batch.forward(rows)
        self._progress[rows] = self._place()[rows]
        self._diverged[rows] = False

    @property
    def diverged(self) -> np.ndarray:
        """(B,) bool, rows that diverged in the last step; MuJoCo has put them to the model's start."""
        return self._diverged

    def step(self, actions: np.ndarray, running: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step the rows that are ``running``; the others stay as they are."""
        controls = self._physical(actions).astype(float)
        rows = None if running.all() else np.flatnonzero(running)
        before, warned = self._progress, self._batch.warning[:, DIVERGED, 1].copy()
        self._ctrl[:] = controls
        if rows is None or len(rows):
            self._batch.step(rows, nstep=self._frame_skip)
        diverged = (self._batch.warning[:, DIVERGED, 1] != warned).any(1)
        diverged |= ~np.isfinite(self.qpos.sum(1) + self.qvel.sum(1))
        self._diverged = diverged
        self._progress = np.where(running, self._place(), before)
        velocity = np.where(diverged, 0.0, self._progress - before) / self._dt
        rewards, terminated = self._judge(velocity, self.qpos, self.qvel, controls, diverged)
        return rewards, terminated, np.zeros(self.num_envs, bool)

    def _place(self) -> np.ndarray:
        """(B,) m, what the forward velocity is measured by."""
        if self._rules.progress == "body":
            return self._xpos[:, 1, 0].copy()  # body 0 is the world
        return (self._com[:, 0, 0] if self._rules.progress == "center" else self.qpos[:, 0]).copy()

    def read(self) -> np.ndarray:
        """(B, S) float32: positions but for the place on the ground, then velocities."""
        limit = self._rules.speed_limit
        speeds = np.clip(self.qvel, -limit, limit) if np.isfinite(limit) else self.qvel
        readings = np.hstack((self.qpos[:, self._skipped :], speeds)).astype(np.float32)
        return readings if self.scales is None else readings * self.scales

    def simulated(self, row: int) -> tuple[mujoco.MjModel, mujoco.MjData, int]:
        """One row's model, a copy of its state with kinematics, and its root body, to be drawn."""
        data = self._batch.get_data(row)
        mujoco.mj_forward(self._model, data)
        return self._model, data, 1  # body 0 is the world

    def close(self) -> None:
        """Let the simulations go."""
        del self.qpos, self.qvel, self._ctrl, self._xpos, self._com, self._state, self._batch


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
