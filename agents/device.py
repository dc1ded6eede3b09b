"""Where tensors live, and how many threads one operation may use."""

from __future__ import annotations

import ctypes
import logging
import os

import numpy as np
import torch

from ..envs.cores import available_cores
from ..envs.errors import UserError, nearest
from ..envs.numbers import whole_number
from .gpus import count_gpus, why_no_gpu
from .precision import turn_off_tf32

log = logging.getLogger(__name__)

MAX_AUTO_THREADS = 4
"""The networks are small: more threads within an operation bring nothing."""


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Turns the ``device`` key of a configuration into a device.

    Args:
        name: ``auto`` (the first GPU where torch sees one, else the CPU; logged), ``cpu``, ``cuda`` or
            ``cuda:1``.

    Returns:
        The device.

    Raises:
        UserError: If the name is unknown or torch sees no such GPU; why, and what would help.
    """
    turn_off_tf32()
    if isinstance(name, torch.device):
        return name
    name = str(name)
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if name != "auto" and (kind != "cuda" or (name != "cuda" and not index.isdecimal())):
        raise UserError(f"unknown device {name!r}: {nearest(name, ('auto', 'cpu', 'cuda', 'cuda:0'))}")
    gpus = count_gpus()
    if name == "auto":
        device = torch.device("cuda", 0) if gpus else torch.device("cpu")
        log.info("device: %s (%s)", device, torch.cuda.get_device_name(0) if gpus else why_no_gpu())
        return device
    if not gpus:
        raise UserError(f"device={name} was asked for, but {why_no_gpu()}. Use device=cpu or device=auto.")
    if int(index or 0) >= gpus:
        raise UserError(f"device={name} was asked for, but torch sees {gpus} GPU(s), numbered from 0.")
    return torch.device("cuda", int(index or 0))


def set_threads(threads: str | int = "auto") -> int:
    """Sets the number of threads within one operation of torch or NumPy.

    ``auto`` is one per core, at most four, where OpenMP's threads wait for each other only briefly
    (``GOMP_SPINCOUNT``, which our console scripts set before torch starts), and one otherwise. Measured on
    two cores, PPO of the limb transformer, whole runs: one thread 4.0 k steps/s; two threads 6.0 k that spin
    briefly, 5.9 k that spin for long, 3.7 k that sleep at once (``OMP_WAIT_POLICY=passive``). With another
    process on one of the cores: one thread 4.3 k, two that spin briefly 2.6 k. So where several runs share a
    machine, give each ``threads=1``.

    Args:
        threads: ``auto`` or a number of at least one.

    Returns:
        The number set.

    Raises:
        UserError: If it is neither.
    """
    if threads == "auto":
        count = min(available_cores(), MAX_AUTO_THREADS) if "GOMP_SPINCOUNT" in os.environ else 1
    else:
        count = thread_limit(threads)
        threads_for_numpy(count)
    torch.set_num_threads(count)
    return count


def thread_limit(threads: str | int) -> int:
    """Threads or processes that the key ``threads`` lets anything that computes have; ``auto``: one per core.

    Raises:
        UserError: it is neither ``auto`` nor a number of at least one.
    """
    return available_cores() if threads == "auto" else whole_number(threads, "threads (or auto)", minimum=1)


def threads_for_numpy(count: int) -> None:
    """NumPy's linear algebra, which pycma is made of, on so many threads, where NumPy brings OpenBLAS along.

    Its threads wait for each other without pause: with other processes on both cores, moving a search over
    913 parameters on by a generation took 1.3 s of computing on two threads and 0.3 s on one. The variable
    that says so is read when NumPy is imported, which is too early for us.
    """
    library = ctypes.CDLL(np._core._multiarray_umath.__file__)
    for name in ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads"):
        if hasattr(library, name):
            getattr(library, name)(count)
