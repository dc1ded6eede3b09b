"""Rows that are simulated on a device: tensors in, tensors out, and nothing that the host must wait for.

A Gymnasium vector environment gives arrays of the host. A tensor environment does the same task, with the
same observations, rewards and resets, by operations on tensors of one device, so that a rollout never leaves
it. What differs is where random numbers come from: a reset by `reset` draws each row's start from a generator
of its own, as the vector environment of the same task does (so the same seeds give the same starts); resets
in the midst of a run draw from one generator of the device.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor


@dataclass
class TensorStep:
    """What a step of B rows gave. Tensors may be overwritten by the next step: copy what is to be kept.

    Attributes:
        observation: what to act on next, (B, ...) each; where an episode has ended the first of the next.
        rewards: (B,) float32.
        terminated, truncated: (B,) bool. A row may be both.
        final: the observation before rows were reset, (B, ...) each; None: known to the host that no episode
            was cut.
        diverged: (B,) bool, rows that ended because their simulation diverged.
        whole: (B,) bool, rows whose episode ended here and had not begun in the midst of its clock.
    """

    observation: dict[str, Tensor]
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    final: dict[str, Tensor] | None
    diverged: Tensor
    whole: Tensor

    @property
    def ended(self) -> Tensor:
        """(B,) bool."""
        return self.terminated | self.truncated


class TensorEnv(abc.ABC):
    """B rows on a device; a row that ends is reset in the same step.

    Attributes:
        num_envs: B.
        device: of all tensors.
        kind: of the tokens, ``limbs`` or ``sensors``.
        single_observation_space, single_action_space: as those of the task's vector environment.
        spec_of_tokens: what the columns of a token mean.
        body_names: names of the bodies. body_of_row: (B,) int, on the host; rows of a body lie together.
        sizes: what a policy may be built for, by the names of its arguments.
        max_episode_steps: steps after which an episode is cut.
        closed: whether `close` has been called; nothing but the spaces and sizes is to be asked then.
    """

    num_envs: int
    device: torch.device
    kind: str
    single_observation_space: spaces.Dict
    single_action_space: spaces.Space
    spec_of_tokens: Any
    body_names: tuple[str, ...]
    body_of_row: np.ndarray
    sizes: dict[str, Any]
    max_episode_steps: int
    closed = False

    @abc.abstractmethod
    def reset(self, seed: int | Sequence[Any] | None = None) -> dict[str, Tensor]:
        """Start an episode in every row.

        Args:
            seed: one for all (row i then draws from ``(seed, i)``) or one for each row; None: go on with the
                generators that there are.

        Returns:
            The observation.
        """

    @abc.abstractmethod
    def step(self, actions: Tensor) -> TensorStep:
        """Advance every row.

        Args:
            actions: as the action space says, (B, ...), on the device; nominal ones are clipped to [-1, 1].
        """

    @abc.abstractmethod
    def check(self) -> None:
        """Look at what steps have left unsaid, which waits for the device; once a rollout is enough.

        Raises:
            UserError: a capacity that was too small; what it should be is said.
        """

    @abc.abstractmethod
    def snapshot(self) -> dict[str, Any]:
        """All that the rows' futures depend on, random streams included; see `somite.envs.snapshots`."""

    @abc.abstractmethod
    def restore(self, taken: Mapping[str, Any]) -> dict[str, Tensor]:
        """Go on from where another environment, made in the same way, was. It must have been reset once.

        Returns:
            The observation.

        Raises:
            Misfit: the snapshot is of other rows; the environment then has to be reset.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let the simulations go; may be called twice."""
