"""``somite-benchmark bodies``: what varied, different and mixed bodies cost in stepping speed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any

import hydra
from rich.console import Console

from ...agents.device import set_threads
from ...envs.locomotion import BodySet, BodyVariation, Morphology, build
from ...envs.locomotion.varied.variants import compile_variants
from ...envs.locomotion.varied.variation import QUANTITIES
from ...envs.numbers import TEXT, between, checked, listed, real
from .arguments import ARGUMENTS, COUNT, ROUNDS, SECONDS
from .rates import Measure, interleave, make_rows, stepping
from .results import Results
from .simulation import random_actions
from .tables import ratio_table, speed_table
from .training_setup import compose

RIVALS = {"ants/varied": "ants/equal", "ants/different": "ants/equal", "topologies/mixed": "topologies/alone"}
"""Rows that are compared, and with what."""


@checked("")
@dataclass
class Bodies:
    """Keys of the section ``bodies`` of ``conf/benchmark.yaml``.

    The rows are

    * ``ants/equal``: one compiled body, a batch for all;
    * ``ants/varied``: every parameter of every limb drawn anew at the start of each episode;
    * ``ants/different``: as many compiled bodies as rows, which share a layout;
    * ``topologies/alone``: the mean speed of all ``topologies``, each alone in as many rows as the mixed
      environment has, weighted as its rows are: steps of all divided by the time of all;
    * ``topologies/mixed``: all of them in one environment.

    Args:
        num_envs: rows of the ants.
        rows_per_topology: rows of each body of ``topologies`` when they are mixed.
        topologies: bodies of different structure.
        factors: [low, high] of everything that varies.
        seconds: of each row's turn in a round.
        rounds: how many.
        train: further arguments of ``somite-train`` for all, such as ``env.frame_skip=2``.

    Raises:
        UserError: an invalid value.
    """

    num_envs: Annotated[int, COUNT] = 64
    rows_per_topology: Annotated[int, COUNT] = 8
    topologies: Annotated[Sequence[str], listed(TEXT, 1)] = field(default_factory=list)
    factors: Annotated[Sequence[float], between(real(0, 1000, above=True))] = (0.8, 1.25)
    seconds: Annotated[float, SECONDS] = 3.0
    rounds: Annotated[int, ROUNDS] = 5
    train: Annotated[Sequence[str], ARGUMENTS] = ()

    def run(self, results: Results, console: Console) -> None:
        """Measure, keep rows, print tables."""
        ants, planar = (self._bodies(env) for env in ("ant", "cheetah"))
        set_threads("auto")
        with console.status("compiling") as status, ExitStack() as stack:

            def stepper(bodies: Sequence[Any], source: BodySet, rows: int, **options: Any) -> Callable:
                env = source.make_vec(bodies, rows, stagger=True, **options)  # episodes end all the time
                stack.callback(env.close)
                env.reset(seed=0)
                turn = itertools.cycle(random_actions(env.action_space.shape))
                return lambda: env.step(next(turn))

            everything = BodyVariation(**{name: list(self.factors) for name in QUANTITIES})
            named = [build(name) for name in self.topologies]
            n, mixed = self.num_envs, self.rows_per_topology * len(self.topologies)
            steps = {
                "ants/equal": (n, stepper(["ant"], ants, n)),
                "ants/varied": (n, stepper(["ant"], ants, n, variation=everything)),
                "ants/different": (n, stepper(self._different(ants.morphology("ant")), ants, n)),
                "topologies/mixed": (mixed, stepper(named, planar, mixed)),
            }
            alone = [stepper([body], planar, mixed) for body in named]
            for seconds, rounds in ((self.seconds / 10, 1), (self.seconds, self.rounds)):  # a warm-up first
                measures = {name: stepping(step, rows, seconds) for name, (rows, step) in steps.items()}
                measures["topologies/alone"] = _mean_speed(alone, mixed, seconds)
                rates = interleave(measures, rounds, status.update)
        rows = make_rows(rates, rates, {name: {"num_envs": rows} for name, (rows, _) in steps.items()})
        for row in rows:
            rival = RIVALS.get(row["name"])
            row["ratios"] = {rival: row["ratios"][rival]} if rival else {}
            results.add(row)
        console.print(speed_table(f"Bodies, median of {self.rounds} rounds", rows))
        console.print(ratio_table(rows))

    def _bodies(self, env: str) -> BodySet:
        return hydra.utils.instantiate(compose([f"env={env}", *self.train]).env, _convert_="all")

    def _different(self, body: Morphology) -> list[Morphology]:
        """As many compiled bodies as there are rows, of other lengths and masses."""
        lengths = BodyVariation(length=list(self.factors), variants=self.num_envs)
        return [variant.body for variant in compile_variants(body, lengths, None, (1.0, 0.0))]


def _mean_speed(steps: Sequence[Callable[[], None]], rows: int, seconds: float) -> Measure:
    """Measures environments of ``rows`` rows one after another: steps of all by the time of all."""
    measures = [stepping(step, rows, seconds / len(steps)) for step in steps]
    return lambda: len(measures) / sum(1 / measure() for measure in measures)
