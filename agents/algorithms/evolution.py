"""What searches of a policy's acting parameters have in common: candidates, generations, what is saved."""

# No postponed annotations: those of settings are read where subclasses are, in other modules.
import abc
import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch

from ...envs.errors import UserError
from ...envs.numbers import one_of, whole
from ..device import threads_for_numpy
from ..policies.base import Policy
from ..rollout.compute import Work
from ..rollout.episodes import Episodes
from ..rollout.population import automatic_shard_size
from ..rollout.stacked import get_parameters
from ..training.faults import RunFault
from .base import EPISODES, Algorithm, Learner, Setup, Stop

log = logging.getLogger(__name__)

STARTS_SEED = 7_000_003
"""Of the starts that candidates are compared on; neither validation nor evaluation uses them."""


class Search(abc.ABC):
    """Where candidates come from, and what is made of what they reach; it maximises.

    Attributes:
        generation: generations told so far.
    """

    generation = 0

    @abc.abstractmethod
    def ask(self) -> np.ndarray:
        """Candidates (P, n); the same again until they are told."""

    @abc.abstractmethod
    def tell(self, fitness: np.ndarray) -> None:
        """Take in what the candidates have reached, (P,), and move on. Raises RunFault: not finite."""

    @abc.abstractmethod
    def found(self) -> dict[str, np.ndarray]:
        """What could be the policy, (n,) each, by name; the first one is, where nothing is validated."""

    @abc.abstractmethod
    def scalars(self) -> dict[str, float]:
        """Of the search itself, for the curves."""

    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """All that the search goes on from, as plain values and tensors."""

    def begin_anew(self) -> bool:
        """Search as at first, from where it is, since it has stopped moving; False: it does not do that."""
        return False


def refuse_not_finite(fitness: np.ndarray, generation: int) -> None:
    """Raises RunFault: a candidate's fitness (P,) is not finite; it would be sorted in silently."""
    wrong = np.flatnonzero(~np.isfinite(fitness))
    if len(wrong):
        raise RunFault(
            f"candidate {wrong[0]} of generation {generation:,} has the return {fitness[wrong[0]]}; "
            f"{len(wrong)} of {len(fitness)} are not finite"
        )


@dataclass(kw_only=True)
class Evolution(Algorithm):
    """Settings of a search, which count in generations; see the algorithms' files in ``conf/algorithm``.

    Numbers depend on ``shard_size`` by rounding, and on nothing else of how the work is shared.
    """

    budget = "generations"
    influences = ("device", "processor")  # shards are of one size, however many threads there are
    precisions = ("float32",)
    spreads = True
    prefix: ClassVar[str]
    """Of the names of its scalars."""
    kept: ClassVar[tuple[str, ...]] = ()
    """Settings that a search keeps when it is resumed: they are part of its state."""

    generations: Annotated[int, whole(1)] = 1000
    population: Annotated[int, whole(4, 10**6)] = 256  # with fewer, pycma has no weights to recombine
    episodes: Annotated[int, whole(1, 10**6)] = 16
    start: Annotated[str, one_of("auto", "zero", "initial")] = "auto"
    shard_size: Annotated[int | str, one_of("auto") | whole(1)] = "auto"
    stalled_after: Annotated[int, whole()] = 200
    checkpoint_every: Annotated[int, whole(1)] = 50
    validate_every: Annotated[int, whole()] = 10
    validation_episodes: Annotated[int, EPISODES] = 64
    zero_shot_every: Annotated[int, whole()] = 100

    def __post_init__(self) -> None:
        if "auto" not in (self.shard_size, self.population):
            self.shard_size = min(self.shard_size, self.population)

    def make_learner(self, setup: Setup) -> "EvolutionLearner":  # noqa: D102
        return EvolutionLearner(self, setup)

    @property
    @abc.abstractmethod
    def starts_at_zero(self) -> bool:
        """Whether ``start=auto`` means zeros, and not the policy's first parameters."""

    @abc.abstractmethod
    def make_search(self, start: np.ndarray, seed: int) -> Search:
        """From ``start`` (n,) on. Raises UserError: the memory does not suffice."""

    @abc.abstractmethod
    def load_search(self, state: Any) -> Search:
        """Inverse of `Search.state`. Raises UserError: the state of another search."""

    def sized(self, bodies: int, on_gpu: bool) -> Self:
        """With what was left to be chosen for so many bodies."""
        return self

    def seeds(self, key: Sequence[int]) -> list[list[int]]:
        """Seeds of a generation's episodes from the ``key`` of the generation; see `Population.evaluate`."""
        return [[*key, episode] for episode in range(self.episodes)]

    def fitness(self, returns: np.ndarray) -> np.ndarray:
        """Of candidates (P,), from the returns of episodes (P, M, E)."""
        return returns.mean((1, 2))

    def charts(self, policy: Policy) -> dict[str, Sequence[str]]:  # noqa: D102
        found = {"Returns of a generation": tuple(f"{self.prefix}/{n}$" for n in ("best", "mean", "median"))}
        if self.validates:
            found["Validation of what the search has found"] = (f"{self.prefix}/validation_",)
        return found

    def without_influence(self) -> tuple[str, ...]:  # noqa: D102
        return ("generations", "shard_size", "stalled_after")  # what the second comes to is compared itself

    def memory_setting(self) -> tuple[str, int]:  # noqa: D102
        at_once = self.sized(1, on_gpu=True).population if self.shard_size == "auto" else self.shard_size
        return "shard_size", at_once


