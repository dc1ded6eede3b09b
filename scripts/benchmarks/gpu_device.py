"""The device that ``somite-benchmark gpu`` measures: its memory, kernels, what it computes, its speed."""

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
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

import mujoco
import torch
from torch import Tensor

from ...envs.locomotion import BodySet, Morphology, build
from ...envs.locomotion.backends.warp import Launcher, warp_modules
from ...envs.locomotion.bodies.families import FAMILIES
from ...envs.locomotion.bodies.recipes import centipede
from ...envs.token_env import TokenEnv
from .harness import Rival, Row, Turn
from .setup import wait

WARM_UP = 3
"""Steps that tell how long one takes."""
ROUND = "round:"
"""Before the name of a body: with round cones."""
STEPS, WORLDS = 5, 8
"""Of a comparison."""
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


def used_memory(device: torch.device) -> tuple[int, int] | None:
    """Bytes of a GPU that are taken, by whom ever, and by torch's tensors alone; None for a CPU.

    What nobody uses is given back before.
    """
    if device.type == "cpu":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    _used_memory(device)  # lets go what is left of graphs that are gone
    # Their memory is kept for later graphs, which would then seem to take none.
    driver, handle = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    code = driver.cuDeviceGet(ctypes.byref(handle), device.index or 0) or driver.cuDeviceGraphMemTrim(handle)
    if code:
        raise RuntimeError(f"CUDA's driver does not give back the memory of graphs: error {code}")
    return _used_memory(device), torch.cuda.memory_allocated(device)


def _used_memory(device: torch.device) -> int:
    gc.collect()
    warp, _ = warp_modules()
    warp.set_mempool_release_threshold(str(device), 0)
    torch.cuda.empty_cache()
    wait(device)
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def memory_since(before: tuple[int, int] | None, count: int, device: torch.device) -> Row:
    """Fields of a row: what ``count`` environments or candidates took since `used_memory` was ``before``.

    There are none for a CPU. What graphs of now have is not given back.
    """
    if before is None:
        return {}
    taken = (_used_memory(device) - before[0]) / 2**20
    peak = torch.cuda.max_memory_allocated(device) - before[1]  # an update needs more than stays
    return {"mib": taken, "kib_each": taken * 2**10 / count, "peak_of_torch_mib": peak / 2**20}


def body_of(name: str) -> Morphology:
    """A body of a family, or a centipede of more legs than the family has; with round cones after `ROUND`.

    Raises:
        UserError: an unknown body.
    """
    if name.startswith(ROUND):
        # Of a capsule that stands steeply on the ground Warp lays the edges of a pyramidal cone otherwise
        # than MuJoCo, and it slides otherwise. What is round has no edges, and must be equal.
        body = body_of(name.removeprefix(ROUND))
        model = copy.copy(body.model)
        model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        return dataclasses.replace(body, model=model, spec=None)
    match = _CENTIPEDE.fullmatch(name)
    if match and name not in FAMILIES["centipede"].members:
        recipe = functools.partial(centipede, int(match[1]))
        return Morphology(name, recipe().compile(), spec=recipe)
    return build(name)


def make_env(bodies: BodySet, names: Sequence[Any] | None, count: int, device: torch.device) -> TokenEnv:
    """So many worlds of bodies, simulated by Warp."""
    return bodies.simulated_by("warp").make_env(names, count, device)


def compile_kernels(
    bodies: Sequence[str], device: torch.device, workers: int, seconds: float
) -> tuple[dict[str, float], list[str]]:
    """Compile Warp's kernels of bodies, whose sizes are constants of kernels; Warp keeps them in its cache.

    All but the first are compiled in worker processes, which are waited for so many seconds. Returns seconds
    that each body took, its process's start not counted, and the names of what was not done in time.
    """
    tasks = [(name, str(device)) for name in bodies]
    if workers == 1:
        return dict(map(_compile, tasks)), []
    end = time.perf_counter() + seconds
    found = dict([_compile(tasks[0])])  # what all bodies share is compiled once
    # A process that has initialised CUDA cannot be forked.
    with multiprocessing.get_context("spawn").Pool(min(workers, len(tasks))) as pool:
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
    env = make_env(BodySet("cheetah"), [body_of(name)], 1, torch.device(device))
    _step_once(env)
    env.close()
    return name, time.perf_counter() - start


def _step_once(env: TokenEnv) -> None:
    env.reset(seed=0)
    env.step(torch.zeros(_shape(env), device=env.device))
    wait(env.device)


def _shape(env: TokenEnv) -> tuple[int, ...]:
    return (env.num_envs, *env.single_action_space.shape)


class PlainLauncher(Launcher):
    """Launches kernels one after another, and records nothing."""

    def _run(self, name: str, work: Callable[[Any], None]) -> None:
        warp, _ = warp_modules()
        wait(self._device)  # Warp has a stream of its own here
        with warp.ScopedDevice(str(self._device)):
            for simulation in self._simulations:
                work(simulation)
        wait(self._device)


