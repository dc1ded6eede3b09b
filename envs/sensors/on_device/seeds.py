"""Seeds of rows, of which many may be the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import UserError


def generators(seed: int | Sequence[Any], num_envs: int) -> tuple[list[np.random.Generator], np.ndarray]:
    """One generator for each distinct seed; thousands of rows may share few.

    Args:
        seed: one for all (row i then draws from ``(seed, i)``) or one for each row.
        num_envs: B.

    Returns:
        The generators, and (B,) which of them is a row's.

    Raises:
        UserError: another number of seeds than rows.
    """
    one = isinstance(seed, (int, np.integer))
    seeds = [[seed, row] for row in range(num_envs)] if one else list(seed)
    if len(seeds) != num_envs:
        raise UserError(f"{len(seeds)} seeds for {num_envs} environments")
    places: dict[Any, int] = {}
    stream = np.zeros(num_envs, int)
    rngs = []
    for row, own in enumerate(seeds):
        # A row without a seed of its own is like no other.
        name = object() if own is None else tuple(own) if isinstance(own, (list, tuple, np.ndarray)) else own
        if name not in places:
            places[name] = len(rngs)
            rngs.append(np.random.default_rng(own))
        stream[row] = places[name]
    return rngs, stream


def one_seed(rngs: Sequence[np.random.Generator]) -> int:
    """A seed that depends on all of these; nothing is drawn from them."""
    states = [rng.bit_generator.seed_seq.generate_state(1)[0] for rng in rngs]
    return int(np.random.SeedSequence(states).generate_state(1, np.uint64)[0] >> np.uint64(1))
