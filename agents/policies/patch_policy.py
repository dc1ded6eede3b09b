"""What policies of patches have in common: frames as numbers, and no running statistics."""

from __future__ import annotations

from torch import Tensor

from ...envs.errors import UserError
from ...envs.tokens import TokenSpec
from ..normalizer import TokenNormalizer
from .base import Observation
from .sensor_policy import SensorPolicy


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
        discrete: bool,
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