class EvolutionLearner(Learner):
    """Searches, a generation an update.

    The policy is what was validated last, whichever of what the search had found scored highest; without
    validation, the first of these.
    """

    def __init__(self, settings: Evolution, setup: Setup) -> None:
        super().__init__(setup)
        task = setup.task_set
        on_gpu = setup.device.type != "cpu" and not setup.compute.spread
        settings = settings.sized(len(task.seen), on_gpu)
        self.settings, self._seed = settings, setup.seed
        if getattr(task, "starts", "random") == "fixed":
            raise UserError(
                f"algorithm={settings.name} compares candidates on the same starts, new ones every "
                "generation; env.starts=fixed gives every environment its own: leave it at env.starts=random"
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
        at_zero = settings.start == "zero" or (settings.start == "auto" and settings.starts_at_zero)
        # Offsets from the initial parameters and the parameters themselves are the same search.
        begins = setup.continued or not at_zero
        self.search = settings.make_search(start if begins else np.zeros_like(start), setup.learner_seed)
        self._take_first()
        self._newest, self._is_chosen = copy.deepcopy(self.policy), False
        self._reached: list[float] = []  # mean returns of the last generations, where stalls are looked for
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

    def _take_first(self) -> None:
        self.policy.set_flat(next(iter(self.search.found().values())))

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
        reached = scores.returns.mean((1, 2))  # reached: (P,)
        search.tell(self.settings.fitness(scores.returns))
        self.steps += int(scores.lengths.sum())
        if not (self._is_chosen and self.settings.validates):
            self._take_first()
        self._look_for_a_stall(float(reached.mean()))
        found = {"generation": search.generation, "best": reached.max(), "mean": reached.mean()}
        found |= {"median": np.median(reached), **search.scalars()}
        return {f"{self.settings.prefix}/{name}": float(value) for name, value in found.items()}

    def _look_for_a_stall(self, mean: float) -> None:
        """Say so, and begin anew, where candidates of late have reached no more than those before."""
        count = self.settings.stalled_after
        if not count:
            return
        self._reached = [*self._reached[1 - 2 * count :], mean]
        if len(self._reached) < 2 * count:
            return
        before, late = np.mean(self._reached[:count]), np.mean(self._reached[count:])
        if late > before:
            return
        self._reached.clear()
        now = ", ".join(f"{name} {value:.3g}" for name, value in self.search.scalars().items())
        log.warning(
            "the search has stopped moving: over %s generations (algorithm.stalled_after) candidates reached "
            "%.4g, before %.4g; %s%s", count, late, before, now,
            "; it begins anew from here" if self.search.begin_anew() else "",
        )  # fmt: skip

    def _starts(self) -> list[list[int]]:
        """Seeds of this generation's episodes; they depend on nothing that an interruption changes."""
        # The constant stands first: short keys are filled up with zeros.
        return self.settings.seeds([STARTS_SEED, self._seed, self.search.generation])

    def validate(self, score: Callable[[], float]) -> dict[str, float]:
        """Make the policy the best of what the search has found."""
        values, told = self.search.found(), {}
        for name, own in values.items():
            self.policy.set_flat(own)
            told[name] = score()
        chosen = max(told, key=told.__getitem__)  # of equal ones the first
        self.policy.set_flat(values[chosen])
        self._is_chosen = True
        prefixed = {f"{self.settings.prefix}/validation_{name}": value for name, value in told.items()}
        return {**prefixed, "validation/mean_reward": told[chosen]}

    def newest(self) -> Policy:  # noqa: D102
        self._newest.set_flat(next(iter(self.search.found().values())))
        return self._newest

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {
            "search": self.search.state(),
            "settings": asdict(self.settings),
            "steps": self.steps,
            "is_chosen": self._is_chosen,
            "shard_size": self.shard_size,
            "reached": list(self._reached),
            "episodes": self.episodes.snapshot(),
        }

    def restore(self, state: Mapping[str, Any], new_episodes: bool) -> Sequence[str]:  # noqa: D102
        settings, kept = asdict(self.settings), state["settings"]
        for name in self.settings.kept:
            if settings[name] != kept[name]:
                raise UserError(
                    f"algorithm.{name} is {settings[name]!r}, but the run was started with {kept[name]!r}, "
                    "which its search keeps"
                )
        self.search = self.settings.load_search(state["search"])
        self.steps, self._is_chosen = state["steps"], state["is_chosen"]
        self._reached = list(state.get("reached", []))  # runs of before have none
        if not new_episodes:
            self.episodes.restore(state["episodes"])
        now = {"a generation": settings["population"], "a shard": self.shard_size}
        before = {"a generation": kept["population"], "a shard": state["shard_size"]}
        return [f"{n} has {now[n]} candidates, had {before[n]}" for n in now if now[n] != before[n]]

    def close(self) -> None:  # noqa: D102
        self.population.close()
