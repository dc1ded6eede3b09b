"""What a body is rewarded for and when its episode ends.

For a body that travels the reward is that of Gymnasium's v5 tasks and of shared modular policies:
forward velocity, minus a control cost, plus a bonus for being alive. Heights can be absolute, as
Gymnasium has them, or relative to the body's own standing height, which is what a family of bodies
needs. A body whose root is fixed is to bring its farthest limb to a target drawn within its reach.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ..errors import UserError
from ..numbers import is_number

_NUMBERS = (
    "forward_weight",
    "control_cost",
    "alive_bonus",
    "max_episode_steps",
    "reset_noise",
    "reset_speed_noise",
    "reach_weight",
)
_NUMBERS_OR_NONE = ("max_tilt", "max_state", "target_speed")


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

    forward_weight: float = 1.0
    control_cost: float = 0.1
    alive_bonus: float = 0.0
    max_episode_steps: int = 1000
    reset_noise: float = 0.1
    reset_speed_noise: float = 0.1
    speed_noise: Literal["normal", "uniform"] = "normal"
    height: tuple[float, float] | None = None
    relative_height: tuple[float, float] | None = None
    max_tilt: float | None = None
    max_state: float | None = None
    progress: Literal["position", "body", "center"] = "position"
    direction: tuple[float, float] | Literal["random"] = field(default=(1.0, 0.0))
    target_speed: float | None = None
    goal: Literal["forward", "reach", "auto"] = "auto"
    reach_weight: float = 1.0

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.height is not None and self.relative_height is not None:
            raise UserError("give height or relative_height, not both")
        for name in ("reset_noise", "reset_speed_noise"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be 0 or more, not {getattr(self, name)!r}")
        if self.max_episode_steps < 1:
            raise UserError(f"max_episode_steps must be at least 1, not {self.max_episode_steps}")
        for name, choices in (
            ("speed_noise", ("normal", "uniform")),
            ("progress", ("position", "body", "center")),
            ("goal", ("forward", "reach", "auto")),
        ):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")
        for name in ("height", "relative_height"):
            limits = getattr(self, name)
            if limits is not None and not (len(limits) == 2 and limits[0] < limits[1]):
                raise UserError(f"{name} must be [low, high], not {limits!r}")
        if self.max_tilt is not None and not 0 < self.max_tilt <= math.pi:
            raise UserError(f"max_tilt must be an angle between 0 and pi, not {self.max_tilt}")
        if self.target_speed is not None and not 0 < self.target_speed < math.inf:
            raise UserError(f"target_speed must be above 0, or null, not {self.target_speed!r}")
        if isinstance(self.direction, str):
            if self.direction != "random":
                raise UserError(f"direction must be two numbers or random, not {self.direction!r}")
        elif len(self.direction) != 2 or not 0 < math.hypot(*self.direction) < math.inf:
            raise UserError(f"direction must be two numbers, not both zero, not {self.direction!r}")

    def _check_numbers(self) -> None:
        for name in (*_NUMBERS, *_NUMBERS_OR_NONE):
            value = getattr(self, name)
            if not is_number(value) and not (value is None and name in _NUMBERS_OR_NONE):
                wanted = "a number" if name in _NUMBERS else "a number, or null"
                raise UserError(f"{name} must be {wanted}, not {value!r}")
        for name in ("height", "relative_height", "direction"):
            pair = getattr(self, name)
            listed = isinstance(pair, Sequence) and not isinstance(pair, str)
            if not (pair is None or pair == "random" or (listed and all(map(_is_limit, pair)))):
                raise UserError(f"{name} must be two numbers, not {pair!r}")

    @property
    def terminates(self) -> bool:
        """Whether an episode can end before its time limit."""
        return any(x is not None for x in (self.height, self.relative_height, self.max_tilt, self.max_state))

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

    def healthy(self, height: Tensor, limits: Tensor, cos_tilt: Tensor, largest_state: Tensor) -> Tensor:
        """(B,) bool: whether a body is still in shape.

        Args:
            height: (B,) of the root.
            limits: (B, 2) of `height_range`.
            cos_tilt: (B,) of the root against its start.
            largest_state: (B,) largest absolute position or velocity.
        """
        good = (limits[:, 0] < height) & (height < limits[:, 1])
        if self.max_tilt is not None:
            good &= cos_tilt > math.cos(self.max_tilt)
        if self.max_state is not None:
            good &= largest_state < self.max_state
        return good


def _is_limit(value: object) -> bool:
    """Whether it is a number, or infinite: no limit."""
    return is_number(value) or (isinstance(value, float) and math.isinf(value))
