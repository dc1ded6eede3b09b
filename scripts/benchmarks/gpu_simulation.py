"""Steps per second of bodies that a device simulates, beside bare Warp and beside the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from ...envs.locomotion import BodySet
from ...envs.locomotion.on_device import LocomotionTensorEnv
from .gpu_device import stepping_on_device, wait
from .gpu_report import Report, Row
from .rates import Measure, interleave, make_rows, stepping
from .simulation import ours
from .tables import ratio_table, speed_table

SEED = 0


def measure_simulation(
    report: Report,
    tasks: dict[str, BodySet],
    worlds: Sequence[int],
    cpu_rows: int,
    seconds: float,
    rounds: int,
    device: torch.device,
) -> None:
    """Random actions in all rows, with observation, reward and resets; then nothing but the simulation.

    Args:
        report: that it is kept in.
        tasks: bodies by name.
        worlds: of a device's simulation; at least one for each body.
        cpu_rows: of the CPU's simulation, on all cores; the same.
        seconds: of each turn.
        rounds: the rivals in turn.
        device: that simulates.
    """
    rows: list[Row] = []
    for task, bodies in tasks.items():
        at_least = len(bodies.seen)
        cpu = f"simulation/{task}/cpu/{max(cpu_rows, at_least)}"
        of_cpu = report.measure(cpu, lambda c=cpu, b=bodies: [_on_cpu(c, b, cpu_rows, seconds, rounds)])
        rows += of_cpu
        for count in dict.fromkeys(max(number, at_least) for number in worlds):
            name = f"simulation/{task}/{count}"
            rows += report.measure(
                name,
                lambda n=name, b=bodies, c=count, t=of_cpu: _on_device(n, b, c, t, seconds, rounds, device),
            )
    if rows:
        report.console.print(speed_table(f"Simulation, median of {rounds} rounds", rows))
        report.console.print(ratio_table(rows))


def _on_cpu(name: str, bodies: BodySet, rows: int, seconds: float, rounds: int) -> Row:
    rows_per_body = -(-rows // len(bodies.seen))
    env, step = ours(bodies, rows_per_body)
    with ExitStack() as stack:
        stack.callback(env.close)
        stepping(step, env.num_envs, seconds / 10)()  # a warm-up
        measure = stepping(step, env.num_envs, seconds)
        rates = interleave({name: measure}, rounds, lambda text: None)
    return make_rows(rates, [], {name: {"worlds": env.num_envs}})[0]


def _on_device(
    name: str,
    bodies: BodySet,
    count: int,
    of_cpu: Sequence[Row],
    seconds: float,
    rounds: int,
    device: torch.device,
) -> list[Row]:
    """Rows of ours and of bare Warp, compared with each other and with the CPU."""
    env = bodies.make_tensor_env(bodies.seen, count, device)
    with ExitStack() as stack:
        stack.callback(env.close)
        measures = {
            f"{name}/somite": _from_starts(env, random_steps(env), seconds),
            f"{name}/bare": _from_starts(env, bare_steps(env), seconds),
        }
        rates = interleave(measures, rounds, lambda text: None)
        env.check()  # a capacity that was too small would have spared work
    against = [f"{name}/bare", *(row["name"] for row in of_cpu)]
    rates |= {row["name"]: row["rounds"] for row in of_cpu}
    rows = make_rows(rates, against, {own: {"worlds": count} for own in measures})[:2]
    rows[1]["ratios"] = {}  # ours is compared with the others, these are not with each other
    return rows


def _from_starts(env: LocomotionTensorEnv, step: Callable[[], None], seconds: float) -> Measure:
    """Every turn begins with new episodes: without resets bodies come to rest, and cost less."""
    measure = stepping_on_device(step, env.num_envs, seconds, env.device)

    def turn() -> float:
        env.reset(seed=SEED)
        for block in env._blocks:  # for bare simulations, which nobody gives controls
            block.act(_random_actions(env))
        wait(env.device)
        return measure()

    return turn


def random_steps(env: LocomotionTensorEnv) -> Callable[[], None]:
    """One step of all rows by random actions, drawn on the device."""
    return lambda: env.step(_random_actions(env))


def bare_steps(env: LocomotionTensorEnv) -> Callable[[], None]:
    """One step of the same simulations by the same launches, and nothing else; controls stay as they are."""
    return env._launcher.launch


def _random_actions(env: LocomotionTensorEnv) -> Tensor:
    return torch.empty(env.action_space.shape, device=env.device).uniform_(-1, 1)
