"""Any registered Gymnasium environment of vector observations as a source of readings, one by one."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..draws import RandomNumbers
from ..errors import UserError, shown
from .boundary import Boundary, Sensors, choices_of
from .gymnasium_envs import find_spec, make_env, picture_of
from .source import Episodes, Source, tell_lost

logger = logging.getLogger(__name__)

_BOX2D = "gymnasium.envs.box2d"
"""Its environments reset the bodies in their world, but not the world, whose traces of earlier episodes show
in the last digits of later ones, and soon in the first."""

UNBOUNDED = 1e18
"""Bounds of this size are none: some environments say ``np.finfo(np.float32).max`` for infinity."""

MOST_CHOICES = 10_000
"""Of all decisions of an action together."""


class NominalActions:
    """What nominal actions mean to an environment.

    Args:
        env: its actions are a ``Box`` of real numbers in one dimension and between bounds, to which [-1, 1]
            is affine; or choices, ``Discrete``, ``MultiDiscrete`` or ``MultiBinary``, whose first is 0 here.
        device: of the actions that are given.

    Attributes:
        space: the nominal one: a ``Box``, ``Discrete``, or ``MultiDiscrete`` of one dimension.
        dtype: of the environment's own actions.
        shape: of one of them.

    Raises:
        UserError: actions of another kind, none, or without bounds.
    """

    def __init__(self, env: gymnasium.Env, device: torch.device | str = "cpu") -> None:
        space, name = env.action_space, env.spec.id if env.spec else type(env).__name__
        told = f"the actions of {name}, {shown(space, 300)},"
        self.shape, self.dtype, self._device = space.shape, space.dtype, device
        self._kind = self._tensor(np.zeros(0, space.dtype)).dtype
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            first, counts = choices_of(space)
            if not counts.size:
                raise UserError(f"{told} leave nothing to decide")
            if counts.sum() > MOST_CHOICES:
                raise UserError(
                    f"{told} are {counts.sum():,} choices, each of which would be an output of the policy; "
                    f"at most {MOST_CHOICES:,} are chosen from"
                )
            single = isinstance(space, spaces.Discrete)
            self.space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete = (
                spaces.Discrete(int(counts)) if single else spaces.MultiDiscrete(counts.reshape(-1))
            )
            self._first = self._tensor(first)
            return
        is_real = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
        if not is_real or len(space.shape) != 1:
            raise UserError(
                f"{told} do not fit; what fits is a Box of one dimension of real numbers, or Discrete, "
                "MultiDiscrete, MultiBinary"
            )
        low, high = space.low.astype(float), space.high.astype(float)
        if not (np.abs(low) < UNBOUNDED).all() or not (np.abs(high) < UNBOUNDED).all():  # NaN is not, either
            raise UserError(
                f"{told} have no bounds that -1 and 1 could stand for; give it some, such as by "
                "gymnasium.wrappers.TransformAction, in a module of yours that registers it (env.imports)"
            )
        if (low > high).any() or not (low < high).any():
            what = "low bounds above the high ones" if (low > high).any() else "nothing to decide"
            raise UserError(f"{told} have {what}")
        self.space = spaces.Box(-1.0, 1.0, space.shape, np.float32)
        self._low, self._high = self._tensor(low), self._tensor(high)
        self._center, self._half = self._tensor((low + high) / 2), self._tensor((high - low) / 2)

    def _tensor(self, values: Any) -> Tensor:
        return torch.from_numpy(np.array(values)).to(self._device)

    def __call__(self, nominal: Tensor) -> Tensor:
        """(B, ...) in the environment's units and shape, of nominal ones (B, A), or whole numbers (B,)."""
        if not isinstance(self.space, spaces.Box):
            return (nominal.reshape(-1, *self.shape) + self._first).to(self._kind)
        physical = self._center + self._half * nominal  # may be a rounding beyond the bounds
        return physical.clamp(self._low, self._high).to(self._kind)


SEEDS_OF_EPISODES = 2**31
"""Seeds that episodes of Gymnasium's environments are reset with lie below it."""


