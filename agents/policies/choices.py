"""Decisions between choices: logits of several decisions stand side by side, those of one are its choices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...envs.errors import UserError
from ...envs.numbers import whole_number

Discrete = bool | Sequence[int]
"""Whether actions are choices: False; True, one of A; or how many choices each of K decisions has."""


def checked_discrete(discrete: Discrete, n_actions: int) -> bool | list[int]:
    """As plain JSON values. Raises UserError: the choices of all decisions together are not ``n_actions``."""
    if isinstance(discrete, bool):
        return discrete
    counts = [whole_number(count, "choices of a decision", 1) for count in discrete]
    if sum(counts) != n_actions:
        raise UserError(f"decisions between {counts} choices have {sum(counts)} logits, not {n_actions}")
    return counts


def choose(outputs: Tensor, discrete: Discrete) -> Tensor:
    """The most probable choices of logits (..., A): (...) of one decision, (..., K) of several.

    Outputs that are no logits are given back as they are.
    """
    if isinstance(discrete, bool):
        return outputs.argmax(-1) if discrete else outputs
    return torch.stack([logits.argmax(-1) for logits in outputs.split(list(discrete), -1)], -1)
