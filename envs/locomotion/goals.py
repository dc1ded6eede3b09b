"""Where each row is to go or to reach, drawn at the start of its episodes, and what its steps are worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from ..in_place import replace
from ..snapshots import Kept
from .bodies.model import BALL, FREE, HINGE, is_held, joint_range
from .bodies.morphology import UNLIMITED_SLIDE, Morphology
from .layout import Layout, per_row
from .readings import Readings
from .task import LocomotionTask

POSES = 256
"""Poses of a body among which targets are drawn."""


class Goals(Kept):
    """Goals of B rows, whose bodies are ``body_of_row`` (B,) of ``bodies``, each with one of ``tasks``.

    Attributes:
        planes: (3, B) unit vectors on the ground, where to go; their third part is 0.
        direction: (B, 2) the same memory. speed: (B,) m/s to keep in it; 0: the faster the better.
        target: (B, 3) m, world, a place to reach; NaN where there is none.
        reaching: (B,) bool, rows that are to reach a target.
        reach: (B,) m, how far their tip can be from the root; inf elsewhere.

    Raises:
        UserError: a body that cannot do the task.
    """

    kept = ("planes", "target")

    def __init__(
        self,
        tasks: Sequence[LocomotionTask],
        bodies: Sequence[Morphology],
        body_of_row: np.ndarray,
        kind: Mapping[str, Any],
    ) -> None:
        self._body_of_row = body_of_row
        reaching = [
            task.reaches(body.name, body.can_travel) for task, body in zip(tasks, bodies, strict=True)
        ]
        self.any_reaches = any(reaching)
        self.reaching = torch.from_numpy(np.array(reaching)[body_of_row]).to(kind["device"])
        reach = [body.limb_reach[body.tip] if body.tip >= 0 else np.inf for body in bodies]
        # The only limb of a wheel on a fixed axle reaches nowhere: it is at every target of its own.
        self.reach = torch.from_numpy(np.maximum(np.array(reach), 1e-6)[body_of_row]).to(**kind)
        self._places = [
            tip_places(body) if reaches else None for body, reaches in zip(bodies, reaching, strict=True)
        ]
        self._turns = np.array([task.direction == "random" for task in tasks])
        forward = np.array([(1.0, 0.0) if task.direction == "random" else task.direction for task in tasks])
        forward = forward / np.hypot(*forward.T)[:, None]
        b = len(body_of_row)
        self.planes = torch.zeros(3, b, **kind)
        self.direction = self.planes[:2].t()
        self.direction[:] = torch.from_numpy(forward[body_of_row])
        speeds = np.array([task.target_speed or 0.0 for task in tasks])[body_of_row]
        self.speed = torch.from_numpy(speeds).to(**kind) * (~self.reaching)
        turned = self._turns[body_of_row] & ~np.array(reaching)[body_of_row]
        self._turned = torch.from_numpy(turned).to(kind["device"])
        self.target = torch.full((b, 3), torch.nan, **kind)
        self._places_of_row: Tensor | None = None

    def draw(self, row: int, rng: np.random.Generator) -> tuple[float, float] | np.ndarray | None:
        """The goal of a row's next episode: a direction, a target, or None where nothing varies."""
        body = self._body_of_row[row]
        places = self._places[body]
        if places is not None:
            return places[rng.integers(len(places))]
        if self._turns[body]:
            angle = rng.uniform(-np.pi, np.pi)
            return np.cos(angle), np.sin(angle)
        return None

    def set(self, drawn: Mapping[int, Any]) -> None:
        """Give rows what `draw` gave for them."""
        for values, size in ((self.direction, 2), (self.target, 3)):
            own = {row: goal for row, goal in drawn.items() if goal is not None and len(goal) == size}
            if own:
                rows = torch.tensor(list(own), device=values.device)
                values[rows] = torch.from_numpy(np.array(list(own.values()))).to(values)

    def draw_on_device(self, rows: Tensor, generator: torch.Generator) -> None:
        """Goals of the next episodes of ``rows`` (B,) bool, of a device's random numbers."""
        kind = {"dtype": self.target.dtype, "device": self.target.device}
        if self.any_reaches:
            if self._places_of_row is None:
                # (B, POSES, 3), repeated to be as many for every row
                pools = [np.resize(np.zeros(3) if p is None else p, (POSES, 3)) for p in self._places]
                self._places_of_row = torch.from_numpy(np.array(pools)[self._body_of_row]).to(**kind)
            number = torch.randint(POSES, (len(rows), 1, 1), generator=generator, device=kind["device"])
            drawn = self._places_of_row.gather(1, number.expand(-1, 1, 3))[:, 0]
            replace(self.target, rows & self.reaching, drawn)
        if self._turns.any():
            angle = torch.pi * (2 * torch.rand(len(rows), generator=generator, **kind) - 1)
            replace(self.direction, rows & self._turned, torch.stack((angle.cos(), angle.sin()), 1))