def checked_bodies(bodies: BodySet) -> list[str]:
    """Names, of `body_of`, of those whose rewards are compared."""
    return [f"{ROUND}{name}" for name in _two(bodies)]


def _two(bodies: BodySet) -> list[str]:
    """Two bodies that differ much, or the only one."""
    return list(dict.fromkeys((bodies.seen[0], bodies.seen[-1])))


def graph_differences(bodies: BodySet, device: torch.device) -> dict[str, Any]:
    """The recorded graph beside plain launches, from the same states by the same actions, on two bodies."""
    env = make_env(bodies, _two(bodies), WORLDS, device)
    env.reset(seed=0)
    begin = env.snapshot()
    recorded = _rollout(env)
    env.restore(begin)
    simulation = env._simulation
    simulation.launcher = PlainLauncher([block.worlds for block in simulation.blocks], device)
    plain = _rollout(env)
    env.close()
    return _differences(recorded, plain)


def reward_differences(bodies: BodySet, device: torch.device) -> dict[str, Any]:
    """Rewards of the device beside those of the CPU from the same starts, on two bodies with round cones."""
    chosen = [body_of(name) for name in checked_bodies(bodies)]
    found = []
    for env in (make_env(bodies, chosen, WORLDS, device), bodies.make_env(chosen, WORLDS)):
        env.reset(seed=0)
        found.append({name: value for name, value in _rollout(env).items() if name.startswith("reward")})
        env.close()
    return _differences(*found)


def _rollout(env: TokenEnv) -> dict[str, Tensor]:
    """Rewards of a few steps and the last observation, float64 on the CPU."""
    found, generator = {}, torch.Generator().manual_seed(0)
    for index in range(STEPS):
        actions = 2 * torch.rand(_shape(env), generator=generator) - 1
        step = env.step(actions.to(env.device))
        found[f"reward/{index}"] = step.rewards
        if index == STEPS - 1:
            found |= step.observation
        found = {name: value.to("cpu", torch.float64, copy=True) for name, value in found.items()}
    return found


def _differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Any]:
    """Largest absolute differences by name, and the largest of all."""
    found = {name: float((one[name] - other[name]).abs().max()) for name in one}
    # Python's max passes over NaN; torch's does not.
    worst = float(torch.tensor(list(found.values()), dtype=torch.float64).max())
    return {"largest_difference": worst, "differences": found}


def fill_turn(step: Callable[[], Any], num_envs: int, seconds: float, device: torch.device) -> float:
    """Steps per second; how many fit is estimated, so that nothing waits between them."""

    def repeat(times: int) -> float:
        wait(device)
        start = time.perf_counter()
        for _ in range(times):
            step()
        wait(device)
        return time.perf_counter() - start

    step()  # the first may record what the next ones launch
    times = max(1, round(seconds * WARM_UP / repeat(WARM_UP)))
    return num_envs * times / repeat(times)


def on_device(
    name: str,
    bodies: BodySet,
    count: int,
    seconds: float,
    device: torch.device,
    against: Sequence[str] = (),
    names: Sequence[Any] | None = None,
) -> list[Rival]:
    """Worlds with random actions, observation, reward and resets; and the same launches and nothing else.

    Every turn begins with new episodes: without resets bodies come to rest, and cost less. The first is
    compared with the second and with ``against``.
    """
    more: Row = {"num_envs": count}
    env: TokenEnv

    def actions() -> Tensor:
        return torch.empty(_shape(env), device=device).uniform_(-1, 1)

    def turn(step: Callable[[], Any]) -> float:
        env.reset(seed=0)
        env._act(actions())  # for the bare simulation, which nobody gives controls
        rate = fill_turn(step, count, seconds, device)
        env.check()  # a capacity that was too small would have spared work
        return rate

    def start(stack: ExitStack) -> Turn:
        nonlocal env
        few = make_env(bodies, names, len(names or bodies.seen), device)
        _step_once(few)  # which loads the kernels
        few.close()
        del few
        env = make_env(bodies, names, count, device)
        stack.callback(env.close)
        _step_once(env)
        arrays = sum(bytes_of_arrays(block.worlds._data) for block in env._simulation.blocks)
        more["limbs"] = int(env.single_observation_space["mask"].shape[0])
        more["bytes_of_arrays"], more["kib_of_arrays_each"] = arrays, arrays / count / 2**10
        return lambda: turn(lambda: env.step(actions()))

    def start_bare(stack: ExitStack) -> Turn:
        return lambda: turn(env._simulation.launcher.launch)

    bare = Rival(f"{name}/bare", start_bare, (), {"num_envs": count})
    return [Rival(f"{name}/somite", start, [bare.name, *against], more), bare]


def bytes_of_arrays(data: Any) -> int:
    """Of all of Warp's arrays that an object of dataclasses holds."""
    if hasattr(data, "capacity") and hasattr(data, "dtype"):
        return int(data.capacity)
    if dataclasses.is_dataclass(data):
        return sum(bytes_of_arrays(getattr(data, field.name)) for field in dataclasses.fields(data))
    return 0
