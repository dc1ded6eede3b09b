"""Episodes of many sets of parameters of one policy at once: rows of a batch, not processes.

A population is evaluated in shards of a fixed number of candidates. A shard's numbers depend on nothing but
its own candidates and the starts; who computes it, beside what, and after what, has no influence. So a
population gives the same, bit for bit, on any number of threads or machines of one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...envs.sensors.cartpole_swingup import is_plain_swingup
from ...envs.task_set import TaskSet
from ...envs.token_env import TokenEnv
from ..device import out_of_memory
from ..policies import Policy
from .episodes import FirstEpisodes
from .native import library
from .stacked import StackedAttentionNeuron, split_parameters, stack

CHECK_EVERY = 8
"""Steps between looks at which episodes still run; looking is cheap, but not free."""

WORTHWHILE = 0.95
"""Ended episodes are dropped when no more than this share of the present ones would remain."""

UNREAD = ("privileged", "sensor")
"""Of an observation, what no acting policy reads."""

ROWS, ROWS_SPREAD = {"sensors": 4096}, {"sensors": 1024}
"""Of a shard by kind of tokens, where one machine computes and where several processes do: what a thread
does for small arrays between two steps takes longer than the arrays, and threads wait for each other then.
See docs/scaling.md for the measurements."""

ROWS_OTHERWISE, ROWS_OF_A_BODY = 128, 32
"""Of a shard whose simulation or policy takes longer; at least so many of each body."""

WARM_UP = 3
"""Runs before the capture: libraries get ready, and what is cached at the first call is cached."""

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Scores:
    """What P candidates have reached on M bodies in E episodes of each.

    Attributes:
        returns: (P, M, E). lengths: (P, M, E), steps.
        diverged: (P, M, E) bool, episodes that ended because their simulation diverged.
    """

    returns: np.ndarray
    lengths: np.ndarray
    diverged: np.ndarray


def joined(scores: Sequence[Scores]) -> Scores:
    """Scores of all candidates from those of shards, in order."""
    return Scores(*(np.concatenate([getattr(s, n) for s in scores]) for n in Scores.__dataclass_fields__))


def shards_of(size: int, shard_size: int) -> list[slice]:
    """P candidates in parts of ``shard_size``; the last one may be smaller."""
    return [slice(first, min(first + shard_size, size)) for first in range(0, size, shard_size)]


def starts_of(shard: slice, starts: Sequence[Any], episodes: int) -> Sequence[Any]:
    """Of `Population.evaluate`'s starts, those of a shard."""
    return starts if len(starts) == episodes else starts[shard.start * episodes : shard.stop * episodes]


