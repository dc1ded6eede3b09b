"""Covariance matrix adaptation (Hansen and Ostermeier 2001), by pycma, of a policy's acting parameters."""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...envs.errors import UserError, nearest
from ...envs.numbers import whole_number

STARTS = ("zero", "initial")
KEPT = ("population", "sigma0", "start", "diagonal", "mirrored")
"""Settings that a search keeps when it is gone on with: they are part of its state."""

MATRICES = 10
"""Square matrices that pycma held at once, when measured with 913 parameters; 7.4 with 2504."""


@dataclass
class CMAES:
    """Settings of CMA-ES; the keys of ``conf/algorithm/cma_es.yaml``.

    Args:
        generations: of the whole run.
        population: candidates of a generation.
        episodes: of each candidate on each training body; all candidates of a generation meet the same
            starts, every generation new ones.
        sigma0: deviation of the parameters at the start.
        start: ``zero``, as the published agent, or ``initial``: the parameters that PPO would begin with.
        diagonal: adapt variances only, for networks whose full covariance would be too large or too slow.
        mirrored: candidates in pairs, at opposite sides of the mean.
        checkpoint_every: generations between checkpoints. keep_checkpoints: how many stay.
        validate_every: generations between validations of the mean and of the best candidate; the better of
            them becomes the policy; 0 for never, the policy then is the mean.
        validation_episodes: of each body.
        zero_shot_every: generations between runs of the suite of ``conf/zero_shot.yaml``, by the mean of
            the search, which chooses nothing; 0 for never. A shorter run has none, a longer one another at
            its end.

    Raises:
        UserError: a number or a name that cannot be meant.
    """

    generations: float = 1000
    population: int = 256
    episodes: int = 16
    sigma0: float = 0.1
    start: str = "zero"
    diagonal: bool = False
    mirrored: bool = False
    checkpoint_every: int = 50
    keep_checkpoints: int = 2
    validate_every: int = 10
    validation_episodes: int = 64
    zero_shot_every: int = 100

    def __post_init__(self) -> None:
        for name in ("generations", "episodes", "checkpoint_every"):
            setattr(self, name, whole_number(getattr(self, name), f"algorithm.{name}", minimum=1))
        for name in ("validate_every", "validation_episodes", "keep_checkpoints", "zero_shot_every"):
            setattr(self, name, whole_number(getattr(self, name), f"algorithm.{name}"))
        # With fewer, pycma has no weights to recombine.
        self.population = whole_number(self.population, "algorithm.population", minimum=4)
        if self.mirrored and self.population % 2:
            raise UserError(
                f"algorithm.mirrored makes pairs, but algorithm.population is {self.population}; take "
                f"{self.population + 1}"
            )
        if not isinstance(self.sigma0, (int, float)) or not 0 < self.sigma0 < np.inf:
            raise UserError(f"algorithm.sigma0 must be a number above 0, not {self.sigma0!r}")
        if self.start not in STARTS:
            raise UserError(f"algorithm.start cannot be {self.start!r}; {nearest(str(self.start), STARTS)}")

    @property
    def validates(self) -> bool:
        """Whether the mean and the best candidate are scored."""
        return bool(self.validate_every and self.validation_episodes)


