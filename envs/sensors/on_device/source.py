"""What a task of sensors gives whose simulations are tensors on a device."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from .chance import Chance
from .kept import KeptTensors


class TensorSource(KeptTensors, abc.ABC):
    """A batch of B simulations on a device, each read by the same S sensors, which give numbers.

    As `Source` on the host, in tensors: nothing that it does in mid-run may wait for the device, and what it
    goes on from is written to in place (`kept` names it).

    Attributes:
        name: of the task.
        num_envs: B.
        device: of all tensors.
        sensor_names: of the S sensors, in the task's own (canonical) order.
        single_action_space: ``Box`` in [-1, 1] of shape (A,) (nominal), or ``Discrete``.
        max_episode_steps: steps after which an episode is cut.
        can_be_captured: whether a CUDA graph can hold a step; not where it launches graphs of its own.
    """

    name: str
    num_envs: int
    device: torch.device
    sensor_names: tuple[str, ...]
    single_action_space: spaces.Box | spaces.Discrete
    max_episode_steps: int
    can_be_captured: bool = True

    @abc.abstractmethod
    def seed(self, rngs: Sequence[np.random.Generator], stream: np.ndarray) -> None:
        """Start an episode in every row, as the source on the host does from the same generators.

        Args:
            rngs: one for each distinct seed, newly made.
            stream: (B,) which of them is a row's; rows that share one have equal starts.
        """

    @abc.abstractmethod
    def start(self, where: Tensor, chance: Chance) -> None:
        """Start another episode in the rows that ``where`` (B,) bool names; its first reading is finite."""

    @abc.abstractmethod
    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advance the rows that are ``running`` (B,) bool.

        Args:
            actions: (B, A) float64, clipped to [-1, 1], or (B,) whole numbers.
            running: rows whose episode goes on; what is told of the others has no meaning.

        Returns:
            rewards (B,) float64, terminated (B,) bool, and (B,) bool where the task itself cut the episode.
        """

    @abc.abstractmethod
    def read(self) -> Tensor:
        """(B, S) float32 readings of the present states, in raw units."""

    @property
    def diverged(self) -> Tensor | None:
        """(B,) bool, rows whose state the last step broke; None: readings and rewards say so."""
        return None

    def check(self) -> None:
        """Look at what steps have left unsaid. Raises UserError: a capacity that was too small."""

    def close(self) -> None:
        """Let the simulations go."""