def tip_places(body: Morphology) -> np.ndarray:
    """(k, 3) m, world: where the tip's centre is in drawn poses of a body, hence within its reach.

    Joints with a range are drawn in it, others within a half turn or half a metre of home. Poses that
    put the tip under the ground are left out (unless all do); limbs that collide are not noticed.
    """
    model, rng = body.model, np.random.default_rng(0)
    data, home = mujoco.MjData(model), body.initial_qpos
    tip, places = body.limbs[body.tip].bodies[0], []
    for _ in range(POSES):
        data.qpos[:] = home
        for joint in range(model.njnt):
            kind = int(model.jnt_type[joint])
            # A free joint is that of a root that is tied.
            if int(model.jnt_bodyid[joint]) not in body.parts or is_held(model, joint) or kind == FREE:
                continue
            address, ends = int(model.jnt_qposadr[joint]), joint_range(model, joint)
            if kind == BALL:
                _turn_ball(data.qpos[address : address + 4], ends[1] if ends else np.pi, rng)
                continue
            half = np.pi if kind == HINGE else UNLIMITED_SLIDE
            data.qpos[address] = rng.uniform(*ends or (home[address] - half, home[address] + half))
        mujoco.mj_kinematics(model, data)
        places.append(data.xpos[tip] + data.xmat[tip].reshape(3, 3) @ body.tip_center)
    found = np.array(places)
    above = found[:, 2] > body.ground
    return found[above] if above.any() else found


def _turn_ball(quaternion: np.ndarray, largest: float, rng: np.random.Generator) -> None:
    """Turn a quaternion (4,) in place by a drawn rotation of at most ``largest`` rad."""
    axis, turn = rng.standard_normal(3), np.empty(4)
    mujoco.mju_axisAngle2Quat(turn, axis / np.linalg.norm(axis), rng.uniform(0, largest))
    mujoco.mju_mulQuat(quaternion, quaternion.copy(), turn)


