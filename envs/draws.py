"""Random numbers of many environments; those with equal seeds draw the same.

What an environment draws at a seeded reset comes from a NumPy generator of its own key, `FirstDraws`: the
same key gives the same start on any device. What it draws later is from one generator of the
device, `Draws`. Tasks and senses are handed either, as `RandomNumbers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import UserError
from .snapshots import Kept


def keys_of(seed: int | Sequence[Any], num_envs: int) -> list[Any]:
    """A key for each of B environments: ``(seed, i)``, or those given. Raises UserError: another number."""
    keys = [[seed, i] for i in range(num_envs)] if isinstance(seed, (int, np.integer)) else list(seed)
    if len(keys) != num_envs:
        raise UserError(f"{len(keys)} seeds for {num_envs} environments")
    return keys


def generators(keys: Sequence[Any]) -> tuple[list[np.random.Generator], np.ndarray]:
    """A generator for each distinct key, and (B,) which of them is an environment's; thousands may share few.

    A key of None is like no other.
    """
    places: dict[Any, int] = {}
    stream = np.zeros(len(keys), int)
    rngs = []
    for i, key in enumerate(keys):
        name = object() if key is None else tuple(key) if isinstance(key, (list, tuple, np.ndarray)) else key
        if name not in places:
            places[name] = len(rngs)
            rngs.append(np.random.default_rng(key))
        stream[i] = places[name]
    return rngs, stream


def seeds_of(rngs: Sequence[np.random.Generator], count: int) -> list[int]:
    """So many seeds that depend on all of these; nothing is drawn from them."""
    states = [int(rng.bit_generator.seed_seq.generate_state(1)[0]) for rng in rngs]
    words = np.random.SeedSequence(states).generate_state(count, np.uint64)
    return [int(word >> np.uint64(1)) for word in words]


class FirstDraws:
    """Numbers of B newly seeded environments, as tensors of the device.

    Args:
        rngs: of the distinct keys.
        stream: (B,) which of them is an environment's.
        device: of what is drawn.

    Attributes:
        is_first: whether they are of a seeded reset, and the same on every device.
    """

    is_first = True

    def __init__(self, rngs: Sequence[np.random.Generator], stream: np.ndarray, device: torch.device) -> None:
        self._rngs, self._stream, self._device = rngs, stream, device

    def _each(self, draw: Callable[[np.random.Generator], Any]) -> Tensor:
        drawn = np.array([draw(rng) for rng in self._rngs])[self._stream]
        return torch.from_numpy(drawn).to(self._device)

    def uniform(self, *size: int) -> Tensor:
        """(B, *size) float64 in [0, 1)."""
        return self._each(lambda rng: rng.random(size))

    def normal(self, *size: int) -> Tensor:
        """(B, *size) float64 of deviation 1."""
        return self._each(lambda rng: rng.standard_normal(size))

    def integers(self, high: int, *size: int) -> Tensor:
        """(B, *size) int64 from 0 to ``high`` - 1."""
        return self._each(lambda rng: rng.integers(high, size=size or None))

    def permutations(self, size: int) -> Tensor:
        """(B, size) int64."""
        return self._each(lambda rng: rng.permutation(size))


class Draws(Kept):
    """The same from one generator of the device, for what is drawn later. Nothing here waits for the device.

    Args:
        num_envs: B.
        device: of the generator and of what it draws.

    Attributes:
        generator: to be registered with a CUDA graph that draws.
    """

    is_first = False
    kept = ("_stream", "_count", "generator")

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.generator = torch.Generator(device)
        self._stream = torch.arange(num_envs, device=device)  # (B,) which of the distinct numbers are its
        self._count = num_envs

    def seed(self, seed: int, stream: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Begin anew.

        Args:
            seed: of the generator.
            stream: (B,) which of the distinct keys is an environment's.
            rows: (B,) bool, those that are seeded, beside others that go on; None: all.
        """
        if rows is None:
            self.generator.manual_seed(seed)
        else:
            stream = np.where(rows, stream + self._count, self._stream.cpu().numpy())
        _, first, which = np.unique(stream, return_index=True, return_inverse=True)
        if self._stream.is_cuda:  # as many as there are environments: a recorded graph has a fixed size
            which = first[which]
        self._stream.copy_(torch.from_numpy(which))
        self._count = len(stream) if self._stream.is_cuda else len(first)

    def _draw(self, draw: Callable[..., Tensor], *arguments: Any, dtype: torch.dtype) -> Tensor:
        options = {"generator": self.generator, "device": self._stream.device, "dtype": dtype}
        return draw(*arguments, **options).index_select(0, self._stream)

    def uniform(self, *size: int, dtype: torch.dtype = torch.float64) -> Tensor:  # noqa: D102
        return self._draw(torch.rand, (self._count, *size), dtype=dtype)

    def normal(self, *size: int, dtype: torch.dtype = torch.float64) -> Tensor:  # noqa: D102
        return self._draw(torch.randn, (self._count, *size), dtype=dtype)

    def integers(self, high: int, *size: int, dtype: torch.dtype = torch.int64) -> Tensor:  # noqa: D102
        return self._draw(torch.randint, high, (self._count, *size), dtype=dtype)

    def permutations(self, size: int) -> Tensor:  # noqa: D102
        return self.uniform(size, dtype=torch.float32).argsort(1)


RandomNumbers = FirstDraws | Draws
