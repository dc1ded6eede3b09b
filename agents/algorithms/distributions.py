"""What a policy's outputs say of the actions that are explored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical

from ..policies.base import Discrete

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


class Choices:
    """Several decisions, each independent of the others given what is observed.

    Args:
        logits: (B, A), those of each decision side by side.
        counts: of choices of each of the K decisions, A together.
    """

    def __init__(self, logits: Tensor, counts: Sequence[int]) -> None:
        self._each = [Choice(part) for part in logits.split(list(counts), -1)]

    def mode(self) -> Tensor:
        """The most probable choices, (B, K)."""
        return torch.stack([choice.mode() for choice in self._each], -1)

    def sample(self) -> Tensor:
        """(B, K)."""
        return torch.stack([choice.sample() for choice in self._each], -1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """(B,) of choices (B, K)."""
        pairs = zip(self._each, actions.unbind(-1), strict=True)
        return torch.stack([choice.log_prob(one) for choice, one in pairs]).sum(0)

    def entropy(self) -> Tensor:
        """(B,)."""
        return torch.stack([choice.entropy() for choice in self._each]).sum(0)


Distribution = MaskedGaussian | Choice | Choices


def distribution(outputs: Tensor, discrete: Discrete, mask: Tensor | None, log_std: Tensor) -> Distribution:
    """What a policy explores by.

    Args:
        outputs: that it acts by, means (B, ...) or logits (B, A).
        discrete: what they are; see `somite.agents.policies.base`.
        mask: as of `MaskedGaussian`.
        log_std: likewise.
    """
    if not discrete:
        return MaskedGaussian(outputs, mask, log_std)
    return Choice(outputs) if discrete is True else Choices(outputs, discrete)
