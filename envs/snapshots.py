"""What a simulation goes on from: taken out as plain values and tensors, and put back in place.

A class names the attributes that its future depends on; `take` copies them and `put` writes a copy back into
an object that was made in the same way, arrays and random streams in place, so that whoever shares them sees
the change. What is taken holds nothing but numbers, words, lists, dictionaries and tensors:
``torch.load(weights_only=True)`` reads it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch


class Misfit(ValueError):
    """A snapshot of something else: other rows, bodies or sensors."""


class Kept:
    """Goes on from the attributes that ``kept`` names; the others are fixed, or made anew in every step."""

    kept: tuple[str, ...]

    def snapshot(self) -> dict[str, Any]:
        """Copies of what this goes on from."""
        return take(self, self.kept)

    def restore(self, taken: Mapping[str, Any]) -> None:
        """Inverse of `snapshot`. Raises Misfit."""
        put(self, self.kept, taken)


def take(holder: Any, names: Iterable[str]) -> dict[str, Any]:
    """Copies of the named attributes.

    They are numbers, words, None, arrays, tensors, generators, what has ``snapshot()`` and
    ``restore(taken)`` of its own, or lists and dictionaries of these.
    """
    return {name: _take(getattr(holder, name)) for name in names}


def put(holder: Any, names: Iterable[str], taken: Mapping[str, Any]) -> None:
    """Inverse of `take`, of a holder that was made in the same way. Raises Misfit: of another one."""
    names = tuple(names)
    if set(names) != set(taken):
        raise Misfit(f"{type(holder).__name__} keeps {', '.join(names)}, not {', '.join(taken)}")
    for name in names:
        now = getattr(holder, name)
        put_back = _put(now, taken[name], f"{type(holder).__name__}.{name}")
        if put_back is not now:
            setattr(holder, name, put_back)


def _take(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, (list, tuple)):
        return [_take(item) for item in value]
    if isinstance(value, dict):
        return {key: _take(item) for key, item in value.items()}
    return value.snapshot()


def _put(now: Any, taken: Any, where: str) -> Any:
    """``taken`` as what ``now`` is, in place where ``now`` can be written to."""
    if isinstance(now, (np.ndarray, torch.Tensor)):
        fits = isinstance(taken, torch.Tensor) and tuple(now.shape) == tuple(taken.shape)
        _check(fits, now, taken, where)
        with torch.no_grad():
            (torch.from_numpy(now) if isinstance(now, np.ndarray) else now).copy_(taken)
    elif isinstance(now, np.random.Generator):
        _check(isinstance(taken, Mapping), now, taken, where)
        now.bit_generator.state = taken
    elif isinstance(now, torch.Generator):
        own = now.get_state()
        _check(isinstance(taken, torch.Tensor) and own.shape == taken.shape, own, taken, where)
        now.set_state(taken.cpu())
    elif hasattr(now, "restore"):
        now.restore(taken)
    elif isinstance(now, (list, tuple)) and any(_is_object(item) for item in now):
        _check(isinstance(taken, list) and len(now) == len(taken), now, taken, where)
        return type(now)(_put(item, kept, where) for item, kept in zip(now, taken, strict=True))
    elif isinstance(now, dict) and any(_is_object(item) for item in now.values()):
        _check(isinstance(taken, Mapping) and list(now) == list(taken), now, taken, where)
        return {key: _put(item, taken[key], where) for key, item in now.items()}
    else:
        return tuple(taken) if isinstance(now, tuple) else taken
    return now


def _is_object(value: Any) -> bool:
    """Whether it can only be written to in place, or holds something of the kind."""
    if isinstance(value, (list, tuple)):
        return any(_is_object(item) for item in value)
    kinds = (np.ndarray, torch.Tensor, np.random.Generator, torch.Generator)
    return isinstance(value, kinds) or hasattr(value, "restore")


def _check(fits: bool, now: Any, taken: Any, where: str) -> None:
    if not fits:
        raise Misfit(f"{where} is {_described(now)}, the snapshot holds {_described(taken)}")


def _described(value: Any) -> str:
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return f"an array of {tuple(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else type(value).__name__
