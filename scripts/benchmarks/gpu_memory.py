"""Bytes of a device that simulations and populations take, and how they grow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from ...envs.locomotion import BodySet
from ...envs.locomotion.on_device import LocomotionTensorEnv
from .gpu_device import body_of, taken_since, used_memory
from .gpu_population import Generation
from .gpu_report import Report, Row

MakeEnv = Callable[[int], LocomotionTensorEnv]


def measure_memory(
    report: Report,
    tasks: Mapping[str, BodySet],
    worlds: Sequence[int],
    bodies: Sequence[str],
    worlds_of_bodies: int,
    populations: Mapping[str, Callable[[int], Generation]],
    sizes: Sequence[int],
    device: torch.device,
) -> None:
    """By worlds, by limbs, by candidates.

    Bytes are those of the whole device that are taken after a step and were not before, which torch's, Warp's
    and CUDA's graphs are among; kernels have been loaded before. On a CPU they are not known.

    Args:
        report: that it is kept in.
        tasks: bodies by name, whose memory grows with ``worlds``, at least one for each body.
        worlds: how many.
        bodies: names, of `body_of`, whose memory grows with their limbs.
        worlds_of_bodies: of each.
        populations: of so many candidates, by name.
        sizes: how many.
        device: that simulates.
    """
    rows: list[Row] = []
    for task, of_task in tasks.items():
        make = _maker(of_task, device)
        for count in dict.fromkeys(max(number, len(of_task.seen)) for number in worlds):
            name = f"memory/worlds/{task}/{count}"
            least = len(of_task.seen)
            rows += report.measure(
                name, lambda n=name, m=make, s=least, c=count: [_of_worlds(n, m, s, c, device)]
            )
    for body in bodies:
        name = f"memory/limbs/{body}/{worlds_of_bodies}"
        rows += report.measure(name, lambda n=name, b=body: [_of_limbs(n, b, worlds_of_bodies, device)])
    for kind, make_generation in populations.items():
        for size in sizes:
            name = f"memory/population/{kind}/{size}"
            rows += report.measure(
                name, lambda n=name, g=make_generation, s=size: [_of_population(n, g(s), device)]
            )
    columns = {
        "limbs": ("limbs", "d"),
        "MiB": ("mib", ",.1f"),
        "KiB each": ("kib_each", ",.1f"),
        "Warp's arrays, KiB each": ("kib_of_arrays_each", ",.1f"),
    }
    report.table("Memory of the device, each world or candidate", rows, columns)


def _maker(bodies: BodySet, device: torch.device) -> MakeEnv:
    return lambda count: bodies.make_tensor_env(bodies.seen, count, device)


def _of_limbs(name: str, body: str, count: int, device: torch.device) -> Row:
    built = body_of(body)
    return _of_worlds(
        name, lambda worlds: LocomotionTensorEnv([built], worlds, device=device), 1, count, device
    )


def _of_worlds(name: str, make: MakeEnv, smallest: int, count: int, device: torch.device) -> Row:
    """What an environment of ``count`` worlds takes after a step, beside one that has loaded its kernels."""
    small = make(smallest)
    _step(small)
    small.close()
    del small
    before = used_memory(device)
    env = make(count)
    with ExitStack() as stack:
        stack.callback(env.close)
        _step(env)
        taken = taken_since(before, device)
        arrays = sum(bytes_of_arrays(block.sim._data) for block in env._blocks)
        limbs = max(body.n_limbs for body in env.bodies)
    more = {"limbs": limbs, "bytes_of_arrays": arrays, "kib_of_arrays_each": arrays / count / 2**10}
    return _row(name, count, taken) | more


def _step(env: LocomotionTensorEnv) -> None:
    env.reset(seed=0)
    env.step(torch.zeros(env.action_space.shape, device=env.device))


def bytes_of_arrays(data: Any) -> int:
    """Of all of Warp's arrays that an object of dataclasses holds."""
    if hasattr(data, "capacity") and hasattr(data, "dtype"):
        return int(data.capacity)
    if dataclasses.is_dataclass(data):
        return sum(bytes_of_arrays(getattr(data, field.name)) for field in dataclasses.fields(data))
    return 0


def _of_population(name: str, generation: Generation, device: torch.device) -> Row:
    before = used_memory(device)
    taken: list[int | None] = []
    generation.evaluate(device, generation.simulation, 1, lambda: taken.append(taken_since(before, device)))
    return _row(name, generation.candidates, taken[0])


def _row(name: str, count: int, taken: int | None) -> Row:
    each = None if taken is None else taken / count
    return {
        "name": name,
        "count": count,
        "bytes": taken,
        "bytes_each": each,
        "mib": None if taken is None else taken / 2**20,
        "kib_each": None if each is None else each / 2**10,
    }
