"""``somite-benchmark locomotion``: simulation against its rivals, and PPO with its phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated

import hydra
from rich.console import Console

from ...agents.device import set_threads
from ...envs.locomotion import BodySet
from ...envs.numbers import VALUES, checked
from . import process_rivals, simulation
from .arguments import ARGUMENTS, COUNT, ROUNDS_OR_NONE, SECONDS
from .ppo_speed import ppo_configs, ppo_rows
from .rates import interleave, make_rows, stepping
from .results import Results
from .tables import keep
from .training_setup import compose

ANT = "ant"
CHEETAHS = "cheetahs"


@checked("")
@dataclass
class Locomotion:
    """Keys of the section ``locomotion`` of ``conf/benchmark.yaml``.

    Args:
        num_envs: rows of the Ant.
        rows_per_body: rows of each training cheetah.
        seconds: of each rival's turn in a round of the simulations.
        rounds: of the simulations; 0 to leave them out.
        iterations: of each PPO variant, after one that is not counted; 0 to leave PPO out.
        ppo: arguments of ``somite-train`` for each variant by name.
        train: further arguments for all variants.

    Raises:
        UserError: an invalid value.
    """

    num_envs: Annotated[int, COUNT] = 64
    rows_per_body: Annotated[int, COUNT] = 16
    seconds: Annotated[float, SECONDS] = 3.0
    rounds: Annotated[int, ROUNDS_OR_NONE] = 5
    iterations: Annotated[int, ROUNDS_OR_NONE] = 2
    ppo: Annotated[Mapping[str, Sequence[str]], VALUES] = field(default_factory=dict)
    train: Annotated[Sequence[str], ARGUMENTS] = ()

    def run(self, results: Results, console: Console) -> None:
        """Measure, keep rows, print tables."""
        configs = ppo_configs(self.ppo, self.train) if self.iterations else {}
        with console.status("starting") as status:
            announce = status.update
            if self.rounds:
                rows = self._ant(announce) + self._cheetahs(announce)
                keep(rows, f"Simulation, median of {self.rounds} rounds", results, console)
            if configs:
                rows = ppo_rows(configs, self.iterations, announce)
                keep(rows, f"PPO, median of {self.iterations} iterations", results, console)

    def _ant(self, announce: Callable[[str], None]) -> list[dict]:
        """Rivals on 64 ants: Batch.step alone, ours, one process per environment twice."""
        bodies = _bodies(ANT)
        actions = simulation.random_actions((self.num_envs, 8))
        with ExitStack() as stack:
            steps = _bare_and_ours(bodies, self.num_envs, ANT, stack)
            for name, rival in (
                ("gymnasium_async", process_rivals.gymnasium_async),
                ("sb3_subproc", process_rivals.sb3_subproc),
            ):
                announce(f"{ANT}: starting {self.num_envs} processes")
                steps[f"{ANT}/{name}"] = stack.enter_context(rival(self.num_envs, actions))
            return self._step_in_turns(steps, self.num_envs, announce)

    def _cheetahs(self, announce: Callable[[str], None]) -> list[dict]:
        """Ours on all training cheetahs against their bare batches."""
        bodies = _bodies("cheetah")
        with ExitStack() as stack:
            steps = _bare_and_ours(bodies, self.rows_per_body, CHEETAHS, stack)
            return self._step_in_turns(steps, self.rows_per_body * len(bodies.seen), announce)

    def _step_in_turns(
        self, steps: Mapping[str, Callable[[], None]], num_envs: int, announce: Callable[[str], None]
    ) -> list[dict]:
        set_threads("auto")
        measures = {name: stepping(s, num_envs, self.seconds) for name, s in steps.items()}
        warm_up = {name: stepping(s, num_envs, self.seconds / 10) for name, s in steps.items()}
        interleave(warm_up, 1, announce)
        rates = interleave(measures, self.rounds, announce)
        against = [name for name in rates if not name.endswith("/somite")]
        rows = make_rows(rates, against, {name: {"num_envs": num_envs} for name in rates})
        for row in rows:  # ours is compared with each, these not with each other
            if not row["name"].endswith("/somite"):
                row["ratios"] = {}
        return rows


def _bare_and_ours(
    bodies: BodySet, rows_per_body: int, name: str, stack: ExitStack
) -> dict[str, Callable[[], None]]:
    env, step = simulation.ours(bodies, rows_per_body)
    stack.callback(env.close)
    return {f"{name}/bare": simulation.bare(bodies, rows_per_body), f"{name}/somite": step}


def _bodies(env: str) -> BodySet:
    return hydra.utils.instantiate(compose([f"env={env}"]).env, _convert_="all")
