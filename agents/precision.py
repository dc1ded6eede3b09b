"""What a learner computes in: the key ``precision``, and what it means on a GPU."""

from __future__ import annotations

import logging
import time

import torch
from torch.nn import functional

from ..envs.errors import UserError, nearest
from .keys import PRECISIONS

log = logging.getLogger(__name__)

FLOAT32, BF16 = "float32", "bf16"
SLOW = 2.0
"""Times as long as in float32, from which on bf16 is warned of."""


def check_precision(name: str, algorithm: str) -> str:
    """The key ``precision`` of a configuration, checked.

    Args:
        name: ``float32``, or ``bf16``: networks run under autocast, parameters and updates stay in float32.
        algorithm: that computes in it, as in ``conf/algorithm``.

    Returns:
        The name.

    Raises:
        UserError: it is unknown, or the algorithm cannot compute in it.
    """
    name = str(name)
    if name not in PRECISIONS:
        raise UserError(f"precision cannot be {name!r}; {nearest(name, PRECISIONS)}")
    if name == BF16 and algorithm == "cma_es":
        raise UserError(
            "precision=bf16 was asked for, but algorithm=cma_es ranks candidates by returns that it computes "
            "in float32: use precision=float32, or algorithm=ppo"
        )
    return name


def turn_off_tf32() -> None:
    """Float32 is computed in float32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def why_slow(device: torch.device) -> str | None:
    """Why networks take longer in bf16 than in float32 on a device; None: they do not.

    A processor is measured: what it and torch's kernels can do together is told by no flag (oneDNN claims
    bf16 for every AVX-512, also where it computes it in software).
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return None
        return "this GPU has no bf16 arithmetic (NVIDIA's have since Ampere) and emulates it"
    times = bf16_times()
    return f"matrix products take {times:.0f} times as long on this processor" if times > SLOW else None


def bf16_times() -> float:
    """How many times as long as in float32 a product of matrices of a small network takes here in bf16."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        batch, weight = torch.ones(2048, 64, dtype=dtype), torch.ones(64, 64, dtype=dtype)
        taken = []
        for _ in range(4):  # the first makes kernels ready; the shortest is the least disturbed
            start = time.perf_counter()
            functional.linear(batch, weight)
            taken.append(time.perf_counter() - start)
        seconds.append(min(taken))
    return seconds[1] / seconds[0]


def use_precision(name: str, device: torch.device) -> None:
    """Makes this process compute so, and says what that means on a GPU, and where bf16 is slow.

    Float32 is float32: TF32, which rounds the factors of matrix products and convolutions to 10 bits of
    mantissa, is off for both. Torch's default is off for the former and on for the latter.

    Args:
        name: of `check_precision`.
        device: of the learner.
    """
    turn_off_tf32()
    if name == BF16:
        log.info("precision: bf16 (autocast)")
        reason = why_slow(device)
        if reason:
            log.warning("precision=bf16 makes this run slower: %s. precision=float32 is faster here", reason)
    elif device.type == "cuda":
        log.info("precision: float32 (TF32 off, for matrix products and convolutions)")
