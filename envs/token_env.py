"""The environment that everything here uses: B environments on one device, tensors in, tensors out.

A CPU is a device. Gymnasium's and Stable-Baselines3's interfaces are adapters: see `somite.envs.gym`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor


@dataclass
class Step:
    """What a step of B environments gave. The next step may overwrite it: copy what is to be kept.

    Attributes:
        observation: what to act on next, (B, ...) each; where an episode has ended, the first of the next.
        rewards: (B,) raw, float32 or float64.
        terminated, truncated: (B,) bool; both may be true.
        diverged: (B,) bool, whose episode ended because something was not finite.
        whole: (B,) bool, whose episode ended here and had not begun in the middle of its clock (``stagger``).
        final: the observation before resets, (B, ...) each; None: the host knows that no episode ended.
        info: what else the task tells, (B, ...) each: parts of the reward, what was drawn for the episode.
        final_info: the same before resets; empty where ``final`` is None.
    """

    observation: dict[str, Tensor]
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    diverged: Tensor
    whole: Tensor
    final: dict[str, Tensor] | None = None
    info: dict[str, Tensor] = field(default_factory=dict)
    final_info: dict[str, Tensor] = field(default_factory=dict)

    @property
    def ended(self) -> Tensor:
        """(B,) bool."""
        return self.terminated | self.truncated


class TokenEnv(abc.ABC):
    """B environments of one task; one that ends is reset in the same step.

    Attributes:
        num_envs: B.
        device: of all tensors.
        kind: of the tokens: ``limbs``, ``sensors`` or ``patches``.
        single_observation_space, single_action_space: of one environment, as Gymnasium describes it.
        spec_of_tokens: what the columns of a token mean.
        body_names: names of the bodies. body_of_row: (B,) int array; those of a body lie together.
        sizes: what a policy may be built for, by the names of its arguments.
        max_episode_steps: steps after which an episode is truncated.
        step_duration: simulated seconds of a step.
        knows_ends: whether the host may look at ``terminated`` and ``truncated`` without waiting: on a CPU.
        once: whether what has ended stays as it is until the next reset.
        autoreset: False: an environment that ended waits for ``reset(rows=...)``; to step it raises.
        info: what `reset` tells beside the observation, as `Step.info`.
        begun_anew: (B,) bool, whose simulation the last `restore` could not bring back.
        closed: whether `close` has been called; only spaces and sizes may be read then.
    """

    num_envs: int
    device: torch.device
    kind: str
    single_observation_space: spaces.Dict
    single_action_space: spaces.Space
    spec_of_tokens: Any
    body_names: tuple[str, ...]
    body_of_row: Any
    sizes: dict[str, Any]
    max_episode_steps: int
    step_duration: float
    once = False
    autoreset = True
    info: dict[str, Tensor] = {}
    closed = False
    _begun: Tensor

    @cached_property
    def knows_ends(self) -> bool:  # noqa: D102
        return self.device.type == "cpu"

    @cached_property
    def begun_anew(self) -> Tensor:  # noqa: D102
        return torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

    @abc.abstractmethod
    def reset(self, seed: int | Sequence[Any] | None = None, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Start episodes; the observation of all.

        Args:
            seed: one for all (environment i then draws from ``(seed, i)``), or a key for each; None: go on
                with the random streams that there are.
            rows: (B,) bool, reset and seed these only; None: all.

        Raises:
            UserError: another number of seeds, or ``rows`` at the first reset.
        """

    def step(self, actions: Tensor) -> Step:
        """Advance every environment.

        Args:
            actions: (B, ...) as the action space says, on the device; nominal ones are clipped to [-1, 1].

        Raises:
            UserError: before the first reset, or actions that do not fit.
        """
        self.begin(actions)
        return self.finish()

    def begin(self, actions: Tensor) -> None:
        """Begin a step and return; worker processes, where there are some, simulate until `finish`."""
        self._begun = actions

    @abc.abstractmethod
    def finish(self) -> Step:
        """Finish the step that `begin` began."""

    def check(self) -> None:  # noqa: B027
        """Look at what steps left unsaid, which waits for the device. Raises UserError: too few places."""

    @abc.abstractmethod
    def snapshot(self) -> dict[str, Any]:
        """All that the future depends on, random streams included; see `somite.envs.snapshots`."""

    @abc.abstractmethod
    def restore(self, taken: Mapping[str, Any]) -> dict[str, Tensor]:
        """Go on from where another environment, made in the same way, was; the observation.

        It must have been reset once. What cannot be brought back begins an episode; see `begun_anew`.

        Raises:
            Misfit: the snapshot is of other environments; this one then has to be reset.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let the simulations go; may be called twice."""
