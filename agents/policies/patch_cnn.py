"""The ordinary network of pictures: the control that invariant policies of patches are compared with."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from ...envs.errors import UserError
from ...envs.numbers import checked
from ...envs.tokens import TokenSpec
from .base import Memory, Observation
from .layers import RELU_GAIN, SIZE, convolutions, linear, norm, perceptron
from .sensor_policy import PatchPolicy

CHANNELS = (16, 32, 32)
"""Of the three convolutions."""

LEAST_SIDE = 36
"""Pixels of which the three convolutions leave one."""


@checked("agent")
class PatchCNN(PatchPolicy):
    """Puts the patches together in the order of their slots, and convolves.

    By design it depends on that order; a missing patch is black.

    Args:
        grid: Rows and columns of patches.
        patch_size: Pixels of a patch's side.
        width: Size of the layer after the convolutions.
        head: Size of the hidden layer before the actions.

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
        first, second, third = CHANNELS
        # Mnih et al., "Human-level control through deep reinforcement learning", 2015; half the channels.
        frames = self.n_recent * self.colors
        self.convolve = convolutions(
            (frames, first, 8, 4, 0), (first, second, 4, 2, 0), (second, third, 3, 1, 0)
        )
        height, length = (side * patch_size for side in self.grid)
        if min(height, length) < LEAST_SIDE:
            raise UserError(
                f"pictures of {height} x {length} are too small for {type(self).__name__}, which wants "
                f"{LEAST_SIDE} pixels of a side: say agent=patch_transformer, or a larger env.size, if the "
                "environment shows more"
            )
        size = self.convolve(torch.zeros(1, frames, height, length)).shape[1]
        self.features = linear(size, width, RELU_GAIN)
        self.action = perceptron(width, head, 1, self.n_actions, 0.01)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """Features (B, width) of the picture, and the empty memory.

        Raises:
            UserError: The observation has another number of patches than the grid.
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
