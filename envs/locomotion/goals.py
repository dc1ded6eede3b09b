"""Where each row is to go or to reach, drawn at the start of its episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from ..snapshots import Kept
from .bodies.model import is_held, joint_range
from .bodies.morphology import UNLIMITED_SLIDE, Morphology
from .observation import Goal
from .task import LocomotionTask

POSES = 256
"""Poses of a body among which targets are drawn."""


class Goals(Kept):
    """Goals of B rows.

    Args:
        task: what is asked.
        bodies: the morphologies.
        body_of_row: (B,) index of each row's body.
        device: of all tensors, in single precision; None: the host, in double precision.

    Attributes:
        seen: what observations tell of them.
        direction: (B, 2) unit vectors on the ground. target: (B, 3) m, not a number where there is none. Both
            are arrays of the host: of the same memory as ``seen`` there, else what `tell` copies to it.
        reaching: (B,) bool, rows that are to reach a target.
        reach: (B,) m, how far their tip can be from the root; inf elsewhere.

    Raises:
        UserError: a body that cannot do the task.
    """

    kept = ("seen",)

    def __init__(
        self,
        task: LocomotionTask,
        bodies: Sequence[Morphology],
        body_of_row: np.ndarray,
        device: torch.device | None = None,
    ) -> None:
        self.task = task
        self.device = device
        kind = {"dtype": torch.float64 if device is None else torch.float32, "device": device or "cpu"}
        reaching = [task.reaches(body.name, body.can_travel) for body in bodies]
        self.any_reaches = any(reaching)
        self.reaching = torch.from_numpy(np.array(reaching)[body_of_row]).to(kind["device"])
        reach = [body.limb_reach[body.tip] if body.tip >= 0 else np.inf for body in bodies]
        # The only limb of a wheel on a fixed axle reaches nowhere: it is at every target of its own.
        self.reach = torch.from_numpy(np.maximum(np.array(reach), 1e-6)[body_of_row]).to(**kind)
        self._places = [
            tip_places(body) if reaches else None for body, reaches in zip(bodies, reaching, strict=True)
        ]
        self._body_of_row = body_of_row
        forward = [1.0, 0.0] if task.direction == "random" else _unit(task.direction)
        b = len(body_of_row)
        self.seen = Goal(
            direction=torch.tensor(np.array(forward), **kind).repeat(b, 1),
            speed=(task.target_speed or 0.0) * (~self.reaching).to(**kind)[:, None],
            target=torch.full((b, 3), torch.nan, **kind),
        )
        # Of the same memory on the host.
        self.direction, self.target = self.seen.direction.cpu().numpy(), self.seen.target.cpu().numpy()
        self._places_of_row = None if device is None else self._pools(kind)

    def draw(self, row: int, rng: np.random.Generator) -> None:
        """The goal of a row's next episode. Draws nothing where nothing varies."""
        places = self._places[self._body_of_row[row]]
        if places is not None:
            self.target[row] = places[rng.integers(len(places))]
        elif self.task.direction == "random":
            angle = rng.uniform(-np.pi, np.pi)
            self.direction[row] = np.cos(angle), np.sin(angle)

    def tell(self) -> None:
        """Copy what has been drawn for single rows to the device."""
        self.seen.direction.copy_(torch.from_numpy(self.direction))
        self.seen.target.copy_(torch.from_numpy(self.target))

    def _pools(self, kind: dict[str, Any]) -> Tensor | None:
        """(B, POSES, 3) places that targets are drawn from, repeated to be as many for every row."""
        if not self.any_reaches:
            return None
        pools = [
            np.zeros((POSES, 3)) if places is None else np.resize(places, (POSES, 3))
            for places in self._places
        ]
        return torch.from_numpy(np.array(pools)[self._body_of_row]).to(**kind)

    def draw_on_device(self, rows: Tensor, generator: torch.Generator) -> None:
        """Goals of the next episodes of ``rows`` (B,) bool, of a device's random numbers."""
        seen = self.seen
        if self._places_of_row is not None:
            number = torch.randint(POSES, (len(rows), 1, 1), generator=generator, device=self.device)
            drawn = self._places_of_row.gather(1, number.expand(-1, 1, 3))[:, 0]
            chosen = (rows & self.reaching)[:, None]
            seen.target.copy_(torch.where(chosen, drawn, seen.target))
        if self.task.direction == "random":
            kind = {"dtype": seen.direction.dtype, "device": self.device}
            angle = torch.pi * (2 * torch.rand(len(rows), generator=generator, **kind) - 1)
            drawn = torch.stack((angle.cos(), angle.sin()), 1)
            chosen = (rows & ~self.reaching)[:, None]
            seen.direction.copy_(torch.where(chosen, drawn, seen.direction))

    def reward(self, velocity: Tensor) -> Tensor:
        """(B,) reward of ``velocity`` (B,) m/s along the direction, 0 for rows that reach."""
        task = self.task
        if task.target_speed is not None:
            velocity = 1 - (velocity - task.target_speed).abs() / task.target_speed
        return torch.where(self.reaching, 0.0, task.forward_weight * velocity)

    def reach_reward(self, distance: Tensor) -> Tensor:
        """(B,) reward of a tip at ``distance`` (B,) m from its target, 0 for rows that go forward."""
        closeness = 1 - (4 * distance / self.reach).tanh()
        return torch.where(self.reaching, self.task.reach_weight * closeness, 0.0)


def tip_places(body: Morphology) -> np.ndarray:
    """(k, 3) m, world: where the tip's centre is in drawn poses of a body, hence within its reach.

    Joints with a range are drawn in it, others within a half turn or half a metre of home. Poses that
    put the tip under the ground are left out (unless all do); limbs that collide are not noticed.
    """
    model, rng = body.model, np.random.default_rng(0)
    data, home = mujoco.MjData(model), body.initial_qpos
    tip, places = body.limbs[body.tip].bodies[0], []
    own = {part for limb in body.limbs for part in limb.bodies}
    for _ in range(POSES):
        data.qpos[:] = home
        for joint in range(model.njnt):
            if int(model.jnt_bodyid[joint]) not in own or is_held(model, joint):
                continue
            address, kind = int(model.jnt_qposadr[joint]), int(model.jnt_type[joint])
            if kind == int(mujoco.mjtJoint.mjJNT_FREE):  # of a root that is tied
                continue
            ends = joint_range(model, joint)
            if kind == int(mujoco.mjtJoint.mjJNT_BALL):
                _turn_ball(data.qpos[address : address + 4], ends[1] if ends else np.pi, rng)
                continue
            half = np.pi if kind == int(mujoco.mjtJoint.mjJNT_HINGE) else UNLIMITED_SLIDE
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


def _unit(direction: Sequence[float]) -> np.ndarray:
    return np.asarray(direction, float) / np.hypot(*direction)
