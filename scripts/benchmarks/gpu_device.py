"""The device that ``somite-benchmark gpu`` measures: waiting for it, its memory, its kernels."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import functools
import gc
import multiprocessing
import re
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import mujoco
import torch

from ...envs.locomotion import Morphology, build
from ...envs.locomotion.bodies.families import FAMILIES
from ...envs.locomotion.bodies.spatial import centipede
from ...envs.locomotion.on_device import LocomotionTensorEnv
from ...envs.locomotion.on_device.warp_models import warp_modules

WARM_UP = 3
"""Steps that tell how long one takes."""

ROUND = "round:"
"""Before the name of a body: with round cones."""

_CENTIPEDE = re.compile(r"centipede_(\d+)")


def describe(device: torch.device) -> dict[str, Any]:
    """Fields of the machine: the device, its memory, versions of what simulates there."""
    versions = {name: version(name) for name in ("warp-lang", "mujoco-warp")}
    if device.type == "cpu":
        return {"device": "cpu", "versions_of_simulation": versions}
    found = torch.cuda.get_device_properties(device)
    return {
        "device": found.name,
        "device_memory_gib": round(found.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "versions_of_simulation": versions,
    }


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(do: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device has done it."""
    wait(device)
    start = time.perf_counter()
    do()
    wait(device)
    return time.perf_counter() - start


def stepping_on_device(
    step: Callable[[], None], rows: int, seconds: float, device: torch.device
) -> Callable[[], float]:
    """As `rates.stepping`: how many steps fit is estimated, so that nothing waits between them."""

    def repeat(count: int) -> None:
        for _ in range(count):
            step()

    def measure() -> float:
        step()  # the first may record what the next ones launch
        count = max(1, round(seconds * WARM_UP / timed(lambda: repeat(WARM_UP), device)))
        return rows * count / timed(lambda: repeat(count), device)

    return measure


def used_memory(device: torch.device) -> int | None:
    """Bytes of a GPU that are taken, by whom ever; what nobody uses is given back before. None for a CPU."""
    if device.type == "cpu":
        return None
    _used_memory(device)  # lets go what is left of graphs that are gone
    # Their memory is kept for later graphs, which would then seem to take none.
    driver, handle = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    code = driver.cuDeviceGet(ctypes.byref(handle), device.index or 0) or driver.cuDeviceGraphMemTrim(handle)
    if code:
        raise RuntimeError(f"CUDA's driver does not give back the memory of graphs: error {code}")
    return _used_memory(device)


def taken_since(before: int | None, device: torch.device) -> int | None:
    """Bytes that are taken now and were not at ``before``, a result of `used_memory`; None for a CPU."""
    # What the graphs of now have is not given back.
    return None if before is None else _used_memory(device) - before


def _used_memory(device: torch.device) -> int:
    gc.collect()
    warp, _ = warp_modules()
    warp.set_mempool_release_threshold(str(device), 0)
    torch.cuda.empty_cache()
    wait(device)
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def body_of(name: str) -> Morphology:
    """A body of a family, or a centipede of more legs than the family has; or one of these with round cones.

    Args:
        name: of the body; with round cones after `ROUND`.

    Raises:
        UserError: an unknown body.
    """
    if name.startswith(ROUND):
        return with_round_cones(body_of(name.removeprefix(ROUND)))
    match = _CENTIPEDE.fullmatch(name)
    if match and name not in FAMILIES["centipede"].members:
        recipe = functools.partial(centipede, int(match[1]))
        return Morphology(name, recipe().compile(), spec=recipe)
    return build(name)


def with_round_cones(body: Morphology) -> Morphology:
    """The body with cones of friction that are round.

    Of a capsule that stands steeply on the ground Warp lays the edges of a pyramidal cone otherwise than
    MuJoCo, and it slides otherwise. What is round has no edges, and must be equal.
    """
    model = copy.copy(body.model)
    model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    return dataclasses.replace(body, model=model, spec=None)


def compile_kernels(
    bodies: Sequence[str], device: torch.device, workers: int, seconds: float
) -> tuple[dict[str, float], list[str]]:
    """Compile Warp's kernels of bodies, whose sizes are constants of kernels; Warp keeps them in its cache.

    Args:
        bodies: names, of `body_of`.
        device: that they are compiled for.
        workers: processes that compile all bodies but the first beside each other; 1: only this one.
        seconds: after which other processes are not waited for any more.

    Returns:
        Seconds that each body took, its process's start not counted; and what was not done in time.
    """
    tasks = [(name, str(device)) for name in bodies]
    if workers == 1:
        return dict(map(_compile, tasks)), []
    end = time.perf_counter() + seconds
    found = dict([_compile(tasks[0])])  # what all bodies share is compiled once
    if len(tasks) == 1:
        return found, []
    # A process that has initialised CUDA cannot be forked.
    with multiprocessing.get_context("spawn").Pool(min(workers, len(tasks) - 1)) as pool:
        done = pool.imap_unordered(_compile, tasks[1:])
        try:
            for _ in tasks[1:]:
                name, took = done.next(max(0.0, end - time.perf_counter()))
                found[name] = took
        except multiprocessing.TimeoutError:
            pass  # leaving the block ends the others
    return found, [name for name in bodies if name not in found]


def _compile(task: tuple[str, str]) -> tuple[str, float]:
    name, device = task
    torch.set_num_threads(1)
    start = time.perf_counter()
    env = LocomotionTensorEnv([body_of(name)], 1, device=device)
    env.reset(seed=0)
    env.step(torch.zeros(env.action_space.shape, device=device))
    wait(env.device)
    env.close()
    return name, time.perf_counter() - start