def automatic_shard_size(
    policy: Policy, task_set: TaskSet, size: int, episodes: int, spread: bool = False
) -> int:
    """Candidates of a shard where nobody says otherwise; the number of threads or machines has no influence.

    Args:
        policy: on its device.
        task_set: gives kind and bodies.
        size: P, candidates.
        episodes: E, of each body.
        spread: whether several processes share the shards, on their processors.
    """
    on_cpu = task_set.simulation == "cpu" and next(policy.parameters()).device.type == "cpu"
    if not (on_cpu or spread):
        return size
    bodies = len(task_set.seen)
    otherwise = max(ROWS_OTHERWISE, ROWS_OF_A_BODY * bodies)
    rows = (ROWS_SPREAD if spread else ROWS).get(policy.kind, otherwise)
    return min(size, max(1, rows // (bodies * episodes)))


class Simulator:
    """Runs ``episodes`` (E) of candidates on each training body of a task, one shard at a time.

    The policy, whose acting parameters candidates are, is read only. The task is simulated as it says: on the
    CPU, with so many threads, or on the policy's device.
    """

    def __init__(self, policy: Policy, task_set: TaskSet, episodes: int, threads: int = 1) -> None:
        self.policy, self.episodes, self.bodies = policy, episodes, task_set.seen
        self.device = next(policy.parameters()).device
        self._task_set, self._threads = task_set, threads
        self._loops: dict[int, _Loop] = {}

    def make_env(self, count: int) -> TokenEnv:
        """The environments of so many candidates."""
        device = "cpu" if self._task_set.simulation == "cpu" else self.device
        options = {"aligned": self.policy.aligned_slots, "once": True, "threads": self._threads}
        rows = len(self.bodies) * count * self.episodes
        return self._task_set.make_env(self.bodies, rows, device, **options)

    def run(self, candidates: np.ndarray, starts: Sequence[Any], stop: Stop) -> Scores | None:
        """Scores of all candidates (S, n); None: stopped, which is asked now and then.

        ``starts`` are E of all of them, or S * E, those of each after those of the one before.

        Raises:
            UserError: the device's memory does not suffice, or what the environment's `check` finds.
        """
        count = len(candidates)
        if self.device.type == "cpu":
            torch.set_num_threads(1)  # of this thread's operations
        with torch.no_grad(), out_of_memory("candidates", self.device, "algorithm.shard_size", count):
            if count not in self._loops:
                self._loops[count] = _Loop(self, count)
            loop = self._loops[count]
            # Small operations take less time in inference mode, which CUDA graphs are not recorded in.
            with torch.inference_mode() if loop.env.knows_ends else torch.no_grad():
                return loop.run(candidates, starts, stop)

    def close(self) -> None:
        """Let the simulations go."""
        for loop in self._loops.values():
            loop.env.close()
        self._loops.clear()


class _Loop:
    """Acting and stepping for P candidates of a simulator, and what comes of it.

    Where the host knows which episodes have ended, they are dropped. Elsewhere nothing waits for the device
    between two looks, and tensors stay where they are, so that a step can be one CUDA graph.
    """

    def __init__(self, simulator: Simulator, count: int) -> None:
        self._policy, self._device = simulator.policy, simulator.device
        self.env = env = simulator.make_env(count)
        # Environments of a body lie together, in an order of the environment's; of it, those of a candidate.
        bodies, episodes = len(simulator.bodies), simulator.episodes
        self._shape = count, bodies, episodes
        order = np.argsort(env.body_of_row[:: count * episodes])
        places = torch.arange(env.num_envs, device=env.device).view(bodies, count, episodes)[order]
        self._places = places.transpose(0, 1).reshape(count, -1)  # (P, M * E), of each candidate
        self._all_flat = self._places.flatten()
        self._episodes = FirstEpisodes(env.num_envs, env.device)
        self._actions: Tensor | None = None
        self._stack: Any = None
        self._advance: Callable[[], None] | None = None

    def run(self, candidates: np.ndarray, starts: Sequence[Any], stop: Stop) -> Scores | None:
        """As of `Simulator`."""
        env = self.env
        self._begin(candidates, starts)
        if isinstance(self._stack, StackedAttentionNeuron) and is_plain_swingup(env) and library():
            return self._swing_up(stop)
        if self._advance is None:
            self._advance = self._step
            if getattr(env, "can_be_captured", False) and not env.knows_ends:
                self._advance = repeated(self._step, self._device, env.generators)
                self._begin(candidates, starts)  # to record it, steps were made
        steps = 0
        while self._episodes.running.any():  # here, and nowhere else, the host waits
            if steps >= env.max_episode_steps:
                raise RuntimeError(f"an episode goes on after {env.max_episode_steps} steps")
            if steps and env.knows_ends:
                self._drop_ended()
            for _ in range(CHECK_EVERY):
                self._advance()
            steps += CHECK_EVERY
            if stop():
                return None
        env.check()
        found = self._episodes
        told = (kept[self._all_flat] for kept in (found.returns, found.lengths, found.diverged))
        return Scores(*(values.view(self._shape).cpu().numpy() for values in told))

    def _swing_up(self, stop: Stop) -> Scores | None:
        """All of the episodes in C++, which no environment takes part in but for their starts."""
        starts = self.env.source.state[:, self._all_flat].unflatten(1, self._rows.shape)  # (4, P, E)
        found = self._stack.swing_up(starts, self.env.max_episode_steps, stop)
        if found is None:
            return None
        returns, lengths, diverged = (values.view(self._shape).numpy() for values in found)
        return Scores(returns, lengths, diverged.astype(bool))

    def _begin(self, candidates: np.ndarray, starts: Sequence[Any]) -> None:
        parameters = split_parameters(self._policy, candidates)
        first = self.env.reset(list(starts) * (self.env.num_envs // len(starts)))
        self._act_in(self._places)
        self._episodes.begin()
        in_place = self._stack is not None and not self.env.knows_ends
        if in_place:
            self._observe(first)
        else:
            self._observation = {k: v.clone() for k, v in first.items() if k not in UNREAD}
        complete = getattr(self.env, "tokens_are_complete", None if self.env.knows_ends else False)
        new = stack(self._policy, parameters, self._observed(), complete)
        if in_place:
            for kept, value in zip(self._stack.tensors(), new.tensors(), strict=True):
                kept.copy_(value)
        else:
            self._stack = new

    def _act_in(self, rows: Tensor) -> None:
        """Candidates act in these environments (P', R) from now on."""
        # A recorded step goes on to read the same tensor.
        self._rows, self._flat = rows, self._all_flat if rows is self._places else rows.flatten()
        self._are_all = self._shape[1] == 1 and rows is self._places

    def _step(self) -> None:
        """Act and step once; nothing here waits for the device."""
        actions = self._policy.choose(self._stack.act(self._observed()).flatten(0, 1)).to(self.env.device)
        if not self._are_all:
            if self._actions is None:
                self._actions = actions.new_zeros(self.env.num_envs, *actions.shape[1:])
            actions = self._actions.index_copy_(0, self._flat, actions)
        result = self.env.step(actions)
        self._episodes.add(result.rewards, result.ended, result.diverged)
        if self.env.knows_ends:
            self._observation = {key: result.observation[key] for key in self._observation}
        else:
            self._observe(result.observation)

    def _observe(self, observation: dict[str, Tensor]) -> None:
        for key, value in self._observation.items():
            value.copy_(observation[key])

    def _observed(self) -> dict[str, Tensor]:
        """The observation as (P', R, ...), on the policy's device."""
        found = {}
        for key, value in self._observation.items():
            chosen = value if self._are_all else value.index_select(0, self._flat)
            found[key] = chosen.to(self._device).unflatten(0, self._rows.shape)
        return found

    def _drop_ended(self) -> None:
        """Go on without candidates whose episodes have all ended, and with as few as the others need."""
        runs = self._episodes.running[self._rows]  # runs: (P', R)
        counts = runs.sum(1)
        sets, width = counts.nonzero().flatten(), int(counts.max())
        if len(sets) * width <= WORTHWHILE * runs.numel():
            order = (~runs[sets]).byte().argsort(dim=1, stable=True)[:, :width]  # the running ones first
            self._stack.keep(sets.to(self._device), order.to(self._device))
            self._act_in(self._rows[sets].gather(1, order))


def repeated(
    function: Callable[[], None], device: torch.device, generators: Sequence[torch.Generator] = ()
) -> Callable[[], None]:
    """``function`` as what is called in a loop: on a GPU a CUDA graph, on a CPU itself.

    On a GPU it is run at once, `WARM_UP` times, and captured: what it has written is to be written anew
    before the loop begins. It has neither arguments nor results, waits for nothing, reads and writes tensors
    that stay where they are, and draws from these ``generators`` of the device alone.
    """
    if device.type != "cuda":
        return function
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device), torch.cuda.stream(side):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    # Other threads, which may be busy with the GPU themselves, do not disturb a capture in this mode.
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    return graph.replay


class Population:
    """Evaluates whole populations on this machine.

    Threads take shards in turn; each steps its own batched environment and its own stacked parameters, one
    operation on one thread. Where the task is simulated on the device, one shard is computed after another.

    Args:
        policy: whose acting parameters candidates are, on the device of the networks.
        task_set: gives the task.
        size: P, candidates.
        episodes: E, of each body.
        threads: as many shards are simulated beside each other.
        shard_size: candidates that are simulated together; None: as `automatic_shard_size` says.
    """

    def __init__(
        self,
        policy: Policy,
        task_set: TaskSet,
        size: int,
        episodes: int,
        threads: int = 1,
        shard_size: int | None = None,
    ) -> None:
        shard_size = shard_size or automatic_shard_size(policy, task_set, size, episodes)
        self.shards = shards_of(size, shard_size)
        # One shard at a time keeps a GPU busy; its simulation still has the cores.
        on_cpu = task_set.simulation == "cpu" and next(policy.parameters()).device.type == "cpu"
        count = min(threads, len(self.shards)) if on_cpu else 1
        threads_of_each = max(1, threads // count)
        self._simulators = [Simulator(policy, task_set, episodes, threads_of_each) for _ in range(count)]
        self._free: SimpleQueue[Simulator] = SimpleQueue()
        for simulator in self._simulators:
            self._free.put(simulator)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="population")

    def evaluate(
        self, candidates: np.ndarray, starts: Sequence[Any], stop: Stop = lambda: False
    ) -> Scores | None:
        """Run every candidate; each row has one episode.

        Args:
            candidates: (P, n) acting parameters.
            starts: E seeds, of the episodes of every candidate on every body; or P * E, those of each
                candidate after those of the one before.
            stop: asked now and then; True ends all of it.

        Returns:
            Scores; None: it was stopped.
        """
        left = False

        def leave() -> bool:
            return left or stop()

        def run(shard: slice) -> Scores | None:
            if leave():
                return None
            simulator = self._free.get()
            try:
                return simulator.run(candidates[shard], starts_of(shard, starts, simulator.episodes), leave)
            finally:
                self._free.put(simulator)

        try:
            found = list(self._threads.map(run, self.shards))
        except BaseException:
            left = True  # the other threads would go on to the end of their episodes
            raise
        return None if any(scores is None for scores in found) else joined(found)

    def close(self) -> None:
        """Let the simulations and threads go."""
        self._threads.shutdown(cancel_futures=True)
        for simulator in self._simulators:
            simulator.close()
