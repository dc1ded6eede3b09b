"""Bodies with limbs that do a task: the environment, whatever simulates it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from torch import Tensor

from ..cores import check_memory_of_environments, thread_count
from ..draws import keys_of
from ..errors import UserError, check_open
from ..in_place import replace
from ..snapshots import put, take
from ..token_env import Step, TokenEnv
from ..tokens import limb_action_space, limb_observation_space
from .backends import Simulation
from .backends.mujoco import KIND, MujocoSimulation
from .backends.warp import WarpSimulation
from .bodies.ghosts import in_few_layouts
from .bodies.morphology import Morphology
from .goals import Goals, Reward
from .layout import (
    Group,
    Row,
    adjacent_groups,
    limb_slots,
    make_layout,
    padded_sizes,
    per_row,
    spread_rows,
)
from .limb_spec import LIMB_SPEC
from .observation import Observer
from .readings import Readings
from .task import LocomotionTask
from .varied.conditions import STREAMS, Conditions, Prepared, PreparedVariants, Varied
from .varied.damage import DEAD, Damage, Part, parts_of
from .varied.variants import compile_variants
from .varied.variation import BodyVariation
from .varied.world import Ground, World

COPIES = 10
"""Bytes of a row for each of its observation; 8 to 15 when measured."""

_PREPARATION_SEED = 8_110_001


def _of_each(given: Any, count: int) -> tuple[Any, ...]:
    """One thing for all of so many bodies, or one for each, as one for each. Raises UserError: others."""
    if not isinstance(given, Sequence):
        return (given,) * count
    if len(given) != count:
        raise UserError(f"{len(given)} tasks or frame skips for {count} bodies; give one, or one for each")
    return tuple(given)


class LocomotionEnv(TokenEnv):
    """Rows of one or several morphologies, each with the task of its body.

    Observations are the limb token sets of :mod:`somite.envs.tokens`; actions are (B, N, J), nominal,
    in [-1, 1]. Rows of a body lie together, in the order of ``bodies``; bodies of one layout that lie
    beside each other are simulated together. See `TokenEnv` for what a step gives; ``info`` has the parts
    of the reward and what was drawn for the episode (``factor_mass``, ``damage``, ``slope`` and so on).

    By MuJoCo everything is in double precision, every row draws from random streams of its own, and a varied
    body is a new one in every episode. By Warp everything is in single precision, episodes that start in the
    midst of a run draw from one generator of the device, and a varied body is one of ``prepared`` ones.

    Args:
        bodies: names of family members, or morphologies.
        num_envs: rows in all, spread evenly over the bodies; None: one of each.
        task: reward and termination; one for all, or one for each of ``bodies``.
        device: of all tensors.
        simulation: ``cpu`` (MuJoCo, on the CPU) or ``warp``.
        frame_skip: substeps of a step, for all or for each; None: the body's own, of about 0.02 s.
        aligned, stagger, autoreset, threads: as of `TaskSet.make_env`.
        once: of no effect: rows that ended go on with new episodes, which nobody has to look at.
        physical_controls: actions are physical controls, unclipped, and so is the control cost.
        variation, damage, world: what varies between and within episodes.
        editable: bodies can be damaged and pushed by hand, by `damage` and `push`.
        contacts, constraints: places for these in every simulation of Warp; None: as many as the body needs.
        prepared: for Warp, drawn beforehand of each varied body.
        weights: of bodies (M,): their shares of the rows; None: all have the same.
        layouts: simulate the bodies of a task in at most so many layouts, see `in_few_layouts`, where nothing
            varies; rows are then in their order. None: each in its own.

    Raises:
        UserError: unknown body, one that cannot do the task or be simulated so, or fewer rows than bodies.
    """

    kind = "limbs"
    spec_of_tokens = LIMB_SPEC

    def __init__(
        self,
        bodies: Sequence[str | Morphology],
        num_envs: int | None = None,
        task: LocomotionTask | Sequence[LocomotionTask] | None = None,
        *,
        device: torch.device | str = "cpu",
        simulation: str = "cpu",
        frame_skip: int | None | Sequence[int | None] = 5,
        aligned: bool = False,
        stagger: bool = False,
        once: bool = False,
        autoreset: bool = True,
        threads: int = 0,
        physical_controls: bool = False,
        variation: BodyVariation | None = None,
        damage: Damage | None = None,
        world: World | None = None,
        editable: bool = False,
        contacts: int | None = None,
        constraints: int | None = None,
        prepared: int = 128,
        weights: Sequence[float] | None = None,
        layouts: int | None = None,
    ) -> None:
        self.bodies, self.body_of_row = spread_rows(bodies, num_envs, weights)
        self.tasks = _of_each(task or LocomotionTask(), len(self.bodies))
        self._frame_skips = _of_each(frame_skip, len(self.bodies))
        for skip in self._frame_skips:
            if skip is not None and skip < 1:
                raise UserError(f"frame_skip must be at least 1, not {skip}")
        self.num_envs = b = len(self.body_of_row)
        self.device = torch.device(device)
        self.physical_controls, self.stagger, self.autoreset = physical_controls, stagger, autoreset
        self._aligned = aligned
        self.n_limbs, self.n_joints = n, j = padded_sizes(self.bodies, aligned)
        self.sizes = {"n_tokens": n, "n_joints": j}
        self.single_observation_space = limb_observation_space(LIMB_SPEC, n, j)
        self.single_action_space = limb_action_space(n, j)
        if physical_controls:
            self.single_action_space = gymnasium.spaces.Box(-np.inf, np.inf, (n, j), np.float64)
        check_memory_of_environments(b, self.single_observation_space, COPIES)
        self.body_names = tuple(body.name for body in self.bodies)
        self.max_episode_steps = max(task.max_episode_steps for task in self.tasks)

        varied = Varied.read(variation, damage, world)
        self._varied = (varied or Varied()) if varied or editable else None
        self._conditions: list[Conditions] = []  # of each block, what varies on the CPU
        self._prepared: list[PreparedVariants] = []  # and on a device
        self._simulated = list(self.bodies)
        if layouts and not self._varied:
            self._use_layouts(layouts)
        self._told: dict[str, Tensor] = {}  # what was drawn for the present episodes
        if simulation == "cpu":
            self._simulate_by_mujoco(threads)
        else:
            self._simulate_by_warp((contacts, constraints), prepared)
        self.step_duration = self._blocks[0].dt
        durations = torch.cat([torch.full((block.n,), block.dt, **self._kind) for block in self._blocks])
        can_fall = torch.tensor([body.can_fall for body in self.bodies])[self.body_of_row].to(self.device)
        of_rows = self._layout, self._readings, self._goals
        self._reward = Reward(self.tasks, self.body_of_row, can_fall, durations, *of_rows)
        self._place_commands()
        self._steps = torch.zeros(b, dtype=torch.int64, device=self.device)
        limits = [task.max_episode_steps for task in self.tasks]
        self._limits = per_row(limits, self.body_of_row, device=self.device)  # (B,), or one for all
        self._start_age = torch.zeros_like(self._steps)
        self._finished = torch.zeros(b, dtype=torch.bool, device=self.device)
        self._every = torch.ones_like(self._finished)
        self._rngs: list[np.random.Generator] = []
        self._streams: list[list[np.random.Generator]] = []  # of what varies, for each row
        self._generator = torch.Generator(self.device)

    def _use_layouts(self, most: int) -> None:
        """Simulate the bodies of a task in at most so many layouts, rows of one beside each other."""
        order, places, simulated = [], {}, self._simulated
        hows = list(zip(self.tasks, self._frame_skips, strict=True))
        runs = [list(run) for _, run in itertools.groupby(range(len(hows)), hows.__getitem__)]
        for run in runs:
            simulated[run[0] : run[-1] + 1] = in_few_layouts([simulated[i] for i in run], most)
            order += sorted(run, key=lambda i: places.setdefault(simulated[i].structure, len(places)))
        rank = np.argsort(order)
        self.body_of_row = np.array(order)[np.sort(rank[self.body_of_row])]

    def _simulate_by_mujoco(self, threads: int) -> None:
        self._kind, varied = KIND, self._varied or Varied()
        pools = [
            compile_variants(body, varied.variation, varied.world, task.direction)
            for body, task in zip(self._simulated, self.tasks, strict=True)
        ]
        first = [pool[0].body for pool in pools]
        threads = thread_count(threads, self.num_envs)
        self._read(MujocoSimulation(self._groups(first), threads), first)
        terrains = [variant.terrain for pool in pools for variant in pool if variant.terrain is not None]
        self._readings.terrain = Ground(self.num_envs, terrains[0]) if terrains else None
        self._told = varied.told(self.num_envs, self.n_limbs, self.n_joints)
        for block in self._blocks if self._varied else ():
            own = [pools[i] for i in self.body_of_row[block.rows]]
            told = {name: values[block.rows] for name, values in self._told.items()}
            layout = self._layout.rows(block.rows)  # shares memory
            conditions = Conditions(varied, block, own, layout, told, self._readings.terrain)
            self._conditions.append(conditions)

    def _simulate_by_warp(self, room: tuple[int | None, int | None], prepared: int) -> None:
        why_not = self._varied and self._varied.why_not_on_device()
        if why_not:
            raise UserError(f"this cannot be simulated on a device: {why_not}. Use simulation=cpu")
        self._kind = {"dtype": torch.float32, "device": self.device}
        pools = [self._prepare(number, prepared) for number in range(len(self.bodies))]
        groups = self._groups(self._simulated)
        models = [
            [model for i in dict.fromkeys(self.body_of_row[rows].tolist()) for model in pools[i].models]
            for _, rows, *_ in groups
        ]
        self._read(WarpSimulation(groups, self.device, models, room), self._simulated)
        for block in self._blocks:
            own = [pools[i] for i in self.body_of_row[block.rows]]
            self._prepared.append(PreparedVariants(block, own, self._layout.rows(block.rows)))

    def _groups(self, bodies: Sequence[Morphology]) -> list[Group]:
        """The rows, in those that are simulated together, where the bodies are these."""
        of_bodies = list(map(Row, bodies, self.tasks, self._frame_skips))
        return adjacent_groups([of_bodies[i] for i in self.body_of_row], self._aligned)

    def _prepare(self, number: int, count: int) -> Prepared:
        """Draw variants of a body as those of its episodes on a CPU; the body alone where nothing varies."""
        varied, aligned, body, task = self._varied, self._aligned, self._simulated[number], self.tasks[number]
        if varied is None:
            slots = limb_slots(body, aligned)
            layout = make_layout([(body, slots, task)], self.n_limbs, self.n_joints)
            return Prepared([body.model], torch.from_numpy(body.initial_qpos[None]), layout)
        options = {"variation": varied.variation, "world": varied.world, "aligned": aligned}
        env = LocomotionEnv([body], count, task, frame_skip=self._frame_skips[number], threads=1, **options)
        env.reset(seed=_PREPARATION_SEED)
        (block,) = env._blocks
        found = Prepared(list(block.models), block.starts, env._layout.widened(self.n_limbs, self.n_joints))
        env.close()
        return found

    def _read(self, simulation: Simulation, bodies: Sequence[Morphology]) -> None:
        """What is fixed of rows of simulated ``bodies``, wanted of them, read of them and observed."""
        self._simulation, self._blocks = simulation, simulation.blocks
        self._goals = Goals(self.tasks, self.bodies, self.body_of_row, self._kind)
        slots = [limb_slots(body, self._aligned) for body in bodies]
        described = list(zip(bodies, slots, self.tasks, strict=True))
        layout = make_layout(described, self.n_limbs, self.n_joints)
        layout = layout.rows(torch.from_numpy(self.body_of_row)).to(**self._kind)
        self._observer = Observer(layout, self._goals)
        self._layout = self._observer.layout
        self._readings = Readings(self._blocks, self._layout, self._goals.any_reaches)

    def _place_commands(self) -> None:
        """Where the controls of all actuators are found among those of the padded joint slots."""
        b, n, j = self._layout.joint_mask.shape
        # Behind all others is a 0: for actuators that no joint slot has, and for rows that have fewer.
        nowhere = b * n * j
        self._flat = torch.zeros(2, nowhere + 1, **self._kind)
        self._actions, self._commands = (own[:-1].view(b, n, j) for own in self._flat)
        most = max(int(block.body.model.nu) for block in self._blocks)
        commanded, acted = [], np.full((most, b), nowhere)
        for block in self._blocks:
            own = np.full((block.n, block.body.model.nu), nowhere)
            for run in block.runs:
                driven = [(limb * j + k, row.actuator) for limb, k, row, _ in run.joints if row.actuator >= 0]
                order, actuators = np.array(driven).T
                rows = np.arange(b)[run.rows] * n * j
                own[run.own, actuators] = rows[:, None] + order
                acted[: len(order), run.rows] = rows + order[:, None]
            commanded.append(own.ravel())
        self._commanded = torch.from_numpy(np.concatenate(commanded)).to(self.device)
        self._controls = torch.zeros(len(self._commanded), **self._kind)
        of_blocks = self._controls.split([len(own) for own in commanded])
        blocks = zip(self._blocks, of_blocks, strict=True)
        self._controls_of_blocks = [own.view(block.n, -1) for block, own in blocks]
        self._acted = torch.from_numpy(acted).to(self.device)

    @property
    def knows_ends(self) -> bool:
        """Whether the host may look at ends: what simulates by Warp never waits for its device."""
        return not self._prepared

    # Episodes

    @torch.no_grad()
    def reset(  # noqa: D102
        self, seed: int | Sequence[Any] | None = None, rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        check_open(self)
        if rows is not None and not self._rngs:
            raise UserError("the first reset() starts every environment; give no reset_mask or rows")
        rows = self._every if rows is None else rows
        chosen = np.flatnonzero(rows.cpu().numpy())
        self._seed(seed, chosen)
        self._start_by_streams(rows, chosen)
        if self.stagger and len(chosen) == self.num_envs:
            limits = [self.tasks[body].max_episode_steps for body in self.body_of_row]
            drawn = [int(rng.integers(limit)) for rng, limit in zip(self._rngs, limits, strict=True)]
            self._start_age.copy_(torch.tensor(drawn))
            self._steps.copy_(self._start_age)
        self._refresh(rows)
        self.info = self._drawn()
        return self._observe()

    def _seed(self, seed: int | Sequence[Any] | None, rows: np.ndarray) -> None:
        """Give rows random streams of their own, the first reset always."""
        if seed is None and self._rngs:
            return
        seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        keys = keys_of(seed, self.num_envs)
        fresh = [np.random.default_rng(key) for key in keys]
        self._rngs = self._rngs or list(fresh)
        self._streams = self._streams or [[] for _ in fresh]
        for row in rows.tolist():
            self._rngs[row] = fresh[row]
            self._streams[row] = fresh[row].spawn(STREAMS) if self._varied else []
        if self._prepared:
            words = np.random.SeedSequence(np.hstack(keys).tolist()).generate_state(2)
            self._generator.manual_seed(int(words[0]) << 32 | int(words[1]))

    def _start_by_streams(self, rows: Tensor, chosen: np.ndarray) -> None:
        """New episodes in ``rows`` (B,) bool, those of ``chosen``, drawn from each row's own stream."""
        for index, block in enumerate(self._blocks):
            own = chosen[(block.rows.start <= chosen) & (chosen < block.rows.stop)]
            if not len(own):
                continue
            model, places, goals = block.body.model, own - block.rows.start, {}
            moves, speeds = np.zeros((block.n, model.nq)), np.zeros((block.n, model.nv))
            for row, place in zip(own.tolist(), places.tolist(), strict=True):
                body = block.bodies[place]
                drawn = self._draw_moves(body.bare.model, block.task, self._rngs[row])
                for values, columns, part in zip((moves, speeds), body.columns, drawn, strict=True):
                    values[place, columns] = part
                goals[row] = self._goals.draw(row, self._rngs[row])
            self._goals.set(goals)
            if self._prepared:
                self._prepared[index].start(rows[block.rows], self._generator)
            if self._conditions:
                streams = [self._streams[row] for row in own]
                self._conditions[index].start(places, streams, self._goals.direction.numpy()[own])
            drawn = (torch.from_numpy(part).to(**self._kind) for part in (moves, speeds))
            block.start(rows[block.rows], *drawn)
        self._begin_clocks(rows)

    @staticmethod
    def _draw_moves(
        model: mujoco.MjModel, task: LocomotionTask, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """How a start differs from a body's own: in positions (nq,), and speeds (nv,)."""
        noise = task.reset_speed_noise
        moves = rng.uniform(-task.reset_noise, task.reset_noise, model.nq)
        if task.speed_noise == "uniform":
            return moves, rng.uniform(-noise, noise, model.nv)
        return moves, noise * rng.standard_normal(model.nv)

    def _start_on_device(self, rows: Tensor) -> None:
        """New episodes in ``rows`` (B,) bool, drawn from the device's generator, without waiting for it."""
        random = {"generator": self._generator, "device": self.device}
        self._goals.draw_on_device(rows, self._generator)
        for block, variants in zip(self._blocks, self._prepared, strict=True):
            model, task, own = block.body.model, block.task, rows[block.rows]
            moves = task.reset_noise * (2 * torch.rand(block.n, model.nq, **random) - 1)
            if task.speed_noise == "uniform":
                speeds = task.reset_speed_noise * (2 * torch.rand(block.n, model.nv, **random) - 1)
            else:
                speeds = task.reset_speed_noise * torch.randn(block.n, model.nv, **random)
            variants.start(own, self._generator)
            block.start(own, moves, speeds)
        self._begin_clocks(rows)

    def _begin_clocks(self, rows: Tensor) -> None:
        for clock in (self._steps, self._start_age, self._finished):
            clock.masked_fill_(rows, 0)

    def _refresh(self, rows: Tensor) -> None:
        """Read rows that were reset. Readings of the others are a substep behind, and stay so."""
        self._simulation.kinematics()
        self._readings.read(rows)

    def begin(self, actions: Tensor) -> None:  # noqa: D102
        check_open(self)
        if not self._rngs:
            raise UserError("step() before reset(): call reset() first")
        expected = (self.num_envs, self.n_limbs, self.n_joints)
        if tuple(actions.shape) != expected:
            raise UserError(f"actions have shape {tuple(actions.shape)}; expected {expected}")
        if not self.autoreset and self._finished.any():
            rows = self._finished.nonzero()[:, 0].tolist()
            raise UserError(f"environments {rows} have ended; reset them first")
        self._begun = actions

    @torch.no_grad()
    def finish(self) -> Step:  # noqa: D102
        before, cost = self._readings.progress, self._act(self._begun)
        self._simulation.step()
        diverged = self._simulation.diverged | cost.isnan()
        self._steps += 1
        self._readings.read()
        # What diverged is not where it was any more: MuJoCo puts it back to the model's start.
        rewards, healthy, parts = self._reward.of_step(before, cost.nan_to_num(0.0), diverged)
        terminated, truncated = ~healthy, self._steps >= self._limits
        ended = terminated | truncated
        whole = ended & (self._start_age == 0)
        info = parts | self._drawn()
        step = Step(self._observe(), rewards, terminated, truncated, diverged, whole, None, info)
        if self.knows_ends and not ended.any():
            return step
        step.final, step.final_info = step.observation, info
        if not self.autoreset:
            self._finished = ended
            return step
        if self.knows_ends:
            self._start_by_streams(ended, np.flatnonzero(ended.numpy()))
        else:
            self._start_on_device(ended)
        self._refresh(ended)
        step.observation, step.info = self._observe(), parts | self._drawn()
        for name, last in step.final.items():  # of a simulation that diverged there is nothing to be read
            replace(last, diverged, step.observation[name])
        return step

    def _act(self, actions: Tensor) -> Tensor:
        """Set the controls of nominal actions (B, N, J); their cost before its weight, (B,)."""
        layout, chosen = self._layout, self._actions.copy_(actions)
        if self.physical_controls:
            self._commands.copy_(actions)
        else:
            chosen.clamp_(-1.0, 1.0)
            # In two steps: a fused one would be rounded otherwise.
            torch.clamp(layout.half * chosen + layout.center, layout.low, layout.high, out=self._commands)
        torch.index_select(self._flat[1], 0, self._commanded, out=self._controls)
        torch._foreach_copy_([block.controls for block in self._blocks], self._controls_of_blocks)
        for conditions in self._conditions:
            conditions.before_step()
        acted = self._flat[0].index_select(0, self._acted.view(-1)).view_as(self._acted)
        return acted.square().cumsum(0)[-1]  # in order, so that padding cannot change the last digit

    def _observe(self) -> dict[str, Tensor]:
        return self._observer.observe(self._readings)

    def _drawn(self) -> dict[str, Tensor]:
        return {name: values.clone() for name, values in self._told.items()}

    def why_ended(self, row: int) -> str:
        """See `Reward.why_ended`."""
        return self._reward.why_ended(row)

    def check(self) -> None:  # noqa: D102
        self._simulation.check()

    # Going on from elsewhere

    @property
    def _kept(self) -> list[str]:
        always = ["_blocks", "_readings", "_goals", "_steps", "_start_age", "_finished"]
        drawn = ["_rngs", "_streams", "_told"] + ["_terrain"] * (self._terrain is not None)
        return always + drawn + (["_prepared", "_generator"] if self._prepared else ["_conditions"])

    @property
    def _terrain(self) -> Ground | None:
        return self._readings.terrain

    def snapshot(self) -> dict[str, Any]:  # noqa: D102
        check_open(self)
        return take(self, self._kept)

    @torch.no_grad()
    def restore(self, taken: Mapping[str, Any]) -> dict[str, Tensor]:  # noqa: D102
        check_open(self)
        put(self, self._kept, taken)
        self._readings.derive()  # where the ground is another one
        return self._observe()

    # By hand

    def set_state(self, row: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put a row into a state, (nq,) and (nv,). Raises UserError: it has diverged, or another size."""
        (block, place), rows = self._block_of(row), torch.zeros_like(self._every)
        model, columns = block.bodies[place].bare.model, block.bodies[place].columns
        qpos, qvel = np.asarray(qpos, float), np.asarray(qvel, float)
        if qpos.shape != (model.nq,) or qvel.shape != (model.nv,):
            wanted = f"({model.nq},) and ({model.nv},)"
            raise UserError(f"positions {qpos.shape} and velocities {qvel.shape}; expected {wanted}")
        if not (np.abs(np.concatenate((qpos, qvel))) < mujoco.mjMAXVAL).all():
            raise UserError("a state must be finite; this one is not, or beyond 1e10")
        rows[row] = True
        sizes = block.body.model.nq, block.body.model.nv
        state = [torch.zeros(block.n, size, **self._kind) for size in sizes]
        for values, own, part in zip(state, columns, (qpos, qvel), strict=True):
            values[:, own] = torch.from_numpy(part).to(**self._kind)
        block.reset(rows[block.rows], *state)
        self._refresh(rows)

    def get_state(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Copies of one row's positions (nq,) and velocities (nv,)."""
        block, place = self._block_of(row)
        state = (block.array(name)[place].cpu().numpy().copy() for name in ("qpos", "qvel"))
        qpos, qvel = (part[own] for part, own in zip(state, block.bodies[place].columns, strict=True))
        return qpos, qvel

    def parts(self, row: int) -> tuple[Part, ...]:
        """The joint rows of a row's body: what `damage` can break."""
        return parts_of(self.bodies[self.body_of_row[row]])

    def damage(self, row: int, part: int, kind: int) -> None:
        """Break one of a row's `parts` until its episode ends: ``DEAD`` or ``LOCKED``. No policy is told.

        Raises UserError: the environment is not ``editable``, or the part cannot break in this way.
        """
        joint = self.parts(row)[part]
        if kind not in joint.ways:
            wanted = "has no actuator" if kind == DEAD else "is no actuated hinge or slide joint"
            raise UserError(f"{joint.name} cannot break in this way: it {wanted}")
        conditions, place = self._editable(row)
        conditions.damage(place, part, kind)

    def push(self, row: int, velocity: Sequence[float]) -> None:
        """Push a row's root in its next step, so hard that this alone would change the body's velocity.

        By ``velocity`` (2,) m/s, horizontal. Raises UserError: the environment is not ``editable``.
        """
        conditions, place = self._editable(row)
        conditions.push(place, np.asarray(velocity, float))

    def _editable(self, row: int) -> tuple[Conditions, int]:
        if not self._conditions:
            raise UserError("bodies can be changed by hand in an environment that is made with editable=True")
        block, place = self._block_of(row)
        return self._conditions[self._blocks.index(block)], place

    def simulated(self, row: int) -> tuple[mujoco.MjModel, mujoco.MjData, int]:
        """One row's model, a copy of its state with kinematics, and its root body, to be drawn."""
        block, place = self._block_of(row)
        model, data, body = block.models[place], mujoco.MjData(block.body.model), block.bodies[place].bare
        block.batch.get_data(place, data)
        if body is not block.bodies[place]:  # without its ghosts
            model, data = body.model, mujoco.MjData(body.model)
            data.qpos[:], data.qvel[:] = self.get_state(row)
        mujoco.mj_forward(model, data)
        return model, data, body.root

    def _block_of(self, row: int) -> tuple[Any, int]:
        """What simulates a row, and its place in there."""
        check_open(self)
        block = next(block for block in self._blocks if block.rows.start <= row < block.rows.stop)
        return block, row - block.rows.start

    def close(self) -> None:  # noqa: D102
        if not self.closed:
            self.closed = True
            self._simulation.close()
            del self._blocks, self._readings, self._reward, self._conditions, self._prepared