class GymnasiumSource(Source):
    """B environments, each stepped by itself; a `Source`.

    An environment cannot be saved: a snapshot holds the seed and the actions of its present episode, by which
    it is replayed, and what it showed last, by which it is checked that it has come to the same place.

    Args:
        num_envs: B.
        env_id, kwargs: of a registered environment.
        max_episode_steps: steps after which an episode is cut.

    Raises:
        UserError: an environment that cannot be made, or whose spaces do not fit.
    """

    kept = ("_episodes", "_shown")

    def __init__(self, num_envs: int, env_id: str, kwargs: Mapping[str, Any], max_episode_steps: int) -> None:
        self.name, self.num_envs, self.max_episode_steps = env_id, num_envs, max_episode_steps
        self._make = functools.partial(make_env, env_id, dict(kwargs))
        self._envs = [self._make() for _ in range(num_envs)]
        self._made_anew = str(find_spec(env_id).entry_point).startswith(_BOX2D)
        self._physical = NominalActions(self._envs[0])
        self.single_action_space = self._physical.space
        physical = self._physical
        self._episodes = Episodes(num_envs, n_seeds=1, action=physical.shape, dtype=physical.dtype)
        self._boundary = Boundary(env_id, self._envs[0].observation_space)
        self._make_room()

    def _make_room(self) -> None:
        """For what the environments observe."""
        self._sensors = Sensors(self.name, self._envs[0].observation_space)
        self.sensor_names = self._sensors.names
        self._shown = torch.zeros(self.num_envs, len(self.sensor_names))

    def _keep(self, row: int, observation: Any) -> None:
        """Keep what an environment shows: an observation that the boundary has let through."""
        self._sensors.read(observation, self._shown[row].numpy())

    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        """Reset with a seed that is drawn."""
        rows = where.nonzero().flatten().tolist()
        seeds = draws.integers(SEEDS_OF_EPISODES)[rows].tolist()
        self._episodes.start(rows, np.array(seeds)[:, None])
        for row, seed in zip(rows, seeds, strict=True):
            self._keep(row, self._begin(row, seed))

    def _begin(self, row: int, seed: int) -> Any:
        """The first observation of an episode, which the seed alone decides on."""
        if self._made_anew:
            self._envs[row].close()
            self._envs[row] = self._make()
        return self._boundary.reset(self._envs[row], seed)

    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step those that are ``running``; the others stay as they are."""
        rewards = np.zeros(self.num_envs)
        terminated, cut = np.zeros((2, self.num_envs), bool)
        physical, goes = self._physical(actions).numpy(), running.numpy()
        self._episodes.enter(physical, goes)
        for row in np.flatnonzero(goes):
            told = self._boundary.step(self._envs[row], physical[row])
            observation, rewards[row], terminated[row], cut[row] = told
            self._keep(row, observation)
        return tuple(torch.from_numpy(part) for part in (rewards, terminated, cut))

    def read(self) -> Tensor:
        """(B, S) float32, what the environments observe."""
        return self._shown

    def restore(self, taken: Mapping[str, Any]) -> Sequence[int]:
        """Replay the episodes; see `Source.restore`."""
        super().restore(taken)
        wanted = self._shown.clone()
        lost = [row for row in range(self.num_envs) if not self._replay(row, wanted[row])]
        tell_lost(self.name, len(lost), self.num_envs)
        return lost

    def _replay(self, row: int, wanted: Tensor) -> bool:
        """Whether an environment comes to show what is wanted."""
        (seed,), actions = self._episodes.of(row)
        observation, left = self._begin(row, seed), len(actions)
        for action in actions:
            observation, _, terminated, cut = self._boundary.step(self._envs[row], action)
            left -= 1
            if left and (terminated or cut):
                return False
        self._keep(row, observation)
        return torch.equal(self._shown[row].nan_to_num(), wanted.nan_to_num())

    def render(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8, how an environment draws itself; see `picture_of`. Raises UserError."""
        return picture_of(self._envs[row])

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()
