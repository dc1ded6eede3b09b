"""What environments go on to: the same for two of them, to the last bit, or not."""

from __future__ import annotations

import io
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode


def read_back(taken: dict[str, Any]) -> dict[str, Any]:
    """As from a file: nothing but plain values and tensors."""
    file = io.BytesIO()
    torch.save(taken, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def go_on(env: gymnasium.vector.VectorEnv, steps: int, seed: int) -> list[Any]:
    """Everything that random actions lead to, what is observed before them included."""
    rng, found = np.random.default_rng(seed), [observed(env)]
    onlooker = getattr(env, "_beside", None)
    for _ in range(steps):
        if getattr(env, "discrete", False):
            actions = rng.integers(env.n_actions, size=env.num_envs)
        else:
            actions = rng.uniform(-1, 1, env.action_space.shape)
        result = env.step(actions)
        found.append(result)
        if onlooker:
            found.append(env.beside_observation())
        ended = result[2] | result[3]
        if env.autoreset_mode == AutoresetMode.DISABLED and ended.any():
            found.append(env.reset(options={"reset_mask": ended}))
    return found


def observed(env: gymnasium.vector.VectorEnv) -> dict[str, np.ndarray]:
    """The present observation."""
    return env._observe() if hasattr(env, "_observe") else env._observation()


def equal(one: Any, other: Any) -> bool:
    """Whether all arrays in them are, in type, too."""
    one, other = list(_arrays(one)), list(_arrays(other))
    return len(one) == len(other) and all(
        name == same_name and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)
        for (name, a), (same_name, b) in zip(one, other, strict=True)
    )


def _arrays(value: Any, name: str = "") -> Any:
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _arrays(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _arrays(item, f"{name}.{index}")
    elif value is not None:
        yield name, np.asarray(value)
