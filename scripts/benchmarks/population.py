"""``somite-benchmark population``: a generation of CMA-ES beside episodes of one candidate at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import hydra
import numpy as np
import torch
from rich.console import Console
from torch import nn

from ...agents.agent import Agent
from ...agents.composition import build_policy, sizes_for
from ...agents.evaluation.episodes import run_episodes
from ...agents.policies import AttentionNeuron, Policy
from ...agents.policies.attention_neuron import QUERY_SIZE, position_table
from ...agents.rollout.population import Population, count_parameters, set_parameters
from ...envs.cores import available_cores
from ...envs.numbers import EPISODE_STEPS, POSITIVE, TEXT, checked, whole
from ...envs.sensors import CartPoleSwingUp, Senses
from ...envs.sensors.carts import (
    CART_MASS,
    FORCE,
    FRICTION,
    GRAVITY,
    LENGTH,
    POLE_MASS,
    TIME_STEP,
    TRACK,
    CartPoles,
    draw_start,
)
from ...envs.task_set import TaskSet
from .arguments import ARGUMENTS, COUNT, ROUNDS
from .rates import Measure, interleave, make_rows
from .results import Results
from .tables import ratio_table, speed_table
from .training_setup import compose

SEED = 0
"""Of the parameters and of the starts, which are the same for all rivals."""


@checked("")
@dataclass
class PopulationSpeed:
    """Keys of the section ``population`` of ``conf/benchmark.yaml``.

    A step is one of an episode that still runs: what else is computed for a batch counts for nothing. The
    parameters are drawn around zero, once for all, and all rivals meet the same starts. Of the swing-up:

    * ``full/...``: carts may leave the track, so that every episode has all its steps: what a generation of
      candidates costs that have learnt their task;
    * ``ending/...``: as the task is; most of these candidates lose their cart early, but some few do not;
    * ``.../1_core`` and ``.../all_cores``: a generation at once, by one thread and by one for each core;
    * ``.../one_candidate``: a sample of candidates, one after another, each with all its episodes in a batch
      of our own environment and policy, on one core;
    * ``.../one_episode``: a sample of episodes, one after another, of PyTorch's parts in a plain loop over an
      environment of one cart, as the published agent was trained, on one core.

    The rows ``ant/...`` are a generation of a limb policy on MuJoCo's ant in the same sense.

    Args:
        candidates: of a generation of the swing-up.
        episodes: of each.
        steps: of an episode.
        sigma: deviation of the parameters.
        candidates_alone: of a sample.
        episodes_alone: of a sample.
        ant_candidates, ant_episodes, ant_steps: the same of the ant; 0 candidates leave it out.
        ant_agent: its policy, of ``conf/agent``.
        rounds: how many, the rivals in turn.
        train: further arguments of ``somite-train`` for the ant, such as ``agent.width=32``.

    Raises:
        UserError: an invalid value.
    """

    candidates: Annotated[int, COUNT] = 256
    episodes: Annotated[int, COUNT] = 16
    steps: Annotated[int, EPISODE_STEPS] = 1000
    sigma: Annotated[float, POSITIVE] = 0.1
    candidates_alone: Annotated[int, COUNT] = 4
    episodes_alone: Annotated[int, COUNT] = 8
    ant_candidates: Annotated[int, whole(0, 10**6)] = 64
    ant_episodes: Annotated[int, COUNT] = 4
    ant_steps: Annotated[int, EPISODE_STEPS] = 200
    ant_agent: Annotated[str, TEXT] = "smp"
    rounds: Annotated[int, ROUNDS] = 3
    train: Annotated[Sequence[str], ARGUMENTS] = field(default_factory=list)

    def run(self, results: Results, console: Console) -> None:
        """Measure, keep rows, print tables."""
        steps = f"env.task.max_episode_steps={self.ant_steps}"
        config = compose(["env=ant", steps, f"agent={self.ant_agent}", *self.train])
        torch.set_num_threads(1)
        with console.status("starting") as status:
            for name, endless in (("full", True), ("ending", False)):
                title = f"Swing-up, {self.candidates} candidates with {self.episodes} episodes"
                self._keep(self._swingup(name, endless), status.update, f"{title}, {name}", results, console)
            if self.ant_candidates:
                title = f"Ant, {self.ant_candidates} candidates with {self.ant_episodes} episodes"
                self._keep(self._ant(config), status.update, f"{title}, {self.ant_agent}", results, console)

    def _keep(
        self,
        measured: list[_Measured],
        announce: Callable[[str], None],
        title: str,
        results: Results,
        console: Console,
    ) -> None:
        rates = interleave({m.name: m.measure for m in measured}, self.rounds, announce)
        alone = [m.name for m in measured if m.is_rival]
        rows = make_rows(rates, alone, {m.name: m.describe() for m in measured})
        for row in rows:
            if row["name"] in alone:  # ours is compared with each, these not with each other
                row["ratios"] = {}
            results.add(row)
        console.print(speed_table(f"{title}, median of {self.rounds} rounds", rows))
        console.print(ratio_table(rows))

    def _swingup(self, name: str, endless: bool) -> list[_Measured]:
        task = (_EndlessSwingUp if endless else CartPoleSwingUp)(Senses(), self.steps)
        env = task.make_vec(task.seen, 1)
        policy = AttentionNeuron(env.spec_of_tokens, **sizes_for(AttentionNeuron, env))
        drawn = _draw(policy, self.candidates, self.sigma)

        def one_episode(index: int) -> int:
            start = draw_start(np.random.default_rng([SEED, index % self.episodes]))
            plain = PlainNeuron(drawn[index // self.episodes % self.candidates])
            return plain.run(PlainCart(start, endless), self.steps)[1]

        return [
            *_generations(f"{name}/", policy, task, drawn, self.episodes),
            _one_candidate(f"{name}/", policy, task, drawn, self.episodes, self.candidates_alone),
            _Measured(f"{name}/one_episode", one_episode, self.episodes_alone, 1, is_rival=True),
        ]

    def _ant(self, config: Any) -> list[_Measured]:
        bodies: TaskSet = hydra.utils.instantiate(config.env, _convert_="all")
        env = bodies.make_vec(bodies.seen, len(bodies.seen), threads=1)
        torch.manual_seed(SEED)
        policy = build_policy(config.agent, env)
        drawn = _draw(policy, self.ant_candidates, self.sigma)
        return [
            *_generations("ant/", policy, bodies, drawn, self.ant_episodes),
            _one_candidate("ant/", policy, bodies, drawn, self.ant_episodes, self.candidates_alone),
        ]


class _Measured:
    """Rate of something done in turn, by steps of episodes that ran.

    Args:
        name: of the row.
        do: from a number, which goes on from turn to turn, to steps made.
        times: it is done in a turn.
        threads: it takes.
        is_rival: the others are compared with it.
    """

    def __init__(
        self, name: str, do: Callable[[int], int], times: int, threads: int, is_rival: bool = False
    ) -> None:
        self.name, self.is_rival = name, is_rival
        self._do, self._times, self._threads = do, times, threads
        self._next = 0
        self.seconds: list[float] = []
        self.steps: list[int] = []
        self.measure: Measure = self._measure

    def _measure(self) -> float:
        start, steps = time.perf_counter(), 0
        for _ in range(self._times):
            steps += self._do(self._next)
            self._next += 1
        self.seconds.append(time.perf_counter() - start)
        self.steps.append(steps)
        return steps / self.seconds[-1]

    def describe(self) -> dict[str, Any]:
        return {"threads": self._threads, "seconds": self.seconds, "steps": self.steps}


def _generations(
    prefix: str, policy: Policy, task: TaskSet, drawn: np.ndarray, episodes: int
) -> list[_Measured]:
    """Whole generations at once, on one core and on all."""
    starts = [[SEED, episode] for episode in range(episodes)]

    def generation(threads: int) -> Callable[[int], int]:
        population = Population(policy, task, len(drawn), episodes, threads)
        return lambda _: int(population.evaluate(drawn, starts).lengths.sum())

    measured = [_Measured(f"{prefix}1_core", generation(1), 1, 1)]
    if available_cores() > 1:
        measured.append(_Measured(f"{prefix}all_cores", generation(available_cores()), 1, available_cores()))
    return measured


def _one_candidate(
    prefix: str, policy: Policy, task: TaskSet, drawn: np.ndarray, episodes: int, times: int
) -> _Measured:
    """A candidate's episodes in one batch; the next candidate then."""

    def one(index: int) -> int:
        set_parameters(policy, drawn[index % len(drawn)])
        found = run_episodes(Agent(policy).act, task, task.seen, episodes, SEED, threads=1)
        return int(sum(result.lengths.sum() for result in found))

    return _Measured(f"{prefix}one_candidate", one, times, 1, is_rival=True)


