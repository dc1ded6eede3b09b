"""What a step of many rows is worth, and which bodies are still in shape, whatever simulates them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..snapshots import Kept
from .bodies.morphology import Morphology
from .goals import Goals
from .readings import Readings
from .task import LocomotionTask


@dataclass
class Verdict:
    """Of a step of B rows.

    Attributes:
        reward: (B,).
        alive: (B,) bool.
        parts: (B,) each, by the name that ``info`` has for it.
    """

    reward: Tensor
    alive: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Judge(Kept):
    """Rewards and ends of B rows.

    Args:
        task: says how.
        bodies: the body of each row.
        durations: (B,) s, of a step of each row.
        readings: of the rows.
        goals: of the rows.

    Attributes:
        height_limits: (B, 2) m. tips: (B,) slots of the limbs that reach farthest. tip_centers: (B, 3) m.
    """

    kept = ("height_limits", "tips", "tip_centers")

    def __init__(
        self,
        task: LocomotionTask,
        bodies: Sequence[Morphology],
        durations: np.ndarray,
        readings: Readings,
        goals: Goals,
    ) -> None:
        self._task, self._readings, self._goals = task, readings, goals
        kind = {"dtype": readings.root.dtype, "device": readings.root.device}
        b = len(bodies)
        self._durations = torch.from_numpy(durations).to(**kind)
        self._can_fall = torch.tensor([body.can_fall for body in bodies], device=kind["device"])
        self.height_limits = torch.empty(b, 2, **kind)
        self.tips = torch.zeros(b, dtype=torch.int64, device=kind["device"])
        self.tip_centers = torch.zeros(b, 3, **kind)

    def adopt(self, row: int, body: Morphology, slots: Sequence[int]) -> None:
        """Take over what a row's body says of when it has fallen, and of its tip.

        Args:
            row: of the environment.
            body: what it simulates from now on.
            slots: limb slot of each of its limbs.
        """
        limits, center = self.limits_of(body)
        self.height_limits[row] = torch.from_numpy(limits)
        self.tip_centers[row] = torch.from_numpy(center)
        if body.tip >= 0:
            self.tips[row] = slots[body.tip]

    def limits_of(self, body: Morphology) -> tuple[np.ndarray, np.ndarray]:
        """(2,) m, heights that a body may not leave; (3,) m, the centre of its tip in that limb's frame."""
        limits = (-np.inf, np.inf)
        if body.can_fall:
            limits = self._task.height_range(body.standing_height, body.height_unit)
        return np.add(limits, body.ground), body.tip_center if body.tip >= 0 else np.zeros(3)

    def why_ended(self, row: int) -> str:
        """Half a sentence on what of a row is beyond a limit, with the key of that; "" if nothing is."""
        task, readings = self._task, self._readings
        height = float(readings.root[row, 2] - readings.raised[row])
        low, high = (float(limit) for limit in self.height_limits[row])
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

    def judge(self, before: Tensor, cost: Tensor, diverged: Tensor) -> Verdict:
        """Rewards of the step that has just been read.

        Args:
            before: (B, 2) m, `Readings.progress` before it.
            cost: (B,) sum of squared actions.
            diverged: (B,) bool. Such a row is not where it was any more: its episode ends here.
        """
        task, readings, goals = self._task, self._readings, self._goals
        zero = torch.zeros((), dtype=before.dtype, device=before.device)
        travelled = torch.where(diverged[:, None], zero, readings.progress - before)
        velocity = (travelled * goals.seen.direction).sum(1) / self._durations
        cos_tilt = torch.where(self._can_fall, readings.cos_tilt, 1.0)
        height = readings.root[:, 2] - readings.raised
        alive = ~diverged & task.healthy(height, self.height_limits, cos_tilt, readings.largest)
        forward = goals.reward(velocity)
        control = task.control_cost * cost
        bonus = task.alive_bonus * (alive & ~goals.reaching).to(forward.dtype)
        parts = {
            "forward_velocity": velocity,
            "reward_forward": forward,
            "reward_control": -control,
            "reward_alive": bonus,
        }
        reward = forward + bonus - control
        if goals.any_reaches:
            tips = readings.points(self.tips, self.tip_centers)  # one substep behind
            distance = torch.linalg.vector_norm(goals.seen.target - tips, dim=1)
            distance = torch.where(goals.reaching, distance, zero)
            reached = torch.where(diverged, zero, goals.reach_reward(distance))
            parts |= {"target_distance": distance, "reward_reach": reached}
            reward = reward + reached
        return Verdict(reward, alive, parts)
