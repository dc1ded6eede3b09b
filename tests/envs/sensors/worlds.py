"""Small worlds on a device, and what is done in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from somite.envs.draws import RandomNumbers
from somite.envs.gym import TokenVectorEnv, resets_itself
from somite.envs.in_place import clear, replace
from somite.envs.sensors import Senses, SensorTask
from somite.envs.sensors.env import _KEPT, SensorEnv
from somite.envs.sensors.source import Source
from somite.envs.snapshots import Kept
from somite.envs.token_env import Step

CPU = torch.device("cpu")
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")
"""Operations whose result the host must know before it can go on."""


class Waves(Source):
    """Sensor i reads 10 (i + 1) + sin(speed * steps): another speed for each episode.

    Args:
        num_envs: B.
        ends: (B,) steps after which a row's episodes end; 0: they do not.
        length: steps after which they are cut.
        breaks: ``reading``, ``reward`` or ``state``: what is no number in step `at` of row 1.
        value: what it is instead.
        at: step of the first episode.
        choices: actions to choose from; 0: two continuous ones.
    """

    name, device = "waves", CPU
    kept = ("speed", "time", "_whole")

    def __init__(
        self,
        num_envs: int = 3,
        n_sensors: int = 5,
        ends: Sequence[int] | int = 0,
        length: int = 9,
        breaks: str = "",
        value: float = float("nan"),
        at: int = 4,
        choices: int = 0,
    ) -> None:
        self.num_envs, self.max_episode_steps = num_envs, length
        self.sensor_names = tuple(f"sensor_{i}" for i in range(n_sensors))
        box = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.single_action_space = spaces.Discrete(choices) if choices else box
        self.ends = torch.from_numpy(np.broadcast_to(ends, num_envs).copy())
        self.breaks, self.value, self.at = breaks, value, at
        self.speed, self.time = torch.zeros(num_envs, n_sensors), torch.zeros(num_envs, dtype=torch.int64)
        self._whole = torch.ones(num_envs, dtype=torch.bool)  # no episode has broken
        self._one = torch.arange(num_envs) == 1

    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        replace(self.speed, where, 0.5 + draws.uniform(len(self.sensor_names)))
        clear(self.time, where)
        self._whole.copy_(self._whole & ~where | draws.is_first)

    def _breaks(self, what: str) -> Tensor:
        return self._one & self._whole & (self.time == self.at) & (self.breaks == what)

    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.time += running
        rewards = torch.where(self._breaks("reward"), self.value, 1.0 + self.time.double())
        return rewards, self.time == self.ends, torch.zeros_like(running)

    def read(self) -> Tensor:
        waves = (self.speed * (self.time.unsqueeze(1) + 1)).sin()
        readings = waves + 10 * (torch.arange(len(self.sensor_names)) + 1)
        return torch.where(self._breaks("reading").unsqueeze(1), self.value, readings)

    @property
    def diverged(self) -> Tensor:
        return self._breaks("state")


def waves(senses: Senses | None = None, once: bool = False, stagger: bool = False, **source: Any) -> Any:
    """An environment of `Waves`."""
    return waiting_for_nothing(SensorEnv(Waves(**source), senses, once=once, stagger=stagger))


def waiting_for_nothing(env: SensorEnv) -> SensorEnv:
    """The same, stepping as on a GPU."""
    env.knows_ends = False
    return env


def on_device(task: SensorTask, rows: int, **options: Any) -> SensorEnv:
    """A task by its simulation for a device, stepping as there."""
    return waiting_for_nothing(task.simulated_by(task.device_simulation).make_env(None, rows, **options))


class ArraySource(Source):
    """A source whose simulations are arrays: a subclass has ``start_rows``, ``step_rows``, ``read_rows``."""

    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        rows = where.nonzero().flatten()
        seeds = draws.integers(2**31)[rows].tolist()
        self.start_rows(rows.numpy(), [np.random.default_rng(seed) for seed in seeds])

    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(torch.from_numpy(part) for part in self.step_rows(actions.numpy(), running.numpy()))

    def read(self) -> Tensor:
        return torch.from_numpy(self.read_rows())


def sensor_vec(
    source: Source, senses: Senses | None = None, autoreset_mode: str = "SameStep", **options: Any
) -> TokenVectorEnv:
    """Gymnasium's vector environment of a source."""
    return TokenVectorEnv(SensorEnv(source, senses, autoreset=resets_itself(autoreset_mode), **options))


def act(env: SensorEnv, rng: np.random.Generator) -> Tensor:
    """Random actions."""
    if env.discrete:
        return torch.from_numpy(rng.integers(env.n_actions, size=env.num_envs))
    return torch.from_numpy(rng.uniform(-1.2, 1.2, (env.num_envs, env.n_actions)).astype(np.float32))


def go_on(env: SensorEnv, steps: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """Everything that random actions lead to, copied."""
    rng = np.random.default_rng(seed)
    return [flat(env.step(act(env, rng))) for _ in range(steps)]


def flat(step: Step) -> dict[str, Tensor]:
    """A copy of all that a step gave."""
    found = {
        name: getattr(step, name) for name in ("rewards", "terminated", "truncated", "diverged", "whole")
    }
    found |= step.observation | {f"final_{name}": value for name, value in (step.final or {}).items()}
    return {name: value.clone() for name, value in found.items()}


def equal(one: Sequence[dict[str, Tensor]], other: Sequence[dict[str, Tensor]]) -> bool:
    """Whether all of it is the same, to the last bit."""
    return all(
        a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def tensors(env: SensorEnv) -> dict[str, Tensor]:
    """All that an environment goes on from, by where it is."""
    found = {}

    def look(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                look(f"{name}.{key}", inner)
        elif isinstance(value, Kept):
            for inner in value.kept:
                look(f"{name}.{inner}", getattr(value, inner))

    for name in (*_KEPT, "source"):
        look(name, getattr(env, name))
    return found


class NoWaiting(TorchDispatchMode):
    """Fails where the host would wait for a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        assert name not in WAITS, f"{name} waits for the device"
        if name.startswith("index"):
            picked = [a for a in torch.utils._pytree.tree_leaves(args[1:]) if isinstance(a, Tensor)]
            assert not any(a.dtype in (torch.bool, torch.uint8) for a in picked), f"{name} by a mask waits"
        return func(*args, **(kwargs or {}))


class Recorded(TorchDispatchMode):
    """What a CUDA graph keeps of a run: operations on memory, without the Python that led to them."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, tuple, dict, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        own = {_place(value) for value in _tensors((args, kwargs))}
        # Results that have memory of their own; views and what is written in place have none.
        made = [value if _place(value) not in own else None for value in _tensors(found)]
        self._calls.append((func, args, kwargs, made))
        return found

    def replay(self) -> None:
        """All of it again, to the same memory."""
        for func, args, kwargs, made in self._calls:
            for old, new in zip(made, _tensors(func(*args, **kwargs)), strict=True):
                if old is not None:
                    old.copy_(new)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in torch.utils._pytree.tree_leaves(values) if isinstance(value, Tensor)]


def _place(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()
