"""Ordinary networks on all slots side by side: the controls that policies of tokens are compared with.

By design they depend on the slots' order and number.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from ...envs.errors import UserError
from ...envs.numbers import FLAG, checked
from ...envs.tokens import TokenSpec
from .base import Memory, Observation, Policy
from .layers import RELU_GAIN, REPEATS, SIZE, convolutions, linear, norm, perceptron
from .patch_policy import PatchPolicy
from .sensor_policy import SensorPolicy


@checked("agent")
class MLP(Policy):
    """The padded ordinary network of limbs.

    It reads the same features, descriptors and masks as the modular policies, in slots that the
    environment aligns by the full body's limbs: N (``n_tokens``) and J of each (``n_joints``). Its value
    has a network of its own, as is usual.
    """

    aligned_slots = True
    training_modules = ("critic",)

    def __init__(
        self,
        spec: TokenSpec,
        n_tokens: int,
        n_joints: int,
        width: Annotated[int, SIZE] = 256,
        layers: Annotated[int, REPEATS] = 2,
        **common: Any,
    ) -> None:
        super().__init__(spec, **common)
        self.n_tokens, self.n_joints = n_tokens, n_joints
        self.width, self.layers = width, layers
        inputs = n_tokens * (spec.token_size + 1 + n_joints * (spec.joint_size + 2))
        self.actor = perceptron(inputs, width, layers, n_tokens * n_joints, 0.01, relu=True)
        self.critic = perceptron(inputs, width, layers, 1, 1.0, relu=True)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """All normalised slots and masks side by side, (B, N * (F + 1 + J * (G + 2))).

        Raises:
            UserError: an observation of other numbers of slots.
        """
        slots = tuple(observation["joint_mask"].shape[-2:])
        self._expect_slots((self.n_tokens, self.n_joints), "limb and joint slots", slots)
        tokens, joints = self.normalizer(observation)
        masks = [observation[name].to(tokens.dtype) for name in ("mask", "joint_mask", "action_mask")]
        return torch.cat([part.flatten(1) for part in (tokens, joints, *masks)], -1), memory

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, N, J) in nominal units, 0 where ``action_mask`` is 0."""
        mean = self.actor(features).unflatten(-1, (self.n_tokens, self.n_joints))  # mean: (B, N, J)
        return torch.where(observation["action_mask"] != 0, mean, 0.0)

    def value(self, features: Tensor, observation: Observation) -> Tensor:
        """Estimated return (B,)."""
        return self.critic(features).squeeze(-1)


@checked("agent")
class SensorMLP(SensorPolicy):
    """The ordinary network of N sensors (``n_tokens``).

    Like any ordinary network's, its inputs are normalised one by one: each slot has its own scale and shift.
    """

    def __init__(
        self,
        spec: TokenSpec,
        n_tokens: int,
        n_actions: int,
        n_recent: int,
        width: Annotated[int, SIZE] = 64,
        layers: Annotated[int, REPEATS] = 2,
        sees_actions: Annotated[bool, FLAG] = False,
        **task: Any,
    ) -> None:
        inputs = n_tokens * (spec.token_size + 1) + sees_actions * n_recent * n_actions
        super().__init__(spec, inputs, {"slots": n_tokens}, n_actions=n_actions, n_recent=n_recent, **task)
        self.n_tokens, self.width, self.layers, self.sees_actions = n_tokens, width, layers, sees_actions
        self.action = perceptron(inputs, width, layers, n_actions, 0.01)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """All slots and their masks side by side, (B, N * (F + 1)), with the recent actions if it sees them.

        Raises:
            UserError: an observation of another number of slots.
        """
        mask = observation["mask"]
        self._expect_slots(self.n_tokens, "sensors", mask.shape[-1])
        tokens = self.normalizer.tokens(observation)  # tokens: (B, N, F)
        parts = [tokens.flatten(-2), mask.to(tokens.dtype)]
        return torch.cat([*parts, self.recent(observation)] if self.sees_actions else parts, -1), memory


LEAST_SIDE = 36
"""Pixels of which the three convolutions leave one."""


@checked("agent")
class PatchCNN(PatchPolicy):
    """Puts the patches together in the order of their slots, and convolves.

    By design it depends on that order; a missing patch is black. ``grid`` is rows and columns of patches,
    ``patch_size`` the pixels of a patch's side.

    Raises:
        UserError: pictures too small for three convolutions.
    """

    def __init__(
        self,
        spec: TokenSpec,
        grid: tuple[int, int],
        patch_size: int,
        width: Annotated[int, SIZE] = 256,
        head: Annotated[int, SIZE] = 64,
        **task: Any,
    ) -> None:
        super().__init__(spec, width, **task)
        self.grid, self.patch_size, self.width, self.head = tuple(grid), patch_size, width, head
        self.colors = self.pixels // patch_size**2
        frames = self.n_recent * self.colors
        # Mnih et al., "Human-level control through deep reinforcement learning", 2015; half the channels.
        self.convolve = convolutions((frames, 16, 8, 4, 0), (16, 32, 4, 2, 0), (32, 32, 3, 1, 0))
        height, length = (side * patch_size for side in self.grid)
        if min(height, length) < LEAST_SIDE:
            raise UserError(
                f"pictures of {height} x {length} pixels are too small for {type(self).__name__}: it needs "
                f"{LEAST_SIDE} on each side; say agent=patch_transformer, or a larger env.size, if the "
                "environment shows more"
            )
        size = self.convolve(torch.zeros(1, frames, height, length)).shape[1]
        self.features = linear(size, width, RELU_GAIN)
        self.action = perceptron(width, head, 1, self.n_actions, 0.01)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """Features (B, width) of the picture, and the empty memory.

        Raises:
            UserError: an observation of another number of patches than the grid's.
        """
        rows, columns = self.grid
        self._expect_slots(rows * columns, f"patches ({rows} x {columns})", observation["mask"].shape[-1])
        frames = self.frames(observation) * (observation["mask"] != 0)[..., None, None]
        size = self.patch_size
        parts = frames.unflatten(-1, (size, size, self.colors)).unflatten(1, (rows, columns))
        # parts: (B, rows, columns, K, size, size, colours) to pictures (B, K * colours, H, W)
        picture = parts.permute(0, 3, 6, 1, 4, 2, 5).flatten(5).flatten(3, 4).flatten(1, 2)
        # Pictures have far more in common than they differ in, which would drive the head to its bounds.
        return norm(torch.relu(self.features(self.convolve(picture - 0.5)))), memory
