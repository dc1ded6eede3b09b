"""Memory of a GPU that does not suffice, said with the key to lower and the number that would fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..envs import cores
from ..envs.cores import GIB
from ..envs.errors import UserError

_WARP = re.compile(r"^Failed to allocate (\d+) bytes on device")
_TORCH = re.compile(r"Tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB|TiB)")
_UNTOLD = re.compile(r"CUDA error: out of memory|CU(BLAS|DNN)_STATUS_ALLOC_FAILED")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@contextmanager
def out_of_memory(doing: str, device: torch.device, key: str, count: int) -> Iterator[None]:
    """Turns a GPU's lack of memory into a message for the user.

    What would fit is estimated: bytes in use since the beginning of the block and those of the request that
    failed, per unit of ``count``, against what was free at its beginning. More may be asked for afterwards,
    so it is said as what fits at most.

    Args:
        doing: what fills the memory, for the message.
        device: whose memory it is; nothing is looked at on a CPU.
        key: of the configuration, that the memory grows with.
        count: its value.

    Raises:
        UserError: torch or Warp could not allocate.
    """
    before = _free_of_gpu(device)
    try:
        yield
    except RuntimeError as error:
        requested = _requested(error)
        if requested is None:
            raise
        used = before - _free_of_gpu(device)
        raise UserError(_message(doing, device, key, count, before, used, requested)) from error


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated, those of a GPU that torch keeps for itself included; 0: unknown."""
    return _free_of_gpu(device) if device.type == "cuda" else cores.free_memory() or 0


def _free_of_gpu(device: torch.device) -> int:
    """Bytes; 0 where there is no GPU."""
    if device.type != "cuda":
        return 0
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _requested(error: RuntimeError) -> int | None:
    """Bytes that could not be allocated, 0 if they are not told; None: it is another error."""
    warp = _WARP.search(str(error))
    if warp:
        return int(warp[1])
    if _UNTOLD.search(str(error)):
        return 0
    if not isinstance(error, torch.cuda.OutOfMemoryError):
        return None
    told = _TORCH.search(str(error))
    return round(float(told[1]) * _UNITS[told[2]]) if told else 0


def _message(
    doing: str, device: torch.device, key: str, count: int, free: int, used: int, requested: int
) -> str:
    needed = max(used, 0) + requested
    said = f"{doing} does not fit into the memory of {device}"
    if not free or not requested:
        return f"{said} with {key}={count}: lower it, say {key}={max(1, count // 2)}"
    fits = min(_rounded_down(count * free / needed), count - 1)
    said += f": {key}={count} needs {needed / GIB:.3g} GiB or more and {free / GIB:.3g} GiB were free"
    return f"{said}; {key}={fits} or fewer may fit" if fits >= 1 else f"{said}; not even {key}=1 fits"


def _rounded_down(number: float) -> int:
    """To two digits: an estimate that errs on the safe side."""
    step = 10 ** max(0, len(str(int(number))) - 2)
    return int(number) // step * step
