"""A run of CMA-ES."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from ...envs.errors import UserError
from ..algorithms.cma_es import CMAES, KEPT, Search
from ..composition import build_policy, policy_class
from ..device import threads_for_numpy
from ..rollout.compute import compute_of
from ..rollout.population import Scores, count_parameters, get_parameters, set_parameters
from .divergence import check_physics
from .exactness import Changes
from .faults import RunFault
from .progress import Progress
from .run import Run
from .run_callback import record_bodies
from .signals import StopSignals

log = logging.getLogger(__name__)

STARTS_SEED = 7_000_003
"""Of the starts that candidates are compared on; neither validation nor evaluation uses them."""


class CMARun(Run):
    """See :class:`~somite.agents.training.run.Run`.

    The policy is what was validated last: the mean of the search or the best candidate of its generation,
    whichever scored higher; without validation, the mean. A run that is told to stop validates nothing out of
    turn, so that it ends at once and goes on as if it had never been stopped.
    """

    algorithm: CMAES
    name = "cma_es"
    budget = "generations"
    influences = ("device", "processor")  # shards are of one size, however many threads there are

    def __init__(self, config: DictConfig, folder: Path, device: torch.device) -> None:
        self._compute = compute_of(config)
        if self._compute.spread:
            self.needs_cpu = f"compute={self._compute.name} simulates on the processors of its cluster"
        super().__init__(config, folder, device)
        settings, simulation = self.algorithm, self.simulation
        if getattr(self.bodies, "starts", "random") == "fixed":
            raise UserError(
                "algorithm=cma_es compares candidates on the same starts, new ones every generation; "
                "env.starts=fixed gives every row its own: leave it at env.starts=random"
            )
        self.policy = self._build_policy(config).to(device)
        self.start_policy()
        continued = bool(config.get("start_from"))
        if continued and settings.start == "zero":
            raise UserError(
                "start_from begins the search with what a run has learnt, algorithm.start=zero with zeros: "
                "leave one of them away"
            )
        # On a GPU one part keeps the device busy; its simulation still has the cores.
        self.shard_size = self._compute.shard_size(settings, self.bodies, self.policy, device, simulation)
        self._steps, self._chosen_at, self._in_turn = 0, -1, True
        self._diverged = 0
        if self.state:
            self._restore(self.state)
        else:
            start = get_parameters(self.policy)
            # Offsets from the initial parameters and the parameters themselves are the same search.
            start = start if continued or settings.start == "initial" else np.zeros_like(start)
            self.search = Search(settings, start, self.learner_seed)
            set_parameters(self.policy, start)
        environment = OmegaConf.to_container(config.env, resolve=True)
        self.population = self._compute.evaluator(
            settings, self.policy, self.bodies, environment, self.threads, device, simulation
        )
        self.logger = self.make_logger()

    def _build_policy(self, config: DictConfig) -> Any:
        aligned = policy_class(config.agent, self.bodies.kind).aligned_slots
        env = self.bodies.make_vec(self.bodies.seen, len(self.bodies.seen), aligned=aligned, threads=1)
        with closing(env):
            return build_policy(config.agent, env)

    @property
    def steps(self) -> int:
        """Environment steps made so far, of episodes that were counted."""
        return self._steps

    @property
    def done(self) -> int:
        """Generations made so far."""
        return self.search.generation

    def learn(self) -> None:  # noqa: D102
        search, generations = self.search, self.algorithm.generations
        self.check_budget("generations", search.generation)
        log.info("searching %s parameters; run folder: %s", f"{count_parameters(self.policy):,}", self.folder)
        # One thread within an operation: the candidates are shared out among threads.
        torch.set_num_threads(1)
        threads_for_numpy(1)
        try:
            with StopSignals() as signals:
                self._search_until(generations, signals)
            if self._chosen_at < 0 or not self.algorithm.validates:
                set_parameters(self.policy, search.mean)
            self.save()
        finally:
            self.population.close()  # after saving: a cluster that is told to stop, too, takes its time
        if search.generation >= generations:
            self.dashboard.finish()
        self.logger.close()
        if signals.received is not None and search.generation < generations:
            self.leave(signals.received)
        log.info("done; evaluate with: %s", self.command_to("somite-evaluate", "run"))

    def _search_until(self, generations: int, signals: StopSignals) -> None:
        search = self.search
        progress, self._begun = Progress(0), time.perf_counter()
        progress.start(self.steps)
        try:
            while search.generation < generations and signals.received is None:
                scores = self.population.evaluate(
                    search.ask(), self._starts(), lambda: signals.received is not None, search.recipe()
                )
                if scores is not None:  # else the generation is begun anew when the run goes on
                    self._take_in(scores)
                    # Generations to come are taken to have as many steps as the last.
                    left = (generations - search.generation) * int(scores.lengths.sum())
                    progress.update(self.steps, float(scores.returns.mean()), total=self.steps + left)
        finally:
            progress.close()

    def _starts(self) -> list[list[int]]:
        """Seeds of this generation's episodes; they depend on nothing that an interruption changes."""
        # The constant stands first: short keys are filled up with zeros.
        first = [STARTS_SEED, int(self.config.seed), self.search.generation]
        return [[*first, episode] for episode in range(self.algorithm.episodes)]

    def _check(self, scores: Scores, fitness: np.ndarray) -> None:
        """Counts what diverged. Raises RunFault: too much did, or scores are not finite; the run is saved."""
        generation = f"generation {self.search.generation:,}"
        try:
            diverged, steps = scores.diverged.sum((0, 2)), scores.lengths.sum((0, 2))
            most, bodies = self.algorithm.max_diverged, self.bodies
            check_physics(diverged, steps, bodies.seen, most, generation, bodies.has_physics)
            if not np.isfinite(fitness).all():
                wrong = int(np.flatnonzero(~np.isfinite(fitness))[0])
                raise RunFault(f"candidate {wrong} of {generation} has the return {fitness[wrong]}")
        except RunFault:
            self.save()
            raise
        self._diverged += int(scores.diverged.sum())

    def _take_in(self, scores: Scores) -> None:
        """Move the search on by a generation; log it, validate and save where it is time to."""
        search, settings, record = self.search, self.algorithm, self.logger.record
        fitness = scores.returns.mean((1, 2))  # fitness: (P,)
        self._check(scores, fitness)
        search.tell(fitness)
        self._steps += int(scores.lengths.sum())
        record("cma/generation", search.generation)
        record("cma/best", float(fitness.max()))
        record("cma/mean", float(fitness.mean()))
        record("cma/median", float(np.median(fitness)))
        record("cma/sigma", search.sigma)
        record("rollout/ep_rew_mean", float(scores.returns.mean()))
        record("rollout/ep_len_mean", float(scores.lengths.mean()))
        record("rollout/diverged", self._diverged)
        record_bodies(self.logger, dict(zip(self.bodies.seen, scores.returns.mean((0, 2)), strict=True)))
        record("time/fps", (self.steps - self.start_steps) / (time.perf_counter() - self._begun))
        last = search.generation >= settings.generations
        due = search.generation % settings.checkpoint_every == 0
        saves = due and not last
        validates = due or (settings.validates and search.generation % settings.validate_every == 0)
        tries = bool(settings.zero_shot_every) and search.generation % settings.zero_shot_every == 0
        self._in_turn = (
            not last or (validates or not settings.validates) and (tries or not self.dashboard.suite)
        )
        if validates or last:
            self._choose()
        if self.dashboard.suite and (tries or last):
            self._try_out()
        self.record_zero_shot_share(self.logger, self._begun)
        self.logger.dump(self.steps)
        if saves:
            self.save()

    def _choose(self) -> None:
        """Make the policy what it is to be saved as."""
        search = self.search
        self._chosen_at = search.generation
        if not self.algorithm.validates:
            set_parameters(self.policy, search.mean)
            return
        found = {}
        for name, values in (("mean", search.mean), ("best", search.best)):
            if values is not None:
                set_parameters(self.policy, values)
                found[name] = self.validate()
                self.logger.record(f"cma/validation_{name}", found[name])
        if found["mean"] >= max(found.values()):
            set_parameters(self.policy, search.mean)
        self.logger.record("validation/mean_reward", max(found.values()))

    def _try_out(self) -> None:
        """Log the zero-shot scores of the search's mean; the policy stays what has been chosen."""
        chosen = get_parameters(self.policy)
        set_parameters(self.policy, self.search.mean)
        self.record_zero_shot(self.logger)
        set_parameters(self.policy, chosen)

    def without_influence(self) -> tuple[str, ...]:  # noqa: D102
        return ("generations", "shard_size")  # what the latter comes to is compared itself

    def training_state(self) -> dict[str, Any]:  # noqa: D102
        return {
            "search": self.search.state(),
            "num_timesteps": self.steps,
            "best_score": float(self.best_score),
            "chosen_at": self._chosen_at,
            "in_turn": self._in_turn,
            "shard_size": self.shard_size,
            "diverged": self._diverged,
            "algorithm": asdict(self.algorithm),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        settings, kept = asdict(self.algorithm), state["algorithm"]
        for name in KEPT:
            if settings[name] != kept[name]:
                raise UserError(
                    f"algorithm.{name} is {settings[name]!r}, but {self.folder} was started with "
                    f"{kept[name]!r}, which its search keeps"
                )
        self.load_saved_policy()
        self.search = Search.from_state(self.algorithm, state["search"])
        self._steps, self._chosen_at = state["num_timesteps"], state["chosen_at"]
        self.best_score, self._diverged = state["best_score"], state["diverged"]
        self._note_differences(state)
        log.info("going on from generation %s of %s", f"{self.search.generation:,}", self.folder)
        self.say_changes()

    def _note_differences(self, state: dict[str, Any]) -> None:
        """What of a search, too, makes the rest another than it would have been without a stop."""
        notes = list(self.changes.notes)
        if self.shard_size != state["shard_size"]:
            notes.append(f"shards have {self.shard_size} candidates, were of {state['shard_size']}")
        if not state["in_turn"]:
            notes.append(
                f"generation {self.search.generation:,} was the last of its budget and was validated or "
                "tried out of turn, which may have made best/ another; the search is the same"
            )
        self.changes = Changes(tuple(notes), new_episodes=False)  # every generation begins new ones