class Search:
    """pycma's strategy, maximising, with a random stream of its own.

    Args:
        settings: of the search.
        start: (n,) where it begins.
        seed: of the random stream.

    Attributes:
        generation: generations told so far.
        best: (n,), the best candidate of the last one; None before the first.

    Raises:
        UserError: a full covariance does not fit into the memory.
    """

    def __init__(self, settings: CMAES, start: np.ndarray, seed: int) -> None:
        check_memory(len(start), settings.diagonal)
        import cma  # takes seconds, since it imports matplotlib

        options = {
            "popsize": settings.population,
            "CMA_diagonal": settings.diagonal,
            "CMA_mirrors": 0,  # pycma's own, for small populations, draw from NumPy's global stream
            # Not a number: leave NumPy's global stream alone. Ours is pickled with the strategy.
            "seed": np.nan,
            "randn": Normal(seed, settings.mirrored),
            "verbose": -9,
            "verb_log": 0,  # writes no files
        }
        self._strategy = cma.CMAEvolutionStrategy(start, settings.sigma0, options)
        self._asked: np.ndarray | None = None
        self.generation, self.best = 0, None

    def ask(self) -> np.ndarray:
        """Candidates (P, n); the same again until they are told."""
        if self._asked is None:
            self._asked = np.asarray(self._strategy.ask())
        return self._asked

    def tell(self, fitness: np.ndarray) -> None:
        """Take in what the candidates have reached, (P,), and move on.

        Raises:
            FloatingPointError: something of it is not finite; pycma would sort it in silently.
        """
        wrong = np.flatnonzero(~np.isfinite(fitness))
        if len(wrong):
            raise FloatingPointError(
                f"candidate {wrong[0]} of generation {self.generation} has the fitness {fitness[wrong[0]]}, "
                f"{len(wrong)} of {len(fitness)} are not finite"
            )
        candidates = self.ask()
        self._strategy.tell(list(candidates), (-fitness).tolist())  # it minimises
        self.best = candidates[np.argmax(fitness)].copy()
        self._asked = None
        self.generation += 1

    @property
    def mean(self) -> np.ndarray:
        """(n,) centre of the distribution."""
        return np.array(self._strategy.mean)

    @property
    def sigma(self) -> float:
        """The step size, over all parameters."""
        return float(self._strategy.sigma)

    def state(self) -> Tensor:
        """All that the search goes on from, as bytes: covariance, paths, random stream, open candidates."""
        # A tensor of bytes can be loaded by torch with weights_only; what is in it, `from_state` alone reads.
        return torch.frombuffer(bytearray(pickle.dumps(vars(self))), dtype=torch.uint8)

    @classmethod
    def from_state(cls, state: Tensor) -> Search:
        """Inverse of :meth:`state`.

        pycma has no other way to keep a strategy than pickle, whose files can carry code. A search is read
        from the ``training_state/`` of a run that is gone on with, which is one's own and not what is shared;
        and nothing is built but what pycma's strategies are made of.

        Raises:
            pickle.UnpicklingError: it names something else.
        """
        search = cls.__new__(cls)
        vars(search).update(_Unpickler(io.BytesIO(state.numpy().tobytes())).load())
        return search


class Normal:
    """Normally distributed numbers, as pycma asks for them, from a generator of its own.

    Args:
        seed: of the generator.
        mirrored: the second half of a sample is the first with the opposite sign.
    """

    def __init__(self, seed: int, mirrored: bool = False) -> None:
        self.rng, self.mirrored = np.random.default_rng(seed), mirrored

    def __call__(self, rows: int, n: int) -> np.ndarray:
        """(rows, n) numbers."""
        if self.mirrored and rows > 1:
            half = self.rng.standard_normal((rows // 2, n))
            return np.concatenate((half, -half))
        return self.rng.standard_normal((rows, n))


def check_memory(n: int, diagonal: bool) -> None:
    """Refuses a covariance of ``n`` parameters that does not fit. Raises UserError."""
    needed, free = MATRICES * 8 * n * n, 0 if diagonal else free_memory()
    if not diagonal and free is not None and needed > free:
        raise UserError(
            f"the full covariance of {n:,} parameters takes about {needed / 2**30:,.1f} GiB, and "
            f"{free / 2**30:,.1f} GiB are free; say algorithm.diagonal=true to adapt variances only, or make "
            f"the network smaller"
        )


def free_memory() -> int | None:
    """Bytes that a process may still take; None where the system does not say."""
    path = Path("/proc/meminfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


class _Unpickler(pickle.Unpickler):
    """Builds a search of ours, arrays, random generators and classes of pycma; refuses everything else."""

    _BUILT = {
        (__name__, "Normal"),
        ("cma.evolution_strategy", "_pass"),
        ("cma.options_parameters", "is_feasible"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.linalg", "eigh"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.random._pcg64", "PCG64"),
        ("numpy.random._pickle", "__bit_generator_ctor"),
        ("numpy.random._pickle", "__generator_ctor"),
        ("numpy.random.bit_generator", "SeedSequence"),
        ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if "." not in name:  # a dotted name could reach what a module has imported
            if (module, name) in self._BUILT:
                return super().find_class(module, name)
            if module.startswith("cma."):
                found = super().find_class(module, name)
                if isinstance(found, type) and found.__module__ == module:
                    return found
        raise pickle.UnpicklingError(f"a saved search holds no {module}.{name}")
