"""PPO whose rollouts stay on a device, beside the same machine's CPU: speed, and time to a return."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from ...agents.device import set_threads, use_precision
from ...agents.training.run_callback import EPISODES_KEPT
from .gpu_device import taken_since, timed, used_memory, wait
from .gpu_report import Report, Row
from .rates import make_rows
from .tables import ratio_table, speed_table
from .training_setup import TrainingSetup, compose

PHASES = ("env", "rollout", "update")
SET_UP = 10
"""Seconds that making environments and learner may take."""

ON_CPU = ("device=cpu", "simulation=cpu")


class Learner:
    """PPO as ``somite-train`` with these arguments makes it, at a constant learning rate.

    Args:
        arguments: of ``somite-train``.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        config = compose([*arguments, "algorithm.learning_rate_schedule=constant"])
        self._setup = setup = TrainingSetup(config)
        self.learner, self.algorithm = setup.learner, setup.algorithm
        self.device: torch.device = setup.learner.device
        use_precision(setup.precision, self.device)

    def iteration(self) -> tuple[float, dict[str, float]]:
        """Collect a rollout and learn from it.

        Returns:
            Environment steps per second, and seconds of each of `PHASES`: simulation with observation and
            reward; the rest of the rollout; the update.
        """
        learner, algorithm = self.learner, self.algorithm
        set_threads(self._setup.torch_threads)
        before = dict(learner.seconds)
        steps = algorithm.n_steps * algorithm.num_envs
        elapsed = timed(
            lambda: learner.learn(steps, reset_num_timesteps=False, log_interval=None), self.device
        )
        env, rollout = (learner.seconds[name] - before[name] for name in ("env", "rollout"))
        return steps / elapsed, {"env": env, "rollout": rollout - env, "update": elapsed - rollout}

    def learn(self, callback: BaseCallback) -> None:
        """Learn until the callback stops it."""
        set_threads(self._setup.torch_threads)
        self.learner.learn(2**62, callback=callback, log_interval=None)
        wait(self.device)

    def describe(self) -> dict[str, Any]:
        """Fields of a row."""
        setup = self._setup
        return {
            "agent": type(setup.policy).__name__,
            "simulation": setup.simulation,
            "precision": setup.precision,
            "num_envs": setup.algorithm.num_envs,
            "batch_size": self.learner.batch_size,
            "torch_threads": setup.torch_threads,
        }

    def close(self) -> None:
        """Let the simulations go."""
        self._setup.rows.close()


def measure_ppo(
    report: Report,
    tasks: Mapping[str, Sequence[str]],
    num_envs: Sequence[int],
    on_device: Sequence[str],
    iterations: int,
    device: torch.device,
) -> None:
    """Iterations of PPO after one that is not counted.

    Args:
        report: that it is kept in.
        tasks: arguments of ``somite-train`` by name.
        num_envs: rows on the device; the CPU has as many as ``somite-train`` has by default.
        on_device: further arguments for the device.
        iterations: that are counted.
        device: that learns.
    """
    rows: list[Row] = []
    for task, given in tasks.items():
        cpu = f"ppo/{task}/cpu"
        here = [*given, *ON_CPU]
        of_cpu = report.measure(cpu, lambda n=cpu, a=here: _speed(n, a, iterations, torch.device("cpu"), []))
        rows += of_cpu
        for count in num_envs:
            name = f"ppo/{task}/{count}"
            there = [*given, *on_device, f"algorithm.num_envs={count}"]
            rows += report.measure(
                name, lambda n=name, a=there, c=of_cpu: _speed(n, a, iterations, device, c)
            )
    if rows:
        report.console.print(speed_table(f"PPO, median of {iterations} iterations", rows))
        report.console.print(ratio_table(rows))
    columns = {
        "rows": ("num_envs", "d"),
        "batch": ("batch_size", "d"),
        "MiB": ("mib", ",.0f"),
        "KiB a row": ("kib_each", ",.1f"),
        "torch's peak, MiB": ("peak_of_torch_mib", ",.0f"),
    }
    report.table("Memory of the device after an update", rows, columns)


def _speed(
    name: str, arguments: Sequence[str], iterations: int, device: torch.device, of_cpu: Sequence[Row]
) -> list[Row]:
    before = used_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    learner = Learner(arguments)
    with ExitStack() as stack:
        stack.callback(learner.close)
        learner.iteration()
        rates, seconds = [], dict.fromkeys(PHASES, 0.0)
        for _ in range(iterations):
            rate, spent = learner.iteration()
            rates.append(rate)
            for phase in PHASES:
                seconds[phase] += spent[phase]
        total = sum(seconds.values())
        more = learner.describe() | {
            "shares": {phase: seconds[phase] / total for phase in PHASES},
            **_memory(taken_since(before, device), learner.algorithm.num_envs, device),
        }
    others = {row["name"]: row["rounds"] for row in of_cpu}
    return make_rows({name: rates, **others}, others, {name: more})[:1]


