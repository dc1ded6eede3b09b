"""What PPO and cloning share: rollouts of the policy, each learnt from once by its gradient."""

from __future__ import annotations

import abc
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...envs.snapshots import Misfit
from ...envs.token_env import Step, TokenEnv
from ..device import out_of_memory, threads_of_an_operation
from ..policies.base import Policy
from ..rollout.buffer import RolloutBuffer
from ..rollout.episodes import EpisodeRecords
from ..training.faults import refuse_not_finite
from .base import Learner, Setup, Stop
from .network import Network

NORMALIZER_CHUNK = 8192  # samples; bounds the memory that updating the statistics takes

ANEW = "all environments begin new episodes"


def common_charts(policy: Policy) -> dict[str, Sequence[str]]:
    """What the dashboard shows of every learner of this kind."""
    identify = {"Which sensor is which: loss": ("(train|clone)/auxiliary_loss$",)}
    return {"Learning rate": ("train/learning_rate$",), **(identify if policy.has_auxiliary_loss else {})}


class OnPolicyLearner(Learner):
    """Collects ``settings.n_steps`` steps of every environment, learns from them, and forgets them.

    A stop in mid-rollout leaves the state at its beginning, so that the run goes on as if never stopped. Of
    environments that a device simulates nothing goes through the host until the rollout's end.

    ``columns`` are what a step keeps beside observations, shapes by name; ``values``: whether the policy is
    asked for them.
    """

    def __init__(
        self, settings: Any, setup: Setup, env: TokenEnv, columns: Mapping[str, Any], values: bool = True
    ) -> None:
        super().__init__(setup)
        self.settings, self.env, self.device, self._env_seed = settings, env, setup.device, setup.env_seed
        self.policy = setup.make_policy(env)
        self.network = Network(self.policy, setup.precision, torch.get_num_threads(), values)
        # One fused kernel for two dozen small tensors.
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=1.0, eps=1e-5, fused=True)
        length = settings.sequence_length if self.network.remembers else None
        self.buffer = RolloutBuffer(
            settings.n_steps, env.num_envs, env.single_observation_space, columns, self.device, length
        )
        self.records = EpisodeRecords(env.body_of_row, env.device)
        self._steps_of_bodies = np.bincount(env.body_of_row) * settings.n_steps  # (M,) of a rollout
        self.seconds = {"env": 0.0, "update": 0.0}
        self._clock = DeviceClock(self.device)
        self._is_away = env.device != self.device
        self._pinned: dict[str, Tensor] = {}
        self._mark: dict[str, Any] | None = None
        self.begin_episodes()
        np.random.seed(setup.learner_seed % 2**32)  # minibatches are drawn from NumPy's global stream
        torch.manual_seed(setup.learner_seed)

    def begin_episodes(self) -> None:
        """All environments start anew, by their seed."""
        self.observation = self._moved(self.env.reset(self._env_seed))
        self.starts = torch.ones(self.env.num_envs, dtype=torch.bool, device=self.env.device)
        self.records.begin(self.starts)
        self.network.memory = {}

    def update(self, stop: Stop) -> dict[str, float] | None:  # noqa: D102
        self._mark, whole = self._snapshot(), False
        try:
            whole = self._collect(stop)
        finally:
            if not whole:
                self.steps = self._mark["steps"]
        if not whole:
            return None
        begun, self.is_whole = time.perf_counter(), False
        # Threads with parts of the batch, where there are some, instead of threads within every operation.
        threads = 1 if self.network.shards else torch.get_num_threads()
        batch = "algorithm.batch_size", self.settings.batch_size
        with threads_of_an_operation(threads), out_of_memory("an update", self.device, *batch):
            scalars = self._learn()
        refuse_not_finite(dict(self.policy.named_parameters()), "parameter", self.steps)
        self._update_normalizer()
        self._mark, self.is_whole = None, True
        self.seconds["update"] += time.perf_counter() - begun
        return scalars

    def _collect(self, stop: Stop) -> bool:
        """Fill the buffer, one operation on one thread; False: stopped."""
        self.policy.eval()
        self.buffer.reset()
        self.records.clear()
        with threads_of_an_operation(1), torch.no_grad():
            for step in range(self.settings.n_steps):
                self._step(step)
                self.steps += self.env.num_envs
                if stop():
                    return False
            self._finish()
            self.env.check()
            when = f"the rollout that ended at step {self.steps:,}"
            self.episodes.add(*self.records.read(), self._steps_of_bodies, when)
            self.seconds["env"] += self._clock.read()
        return True

    def _step(self, step: int) -> None:
        """All environments act and advance. Nothing here waits for a device that simulates."""
        env, network = self.env, self.network
        actions, columns = self._act()
        actions = actions.to(env.device)
        kept = self.observation, self.starts, columns, network.before
        self._clock.start()
        if self._is_away:  # what was met is kept while other processes simulate
            env.begin(actions)
            self.buffer.add(*kept)
            result = env.finish()
        else:  # before they do: they may write their next observation into the same memory
            self.buffer.add(*kept)
            result = env.step(actions)
        ended = result.ended
        self._took(step, result, ended)
        self._clock.stop()
        self.records.add(result.rewards, ended, result.whole, result.diverged)
        if not env.knows_ends or ended.any():
            self._forget(ended)
        self.observation, self.starts = self._moved(result.observation), ended

    def _forget(self, ended: Tensor) -> None:
        self.network.forget(ended)

    def _moved(self, observation: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """On the learner's device."""
        if not self._is_away:
            return observation
        return {key: self._sent(key, value) for key, value in observation.items()}

    def _sent(self, key: str, value: Tensor) -> Tensor:
        # From pinned memory the GPU copies while the host goes on. The next step writes to the same memory,
        # which is safe: it has waited for its actions, and these come after the copy.
        if key not in self._pinned:
            self._pinned[key] = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        return self._pinned[key].copy_(value).to(self.device, non_blocking=True)

    @abc.abstractmethod
    def _act(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions for the environments, and columns of the buffer."""

    def _took(self, step: int, result: Step, ended: Tensor) -> None:
        """What a step of the environments gave, right after it."""

    def _finish(self) -> None:
        """The rollout is complete."""

    @abc.abstractmethod
    def _learn(self) -> dict[str, float]:
        """Change the parameters by what the buffer holds; scalars."""

    def _minimize(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        gradients = {name: p.grad for name, p in self.policy.named_parameters() if p.grad is not None}
        norm = torch.nn.utils.get_total_norm(list(gradients.values()))
        if not norm.isfinite():  # which overflows before its numbers do
            refuse_not_finite(gradients, "gradient of", self.steps)
        most = self.settings.max_grad_norm
        torch.nn.utils.clip_grads_with_norm_(self.policy.parameters(), most, norm)
        self.optimizer.step()

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _update_normalizer(self) -> None:
        """By the raw observations of this rollout, once after each update."""
        flat = {key: value.flatten(0, 1) for key, value in self.buffer.observations.items()}
        for first in range(0, len(flat["mask"]), NORMALIZER_CHUNK):
            chunk = {key: value[first : first + NORMALIZER_CHUNK] for key, value in flat.items()}
            self.policy.normalizer.update(chunk)

    def _snapshot(self) -> dict[str, Any]:
        """What goes on between updates, but for what only these change."""
        return {
            "steps": self.steps,
            "env": self.env.snapshot(),
            "starts": self.starts.clone(),
            "memory": {key: value.detach().clone() for key, value in self.network.memory.items()},
            "records": self.records.snapshot(),
            "episodes": self.episodes.snapshot(),
        }

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {**(self._mark or self._snapshot()), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any], new_episodes: bool) -> Sequence[str]:  # noqa: D102
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        if not new_episodes:
            try:
                return self._go_on(state)
            except Misfit as error:
                self.begin_episodes()
                return (str(error), ANEW)
        return (ANEW,)

    def _go_on(self, state: Mapping[str, Any]) -> list[str]:
        """Go on with the episodes that were begun. Raises Misfit."""
        self.observation = self._moved(self.env.restore(state["env"]))
        anew = torch.as_tensor(self.env.begun_anew).to(self.starts.device)  # (B,)
        self.starts = state["starts"].to(self.starts.device) | anew
        self.network.memory = {key: value.to(self.device) for key, value in state["memory"].items()}
        self.records.restore(state["records"])
        self.episodes.restore(state["episodes"])
        if not anew.any():
            return []
        self.records.begin(anew)
        self._forget(anew)
        return [f"{int(anew.sum())} of {len(anew)} environments begin new episodes"]

    def learnt_from(self) -> dict[str, Tensor]:  # noqa: D102
        observed = {f"observation/{key}": value for key, value in self.buffer.observations.items()}
        return {name: value.flatten(0, 1) for name, value in {**self.buffer.columns, **observed}.items()}

    def close(self) -> None:  # noqa: D102
        self.env.close()


class DeviceClock:
    """Adds up the time of a device's operations between `start` and `stop`.

    On a GPU they are timed by marks in its stream, so that nothing waits until `read`.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_gpu = device.type == "cuda"
        self._marks: list[torch.cuda.Event] = []
        self._seconds = 0.0

    def start(self) -> None:
        """A part begins."""
        self._mark(-1)

    def stop(self) -> None:
        """The part has ended."""
        self._mark(1)

    def _mark(self, sign: int) -> None:
        if not self._is_gpu:
            self._seconds += sign * time.perf_counter()
            return
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        self._marks.append(mark)

    def read(self) -> float:
        """Seconds since the last reading. Waits for the GPU."""
        if self._marks:
            self._marks[-1].synchronize()
            pairs = zip(self._marks[::2], self._marks[1::2], strict=True)
            self._seconds += sum(start.elapsed_time(stop) for start, stop in pairs) / 1000  # of milliseconds
        seconds, self._seconds, self._marks = self._seconds, 0.0, []
        return seconds
