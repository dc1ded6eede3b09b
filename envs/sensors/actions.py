"""Actions of many rows, as they are applied."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from ..errors import UserError
from .readings import sums_up


class Actions:
    """Checks and clips what rows are told to do.

    Args:
        space: of one row: ``Box`` in [-1, 1] of shape (A,) (nominal), ``Discrete``, or ``MultiDiscrete`` of
            one dimension.
        num_envs: B.

    Attributes:
        discrete: whether they are choices: False; True, one; or how many there are of each of K decisions.
        n: A, or the number of choices, of all decisions together.
    """

    def __init__(self, space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete, num_envs: int) -> None:
        self.discrete: bool | list[int] = isinstance(space, spaces.Discrete)
        if isinstance(space, spaces.MultiDiscrete):
            self.discrete = [int(count) for count in space.nvec]
        self._counts = np.array([space.n] if self.discrete is True else self.discrete or [], np.int64)
        self.n = int(self._counts.sum()) if self.discrete else int(space.shape[0])
        self._shape = (num_envs, *space.shape)

    def applied(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is done, what is remembered of it, and where nothing could be.

        Args:
            actions: (B, A), or whole numbers (B,), of several decisions (B, K).

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
            if ((actions < 0) | (actions >= self._counts)).any():
                found = f"{actions.min()} to {actions.max()}"
                last = (self._counts - 1).tolist()
                raise UserError(f"actions are 0 to {last[0] if len(last) == 1 else last}, got {found}")
            return actions, self.one_hot(actions), undefined
        actions = actions.astype(float)
        if not sums_up(actions):
            undefined = np.isnan(actions).any(1)
            actions[undefined] = 0.0
        actions = np.clip(actions, -1.0, 1.0)
        return actions, actions, undefined

    def one_hot(self, choices: np.ndarray) -> np.ndarray:
        """(B, A) float32 of choices (B,), or (B, K), those of each decision side by side."""
        first = np.cumsum(self._counts) - self._counts
        shown = np.zeros((len(choices), self.n), np.float32)
        np.put_along_axis(shown, choices.reshape(len(choices), -1) + first, 1, 1)
        return shown
