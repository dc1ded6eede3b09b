"""pycma's search (Hansen and Ostermeier 2001), with a random stream of its own and a state without pickle."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from ...envs.cores import check_memory
from ...envs.errors import UserError
from ...envs.numbers import whole_number
from ..rollout.candidates import Normal, Recipe
from ..storage.training_state import Misfit, put_graph, take_graph

SAMPLES = 4
"""Copies of a generation that the search holds at once."""

MATRICES = 10
"""Square matrices that pycma held at once, when measured with 913 parameters; 7.4 with 2504."""


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

    def __init__(self, settings: Any, start: np.ndarray, seed: int) -> None:
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
    def from_state(cls, settings: Any, state: Any) -> Search:
        """Inverse of :meth:`state`.

        Args:
            settings: that the search was made with.
            state: of the search.

        Raises:
            UserError: the state of another search or of another version of pycma, or none at all.
        """
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

    def _check(self, settings: Any, n: int) -> None:
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
