"""Covariance matrix adaptation (Hansen and Ostermeier 2001), by pycma, of a policy's acting parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from ...envs.cores import check_memory
from ...envs.errors import UserError
from ...envs.numbers import FLAG, SHARE, checked, one_of, real, whole, whole_number
from ..storage.training_state import Misfit, put_graph, take_graph
from .normal import Draw, Normal

STARTS = ("auto", "zero", "initial")
KEPT = ("population", "sigma0", "start", "diagonal", "mirrored")
"""Settings that a search keeps when it is gone on with: they are part of its state."""

SAMPLES = 4
"""Copies of a generation that the search holds at once."""

MATRICES = 10
"""Square matrices that pycma held at once, when measured with 913 parameters; 7.4 with 2504."""


@checked("algorithm")
@dataclass
class CMAES:
    """Settings of CMA-ES; the keys of ``conf/algorithm/cma_es.yaml``.

    Args:
        generations: of the whole run.
        population: candidates of a generation.
        episodes: of each candidate on each training body; all candidates of a generation meet the same
            starts, every generation new ones.
        sigma0: deviation of the parameters at the start.
        start: ``zero``, as the published agent, or ``initial``: the parameters that PPO would begin with, or
            with ``start_from`` those of that run. ``auto``: ``initial`` with ``start_from``, else ``zero``.
        diagonal: adapt variances only, for networks whose full covariance would be too large or too slow.
        mirrored: candidates in pairs, at opposite sides of the mean.
        shard_size: candidates that are simulated together, by whoever does it; ``auto``: what was measured to
            be fast, see docs/scaling.md. Numbers depend on it by rounding, and on nothing else of how the
            work is shared.
        max_diverged: share of a body's steps in a generation that may diverge; beyond it the run stops.
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

    generations: Annotated[int, whole(1)] = 1000
    population: Annotated[int, whole(4, 10**6)] = 256  # with fewer, pycma has no weights to recombine
    episodes: Annotated[int, whole(1, 10**6)] = 16
    sigma0: Annotated[float, real(0, 1000, above=True)] = 0.1
    start: Annotated[str, one_of(*STARTS)] = "auto"
    diagonal: Annotated[bool, FLAG] = False
    mirrored: Annotated[bool, FLAG] = False
    shard_size: Annotated[int | str, one_of("auto") | whole(1)] = "auto"
    max_diverged: Annotated[float, SHARE] = 0.02
    checkpoint_every: Annotated[int, whole(1)] = 50
    keep_checkpoints: Annotated[int, whole()] = 2
    validate_every: Annotated[int, whole()] = 10
    validation_episodes: Annotated[int, whole(0, 10**6)] = 64
    zero_shot_every: Annotated[int, whole()] = 100

    def __post_init__(self) -> None:
        if self.mirrored and self.population % 2:
            raise UserError(
                f"algorithm.mirrored makes pairs, but algorithm.population is {self.population}; take "
                f"{self.population + 1}"
            )
        if self.shard_size != "auto":
            self.shard_size = min(self.shard_size, self.population)

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
        UserError: a full covariance or a generation does not fit into the memory.
    """

    def __init__(self, settings: CMAES, start: np.ndarray, seed: int) -> None:
        n, sample = len(start), 8 * len(start) * settings.population * SAMPLES
        check_memory(
            sample,
            f"a generation of {settings.population:,} candidates with {n:,} parameters",
            "lower algorithm.population, or make the network smaller",
        )
        check_memory(
            0 if settings.diagonal else sample + 8 * n * n * MATRICES,
            f"the full covariance of {n:,} parameters",
            "say algorithm.diagonal=true to adapt variances only, or make the network smaller",
        )
        import cma  # takes seconds, since it imports matplotlib

        options = {
            "popsize": settings.population,
            "CMA_diagonal": settings.diagonal,
            "CMA_mirrors": 0,  # pycma's own, for small populations, draw from NumPy's global stream
            # Not a number: leave NumPy's global stream alone. Ours is saved with the strategy.
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

    def recipe(self) -> Recipe | None:
        """How to draw the open candidates again, where that takes fewer numbers than they are; else None."""
        strategy = self._strategy
        drawn = strategy.opts["randn"].last
        if self._asked is None or drawn is None or not strategy.opts["CMA_diagonal"]:
            return None
        return Recipe(self.mean, strategy.sigma, np.array(strategy.sigma_vec.scaling), drawn)

    def state(self) -> dict[str, Any]:
        """All that the search goes on from: covariance, paths, random stream, open candidates.

        Plain values and tensors; see `take_graph`.
        """
        return {
            "cma": version("cma"),
            "parameters": len(self._strategy.mean),
            "graph": take_graph(self, self._left()),
        }

    @classmethod
    def from_state(cls, settings: CMAES, state: Any) -> Search:
        """Inverse of :meth:`state`.

        Args:
            settings: that the search was made with.
            state: of the search.

        Raises:
            UserError: the state of another search or of another version of pycma, or none at all.
        """
        if isinstance(state, Tensor):
            raise UserError(
                "this search was saved by an earlier version as a pickle, which can carry code and is not "
                "read any more; begin a new run with start_from=<this run>"
            )
        wanted = ("cma", "parameters", "graph")
        if not isinstance(state, dict) or set(state) != set(wanted):
            raise UserError(f"this is no saved search: one has {', '.join(wanted)}")
        if state["cma"] != version("cma"):
            raise UserError(
                f"this search was saved by pycma {state['cma']}, here is {version('cma')}, whose searches "
                f"may be made otherwise; install cma=={state['cma']} to go on with it"
            )
        n = whole_number(state["parameters"], "parameters of a saved search", minimum=1)
        search = cls(settings, np.zeros(n), 0)
        search.ask()  # some parts are made with the first candidates
        try:
            put_graph(search, state["graph"])
            search._check(settings, n)
        except (Misfit, AttributeError) as error:
            raise UserError(f"the saved search does not fit its settings: {error}") from error
        return search

    def _left(self) -> list[Any]:
        """What a new strategy of the same settings has, too; options hold words that pycma evaluates."""
        own = self._strategy
        return [own.opts, own.inopts, own.inputargs, own.logger, own.sp]

    def _check(self, settings: CMAES, n: int) -> None:
        """Raises Misfit: arrays of other shapes than this search has."""
        own = self._strategy
        shapes = {"mean": (own.mean, (n,)), "asked": (self._asked, (settings.population, n))}
        shapes["best"] = self.best, (n,)
        if np.shape(own.sigma_vec.scaling):  # one number for all before the first generation
            shapes["scaling"] = own.sigma_vec.scaling, (n,)
        if not settings.diagonal:
            shapes |= {name: (getattr(own.sm, name), (n, n)) for name in ("B", "C")}
            shapes["D"] = own.sm.D, (n,)
        for name, (found, wanted) in shapes.items():
            if found is not None and np.shape(found) != wanted:
                raise Misfit(f"{name} has the shape {np.shape(found)}, not {wanted}")
        if type(self.generation) is not int or self.generation < 0:
            raise Misfit(f"the generation is {self.generation!r}")


@dataclass(frozen=True)
class Recipe:
    """Candidates as what they were drawn from: mean + sigma * (scaling * z), where z has a seed for each row.

    Attributes:
        mean: (n,).
        sigma: the step size.
        scaling: (n,) or (), of each parameter's deviation.
        drawn: of the last rows; candidates before them were made otherwise.
    """

    mean: np.ndarray
    sigma: float
    scaling: np.ndarray
    drawn: Draw

    def rows(self, part: slice) -> np.ndarray:
        """(rows, n) candidates of a part of ``drawn``, in pycma's order of operations."""
        return self.mean + self.sigma * (self.scaling * self.drawn[part].rows(len(self.mean)))

    def without_draw(self) -> Recipe:
        """What candidates of all parts have in common."""
        return replace(self, drawn=self.drawn[:0])