def _memory(taken: int | None, num_envs: int, device: torch.device) -> dict[str, Any]:
    """What is taken after an update, and at most by torch, which an update needs more of; None on a CPU."""
    if taken is None:
        return {"bytes": None, "mib": None, "kib_each": None, "peak_of_torch_mib": None}
    peak = torch.cuda.max_memory_allocated(device)
    each = {"kib_each": taken / num_envs / 2**10, "peak_of_torch_mib": peak / 2**20}
    return {"bytes": taken, "mib": taken / 2**20, **each}


class UntilReturn(BaseCallback):
    """Stops when the mean return of all bodies is high enough, or the time is up.

    A body's return is the mean of its last whole episodes, acting with exploration.

    Args:
        target: the return.
        seconds: at most.
        bodies: how many there are.

    Attributes:
        curve: after each rollout seconds, steps and the mean return; None until all bodies have one.
        reached: seconds to the target; None: not reached.
    """

    def __init__(self, target: float, seconds: float, bodies: int) -> None:
        super().__init__()
        self._target, self._seconds = target, seconds
        self._returns = [deque(maxlen=EPISODES_KEPT) for _ in range(bodies)]
        self.curve: list[tuple[float, int, float | None]] = []
        self.reached: float | None = None

    def _on_training_start(self) -> None:
        self._start = time.perf_counter()

    def _elapsed(self) -> float:
        return time.perf_counter() - self._start

    def _on_step(self) -> bool:
        return self.reached is None and self._elapsed() < self._seconds

    def _on_rollout_end(self) -> None:
        finished = self.model.finished
        for body, kept in enumerate(self._returns):
            kept.extend(finished.returns[finished.bodies == body][-EPISODES_KEPT:].tolist())
        mean = float(np.mean([np.mean(kept) for kept in self._returns])) if all(self._returns) else None
        self.curve.append((self._elapsed(), self.num_timesteps, mean))
        if mean is not None and mean >= self._target:
            self.reached = self.curve[-1][0]


def measure_learning(
    report: Report,
    task: str,
    given: Sequence[str],
    num_envs: int,
    on_device: Sequence[str],
    target: float,
    seconds: float,
) -> None:
    """Seconds to a return, on the device and then on the CPU, both in the same time.

    Args:
        report: that it is kept in.
        task: its name.
        given: its arguments of ``somite-train``.
        num_envs: rows on the device.
        on_device: further arguments for the device.
        target: mean return of all bodies, acting with exploration.
        seconds: of each at most; less where there is less time.
    """
    limit = max(1.0, min(seconds, report.left / 2 - SET_UP))
    rows: list[Row] = []
    for name, arguments in (
        (f"learning/{task}/{num_envs}", [*given, *on_device, f"algorithm.num_envs={num_envs}"]),
        (f"learning/{task}/cpu", [*given, *ON_CPU]),
    ):
        rows += report.measure(name, lambda n=name, a=arguments: [_learn(n, a, target, limit)])
    columns = {
        f"s to {target:g}": ("seconds_to_return", ".1f"),
        "return": ("return", ".0f"),
        "steps": ("steps", ",d"),
        "s": ("seconds", ".1f"),
        "set-up s": ("seconds_of_setup", ".1f"),
    }
    title = f"Mean return of the last {EPISODES_KEPT} episodes of each body, within {limit:.0f} s"
    report.table(title, rows, columns)


def _learn(name: str, arguments: Sequence[str], target: float, seconds: float) -> Row:
    start = time.perf_counter()
    learner = Learner(arguments)
    with ExitStack() as stack:
        stack.callback(learner.close)
        watch = UntilReturn(target, seconds, len(learner._setup.bodies.seen))
        set_up = time.perf_counter() - start
        learner.learn(watch)
        curve = watch.curve
        last = curve[-1] if curve else (None, 0, None)
        return {
            "name": name,
            "target": target,
            "limit": seconds,
            "seconds_to_return": watch.reached,
            "seconds": last[0],
            "steps": last[1],
            "return": last[2],
            "seconds_of_setup": set_up,
            "curve": curve,
            **learner.describe(),
        }