class Reward:
    """Rewards of B rows, and which of them are still in shape.

    Args:
        tasks: of each body.
        body_of_row: (B,) which body each row is of.
        can_fall: (B,) bool.
        durations: (B,) s of a step.
        layout, readings, goals: of the rows.
    """

    def __init__(
        self,
        tasks: Sequence[LocomotionTask],
        body_of_row: np.ndarray,
        can_fall: Tensor,
        durations: Tensor,
        layout: Layout,
        readings: Readings,
        goals: Goals,
    ) -> None:
        self._tasks, self._body_of_row = tasks, body_of_row
        self._layout, self._readings, self._goals = layout, readings, goals
        self._can_fall, self._durations = can_fall, durations
        self._zero = torch.zeros_like(durations)
        kind = {"dtype": durations.dtype, "device": durations.device}

        def of_tasks(value: Callable[[LocomotionTask], float]) -> Any:
            return per_row([value(task) for task in tasks], body_of_row, **kind)

        self._forward_weight = of_tasks(lambda task: task.forward_weight)
        self._control_cost = of_tasks(lambda task: task.control_cost)
        self._alive_bonus = of_tasks(lambda task: task.alive_bonus)
        self._reach_weight = of_tasks(lambda task: task.reach_weight)
        self._keeps_speed = any(task.target_speed is not None for task in tasks)
        # What has no limit stays above or below any.
        self._least_cos = of_tasks(lambda task: -2.0 if task.max_tilt is None else math.cos(task.max_tilt))
        self._max_state = of_tasks(lambda task: math.inf if task.max_state is None else task.max_state)
        self._tilts = any(task.max_tilt is not None for task in tasks)
        self._bounds = any(task.max_state is not None for task in tasks)

    def of_step(
        self, before: Tensor, cost: Tensor, diverged: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What the step that has just been read is worth.

        Args:
            before: (B, 2) m, `Readings.progress` before it.
            cost: (B,) sum of squared actions.
            diverged: (B,) bool, rows that are not where they were any more: their episode ends here.

        Returns:
            Rewards (B,), healthy (B,) bool, and the parts (B,) by their names in ``info``.
        """
        readings, goals, zero = self._readings, self._goals, self._zero
        velocity = ((readings.progress - before) * goals.direction).sum(1) / self._durations
        velocity = torch.where(diverged, zero, velocity)
        progress = velocity
        if self._keeps_speed:
            kept = 1 - (velocity - goals.speed).abs() / goals.speed
            progress = torch.where(goals.speed > 0, kept, velocity)
        forward = self._forward_weight * progress
        if goals.any_reaches:
            forward = torch.where(goals.reaching, 0.0, forward)
        control = -self._control_cost * cost
        healthy = self._healthy() & ~diverged
        bonus = torch.where(healthy & ~goals.reaching, self._alive_bonus, zero)
        parts = {
            "forward_velocity": velocity,
            "reward_forward": forward,
            "reward_control": control,
            "reward_alive": bonus,
        }
        reward = forward + bonus + control
        if goals.any_reaches:
            tips = readings.points(self._layout.tip_slot, self._layout.tip_center)  # one substep behind
            distance = torch.linalg.vector_norm(goals.target - tips, dim=1)
            distance = torch.where(goals.reaching, distance, zero)
            closeness = 1 - (4 * distance / goals.reach).tanh()
            reached = torch.where(goals.reaching & ~diverged, self._reach_weight * closeness, 0.0)
            parts |= {"target_distance": distance, "reward_reach": reached}
            reward = reward + reached
        return reward, healthy, parts

    def _healthy(self) -> Tensor:
        readings, limits = self._readings, self._layout.height_limits
        height = readings.root[:, 2] - readings.raised
        good = (limits[:, 0] < height) & (height < limits[:, 1])
        if self._tilts:
            good &= ~self._can_fall | (readings.cos_tilt > self._least_cos)
        if self._bounds:
            good &= readings.largest < self._max_state
        return good

    def why_ended(self, row: int) -> str:
        """Half a sentence on what of a row is beyond a limit, with the key of that; "" if nothing is."""
        task, readings = self._tasks[self._body_of_row[row]], self._readings
        height = float(readings.root[row, 2] - readings.raised[row])
        low, high = self._layout.height_limits[row].tolist()
        if not low < height < high:
            key = "height" if task.height is not None else "relative_height"
            return f"its root is at {height:.3g} m, not between {low:.3g} and {high:.3g} m (env.task.{key})"
        tilt = math.acos(min(max(float(readings.cos_tilt[row]), -1.0), 1.0))
        if task.max_tilt is not None and self._can_fall[row] and tilt >= task.max_tilt:
            return f"it leans by {tilt:.3g} rad, more than {task.max_tilt:g} (env.task.max_tilt)"
        largest = float(readings.largest[row])
        if task.max_state is not None and largest >= task.max_state:
            return (
                f"a position or velocity is {largest:.3g}, more than {task.max_state:g} (env.task.max_state)"
            )
        return ""
