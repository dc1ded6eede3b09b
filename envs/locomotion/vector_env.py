"""Many bodies, many rows of each, as one Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from ..cores import thread_count
from ..errors import UserError, check_open
from ..resets import rows_to_reset
from ..snapshots import put, take
from ..tokens import check_rows, limb_action_space, limb_observation_space
from .block import Block, adjacent_rows
from .bodies.morphology import Morphology
from .features import LIMB_SPEC
from .goals import Goals
from .judge import Judge
from .observation import select_rows
from .readings import Readings
from .starts import draw_moves, padded_sizes, spread_rows
from .task import LocomotionTask
from .varied.conditions import STREAMS, Conditions, Varied
from .varied.damage import DEAD, Damage, Part, parts_of
from .varied.variants import Variant, compile_variants
from .varied.variation import BodyVariation
from .varied.world import World
from .workers import Workers

COPIES = 10
"""Bytes of a row for each of its observation; 8 to 15 when measured."""

_KEPT = (
    "_blocks",
    "_readings",
    "_rngs",
    "_streams",
    "_told",
    "_goals",
    "_steps",
    "_start_age",
    "_diverged",
    "_finished",
)


class LocomotionVectorEnv(gymnasium.vector.VectorEnv):
    """Rows of one or several morphologies that all do the same task.

    Observations are the limb token sets of :mod:`somite.envs.tokens`; actions are (B, N, J), nominal,
    in [-1, 1]. Rows of a body lie together, in the order of ``bodies``. A row that ends is reset in the
    same step: its observation is then the first of the next episode, ``info["final_obs"][row]`` the
    last of the one that ended. Bodies of one layout that lie beside each other share a batch.

    Args:
        bodies: names of family members, or morphologies.
        num_envs: rows in all, spread evenly over the bodies.
        task: reward and termination.
        frame_skip: substeps of a step; None: each body's own, of about 0.02 s.
        aligned: place each limb in the slot of the family's full body (for the padded network) instead
            of packing limbs together.
        stagger: give the first episode of every row a random age, so that time limits do not fall
            together. ``info["episode_is_whole"]`` tells such shortened episodes apart.
        threads: threads that step the simulations; 0 for one per core.
        physical_controls: actions are physical controls, unclipped, and so is the control cost.
        variation, damage, world: what varies between and within episodes, drawn from streams of its own;
            ``info`` tells what was drawn (``factor_mass``, ``damage``, ``slope`` and so on).
        editable: bodies can be damaged and pushed by hand, by `damage` and `push`.
        autoreset_mode: ``SAME_STEP``, or ``DISABLED`` for a caller that resets rows by
            ``reset(options={"reset_mask": ...})``.

    Raises:
        UserError: unknown body, a body that cannot do the task, or fewer rows than bodies.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
    kind = "limbs"

    def __init__(
        self,
        bodies: Sequence[str | Morphology],
        num_envs: int | None = None,
        task: LocomotionTask | None = None,
        *,
        frame_skip: int | None = 5,
        aligned: bool = False,
        stagger: bool = False,
        threads: int = 0,
        physical_controls: bool = False,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        variation: BodyVariation | None = None,
        damage: Damage | None = None,
        world: World | None = None,
        editable: bool = False,
    ) -> None:
        self.bodies, self.body_of_row = spread_rows(bodies, num_envs)
        if frame_skip is not None and frame_skip < 1:
            raise UserError(f"frame_skip must be at least 1, not {frame_skip}")
        self.num_envs = len(self.body_of_row)
        self.task = task or LocomotionTask()
        self.physical_controls, self.stagger = physical_controls, stagger
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self._varied = Varied.read(variation, damage, world) or (Varied() if editable else None)
        self._make_spaces(aligned)
        self._make_rows(frame_skip, thread_count(threads, self.num_envs), aligned)
        self._rngs: list[np.random.Generator] = []
        self._streams: list[list[np.random.Generator]] = []  # of what varies, for each row

    def _make_spaces(self, aligned: bool) -> None:
        n, j = padded_sizes(self.bodies, aligned)
        self.single_observation_space = limb_observation_space(LIMB_SPEC, n, j)
        self.single_action_space = limb_action_space(n, j)
        if self.physical_controls:
            self.single_action_space = gymnasium.spaces.Box(-np.inf, np.inf, (n, j), np.float64)
        check_rows(self.num_envs, self.single_observation_space, COPIES)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.spec_of_tokens = LIMB_SPEC
        self.n_limbs, self.n_joints = n, j

    def _make_rows(self, frame_skip: int | None, threads: int, aligned: bool) -> None:
        varied = self._varied or Varied()
        pools = [
            compile_variants(body, varied.variation, varied.world, self.task.direction)
            for body in self.bodies
        ]
        simulated = [pools[i][0].body for i in self.body_of_row]
        runs = adjacent_rows(simulated)
        self._workers = Workers(threads, len(runs))
        self._blocks = [
            Block(simulated[rows], rows, frame_skip, self._workers.threads_each, aligned) for rows in runs
        ]
        self._block_of_row = [block for block in self._blocks for _ in range(block.sim.n)]
        world = varied.world
        uneven = world is not None and world.has_strips
        self._readings = Readings(self._blocks, self.task, self.n_limbs, self.n_joints, uneven)
        b = self.num_envs
        self._told: dict[str, np.ndarray] = {}
        if self._varied:
            self._make_conditions(self._varied, pools)
        self._dt = np.concatenate([np.full(block.sim.n, block.sim.dt) for block in self._blocks])
        self._goals = Goals(self.task, self.bodies, self.body_of_row)
        own = [self.bodies[i] for i in self.body_of_row]
        self._judge = Judge(self.task, own, self._dt, self._readings, self._goals)
        for row, body in enumerate(simulated):
            self._adopt(row, body)
        self._steps, self._start_age = np.zeros(b, int), np.zeros(b, int)
        self._diverged = np.zeros(b, bool)
        self._finished = np.zeros(b, bool)
        self._read_all = np.arange(b)

    def _make_conditions(self, varied: Varied, pools: list[list[Variant]]) -> None:
        self._told = varied.told(self.num_envs, self.n_limbs, self.n_joints)
        for block in self._blocks:
            block.conditions = Conditions(
                varied,
                block.sim,
                [pools[i] for i in self.body_of_row[block.rows]],
                select_rows(self._readings.layout, block.rows),  # shares memory
                block.places.slots,
                block.places.joint_slots,
                {name: array[block.rows] for name, array in self._told.items()},
            )

    def _adopt(self, row: int, body: Morphology) -> None:
        """Judge a row by what its body says of when it has fallen, and of its tip."""
        self._judge.adopt(row, body, self._block_of(row).places.slots)

    @property
    def body_names(self) -> tuple[str, ...]:
        """Names of the bodies, in the order of ``body_of_row``'s values."""
        return tuple(body.name for body in self.bodies)

    @property
    def sizes(self) -> dict[str, int]:
        """What a policy may be built for, by the names of its arguments."""
        return {"n_tokens": self.n_limbs, "n_joints": self.n_joints}

    @property
    def step_duration(self) -> float:
        """Simulated seconds of a step, of the first body."""
        return float(self._dt[0])

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start episodes.

        Args:
            seed: one for all (row i then draws from ``(seed, i)``) or one for each row.
            options: ``reset_mask`` (B,) bool, to reset (and seed) these rows only.
        """
        check_open(self)
        rows = rows_to_reset(options, self.num_envs, bool(self._rngs))
        if not self._rngs and seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        if seed is not None:
            keys = [[seed, row] for row in self._read_all] if isinstance(seed, (int, np.integer)) else seed
            if len(keys) != self.num_envs:
                raise UserError(f"{len(keys)} seeds for {self.num_envs} environments")
            fresh = [np.random.default_rng(key) for key in keys]
            self._rngs = [fresh[row] if row in rows else rng for row, rng in enumerate(self._rngs or fresh)]
            if self._varied:
                spawned = [rng.spawn(STREAMS) if row in rows else [] for row, rng in enumerate(fresh)]
                self._streams = [new or self._streams[row] for row, new in enumerate(spawned)]
        self._finished[rows] = False
        self._start_episodes(rows)
        if self.stagger and len(rows) == self.num_envs:
            limit = self.task.max_episode_steps
            self._start_age[:] = [rng.integers(limit) for rng in self._rngs]
            self._steps[:] = self._start_age
        self._readings.read()
        return self._observe(), self._drawn()

    def _start_episodes(self, rows: np.ndarray) -> None:
        task = self.task
        for block in self._blocks:
            first, last = np.searchsorted(rows, [block.rows.start, block.rows.stop])
            own = rows[first:last]
            if len(own) == 0:
                continue
            model, local = block.sim.morphology.model, own - block.rows.start
            drawn = [draw_moves(task, model.nq, model.nv, self._rngs[row]) for row in own]
            moves, qvel = (np.array(part) for part in zip(*drawn, strict=True))
            qvel *= block.own_speeds  # objects in the scene start as their file says
            for row in own:
                self._goals.draw(row, self._rngs[row])
            if block.conditions:
                streams = [self._streams[row] for row in own]
                block.conditions.start(local, streams, self._goals.direction[own])
                for row, place in zip(own, local, strict=True):
                    body = block.conditions.body(place)
                    block.starts[place] = body.initial_qpos
                    self._adopt(row, body)
            block.sim.reset(local, block.starts[local] + moves * block.own_positions, qvel)
        self._steps[rows] = 0
        self._start_age[rows] = 0

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance every row. Rewards (B,) float64; see the class for the rest."""
        check_open(self)
        if not self._rngs:
            raise UserError("step() before reset(): call reset() first")
        if self.autoreset_mode == AutoresetMode.DISABLED and self._finished.any():
            raise UserError(f"rows {np.flatnonzero(self._finished).tolist()} have ended; reset them first")
        actions = np.asarray(actions, float)
        if actions.shape != self.action_space.shape:
            raise UserError(f"actions have shape {actions.shape}; expected {self.action_space.shape}")
        before = self._readings.progress.clone()
        cost = np.empty(self.num_envs)
        stepped = []
        for block in self._blocks:
            chosen = block.places.actions(actions)  # (n, actuated)
            if not self.physical_controls:
                chosen = np.clip(chosen, -1.0, 1.0)
            cost[block.rows] = np.nan_to_num(np.square(chosen).sum(1))  # an action may be no number
            controls = chosen if self.physical_controls else block.sim.controls.to_physical(chosen)
            if block.conditions:
                block.conditions.before_step()
            stepped.append((block.sim.step, controls))
        for block, diverged in zip(self._blocks, self._workers.run(stepped), strict=True):
            self._diverged[block.rows] = diverged
        self._steps += 1
        self._readings.read()
        rewards, terminated, info = self._judged(before, cost)
        truncated = self._steps >= self.task.max_episode_steps
        ended = terminated | truncated
        if self.autoreset_mode == AutoresetMode.DISABLED:
            self._finished = ended
        elif ended.any():
            self._finish(np.flatnonzero(ended), ended, info)
            info |= self._drawn()  # of the episodes that now run; `final_info` has those that ended
        return self._observe(), rewards, terminated, truncated, info

    def _judged(
        self, before: torch.Tensor, cost: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        # A diverged row has been put back to the model's start by MuJoCo.
        verdict = self._judge.judge(before, torch.from_numpy(cost), torch.from_numpy(self._diverged))
        info = {name: part.numpy() for name, part in verdict.parts.items()}
        info["diverged"] = self._diverged.copy()
        return verdict.reward.numpy(), ~verdict.alive.numpy(), info | self._drawn()

    def why_ended(self, row: int) -> str:
        """Half a sentence on what of a row is beyond a limit of the task; "" if nothing is."""
        return self._judge.why_ended(row)

    def _drawn(self) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self._told.items()}

    def _finish(self, rows: np.ndarray, ended: np.ndarray, info: dict[str, Any]) -> None:
        """Reset ended rows in the same step; keep their last observation and what their step told."""
        last = _as_numpy(self._readings.observe(self._goals.seen, rows))
        final = np.full(self.num_envs, None, object)
        for index, row in enumerate(rows):
            final[row] = {key: value[index] for key, value in last.items()}
        whole = (self._start_age == 0) & ended
        final_info = {
            key: np.where(ended.reshape(-1, *[1] * (value.ndim - 1)), value, 0) for key, value in info.items()
        }
        info |= {
            "final_obs": final,
            "_final_obs": ended.copy(),
            "final_info": final_info | {f"_{key}": ended.copy() for key in final_info},
            "_final_info": ended.copy(),
            "episode_is_whole": whole,
        }
        self._start_episodes(rows)
        self._readings.read(rows)

    def _observe(self) -> dict[str, np.ndarray]:
        return _as_numpy(self._readings.observe(self._goals.seen))

    def snapshot(self) -> dict[str, Any]:
        """All that the rows' futures depend on, random streams included; see `somite.envs.snapshots`."""
        check_open(self)
        return take(self, _KEPT)

    def restore(self, taken: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Go on from where another environment, made in the same way, was; to the last bit.

        The environment must have been reset once.

        Returns:
            The observation.

        Raises:
            Misfit: the snapshot is of other rows; the environment then has to be reset.
        """
        check_open(self)
        put(self, _KEPT, taken)
        for block in self._blocks:
            for place in range(block.sim.n if block.conditions else 0):
                self._adopt(block.rows.start + place, block.conditions.body(place))
        return self._observe()

    def set_state(self, row: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put one row into a state: positions (nq,), velocities (nv,) of its model.

        Raises:
            UserError: numbers of which MuJoCo says that they diverged, or too few or many.
        """
        block = self._block_of(row)
        model = block.sim.morphology.model
        qpos, qvel = np.asarray(qpos, float), np.asarray(qvel, float)
        if qpos.shape != (model.nq,) or qvel.shape != (model.nv,):
            wanted = f"({model.nq},) and ({model.nv},)"
            raise UserError(f"positions {qpos.shape} and velocities {qvel.shape}; expected {wanted}")
        if not (np.abs(np.concatenate((qpos, qvel))) < mujoco.mjMAXVAL).all():
            raise UserError("a state must be finite; this one is not, or beyond 1e10")
        block.sim.reset(np.array([row - block.rows.start]), qpos[None], qvel[None])
        self._readings.read(np.array([row]))

    def get_state(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Copies of one row's positions (nq,) and velocities (nv,)."""
        block = self._block_of(row)
        return block.sim.qpos[row - block.rows.start].copy(), block.sim.qvel[row - block.rows.start].copy()

    def parts(self, row: int) -> tuple[Part, ...]:
        """The joint rows of a row's body: what `damage` can break."""
        return parts_of(self.bodies[self.body_of_row[row]])

    def damage(self, row: int, part: int, kind: int) -> None:
        """Break a part of a row's body by hand, until its episode ends. The policy is not told.

        Args:
            row: which.
            part: index of `parts`.
            kind: ``DEAD`` or ``LOCKED`` of :mod:`.varied.damage`.

        Raises:
            UserError: the environment is not ``editable``, or the part cannot break in this way.
        """
        part_of_body = self.parts(row)[part]
        if kind not in part_of_body.ways:
            wanted = "has no actuator" if kind == DEAD else "is no actuated hinge or slide joint"
            raise UserError(f"{part_of_body.name} cannot break in this way: it {wanted}")
        conditions, place = self._editable(row)
        conditions.damage(place, part, kind)

    def push(self, row: int, velocity: Sequence[float]) -> None:
        """Push a row's root in its next step, so hard that this alone would change the body's velocity.

        Args:
            row: which.
            velocity: (2,) m/s, horizontal, of the change.

        Raises:
            UserError: the environment is not ``editable``.
        """
        conditions, place = self._editable(row)
        conditions.push(place, np.asarray(velocity, float))

    def _editable(self, row: int) -> tuple[Conditions, int]:
        block = self._block_of(row)
        if block.conditions is None:
            raise UserError("bodies can be changed by hand in an environment that is made with editable=True")
        return block.conditions, row - block.rows.start

    def simulated(self, row: int) -> tuple[mujoco.MjModel, mujoco.MjData, int]:
        """One row's model, a copy of its state with kinematics, and its root body, to be drawn."""
        block = self._block_of(row)
        model = block.sim.models[row - block.rows.start]
        data = block.sim.batch.get_data(row - block.rows.start)
        mujoco.mj_forward(model, data)
        return model, data, block.sim.root

    def _block_of(self, row: int) -> Block:
        check_open(self)
        return self._block_of_row[row]

    def close_extras(self, **kwargs: Any) -> None:
        """Let the simulations go."""
        self._workers.close()
        del self._blocks, self._block_of_row, self._readings, self._judge, self._told


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    offered = (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)
    for choice in offered:
        if mode in (choice, choice.name, choice.value):
            return choice
    raise UserError(f"autoreset_mode {mode!r} is not offered; choices: SAME_STEP, DISABLED")


def _as_numpy(observation: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in observation.items()}
