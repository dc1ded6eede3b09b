"""Covariance matrix adaptation (Hansen and Ostermeier 2001), by pycma, of a policy's acting parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np

from ...envs.cores import check_memory
from ...envs.errors import UserError
from ...envs.numbers import FLAG, checked, real, whole
from ..policies.base import Policy
from ..rollout.candidates import Normal
from ..storage.training_state import Misfit, put_graph, take_graph
from .evolution import Evolution, Search, refuse_not_finite


@checked("algorithm")
@dataclass(kw_only=True)
class CMAES(Evolution):
    """Settings of CMA-ES; ``conf/algorithm/cma_es.yaml`` says what its keys mean. They count in generations.

    All candidates of a generation meet the same starts, every generation new ones.

    Raises:
        UserError: an invalid value.
    """

    name = "cma_es"
    prefix = "cma"
    kept = ("population", "sigma0", "start", "diagonal", "mirrored")
    starts_at_zero = True  # as the published agent

    sigma0: Annotated[float, real(0, 1000, above=True)] = 0.1
    diagonal: Annotated[bool, FLAG] = False
    mirrored: Annotated[bool, FLAG] = False
    min_sigma: Annotated[float, real(0)] = 0.0
    restarts: Annotated[int, whole()] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mirrored and self.population % 2:
            raise UserError(
                f"algorithm.mirrored makes pairs, but algorithm.population is {self.population}; take "
                f"{self.population + 1}"
            )

    def make_search(self, start: np.ndarray, seed: int) -> CMASearch:  # noqa: D102
        return CMASearch(self, start, seed)

    def load_search(self, state: Any) -> CMASearch:  # noqa: D102
        return CMASearch.from_state(self, state)

    def charts(self, policy: Policy) -> dict[str, Sequence[str]]:  # noqa: D102
        return {**super().charts(policy), "Step size of the search": ("cma/sigma$",)}

    def without_influence(self) -> tuple[str, ...]:  # noqa: D102
        return tuple(n for n in super().without_influence() if n != "stalled_after" or not self.restarts)


SAMPLES = 4
"""Copies of a generation that the search holds at once."""

MATRICES = 10
"""Square matrices that pycma held at once, when measured with 913 parameters; 7.4 with 2504."""


class CMASearch(Search):
    """pycma's strategy, maximising, from ``start`` (n,) on, with a random stream of its own.

    Attributes:
        generation: generations told so far.
        best: (n,), the best candidate of the last one; None before the first.
        begun_anew: so often, see `begin_anew`.

    Raises:
        UserError: a full covariance or a generation does not fit into the memory.
    """

    def __init__(self, settings: Any, start: np.ndarray, seed: int) -> None:
        n, size, smaller = len(start), settings.population, "or make the network smaller"
        sample = 8 * n * size * SAMPLES
        what = f"a generation of {size:,} candidates with {n:,} parameters"
        check_memory(sample, what, f"lower algorithm.population, {smaller}")
        if not settings.diagonal:
            advice = f"say algorithm.diagonal=true to adapt variances only, {smaller}"
            check_memory(sample + 8 * n * n * MATRICES, f"the full covariance of {n:,} parameters", advice)
        self.settings = settings
        self._begin(start, Normal(seed, settings.mirrored))
        self.generation, self.best, self.begun_anew = 0, None, 0

    def _begin(self, start: np.ndarray, normal: Normal) -> None:
        import cma  # takes seconds, since it imports matplotlib

        settings = self.settings
        options = {
            "popsize": settings.population,
            "CMA_diagonal": settings.diagonal,
            "CMA_mirrors": 0,  # pycma's own, for small populations, draw from NumPy's global stream
            # Not a number: leave NumPy's global stream alone. Ours is saved with the strategy.
            "seed": np.nan,
            "randn": normal,
            "verbose": -9,
            "verb_log": 0,  # writes no files
        }
        self._strategy = cma.CMAEvolutionStrategy(start, settings.sigma0, options)
        self._asked: np.ndarray | None = None

    def ask(self) -> np.ndarray:
        """Candidates (P, n); the same again until they are told."""
        if self._asked is None:
            self._asked = np.asarray(self._strategy.ask())
        return self._asked

    def tell(self, fitness: np.ndarray) -> None:
        """Take in what the candidates have reached, (P,), and move on.

        Raises:
            RunFault: something of it is not finite; pycma would sort it in silently.
        """
        refuse_not_finite(fitness, self.generation)
        candidates = self.ask()
        self._strategy.tell(list(candidates), (-fitness).tolist())  # it minimises
        self._strategy.sigma = max(self._strategy.sigma, self.settings.min_sigma)
        self.best = candidates[np.argmax(fitness)].copy()
        self._asked = None
        self.generation += 1

    def found(self) -> dict[str, np.ndarray]:
        """Its mean, and the best candidate of the last generation."""
        return {"mean": self.mean} | ({} if self.best is None else {"best": self.best})

    def scalars(self) -> dict[str, float]:  # noqa: D102
        return {"sigma": self.sigma}

    def begin_anew(self) -> bool:
        """With the first step size and no covariance, from the mean on; False: not so often."""
        if self.begun_anew == self.settings.restarts:
            return False
        self.begun_anew += 1
        self._begin(self.mean, self._strategy.opts["randn"])
        return True

    @property
    def mean(self) -> np.ndarray:
        """(n,) centre of the distribution."""
        return np.array(self._strategy.mean)

    @property
    def sigma(self) -> float:
        """The step size, over all parameters."""
        return float(self._strategy.sigma)

    def state(self) -> dict[str, Any]:
        """All that the search goes on from, as plain values and tensors; see `take_graph`."""
        own = self._strategy
        return {
            "cma": version("cma"),
            "parameters": len(own.mean),
            # Left out is what a new strategy of the same settings has, too; options hold words that pycma
            # evaluates.
            "graph": take_graph(
                self, (self.settings, own.opts, own.inopts, own.inputargs, own.logger, own.sp)
            ),
        }

    @classmethod
    def from_state(cls, settings: Any, state: Any) -> CMASearch:
        """Inverse of `state`, with the settings that the search was made with.

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
        n = whole(1).read("parameters of a saved search", state["parameters"])
        search = cls(settings, np.zeros(n), 0)
        search.ask()  # some parts are made with the first candidates
        try:
            put_graph(search, state["graph"])
            search.settings = settings
            vars(search).setdefault("begun_anew", 0)  # searches of before do not count that
            search._check(settings, n)
        except (Misfit, AttributeError) as error:
            raise UserError(f"the saved search does not fit its settings: {error}") from error
        return search

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
