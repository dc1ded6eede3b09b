"""Covariance matrix adaptation (Hansen and Ostermeier 2001), by pycma, of a policy's acting parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
import torch

from ...envs.cores import check_memory
from ...envs.errors import UserError
from ...envs.numbers import FLAG, checked, one_of, real, whole
from ..device import threads_for_numpy
from ..policies.base import Policy
from ..rollout.candidates import Normal
from ..rollout.compute import Work
from ..rollout.episodes import Episodes
from ..rollout.population import automatic_shard_size
from ..rollout.stacked import get_parameters
from ..storage.training_state import Misfit, put_graph, take_graph
from ..training.faults import RunFault
from .base import EPISODES, Algorithm, Learner, Setup, Stop

STARTS_SEED = 7_000_003
"""Of the starts that candidates are compared on; neither validation nor evaluation uses them."""

KEPT = ("population", "sigma0", "start", "diagonal", "mirrored")
"""Settings that a search keeps when it is resumed: they are part of its state."""


@checked("algorithm")
@dataclass(kw_only=True)
class CMAES(Algorithm):
    """Settings of CMA-ES; ``conf/algorithm/cma_es.yaml`` says what its keys mean. They count in generations.

    All candidates of a generation meet the same starts, every generation new ones. Numbers depend on
    ``shard_size`` by rounding, and on nothing else of how the work is shared.

    Raises:
        UserError: an invalid value.
    """

    name = "cma_es"
    budget = "generations"
    influences = ("device", "processor")  # shards are of one size, however many threads there are
    precisions = ("float32",)
    spreads = True

    generations: Annotated[int, whole(1)] = 1000
    population: Annotated[int, whole(4, 10**6)] = 256  # with fewer, pycma has no weights to recombine
    episodes: Annotated[int, whole(1, 10**6)] = 16
    sigma0: Annotated[float, real(0, 1000, above=True)] = 0.1
    start: Annotated[str, one_of("auto", "zero", "initial")] = "auto"
    diagonal: Annotated[bool, FLAG] = False
    mirrored: Annotated[bool, FLAG] = False
    shard_size: Annotated[int | str, one_of("auto") | whole(1)] = "auto"
    checkpoint_every: Annotated[int, whole(1)] = 50
    validate_every: Annotated[int, whole()] = 10
    validation_episodes: Annotated[int, EPISODES] = 64
    zero_shot_every: Annotated[int, whole()] = 100

    def __post_init__(self) -> None:
        if self.mirrored and self.population % 2:
            raise UserError(
                f"algorithm.mirrored makes pairs, but algorithm.population is {self.population}; take "
                f"{self.population + 1}"
            )
        if self.shard_size != "auto":
            self.shard_size = min(self.shard_size, self.population)

    def make_learner(self, setup: Setup) -> CMALearner:  # noqa: D102
        return CMALearner(self, setup)

    def charts(self, policy: Policy) -> dict[str, Sequence[str]]:  # noqa: D102
        validation = ("cma/validation_mean$", "cma/validation_best$")
        return {
            "Returns of a generation": ("cma/best$", "cma/mean$", "cma/median$"),
            **({"Validation of the mean and of the best candidate": validation} if self.validates else {}),
            "Step size of the search": ("cma/sigma$",),
        }

    def without_influence(self) -> tuple[str, ...]:  # noqa: D102
        return ("generations", "shard_size")  # what the latter comes to is compared itself

    def memory_setting(self) -> tuple[str, int]:  # noqa: D102
        return "shard_size", self.population if self.shard_size == "auto" else self.shard_size


class CMALearner(Learner):
    """Searches, a generation an update.

    The policy is what was validated last, the mean or the best candidate of its generation, whichever scored
    higher; without validation, the mean.
    """

    def __init__(self, settings: CMAES, setup: Setup) -> None:
        super().__init__(setup)
        self.settings, self._seed = settings, setup.seed
        task = setup.task_set
        if getattr(task, "starts", "random") == "fixed":
            raise UserError(
                "algorithm=cma_es compares candidates on the same starts, new ones every generation; "
                "env.starts=fixed gives every environment its own: leave it at env.starts=random"
            )
        if setup.continued and settings.start == "zero":
            raise UserError(
                "start_from begins the search with what a run has learnt, algorithm.start=zero with zeros: "
                "leave one of them away"
            )
        aligned = setup.policy_class(by_gradient=False).aligned_slots
        one = task.simulated_by("cpu").make_env(task.seen[:1], 1, aligned=aligned, threads=1)
        with closing(one):
            self.policy = setup.make_policy(one)
        start = get_parameters(self.policy)
        # Offsets from the initial parameters and the parameters themselves are the same search.
        begins = setup.continued or settings.start == "initial"
        self.search = Search(settings, start if begins else np.zeros_like(start), setup.learner_seed)
        self.policy.set_flat(self.search.mean)
        self._newest, self._is_chosen = copy.deepcopy(self.policy), False
        size, episodes, self.shard_size = settings.population, settings.episodes, settings.shard_size
        if self.shard_size == "auto":
            spread = setup.compute.spread
            self.shard_size = automatic_shard_size(self.policy, task, size, episodes, spread)
        shared = task, setup.environment, size, episodes, self.shard_size, setup.threads
        self.population = setup.compute.evaluator(Work(self.policy, *shared))

    @property
    def done(self) -> int:
        """Generations made so far."""
        return self.search.generation

    def update(self, stop: Stop) -> dict[str, float] | None:  # noqa: D102
        search = self.search
        # One thread within an operation: the candidates are shared out among threads.
        torch.set_num_threads(1)
        threads_for_numpy(1)
        scores = self.population.evaluate(search.ask(), self._starts(), stop)
        if scores is None:
            return None
        bodies = np.broadcast_to(np.arange(scores.returns.shape[1])[:, None], scores.returns.shape)
        episodes = Episodes(scores.returns.ravel(), scores.lengths.ravel(), bodies.ravel())
        generation = f"generation {search.generation:,}"
        diverged, steps = scores.diverged.sum((0, 2)), scores.lengths.sum((0, 2))
        self.episodes.add(episodes, diverged, steps, generation, only=True)
        fitness = scores.returns.mean((1, 2))  # fitness: (P,)
        search.tell(fitness)
        self.steps += int(scores.lengths.sum())
        if not (self._is_chosen and self.settings.validates):
            self.policy.set_flat(search.mean)
        found = {"generation": search.generation, "best": fitness.max(), "mean": fitness.mean()}
        found |= {"median": np.median(fitness), "sigma": search.sigma}
        return {f"cma/{name}": float(value) for name, value in found.items()}

    def _starts(self) -> list[list[int]]:
        """Seeds of this generation's episodes; they depend on nothing that an interruption changes."""
        # The constant stands first: short keys are filled up with zeros.
        first = [STARTS_SEED, self._seed, self.search.generation]
        return [[*first, episode] for episode in range(self.settings.episodes)]

    def validate(self, score: Callable[[], float]) -> dict[str, float]:
        """Make the policy the better of the search's mean and its best candidate."""
        found = {}
        for name, values in (("mean", self.search.mean), ("best", self.search.best)):
            if values is not None:
                self.policy.set_flat(values)
                found[name] = score()
        best, self._is_chosen = max(found.values()), True
        if found["mean"] >= best:
            self.policy.set_flat(self.search.mean)
        told = {f"cma/validation_{name}": value for name, value in found.items()}
        return {**told, "validation/mean_reward": best}

    def newest(self) -> Policy:  # noqa: D102
        self._newest.set_flat(self.search.mean)
        return self._newest

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {
            "search": self.search.state(),
            "settings": asdict(self.settings),
            "steps": self.steps,
            "is_chosen": self._is_chosen,
            "shard_size": self.shard_size,
            "episodes": self.episodes.snapshot(),
        }

    def restore(self, state: Mapping[str, Any], new_episodes: bool) -> Sequence[str]:  # noqa: D102
        settings, kept = asdict(self.settings), state["settings"]
        for name in KEPT:
            if settings[name] != kept[name]:
                raise UserError(
                    f"algorithm.{name} is {settings[name]!r}, but the run was started with {kept[name]!r}, "
                    "which its search keeps"
                )
        self.search = Search.from_state(self.settings, state["search"])
        self.steps, self._is_chosen = state["steps"], state["is_chosen"]
        if not new_episodes:
            self.episodes.restore(state["episodes"])
        if self.shard_size == state["shard_size"]:
            return ()
        return (f"shards have {self.shard_size} candidates, were of {state['shard_size']}",)

    def close(self) -> None:  # noqa: D102
        self.population.close()


SAMPLES = 4
"""Copies of a generation that the search holds at once."""

MATRICES = 10
"""Square matrices that pycma held at once, when measured with 913 parameters; 7.4 with 2504."""


class Search:
    """pycma's strategy, maximising, from ``start`` (n,) on, with a random stream of its own.

    Attributes:
        generation: generations told so far.
        best: (n,), the best candidate of the last one; None before the first.

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
            RunFault: something of it is not finite; pycma would sort it in silently.
        """
        wrong = np.flatnonzero(~np.isfinite(fitness))
        if len(wrong):
            raise RunFault(
                f"candidate {wrong[0]} of generation {self.generation:,} has the return {fitness[wrong[0]]}; "
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

    def state(self) -> dict[str, Any]:
        """All that the search goes on from, as plain values and tensors; see `take_graph`."""
        own = self._strategy
        return {
            "cma": version("cma"),
            "parameters": len(own.mean),
            # Left out is what a new strategy of the same settings has, too; options hold words that pycma
            # evaluates.
            "graph": take_graph(self, (own.opts, own.inopts, own.inputargs, own.logger, own.sp)),
        }

    @classmethod
    def from_state(cls, settings: Any, state: Any) -> Search:
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
