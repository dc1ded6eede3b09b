"""Episodes: added up where they are simulated, read once in a while, and what a run tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...envs.snapshots import Kept
from ..training.faults import RunFault

RECENT, RECENT_OF_BODY = 100, 20
"""Whole episodes, of all bodies and of each, that logged returns are means of."""


@dataclass(frozen=True)
class Episodes:
    """Whole episodes that have ended: ``returns`` (E,) raw, ``lengths`` (E,), ``bodies`` (E,) indices."""

    returns: np.ndarray
    lengths: np.ndarray
    bodies: np.ndarray


class FirstEpisodes:
    """Return, length and divergence of each environment's first episode; nothing waits for the device.

    Whether an environment goes on with other episodes or stays as it is, what comes after counts for nothing.

    Attributes:
        running, diverged: (B,) bool. returns: (B,) float64. lengths: (B,) int64.
    """

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        self.running = torch.ones(num_envs, dtype=torch.bool, device=device)
        self.diverged = torch.zeros_like(self.running)
        self.returns = torch.zeros(num_envs, dtype=torch.float64, device=device)
        self.lengths = torch.zeros(num_envs, dtype=torch.int64, device=device)

    def begin(self) -> None:
        """First episodes begin anew, in the same tensors."""
        self.running.fill_(True)
        for kept in (self.diverged, self.returns, self.lengths):
            kept.zero_()

    def add(self, rewards: Tensor, ended: Tensor, diverged: Tensor) -> None:
        """A step: raw rewards (B,), and which environments (B,) bool have ended in it, or diverged."""
        self.returns += torch.where(self.running, rewards, 0.0)
        self.lengths += self.running
        self.diverged |= diverged & self.running
        self.running &= ~ended


class EpisodeRecords(Kept):
    """Returns and lengths of a rollout's episodes, and how many simulations have diverged in it.

    Between two readings nothing waits for the device.

    Args:
        body_of_row: (B,) int, body of each environment.
        device: of the environments.
    """

    kept = ("_returns", "_lengths")

    def __init__(self, body_of_row: np.ndarray, device: torch.device | str) -> None:
        size = len(body_of_row)
        self.body_of_row, self._bodies = body_of_row, int(body_of_row.max()) + 1
        self._returns = torch.zeros(size, dtype=torch.float64, device=device)
        self._lengths = torch.zeros(size, dtype=torch.int64, device=device)
        self._diverged = torch.zeros(size, dtype=torch.float64, device=device)
        self._told: list[Tensor] = []

    def add(self, rewards: Tensor, ended: Tensor, whole: Tensor, diverged: Tensor) -> None:
        """A step of all environments, (B,) each; ``whole``: of those that ended, which are to be told of."""
        self._returns += rewards
        self._lengths += 1
        self._diverged += diverged
        self._told.append(torch.stack((whole.double(), self._returns, self._lengths.double())))
        self.begin(ended)

    def begin(self, rows: Tensor) -> None:
        """New episodes begin in ``rows`` (B,) bool."""
        self._returns.masked_fill_(rows, 0.0)
        self._lengths.masked_fill_(rows, 0)

    def clear(self) -> None:
        """A rollout begins."""
        self._told = []
        self._diverged.zero_()

    def read(self) -> tuple[Episodes, np.ndarray]:
        """Whole episodes of the rollout and, by body, (M,) how many simulations diverged; waits."""
        told = torch.stack([*self._told, self._diverged.expand(3, -1)]).cpu().numpy()  # (T + 1, 3, B)
        diverged = np.bincount(self.body_of_row, told[-1, 0], self._bodies).astype(int)
        steps, rows = np.nonzero(told[:-1, 0])
        returns, lengths = told[steps, 1, rows], told[steps, 2, rows].astype(int)
        return Episodes(returns, lengths, self.body_of_row[rows]), diverged


class EpisodeLog(Kept):
    """What a run tells of its episodes; it refuses those of a simulation that diverges again and again.

    Args:
        bodies: names of what is trained on.
        max_diverged: share of a body's steps in an update whose simulation may diverge.
        has_physics: whether the simulation is ours; else NaN is what an environment gave.
    """

    kept = ("diverged", "_returns", "_lengths", "_of_body")

    def __init__(self, bodies: Sequence[str], max_diverged: float = 1.0, has_physics: bool = True) -> None:
        self.bodies, self.max_diverged, self.has_physics = tuple(bodies), max_diverged, has_physics
        self.diverged = np.zeros(len(self.bodies), int)
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._of_body: list[list[float]] = [[] for _ in self.bodies]

    def add(
        self, episodes: Episodes, diverged: np.ndarray, steps: np.ndarray, when: str, only: bool = False
    ) -> None:
        """Take in an update's whole episodes, in order, before anything is learnt from them.

        Scalars are means of the latest ones; ``only``: of all these and no others. Of each body ``diverged``
        (M,) of its ``steps`` (M,), which were made ``when``, have.

        Raises:
            RunFault: more of them diverged than may.
        """
        self._check(diverged, steps, when)
        self.diverged += diverged
        new = [episodes.returns.tolist(), episodes.lengths.tolist()]
        of_body = [episodes.returns[episodes.bodies == i].tolist() for i in range(len(self.bodies))]
        if not only:
            kept = zip((self._returns, self._lengths), new, strict=True)
            new = [[*before, *more][-RECENT:] for before, more in kept]
            kept = zip(self._of_body, of_body, strict=True)
            of_body = [[*before, *more][-RECENT_OF_BODY:] for before, more in kept]
        (self._returns, self._lengths), self._of_body = new, of_body

    @property
    def mean_return(self) -> float | None:
        """Mean of the last whole episodes; None before the first one."""
        return float(np.mean(self._returns)) if self._returns else None

    def scalars(self) -> dict[str, float]:
        """By name, as ``docs/scalars.md`` lists them."""
        found: dict[str, float] = {"rollout/diverged": int(self.diverged.sum())}
        if self._returns:
            found["rollout/ep_rew_mean"] = float(np.mean(self._returns))
            found["rollout/ep_len_mean"] = float(np.mean(self._lengths))
        named = zip(self.bodies, self._of_body, strict=True)
        means = {name: float(np.mean(returns)) for name, returns in named if returns}
        found |= {f"bodies/{name}": mean for name, mean in means.items()}
        if len(means) > 1:
            of_all = list(means.values())
            found |= {f"rollout/body_{name}": float(f(of_all)) for name, f in _OVER_BODIES.items()}
        return found

    def _check(self, diverged: np.ndarray, steps: np.ndarray, when: str) -> None:
        shares = diverged / np.maximum(steps, 1)  # shares: (M,)
        worst = int(shares.argmax())
        if shares[worst] <= self.max_diverged:
            return
        name = self.bodies[worst]
        of = f"in {shares[worst]:.1%} of the steps of {when}, more than algorithm.max_diverged="
        of += f"{self.max_diverged:g}"
        if not self.has_physics:
            raise RunFault(
                f"{name} gave rewards or observations that are NaN, infinite or too large for float32 {of}: "
                "the first of them is in the log; it is the environment that has to be mended"
            )
        raise RunFault(
            f"the simulation of {name} diverged {of}: its time step may be too long for it, or its actuators "
            "too strong"
        )


_OVER_BODIES = {"mean": np.mean, "worst": np.min, "best": np.max}
