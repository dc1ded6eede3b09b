"""What policies of patches have in common: frames as numbers, and no running statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.tokens import TokenSpec
from .base import Observation
from .choices import Discrete
from .layers import masked_mean
from .normalizer import TokenNormalizer
from .sensor_policy import SensorPolicy

CHANGE_SCALE = 4.0
"""Of the differences between frames, which are small against the grey levels themselves."""


class PatchPolicy(SensorPolicy):
    """From a set of patches to one action vector.

    K is the number of frames that a patch is known in (``n_recent``), D that of its grey levels.

    Args:
        spec: What the columns of ``tokens`` mean: K * D, newest frame first.
        n_actions, n_recent, discrete, n_privileged, feature_size, critic, initial_log_std: as in
            `SensorPolicy`.

    Raises:
        UserError: tokens that are no K frames.
    """

    kind = "patches"

    def __init__(
        self,
        spec: TokenSpec,
        n_actions: int,
        n_recent: int,
        discrete: Discrete,
        n_privileged: int,
        feature_size: int,
        critic: str,
        initial_log_std: float,
    ) -> None:
        if spec.token_size % n_recent:
            raise UserError(f"{spec.token_size} numbers of a patch are not those of {n_recent} frames")
        levels = TokenNormalizer(spec, n_privileged, fixed=True)  # pixels have a scale already
        super().__init__(
            spec, n_actions, n_recent, discrete, n_privileged, feature_size, critic, initial_log_std, levels
        )
        self.pixels = spec.token_size // n_recent

    def frames(self, observation: Observation) -> Tensor:
        """(B, N, K, D) in [0, 1], newest first."""
        tokens = observation["tokens"].to(self.log_std.dtype) / 255
        return tokens.unflatten(-1, (self.n_recent, self.pixels))


def difference_weights(weight: Tensor, frames: int) -> Tensor:
    """Weights (W, K * D) for the newest frame and the differences of K frames, as weights for the frames.

    What reads differences between frames reads frames: it is the weights that are combined, which are few,
    and not the pixels, 0 to 255.
    """
    newest, changes = (weight / 255).unflatten(-1, (frames, -1)).split((1, frames - 1), -2)
    changes = CHANGE_SCALE * changes  # of frame k - 1 less frame k
    later = functional.pad(changes, (0, 0, 0, 1))
    return (torch.cat((newest, -changes), -2) + later).flatten(-2)


def losses_of_places(logits: Tensor, observation: Observation, grid: Sequence[int]) -> Tensor:
    """Cross-entropies (B,) of the row and the column of every patch, averaged over those that exist.

    Args:
        logits: (B, N, R + C).
        observation: which sensor each slot shows.
        grid: R and C.
    """
    where, (_, columns), losses = observation["sensor"].long(), grid, 0.0
    is_patch = (where < math.prod(grid)) & (observation["mask"] != 0)  # noise is nowhere
    where = where.clamp(max=math.prod(grid) - 1)
    rows_and_columns = logits.mT.split(tuple(grid), 1)  # (B, R, N) and (B, C, N)
    for guesses, right in zip(rows_and_columns, (where // columns, where % columns), strict=True):
        losses = losses + functional.cross_entropy(guesses, right, reduction="none")  # (B, N)
    return masked_mean(losses, is_patch)
