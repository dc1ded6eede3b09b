"""What a body is rewarded for and when its episode ends.

For a body that travels the reward is that of Gymnasium's v5 tasks and of shared modular policies:
forward velocity, minus a control cost, plus a bonus for being alive. Heights can be absolute, as
Gymnasium has them, or relative to the body's own standing height, which is what a family of bodies
needs. A body whose root is fixed is to bring its farthest limb to a target drawn within its reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from ..errors import UserError
from ..numbers import EPISODE_STEPS, NOISE, NULL, POSITIVE, WEIGHT, between, checked, listed, one_of, real

_LIMITS = between(real(endless=True), "<") | NULL


@checked("env.task")
@dataclass(frozen=True)
class LocomotionTask:
    """Reward and termination.

    Args:
        forward_weight: reward per m/s along the task's direction.
        control_cost: cost per sum of squared actions (nominal, or physical where those are passed).
        alive_bonus: reward of a step that ends healthy.
        max_episode_steps: time limit.
        reset_noise: start positions are uniform in ± this (m, rad).
        reset_speed_noise: start velocities; uniform in ± this, or this times a normal deviate.
        speed_noise: which of the two.
        height: (low, high) m the root must stay within; None: no limit.
        relative_height: the same in standing heights of the body, see `height_range`.
        max_tilt: rad that the root may lean from its start orientation; None: no limit.
        max_state: bound on every position and velocity, but for where the body stands; None: no limit.
        progress: forward velocity from the root's ``position`` in the state, or, one substep behind,
            from its ``body`` position (Gymnasium's Ant) or the ``center`` of mass of its tree.
        direction: where to go on the ground, of any length; ``random``: drawn for each episode.
        target_speed: m/s to keep in that direction; None: the faster the better. The reward is then
            ``forward_weight * (1 - |velocity - target_speed| / target_speed)``.
        goal: ``forward``; ``reach``: the farthest limb of a fixed root to a target drawn for each episode;
            ``auto``: what the body can.
        reach_weight: reward of being at the target, falling with the distance d and the limb's reach L
            as ``1 - tanh(4 d / L)``. Bodies that reach get no alive bonus.

    Height and tilt end the episode of a body that can fall (free, or on a vertical slide) alone.
    """

    forward_weight: Annotated[float, WEIGHT] = 1.0
    control_cost: Annotated[float, WEIGHT] = 0.1
    alive_bonus: Annotated[float, WEIGHT] = 0.0
    max_episode_steps: Annotated[int, EPISODE_STEPS] = 1000
    reset_noise: Annotated[float, NOISE] = 0.1
    reset_speed_noise: Annotated[float, NOISE] = 0.1
    speed_noise: Annotated[str, one_of("normal", "uniform")] = "normal"
    height: Annotated[tuple[float, float] | None, _LIMITS] = None
    relative_height: Annotated[tuple[float, float] | None, _LIMITS] = None
    max_tilt: Annotated[float | None, real(0, math.pi, above=True) | NULL] = None
    max_state: Annotated[float | None, real(0, 1e9, above=True) | NULL] = None
    progress: Annotated[str, one_of("position", "body", "center")] = "position"
    direction: Annotated[tuple[float, float] | str, listed(real(), 2, 2) | one_of("random")] = (1.0, 0.0)
    target_speed: Annotated[float | None, POSITIVE | NULL] = None
    goal: Annotated[str, one_of("forward", "reach", "auto")] = "auto"
    reach_weight: Annotated[float, WEIGHT] = 1.0

    def __post_init__(self) -> None:
        if self.height is not None and self.relative_height is not None:
            raise UserError("give env.task.height or env.task.relative_height, not both")
        if not isinstance(self.direction, str) and not math.hypot(*self.direction):
            raise UserError("env.task.direction is [0, 0], which is none; give another, such as [1, 0]")

    def reaches(self, name: str, can_travel: bool) -> bool:
        """Whether a body is to reach a target rather than to go forward.

        Raises:
            UserError: it cannot do what is asked; ``name`` is said.
        """
        if self.goal == "reach" and can_travel:
            raise UserError(f"{name!r} travels: env.task.goal=reach is for fixed roots; use forward or auto")
        if self.goal == "forward" and not can_travel:
            raise UserError(
                f"the root of {name!r} is fixed: it cannot go forward; use env.task.goal=reach or auto"
            )
        return not can_travel

    def height_range(self, standing_height: float, unit: float) -> tuple[float, float]:
        """(low, high) m of the root of a body.

        Args:
            standing_height: of the root, m.
            unit: m, of ``relative_height``. Where it is more than the standing height the root's origin lies
                low in the body, which may sink and rise as far as if the origin was that high.
        """
        if self.height is not None:
            return self.height
        if self.relative_height is not None:
            low, high = self.relative_height
            if standing_height > 1e-3:  # what lies on the ground has no height to fall from
                offset = standing_height - unit
                return low * unit + offset, high * unit + offset
        return -math.inf, math.inf
