"""What a learner computes in: the key ``precision``, and what it means on a GPU."""

from __future__ import annotations

import logging

import torch

from ..envs.errors import UserError, nearest
from .keys import PRECISIONS

log = logging.getLogger(__name__)

FLOAT32, BF16 = "float32", "bf16"


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


def use_precision(name: str, device: torch.device) -> None:
    """Makes this process compute so, and says on a GPU what that means.

    Float32 is float32: TF32, which rounds the factors of matrix products and convolutions to 10 bits of
    mantissa, is off for both. Torch's default is off for the former and on for the latter.

    Args:
        name: of `check_precision`.
        device: of the learner.
    """
    turn_off_tf32()
    if name == BF16:
        emulated = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
        log.info("precision: bf16 (autocast)%s", ", which this GPU emulates, slowly" if emulated else "")
    elif device.type == "cuda":
        log.info("precision: float32 (TF32 off, for matrix products and convolutions)")
