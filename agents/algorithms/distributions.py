"""What a policy's outputs say of the actions that are explored."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Categorical

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class MaskedGaussian:
    """Independent Gaussians of one deviation around the means, over the actuators that exist.

    Log-probability and entropy are sums over these, so that padding and bodies of other sizes have no
    influence on each other.

    Args:
        mean: (B, ...) means.
        mask: 1 where there is an actuator, of the shape of ``mean``; None: everywhere.
        log_std: scalar.
    """

    def __init__(self, mean: Tensor, mask: Tensor | None, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std
        self.mask = torch.ones_like(mean) if mask is None else mask.to(mean.dtype)

    def mode(self) -> Tensor:
        """The means."""
        return self.mean

    def sample(self) -> Tensor:
        """Actions (B, ...), 0 where there is no actuator."""
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean) * self.mask

    def log_prob(self, actions: Tensor) -> Tensor:
        """(B,) of actions, flattened or not."""
        deviation = (actions.view_as(self.mean) - self.mean) * torch.exp(-self.log_std)
        each = (-0.5 * deviation.square() - self.log_std - _LOG_SQRT_2PI) * self.mask
        return each.flatten(1).sum(1)

    def entropy(self) -> Tensor:
        """(B,)."""
        return (0.5 + _LOG_SQRT_2PI + self.log_std) * self.mask.flatten(1).sum(1)


class Choice:
    """One of several choices.

    Args:
        logits: (B, A).
    """

    def __init__(self, logits: Tensor) -> None:
        self._distribution = Categorical(logits=logits, validate_args=False)

    def mode(self) -> Tensor:
        """The most probable choice, (B,)."""
        return self._distribution.logits.argmax(-1)

    def sample(self) -> Tensor:
        """(B,).

        As `torch.multinomial` draws one choice, but for its check of the probabilities, which waits for the
        device: the least of exponential times whose rates are the probabilities.
        """
        probabilities = self._distribution.probs
        return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """(B,) of choices (B,) or (B, 1)."""
        return self._distribution.log_prob(actions.flatten().long())

    def entropy(self) -> Tensor:
        """(B,)."""
        return self._distribution.entropy()
