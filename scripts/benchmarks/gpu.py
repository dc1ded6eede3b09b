"""``somite-benchmark gpu``: speed and memory of everything on a GPU, in one call of under ten minutes."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

import mujoco
import torch
from omegaconf import DictConfig
from torch import Tensor

from ...agents.device import FLOAT32, WARP, resolve_device, resolve_simulation, set_threads, use_precision
from ...envs.cores import available_cores
from ...envs.locomotion import BodySet, Morphology, build
from ...envs.locomotion.backends.warp import warp_modules
from ...envs.numbers import EPISODE_STEPS, TEXT, VALUES, checked, listed, one_of
from ...envs.task_set import TaskSet
from ...envs.token_env import TokenEnv
from ..cli.values import DEVICE
from .harness import ARGUMENTS, COUNT, ROUNDS, SECONDS, Report, Rival, Row, counted, stepping
from .population import SIGMA, draw, generations, initial_policy, swingup
from .speed import ours
from .training import PPOSpeed, compose, ppo_rivals, task_set, wait

SHARES = {"check": 30, "simulation": 140, "ppo": 110, "population": 60}
"""Parts in their order; of what is left of the time a part has as much as its number is of those to come."""
ROUND = "round:"
"""Before the name of a body: with round friction cones."""
STEPS, WORLDS, TOLERANCE = 5, 8, 1e-3
"""Of the comparison of rewards."""


@checked("")
@dataclasses.dataclass
class GPU:
    """The section ``gpu`` of ``conf/benchmark.yaml``, which says what its keys mean."""

    device: Annotated[str, DEVICE]
    seconds: Annotated[float, SECONDS]
    parts: Annotated[Sequence[str], listed(one_of(*SHARES))]
    tasks: Annotated[Mapping[str, Sequence[str]], VALUES]
    worlds: Annotated[Sequence[int], listed(COUNT, 1)]
    turn: Annotated[float, SECONDS]
    rounds: Annotated[int, ROUNDS]
    num_envs: Annotated[Sequence[int], listed(COUNT)]
    on_device: Annotated[Sequence[str], ARGUMENTS]
    agent: Annotated[str, TEXT]
    candidates: Annotated[int, COUNT]
    episodes: Annotated[int, COUNT]
    steps: Annotated[int, EPISODE_STEPS]
    limbs: Annotated[Sequence[str], ARGUMENTS]
    limb_candidates: Annotated[int, COUNT]
    limb_episodes: Annotated[int, COUNT]
    compile_seconds: Annotated[float, SECONDS]
    train: Annotated[Sequence[str], ARGUMENTS]

    def run(self, report: Report) -> None:
        """Measure, keep rows, print tables."""
        device = resolve_device(self.device)
        sets = {name: task_set(given) for name, given in self.tasks.items()}
        for bodies in sets.values():
            resolve_simulation(WARP, bodies, device)  # says how to install what is not there
        # Wrong names are refused before minutes are spent.
        limbs = compose(self.limbs)
        there = [*self.on_device, f"device={self.device}", f"simulation={WARP}"]
        ppo = {}
        for task, given in self.tasks.items():
            variants = {f"{task}/cpu": [*given, "device=cpu", "simulation=cpu"]} | {
                f"{task}/{count}": [*given, *there, f"algorithm.num_envs={count}"] for count in self.num_envs
            }
            ppo[task] = ppo_rivals(variants, [f"agent={self.agent}", *self.train])
        about = describe(device)
        report.machine |= about
        told = ", ".join(f"{name} {number}" for name, number in about["versions_of_simulation"].items())
        report.console.print(f"device: {about['device']}; {told}", highlight=False, soft_wrap=True)
        use_precision(FLOAT32, device)
        set_threads("auto")
        report.watch = partial(memory_told, device)
        report.limit(self.seconds)
        report.begin("compile", min(1.0, self.compile_seconds / self.seconds))
        report.keep("compile", partial(self._compile, report, device, sets))
        parts = {
            "check": partial(self._check, report, device, sets),
            "simulation": partial(self._simulation, report, device, sets),
            "ppo": partial(self._ppo, report, ppo),
            "population": partial(self._population, report, device, limbs),
        }
        chosen = [part for part in SHARES if part in self.parts]
        for index, part in enumerate(chosen):
            report.begin(part, SHARES[part] / sum(SHARES[other] for other in chosen[index:]))
            parts[part]()

    def _compile(self, report: Report, device: torch.device, sets: Mapping[str, TaskSet]) -> Row:
        """Warp's kernels of all bodies, once for all parts."""
        names = [name for bodies in sets.values() for name in bodies.seen]
        if "check" in self.parts:
            names += [name for bodies in sets.values() for name in checked_bodies(bodies)]
        names, start = list(dict.fromkeys(names)), time.perf_counter()
        workers = 1 if device.type == "cpu" else available_cores()
        took, missing = compile_kernels(names, device, workers, self.compile_seconds)
        seconds = time.perf_counter() - start
        report.say(f"kernels of {len(names)} bodies: {seconds:.1f} s")
        if missing:
            report.say(f"compiled when they are first used: {', '.join(missing)}")
        return {"seconds": seconds, "seconds_of_bodies": took, "not_in_time": missing}

    def _check(self, report: Report, device: torch.device, sets: Mapping[str, TaskSet]) -> None:
        """What differs by too much is a failure."""
        for task, bodies in sets.items():
            for row in report.keep(f"check/{task}", partial(reward_differences, bodies, device)):
                worst = row["largest_difference"]
                report.say(f"rewards of {task} differ from the CPU's by up to {worst:.3g}")
                if not worst <= TOLERANCE:  # it may be NaN
                    report.fail(f"{row['name']}/too_large", f"{worst:.3g}, allowed are {TOLERANCE:g}")

    def _simulation(self, report: Report, device: torch.device, sets: Mapping[str, TaskSet]) -> None:
        """Random actions, with observation, reward and resets; then nothing but the simulation."""
        for task, bodies in sets.items():
            least = len(bodies.seen)
            on_cpu = -(-self.worlds[0] // least) * least
            cpu = f"simulation/{task}/cpu/{on_cpu}"
            rivals: list[Rival] = [stepping(cpu, partial(ours, bodies, on_cpu), on_cpu, self.turn)]
            for count in dict.fromkeys(max(number, least) for number in self.worlds):
                name = f"simulation/{task}/{count}"
                rivals += on_device(name, bodies, count, self.turn, device, [cpu])
            report.compare(f"Simulation, {task}", rivals, self.rounds)

    def _ppo(self, report: Report, ppo: Mapping[str, Sequence[PPOSpeed]]) -> None:
        for task, rivals in ppo.items():
            for rival in rivals[1:]:
                rival.against = [rivals[0].name]
            rows = report.compare(f"PPO, {task}", rivals, self.rounds)
            report.table("Memory", rows, "num_envs", "batch_size", "mib", "kib_each")

    def _population(self, report: Report, device: torch.device, limbs: DictConfig) -> None:
        """Seconds of a generation on the CPU, on all cores, and on the device."""
        bodies = task_set(limbs)
        for kind, policy, task, count, episodes, simulation in (
            ("swingup", *swingup(self.steps), self.candidates, self.episodes, "torch"),
            ("limbs", initial_policy(limbs, bodies), bodies, self.limb_candidates, self.limb_episodes, WARP),
        ):
            about = {"candidates": count, "episodes": episodes}
            # What candidates cost that have learnt as much as the policy has.
            drawn = draw(policy, count, SIGMA, around=True)
            here, there = (
                partial(generations, policy, where, drawn, episodes, available_cores())
                for where in (task, task.simulated_by(simulation))
            )
            cpu = counted(f"population/{kind}/cpu", here, **about)
            there = partial(there, device=device)
            rivals = [cpu, counted(f"population/{kind}/somite", there, 1, [cpu.name], **about)]
            rows = report.compare(f"Generations, {kind}", rivals, self.rounds)
            report.table("Memory", rows, "candidates", "episodes", "mib", "kib_each")


def describe(device: torch.device) -> dict[str, Any]:
    """Fields of the machine: the device, its memory, versions of what simulates there."""
    about = {"device": "cpu"}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        memory = round(found.total_memory / 2**30, 1)
        about = {"device": found.name, "device_memory_gib": memory, "cuda": torch.version.cuda}
    return {**about, "versions_of_simulation": {name: version(name) for name in ("warp-lang", "mujoco-warp")}}


@contextmanager
def memory_told(device: torch.device, row: Row) -> Iterator[None]:
    """Add to a row the memory of a GPU that its environments or candidates, made in the block, take.

    Memory that nobody needs any more is given back before, that of the block's own graphs is not.
    """
    if device.type == "cpu":
        yield
        return
    torch.cuda.reset_peak_memory_stats(device)
    _used_memory(device)  # lets go what is left of graphs that are gone
    # Their memory is kept for later graphs, which would then seem to take none.
    driver, handle = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    code = driver.cuDeviceGet(ctypes.byref(handle), device.index or 0) or driver.cuDeviceGraphMemTrim(handle)
    if code:
        raise RuntimeError(f"CUDA's driver does not give back the memory of graphs: error {code}")
    before, of_torch = _used_memory(device), torch.cuda.memory_allocated(device)
    yield
    taken = (_used_memory(device) - before) / 2**20
    peak = torch.cuda.max_memory_allocated(device) - of_torch  # an update needs more than stays
    each = taken * 2**10 / (row.get("num_envs") or row["candidates"])
    row |= {"mib": taken, "kib_each": each, "peak_of_torch_mib": peak / 2**20}


def _used_memory(device: torch.device) -> int:
    """Bytes that are taken, by whomever."""
    gc.collect()
    warp, _ = warp_modules()
    warp.set_mempool_release_threshold(str(device), 0)
    torch.cuda.empty_cache()
    wait(device)
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def body_of(name: str) -> Morphology:
    """A body of a family; with round friction cones after `ROUND`. Raises UserError: an unknown body."""
    body = build(name.removeprefix(ROUND))
    if not name.startswith(ROUND):
        return body
    # Of a capsule that stands steeply on the ground Warp lays the edges of a pyramidal cone otherwise
    # than MuJoCo, and it slides otherwise. What is round has no edges, and must be equal.
    model = copy.copy(body.model)
    model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    return dataclasses.replace(body, model=model, spec=None)


def make_env(bodies: BodySet, names: Sequence[Any] | None, count: int, device: torch.device) -> TokenEnv:
    """So many worlds of bodies, simulated by Warp."""
    return bodies.simulated_by("warp").make_env(names, count, device)


def compile_kernels(
    bodies: Sequence[str], device: torch.device, workers: int, seconds: float
) -> tuple[dict[str, float], list[str]]:
    """Compile Warp's kernels of bodies, whose sizes are constants of kernels; Warp keeps them in its cache.

    With several workers all but the first are compiled in processes, which are waited for so many seconds.
    Returns seconds that each body took, its process's start not counted, and who was not done in time.
    """
    compiling, end = partial(_compile, device=str(device)), time.perf_counter() + seconds
    found = dict(map(compiling, bodies if workers == 1 else bodies[:1]))  # all share what the first compiles
    others = [name for name in bodies if name not in found]
    if others:
        # A process that has initialised CUDA cannot be forked.
        with multiprocessing.get_context("spawn").Pool(min(workers, len(others))) as pool:
            results = [pool.apply_async(compiling, [name]) for name in others]
            for result in results:
                result.wait(max(0.0, end - time.perf_counter()))
            found |= dict(result.get() for result in results if result.ready())
    return found, [name for name in bodies if name not in found]


def _compile(name: str, device: str) -> tuple[str, float]:
    torch.set_num_threads(1)
    start = time.perf_counter()
    _step_once(make_env(BodySet("cheetah"), [body_of(name)], 1, torch.device(device))).close()
    return name, time.perf_counter() - start


def _step_once(env: TokenEnv) -> TokenEnv:
    env.reset(seed=0)
    env.step(torch.zeros(_shape(env), device=env.device))
    wait(env.device)
    return env


def _shape(env: TokenEnv) -> tuple[int, ...]:
    return (env.num_envs, *env.single_action_space.shape)


def checked_bodies(bodies: BodySet) -> list[str]:
    """Names, of `body_of`, of two bodies that differ much, or of the only one, with round cones."""
    return [f"{ROUND}{name}" for name in dict.fromkeys((bodies.seen[0], bodies.seen[-1]))]


def reward_differences(bodies: BodySet, device: torch.device) -> Row:
    """Rewards of the device beside those of the CPU from the same starts, of `checked_bodies`."""
    chosen = [body_of(name) for name in checked_bodies(bodies)]
    own, right = make_env(bodies, chosen, WORLDS, device), bodies.make_env(chosen, WORLDS)
    differences = (_rewards(own) - _rewards(right)).abs().amax(1)  # (STEPS,); NaN where there is one
    return {"largest_difference": float(differences.max()), "differences": differences.tolist()}


def _rewards(env: TokenEnv) -> Tensor:
    """(STEPS, B) rewards of random actions, float64 on the CPU."""
    found, generator = [], torch.Generator().manual_seed(0)
    env.reset(seed=0)
    for _ in range(STEPS):
        actions = 2 * torch.rand(_shape(env), generator=generator) - 1
        found.append(env.step(actions.to(env.device)).rewards.to("cpu", torch.float64, copy=True))
    env.close()
    return torch.stack(found)


def on_device(
    name: str, bodies: BodySet, count: int, seconds: float, device: torch.device, against: Sequence[str]
) -> list[Rival]:
    """Worlds with random actions, observation, reward and resets; and the same launches and nothing else.

    Every turn begins with new episodes: without resets bodies come to rest, and cost less. The first is
    compared with the second and with ``against``.
    """
    env: TokenEnv

    def actions() -> Tensor:
        return torch.empty(_shape(env), device=device).uniform_(-1, 1)

    def begin() -> None:
        env.reset(seed=0)
        env._act(actions())  # for the bare simulation, which nobody gives controls

    def settle() -> None:
        wait(device)
        env.check()  # a capacity that was too small would have spared work

    def make(stack: ExitStack) -> Callable[[], Any]:
        nonlocal env
        _step_once(make_env(bodies, None, len(bodies.seen), device)).close()  # loads the kernels
        env = make_env(bodies, None, count, device)
        stack.callback(env.close)
        return lambda: env.step(actions())

    common = {"num_envs": count, "seconds": seconds, "begin": begin, "settle": settle}
    bare = stepping(f"{name}/bare", lambda _: env._simulation.launcher.launch, **common)
    return [stepping(f"{name}/somite", make, against=[bare.name, *against], **common), bare]
