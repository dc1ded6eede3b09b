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
from ...agents.policies import Policy
from ...envs.cores import available_cores
from ...envs.locomotion import BodySet, Morphology, build
from ...envs.locomotion.backends.warp import warp_modules
from ...envs.numbers import EPISODE_STEPS, TEXT, VALUES, checked, listed, one_of, real
from ...envs.task_set import TaskSet
from ...envs.token_env import TokenEnv
from ..cli.values import DEVICE
from .harness import ARGUMENTS, COUNT, ROUNDS, SECONDS, Report, Rival, Row, Turn, counted, stepping
from .population import CPU, SIGMA, draw, generations, initial_policy, swingup
from .speed import ours
from .training import PPOSpeed, compose, ppo_rivals, task_set, wait

SHARES = {"check": 30, "simulation": 140, "ppo": 110, "population": 60, "memory": 80, "learning": 180}
"""Parts in their order; of what is left of the time a part has as much as its number is of those to come."""
ROUND = "round:"
"""Before the name of a body: with round friction cones."""
STEPS, WORLDS, TOLERANCE = 5, 8, 1e-3
"""Of the comparison of rewards."""
WARM_UP = 3
"""Steps that tell how long one takes."""
MEMORY_STEPS = 16
"""Of an episode where only the memory of a population is looked at."""
SET_UP = 10
"""Seconds that making environments and learner may take."""


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
    target: Annotated[float, real(-1e12, 1e12)]
    seconds_to_return: Annotated[float, SECONDS]
    candidates: Annotated[int, COUNT]
    episodes: Annotated[int, COUNT]
    steps: Annotated[int, EPISODE_STEPS]
    limbs: Annotated[Sequence[str], ARGUMENTS]
    limb_candidates: Annotated[int, COUNT]
    limb_episodes: Annotated[int, COUNT]
    memory_bodies: Annotated[Sequence[str], ARGUMENTS]
    memory_populations: Annotated[Sequence[int], listed(COUNT)]
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
        for name in self.memory_bodies:
            body_of(name)
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
            "memory": partial(self._memory, report, device, next(iter(sets.values()))),
            "learning": partial(self._learning, report, ppo[list(ppo)[-1]]),
        }
        chosen = [part for part in SHARES if part in self.parts]
        for index, part in enumerate(chosen):
            report.begin(part, SHARES[part] / sum(SHARES[other] for other in chosen[index:]))
            parts[part]()

    def _compile(self, report: Report, device: torch.device, sets: Mapping[str, TaskSet]) -> Row:
        """Warp's kernels of all bodies, once for all parts."""
        names = [name for bodies in sets.values() for name in bodies.seen]
        if "memory" in self.parts:  # large ones take long
            names[1:1] = self.memory_bodies
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
        rows = []
        for task, bodies in sets.items():
            rows += report.keep(f"check/{task}", partial(reward_differences, bodies, device))
        report.table(f"Rewards of {STEPS} steps beside the CPU's", rows, "largest_difference")
        for row in rows:
            worst = row["largest_difference"]
            if not worst <= TOLERANCE:  # it may be NaN
                why = f"rewards differ from the CPU's by {worst:.3g}, allowed are {TOLERANCE:g}"
                report.fail(f"{row['name']}/too_large", why, differences=row["differences"])

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
            cpu, about = f"population/{kind}/cpu", {"candidates": count, "episodes": episodes}
            make = partial(around, policy, count, episodes)
            there = partial(make, task.simulated_by(simulation), device)
            rivals = [
                counted(cpu, partial(make, task, CPU), **about),
                counted(f"population/{kind}/somite", there, 1, [cpu], **about),
            ]
            rows = report.compare(f"Generations, {kind}", rivals, self.rounds)
            report.table("Memory", rows, "candidates", "episodes", "mib", "kib_each")

    def _memory(self, report: Report, device: torch.device, bodies: TaskSet) -> None:
        """By limbs and by candidates. By worlds it stands beside the speed of simulation."""
        worlds = self.worlds[0]
        rivals = [
            on_device(f"memory/limbs/{body}/{worlds}", bodies, worlds, 0.1, device, [], [body_of(body)])[0]
            for body in self.memory_bodies
        ]
        policy, carts = swingup(MEMORY_STEPS)
        for size in self.memory_populations:
            make = partial(around, policy, size, self.episodes, carts.simulated_by("torch"), device)
            rivals.append(counted(f"memory/population/swingup/{size}", make, candidates=size))
        rows = report.compare("Memory", rivals, 1)
        report.table("Memory", rows, "limbs", "mib", "kib_each")

    def _learning(self, report: Report, ppo: Sequence[PPOSpeed]) -> None:
        """Seconds to a return, on the device with the most environments and then on the CPU."""
        limit = max(1.0, min(self.seconds_to_return, report.left / 2 - SET_UP))
        rows = []
        for rival in (ppo[-1], ppo[0]):
            learning = partial(rival.learn_until, self.target, limit)
            rows += report.keep(rival.name.replace("ppo", "learning", 1), learning)
        title = f"Until the mean return of all bodies is {self.target:g}, within {limit:.0f} s"
        report.table(title, rows, "seconds_to_return", "return", "steps", "seconds", "seconds_of_setup")


def around(
    policy: Policy, candidates: int, episodes: int, task: TaskSet, device: torch.device, stack: ExitStack
) -> Callable[[int], int]:
    """A generation close around a policy: what candidates cost that have learnt as much as it has."""
    drawn = draw(policy, candidates, SIGMA, around=True)
    return generations(policy, task, drawn, episodes, available_cores(), stack, device)


def describe(device: torch.device) -> dict[str, Any]:
    """Fields of the machine: the device, its memory, versions of what simulates there."""
    versions = {name: version(name) for name in ("warp-lang", "mujoco-warp")}
    if device.type == "cpu":
        return {"device": "cpu", "versions_of_simulation": versions}
    found = torch.cuda.get_device_properties(device)
    memory = round(found.total_memory / 2**30, 1)
    about = {"device": found.name, "device_memory_gib": memory, "cuda": torch.version.cuda}
    return {**about, "versions_of_simulation": versions}


@contextmanager
def memory_told(device: torch.device, row: Row) -> Iterator[None]:
    """Add to a row the memory of a GPU that its environments or candidates, made in the block, take.

    Memory that whoever held it needs no more is given back before, that of the block's own graphs is not.
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
    ours, rights = (
        _rewards(env) for env in (make_env(bodies, chosen, WORLDS, device), bodies.make_env(chosen, WORLDS))
    )
    differences = (ours - rights).abs().amax(1)  # differences: (STEPS,); NaN where there is one
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
        _step_once(make_env(bodies, names, len(names or bodies.seen), device)).close()  # loads the kernels
        env = make_env(bodies, names, count, device)
        stack.callback(env.close)
        _step_once(env)
        more["limbs"] = int(env.single_observation_space["mask"].shape[0])
        return lambda: turn(lambda: env.step(actions()))

    def start_bare(stack: ExitStack) -> Turn:
        return lambda: turn(env._simulation.launcher.launch)

    bare = Rival(f"{name}/bare", start_bare, (), {"num_envs": count})
    return [Rival(f"{name}/somite", start, [bare.name, *against], more), bare]