def _draw(policy: Policy, size: int, sigma: float) -> np.ndarray:
    """(size, n) parameters around zero."""
    return sigma * np.random.default_rng(SEED).standard_normal((size, count_parameters(policy)))


class _EndlessCarts(CartPoles):
    """Carts that may leave the track."""

    def step(self, actions: np.ndarray, running: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rewards, terminated, cut = super().step(actions, running)
        return rewards, np.zeros_like(terminated), cut


class _EndlessSwingUp(CartPoleSwingUp):
    """The task of which every episode has all its steps."""

    def make_source(self, num_envs: int, threads: int = 0) -> CartPoles:
        return _EndlessCarts(num_envs, self.max_episode_steps)


class PlainCart:
    """One cart and pole, stepped on its own.

    Args:
        start: (4,) x, x_dot, theta, theta_dot.
        endless: it may leave the track.
    """

    def __init__(self, start: np.ndarray, endless: bool = False) -> None:
        self.state, self.endless = tuple(start), endless

    def read(self) -> np.ndarray:
        """(5,) x, x_dot, cos theta, sin theta, theta_dot."""
        x, x_dot, theta, theta_dot = self.state
        return np.array([x, x_dot, np.cos(theta), np.sin(theta), theta_dot])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Readings, reward, and whether the cart has left the track; ``action`` is (1,)."""
        x, x_dot, theta, theta_dot = self.state
        push = FORCE * np.clip(action, -1.0, 1.0)[0] - FRICTION * x_dot
        s, c = math.sin(theta), math.cos(theta)
        total, arm = CART_MASS + POLE_MASS, POLE_MASS * LENGTH
        x_acceleration = (-2 * arm * theta_dot**2 * s + 3 * POLE_MASS * GRAVITY * s * c + 4 * push) / (
            4 * total - 3 * POLE_MASS * c**2
        )
        theta_acceleration = (-3 * arm * theta_dot**2 * s * c + 6 * total * GRAVITY * s + 6 * push * c) / (
            4 * LENGTH * total - 3 * arm * c**2
        )
        self.state = (
            x + TIME_STEP * x_dot,
            x_dot + TIME_STEP * x_acceleration,
            theta + TIME_STEP * theta_dot,
            theta_dot + TIME_STEP * theta_acceleration,
        )
        x, _, theta, _ = self.state
        reward = (np.cos(theta) + 1) / 2 * np.cos(np.pi / 2 * x / TRACK)
        return self.read(), float(reward), abs(x) > TRACK and not self.endless


class PlainNeuron(nn.Module):
    """The swing-up's agent from PyTorch's parts, for one episode at a time.

    Args:
        values: parameters in the order of `AttentionNeuron`'s.
    """

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(2, 8)
        self.query = nn.Linear(QUERY_SIZE, 32, bias=False)
        self.key = nn.Linear(8, 32, bias=False)
        self.action = nn.Sequential(nn.Linear(16, 1), nn.Tanh())
        self.table = position_table(16)
        nn.utils.vector_to_parameters(torch.as_tensor(values, dtype=torch.float32), self.parameters())

    def run(self, cart: PlainCart, steps: int) -> tuple[float, int]:
        """Return and length of an episode of at most so many steps."""
        readings, total = cart.read(), 0.0
        memory, action = (torch.zeros(5, 8), torch.zeros(5, 8)), torch.zeros(1, 1)
        with torch.no_grad():
            for step in range(1, steps + 1):
                reading = torch.from_numpy(readings.copy()).float().unsqueeze(-1)  # reading: (5, 1)
                told = torch.cat([reading, torch.vstack([action] * len(reading))], dim=-1)
                memory = self.cell(told, memory)
                scores = torch.matmul(self.query(self.table), self.key(memory[0]).T)  # scores: (16, 5)
                gathered = torch.tanh(torch.matmul(torch.tanh(scores), reading))  # gathered: (16, 1)
                action = self.action(gathered.T)
                readings, reward, left = cart.step(action.squeeze(0).numpy())
                total += reward
                if left:
                    return total, step
        return total, steps
