"""What policies of sensors and of patches have in common: an action from the whole set, and a critic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.numbers import checked, one_of
from ...envs.tokens import TokenSpec
from .base import Discrete, Observation, Policy, checked_discrete
from .layers import masked_mean, perceptron
from .normalizer import TokenNormalizer

CRITIC_WIDTH = 64

CHANGE_SCALE = 4.0
"""Of the differences between frames, which are small against the grey levels themselves."""


def fitting_critic(n_privileged: int) -> str:
    """What ``critic=auto`` means for a task that tells so many privileged readings."""
    return "privileged" if n_privileged else "shared"


@checked("agent")
class SensorPolicy(Policy):
    """From a set of sensor tokens to one action vector.

    A subclass has `encode` and a module ``action`` from features (B, feature_size) to actions (B, A).

    Args:
        spec: What the columns of ``tokens`` mean.
        feature_size: Size of what ``encode`` gives.
        normalizer: Options of its `TokenNormalizer`; None: tokens are brought to a common scale.
        n_actions: A, actions, or choices where they are discrete.
        n_recent: K, recent actions that are told.
        discrete: Whether actions are choices, for which ``act`` gives logits: True, one of A; or how many
            choices each of several decisions has, A together.
        n_privileged: S, readings that the critic sees; 0 where the task tells none.
        critic: ``privileged``, a network of its own on what only training sees (the task's readings in their
            own order, or the state behind a picture); ``shared``, a layer on the actor's features; or
            ``auto``: the former where the task tells so much.
        common: of every policy.

    Raises:
        UserError: there is nothing that a privileged critic could read.
    """

    kind = "sensors"
    training_modules = ("value_head",)
    identify = 0.0
    """Weight of an auxiliary loss, of a policy that has one."""

    def __init__(
        self,
        spec: TokenSpec,
        feature_size: int,
        normalizer: Mapping[str, Any] | None = None,
        /,
        *,
        n_actions: int,
        n_recent: int,
        discrete: Discrete = False,
        n_privileged: int = 0,
        critic: Annotated[str, one_of("auto", "privileged", "shared")] = "auto",
        **common: Any,
    ) -> None:
        super().__init__(spec, TokenNormalizer(spec, n_privileged, **(normalizer or {})), **common)
        if critic == "auto":
            critic = fitting_critic(n_privileged)
        if critic == "privileged" and not n_privileged:
            raise UserError(
                "agent.critic=privileged, but this task tells critics no more than policies; say "
                "agent.critic=shared, or auto"
            )
        self.n_actions, self.n_recent = n_actions, n_recent
        self.discrete = checked_discrete(discrete, n_actions)
        self.n_privileged, self.critic = n_privileged, critic
        inputs = n_privileged if critic == "privileged" else feature_size
        layers = 2 if critic == "privileged" else 1
        self.value_head = perceptron(inputs, CRITIC_WIDTH, layers, 1, 1.0)

    @property
    def action_inputs(self) -> int:
        """Numbers that the recent actions are."""
        return self.n_recent * self.n_actions

    @property
    def has_auxiliary_loss(self) -> bool:
        """Whether `encode_to_learn` gives one."""
        return self.identify > 0

    def recent(self, observation: Observation) -> Tensor:
        """The recent actions side by side, (B, K * A)."""
        return observation["recent_actions"].flatten(-2)

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, A) in (-1, 1), or logits (B, A)."""
        actions = self.action(features)
        return actions if self.discrete else torch.tanh(actions)

    def value(self, features: Tensor, observation: Observation) -> Tensor:
        """Estimated return (B,) in the learner's units."""
        if self.critic == "privileged":
            features = self.normalizer.privileged(observation)
        return self.value_head(features).squeeze(-1)


class PatchPolicy(SensorPolicy):
    """From a set of patches to one action vector: frames as numbers, and no running statistics.

    K is the number of frames that a patch is known in (``n_recent``), D that of its grey levels.

    Args:
        spec: What the columns of ``tokens`` mean: K * D, newest frame first.
        feature_size, task: as in `SensorPolicy`.

    Raises:
        UserError: tokens that are no K frames.
    """

    kind = "patches"

    def __init__(self, spec: TokenSpec, feature_size: int, /, **task: Any) -> None:
        super().__init__(spec, feature_size, {"fixed": True}, **task)  # pixels have a scale already
        self.pixels, rest = divmod(spec.token_size, self.n_recent)
        if rest:
            raise UserError(f"{spec.token_size} numbers of a patch are not those of {self.n_recent} frames")

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
