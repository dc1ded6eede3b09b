"""Evolution strategies with mirrored pairs (Salimans et al. 2017), of a policy's acting parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
import torch

from ...envs.cores import check_memory
from ...envs.errors import UserError
from ...envs.numbers import POSITIVE, SHARE, checked, one_of, real, whole
from ..policies.base import Policy
from .evolution import Evolution, Search, refuse_not_finite

BETAS, EPSILON = (0.9, 0.99), 1e-8
"""Of Adam (Kingma and Ba 2015); the second is smaller than usual: a search makes few, noisy steps."""

PAIRS, ROWS_ON_GPU = 512, 16384
"""What ``population=auto`` means: of a generation on a CPU, and episodes of one on a GPU. The latter is a
guess: no more than a quarter of them has been timed there."""

KEPT = ("mean", "average", "first", "second")
"""Arrays (n,) that a search goes on from."""


@checked("algorithm")
@dataclass(kw_only=True)
class ES(Evolution):
    """Settings of ES; ``conf/algorithm/es.yaml`` says what its keys mean. They count in generations.

    Raises:
        UserError: an invalid value.
    """

    name = "es"
    prefix = "es"
    starts_at_zero = False

    population: Annotated[int | str, one_of("auto") | whole(4, 10**6)] = "auto"
    episodes: Annotated[int, whole(1, 10**6)] = 2
    starts: Annotated[str, one_of("pair", "generation")] = "pair"
    shaping: Annotated[str, one_of("scores", "ranks")] = "scores"
    fitness_power: Annotated[float, real(0, 100, above=True)] = 1.0
    sd: Annotated[float, POSITIVE] = 0.05
    last_sd: Annotated[float, POSITIVE] = 0.025
    learning_rate: Annotated[float, POSITIVE] = 0.03
    last_learning_rate: Annotated[float, POSITIVE] = 0.006
    averaging: Annotated[float, SHARE] = 0.95
    weight_decay: Annotated[float, real(0)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.population != "auto" and self.population % 2:
            raise UserError(
                f"algorithm=es makes pairs, but algorithm.population is {self.population}; take "
                f"{self.population + 1}"
            )
        if self.shaping == "ranks" and self.starts == "pair":
            raise UserError(
                "algorithm.shaping=ranks ranks all candidates, which algorithm.starts=pair does not let meet "
                "the same starts: say algorithm.starts=generation, or leave algorithm.shaping=scores"
            )

    def sized(self, bodies: int, on_gpu: bool) -> Self:  # noqa: D102
        if self.population != "auto":
            return self
        pairs = ROWS_ON_GPU // (2 * bodies * self.episodes) if on_gpu else PAIRS
        return replace(self, population=2 * max(2, pairs))

    def make_search(self, start: np.ndarray, seed: int) -> ESSearch:  # noqa: D102
        return ESSearch(self, start, seed)

    def load_search(self, state: Any) -> ESSearch:  # noqa: D102
        return ESSearch.from_state(self, state)

    def seeds(self, key: Sequence[int]) -> list[list[int]]:  # noqa: D102
        if self.starts == "generation":
            return super().seeds(key)
        numbers, episodes = range(self.population), range(self.episodes)
        return [[*key, number // 2, episode] for number in numbers for episode in episodes]

    def fitness(self, returns: np.ndarray) -> np.ndarray:  # noqa: D102
        power = self.fitness_power
        return super().fitness(returns if power == 1 else np.sign(returns) * np.abs(returns) ** power)

    def charts(self, policy: Policy) -> dict[str, Sequence[str]]:  # noqa: D102
        found = {"Deviation of the candidates": ("es/sd$",), "Length of a step": ("es/step$",)}
        return {**super().charts(policy), **found}

    def without_influence(self) -> tuple[str, ...]:  # noqa: D102
        falls = self.sd != self.last_sd or self.learning_rate != self.last_learning_rate
        return tuple(n for n in super().without_influence() if n != "generations" or not falls)


class ESSearch(Search):
    """Steps by Adam along what pairs of candidates at opposite sides of the mean tell of the slope.

    Of a pair m + sd z and m - sd z, the difference of their fitness times z points uphill; the mean over all
    pairs is the gradient of the fitness of blurred parameters (Salimans et al., "Evolution strategies as a
    scalable alternative to reinforcement learning", 2017, section 2.1). Its length is that of noise, for the
    most part, so that Adam's averages over generations and small steps make what is learnt; and the mean of
    the last parameters is better than the parameters (Polyak and Juditsky 1992). ``sd`` and learning rate
    fall geometrically over the run. Memory grows with the parameters, not with their square.

    Args:
        settings: of the run.
        start: (n,).
        seed: of the candidates, which depend on it, the generation and the pair alone.

    Attributes:
        mean, average: (n,) float64, the centre, and its running mean.

    Raises:
        UserError: a generation does not fit into the memory.
    """

    def __init__(self, settings: ES, start: np.ndarray, seed: int) -> None:
        n, size = len(start), settings.population
        what = f"a generation of {size:,} candidates with {n:,} parameters"
        check_memory(8 * n * size, what, "lower algorithm.population, or make the network smaller")
        self.settings, self.seed, self.generation = settings, seed, 0
        self.mean, self.average = start.astype(float), start.astype(float)
        self.first, self.second = np.zeros(n), np.zeros(n)
        self._step = 0.0
        self._drawn: np.ndarray | None = None

    def _scheduled(self, first: float, last: float) -> float:
        return first * (last / first) ** min(self.generation / self.settings.generations, 1.0)

    @property
    def sd(self) -> float:
        """Deviation of the candidates in this generation."""
        return self._scheduled(self.settings.sd, self.settings.last_sd)

    def ask(self) -> np.ndarray:
        """Candidates (P, n) float32, pair after pair; the same again until they are told."""
        if self._drawn is None:
            # From a stream of its own: an interrupted generation draws the same again.
            stream = np.random.Generator(np.random.SFC64([self.seed, self.generation]))
            shape = self.settings.population // 2, len(self.mean)
            self._drawn = stream.standard_normal(shape, np.float32)  # (P / 2, n)
        away, mean = np.float32(self.sd) * self._drawn, self.mean.astype(np.float32)
        candidates = np.empty((2 * len(away), len(mean)), np.float32)  # (P, n)
        np.add(mean, away, out=candidates[::2])
        np.subtract(mean, away, out=candidates[1::2])
        return candidates

    def tell(self, fitness: np.ndarray) -> None:  # noqa: D102
        refuse_not_finite(fitness, self.generation)
        if self._drawn is None:
            self.ask()
        settings, half = self.settings, len(fitness) // 2
        if settings.shaping == "ranks":
            fitness = fitness.argsort().argsort() / (len(fitness) - 1)
        better = fitness[::2] - fitness[1::2]  # better: (P / 2,), by how much the first of a pair is
        better = better / (better.std() + EPSILON)
        slope = (better.astype(np.float32) @ self._drawn).astype(float) / half  # slope: (n,)
        rate = self._scheduled(settings.learning_rate, settings.last_learning_rate)
        self.generation += 1
        for moment, beta, new in zip((self.first, self.second), BETAS, (slope, slope**2), strict=True):
            moment *= beta
            moment += (1 - beta) * new
        first, second = (
            moment / (1 - beta**self.generation)
            for moment, beta in zip((self.first, self.second), BETAS, strict=True)
        )
        step = rate * (first / (np.sqrt(second) + EPSILON) - settings.weight_decay * self.mean)
        self.mean += step
        self._step = float(np.linalg.norm(step))
        # Its first steps are averaged over as many as there have been.
        share = min(settings.averaging, self.generation / (self.generation + 1))
        self.average += (1 - share) * (self.mean - self.average)
        self._drawn = None

    def found(self) -> dict[str, np.ndarray]:
        """The averaged centre, and the centre."""
        return {"average": self.average} | ({} if self.settings.averaging == 0 else {"centre": self.mean})

    def scalars(self) -> dict[str, float]:  # noqa: D102
        return {"sd": self.sd, "step": self._step}

    def state(self) -> dict[str, Any]:  # noqa: D102
        arrays = {name: torch.from_numpy(getattr(self, name).copy()) for name in KEPT}
        return {**arrays, "seed": self.seed, "generation": self.generation}

    @classmethod
    def from_state(cls, settings: ES, state: Any) -> ESSearch:
        """Inverse of `state`. Raises UserError: that of another search, or of none."""
        wanted = {*KEPT, "seed", "generation"}
        arrays = [state[name] for name in KEPT] if isinstance(state, dict) and set(state) == wanted else []
        shapes = {tuple(a.shape) if isinstance(a, torch.Tensor) else None for a in arrays}
        if len(shapes) != 1 or len(next(iter(shapes)) or ()) != 1:
            raise UserError(f"this is no saved search of algorithm=es: one has {', '.join(sorted(wanted))}")
        search = cls(settings, arrays[0].double().numpy(), whole(0, 2**64 - 1).read("seed", state["seed"]))
        search.generation = whole().read("generation of a saved search", state["generation"])
        for name, values in zip(KEPT, arrays, strict=True):
            setattr(search, name, values.double().numpy().copy())
        return search
