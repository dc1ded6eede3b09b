"""Actions of many rows, as they are applied."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from ..errors import UserError
from .readings import sums_up


class Actions:
    """Checks and clips what rows are told to do.

    Args:
        space: of one row: ``Box`` in [-1, 1] of shape (A,) (nominal), or ``Discrete``.
        num_envs: B.

    Attributes:
        discrete: whether they are choices.
        n: A, or the number of choices.
    """

    def __init__(self, space: spaces.Box | spaces.Discrete, num_envs: int) -> None:
        self.discrete = isinstance(space, spaces.Discrete)
        self.n = int(space.n) if self.discrete else int(space.shape[0])
        self._shape = (num_envs,) if self.discrete else (num_envs, self.n)

    def applied(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is done, what is remembered of it, and where nothing could be.

        Args:
            actions: (B, A), or (B,) whole numbers.

        Returns:
            The actions, clipped; the same (B, A) as a memory keeps them, one-hot if discrete; (B,) bool where
            one was no number, and 0 is done.

        Raises:
            UserError: another shape, or a choice that there is not.
        """
        actions = np.asarray(actions)
        if actions.shape != self._shape:
            raise UserError(f"actions have shape {actions.shape}; expected {self._shape}")
        undefined = np.zeros(len(actions), bool)
        if self.discrete:
            actions = actions.astype(np.int64)
            if ((actions < 0) | (actions >= self.n)).any():
                found = f"{actions.min()} to {actions.max()}"
                raise UserError(f"actions are 0 to {self.n - 1}, got {found}")
            return actions, np.eye(self.n, dtype=np.float32)[actions], undefined
        actions = actions.astype(float)
        if not sums_up(actions):
            undefined = np.isnan(actions).any(1)
            actions[undefined] = 0.0
        actions = np.clip(actions, -1.0, 1.0)
        return actions, actions, undefined
