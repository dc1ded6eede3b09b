"""``somite-benchmark learning``: what agents reach in equally many steps, over several seeds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from rich.console import Console

from ...agents.agent import Agent
from ...agents.evaluation.episodes import run_episodes
from ...agents.training.run_callback import RunCallback
from ...envs.errors import UserError
from ...envs.numbers import NAMES, SEED, checked, listed, whole
from .arguments import ARGUMENTS, COUNT
from .results import Results
from .tables import learning_table
from .training_setup import TrainingSetup, compose

EVALUATION_SEED = 1000
"""Starts of the evaluation's episodes, those of ``somite-evaluate``."""


@checked("")
@dataclass
class Learning:
    """Keys of the section ``learning`` of ``conf/benchmark.yaml``.

    A row of the report is one agent with one seed: the returns of its last policy, acting without noise,
    on every seen and unseen body. A seed whose row is in the file is not trained again, so the same
    command goes on after an interruption, or with more seeds.

    Args:
        agents: choices of the group ``agent``, ``naive`` among them.
        seeds: of the training runs.
        steps: environment steps of each run.
        episodes: of each body in the evaluation.
        train: further arguments of ``somite-train`` for all runs.

    Raises:
        UserError: an invalid value.
    """

    agents: Annotated[Sequence[str], NAMES] = ("limb_transformer", "naive")
    seeds: Annotated[Sequence[int], SEED | listed(SEED, 1)] = (0, 1, 2)
    steps: Annotated[int, whole(1)] = 1_000_000
    episodes: Annotated[int, COUNT] = 10
    train: Annotated[Sequence[str], ARGUMENTS] = ()

    def __post_init__(self) -> None:
        if isinstance(self.agents, str):
            self.agents = (self.agents,)
        if isinstance(self.seeds, int):
            self.seeds = (self.seeds,)

    def run(self, results: Results, console: Console) -> None:
        """Train and evaluate what is not in the file yet; print the means over seeds."""
        if results.path is None:
            raise UserError(
                "learning keeps each seed's result in a file and goes on from it: give output=learning.json"
            )
        results.keep_earlier()
        runs = [(agent, seed) for seed in self.seeds for agent in self.agents]
        for agent, _ in runs:
            compose(self._arguments(agent, 0))  # wrong names are refused before hours are spent
        for agent, seed in runs:
            settings = self._settings(agent, seed)
            if any(row.get("settings") == settings for row in results.rows):
                console.print(f"{agent}, seed {seed}: in {results.path} already")
                continue
            console.print(f"{agent}, seed {seed}: {self.steps:,} steps")
            results.add(self._train_and_evaluate(agent, seed, results) | {"settings": settings})
        wanted = [self._settings(agent, seed) for agent, seed in runs]
        rows = [row for row in results.rows if row.get("settings") in wanted]
        console.print(learning_table(f"Returns after {self.steps:,} steps", rows))

    def _settings(self, agent: str, seed: int) -> dict[str, Any]:
        return {
            "agent": agent,
            "seed": seed,
            "steps": self.steps,
            "episodes": self.episodes,
            "train": [str(argument) for argument in self.train],
        }

    def _arguments(self, agent: str, seed: int) -> list[str]:
        return [f"agent={agent}", f"seed={seed}", f"algorithm.total_steps={self.steps}", *self.train]

    def _train_and_evaluate(self, agent: str, seed: int, results: Results) -> dict[str, Any]:
        setup = TrainingSetup(compose(self._arguments(agent, seed)))
        callback = RunCallback(
            setup.rows.env.body_names,
            self.steps,
            save=lambda: None,
            validate=None,
            save_every=self.steps,
            validate_every=0,
        )
        start = time.perf_counter()
        try:
            setup.learner.resume_learning(self.steps, callback)
        finally:
            callback.close()
            setup.rows.close()
        seconds = time.perf_counter() - start
        if callback.stopped_by is not None:
            print(f"stopped; the same command goes on with {agent}, seed {seed}, from {results.path}")
            raise SystemExit(128 + callback.stopped_by)
        bodies, steps = setup.bodies, setup.learner.num_timesteps
        found = run_episodes(
            Agent(setup.policy).act,
            bodies,
            bodies.choose("all"),
            self.episodes,
            EVALUATION_SEED,
            aligned=setup.aligned,
            threads=setup.threads,
        )
        means = {result.body: float(result.returns.mean()) for result in found}
        return {
            "name": f"learning/{agent}/seed{seed}",
            "steps_per_second": steps / seconds,
            "steps": steps,
            "seconds": seconds,
            "seen_mean": _mean(means, bodies.seen),
            "unseen_mean": _mean(means, bodies.unseen),
            "seen": {body: means[body] for body in bodies.seen},
            "unseen": {body: means[body] for body in bodies.unseen},
        }


def _mean(returns: dict[str, float], bodies: Sequence[str]) -> float | None:
    return float(np.mean([returns[body] for body in bodies])) if bodies else None
