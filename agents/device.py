"""Where a run computes and in what: device, threads, memory, the keys ``precision`` and ``simulation``."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import platform
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ..envs.cores import GIB, available_cores, free_memory
from ..envs.errors import UserError, nearest, one_line, shown
from ..envs.numbers import one_of, whole
from ..envs.task_set import TaskSet

log = logging.getLogger(__name__)

MAX_AUTO_THREADS = 4
"""The networks are small: more threads within an operation bring nothing."""

CPU, WARP = "cpu", "warp"
WARP_MODULES = ("warp", "mujoco_warp")
FLOAT32 = "float32"
SLOW = 2.0
"""Times as long as in float32, from which on bf16 is warned of."""

DRIVER, CPUINFO = Path("/proc/driver/nvidia"), Path("/proc/cpuinfo")
_TOO_OLD = re.compile(r"driver on your system is too old \(found version (\d+)\)")
_WARP_FAILED = re.compile(r"^Failed to allocate (\d+) bytes on device")
_TORCH_FAILED = re.compile(r"Tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB|TiB)")
_FAILED = re.compile(r"CUDA error: out of memory|CU(BLAS|DNN)_STATUS_ALLOC_FAILED")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Turns the ``device`` key of a configuration into a device.

    Args:
        name: ``auto`` (the first GPU where torch sees one, else the CPU; logged), ``cpu``, ``cuda`` or
            ``cuda:1``.

    Raises:
        UserError: The name is unknown or torch sees no such GPU; why, and what would help.
    """
    _turn_off_tf32()
    if isinstance(name, torch.device) or name == "cpu":
        return torch.device(name)
    kind, _, index = str(name).partition(":")
    if name != "auto" and (kind != "cuda" or (name != "cuda" and not index.isdecimal())):
        raise UserError(f"there is no device={name}; {nearest(name, ('auto', 'cpu', 'cuda', 'cuda:0'))}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch warns of is for `_why_no_gpu` to say
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        device = torch.device("cuda", 0) if gpus else torch.device("cpu")
        log.info("device: %s (%s)", device, torch.cuda.get_device_name(0) if gpus else _why_no_gpu())
        return device
    if not gpus:
        raise UserError(f"device={name} was asked for, but {_why_no_gpu()}. Use device=cpu or device=auto.")
    if int(index or 0) >= gpus:
        raise UserError(f"device={name} was asked for, but torch sees {gpus} GPU(s), numbered from 0.")
    return torch.device("cuda", int(index or 0))


def _why_no_gpu() -> str:
    """Half a sentence where torch sees no GPU: why, and what would help if the machine has one."""
    version, cuda = torch.__version__, torch.version.cuda
    built = "the CPU only" if cuda is None else f"CUDA {cuda}"
    said = f"torch {version} (built for {built}) sees no GPU"
    if not has_nvidia_driver():
        return said
    said += ", though this machine has an NVIDIA driver"
    if cuda is None:
        plain = version.partition("+")[0]
        return f"{said}: for a build with CUDA, pip uninstall torch, then pip install torch=={plain}"
    found = "no reason is given"
    try:
        torch.cuda.init()  # its warning comes once only, its error every time
    except RuntimeError as error:
        found = shown(one_line(str(error)), 300)
    if too_old := _TOO_OLD.search(found):
        number = int(too_old[1])
        return (
            f"{said}, which is too old: it knows CUDA {number // 1000}.{number % 1000 // 10} and this torch "
            f"needs a driver for CUDA {cuda}; update the driver, or install a torch that is built for the "
            "older CUDA (pytorch.org)"
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"{said} ({found if hidden is None else f'CUDA_VISIBLE_DEVICES is {hidden!r}'})"


def has_nvidia_driver() -> bool:
    """Whether this machine has one, whatever torch was built for."""
    return DRIVER.exists() or shutil.which("nvidia-smi") is not None


def set_threads(threads: str | int = "auto") -> int:
    """Sets the number of threads within one operation of torch or NumPy, and returns it.

    ``auto`` is one per core, at most four, where OpenMP's threads wait for each other only briefly
    (``GOMP_SPINCOUNT``, which our console scripts set before torch starts), and one otherwise: threads that
    sleep at once, or that share a core with another process, are slower than one.

    Raises:
        UserError: It is neither ``auto`` nor a number of at least one.
    """
    if threads == "auto":
        count = min(available_cores(), MAX_AUTO_THREADS) if "GOMP_SPINCOUNT" in os.environ else 1
    else:
        count = thread_limit(threads)
        threads_for_numpy(count)
    torch.set_num_threads(count)
    return count


@contextmanager
def threads_of_an_operation(count: int) -> Iterator[None]:
    """Within it, torch gives each operation so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_limit(threads: str | int) -> int:
    """Threads or processes that the key ``threads`` allows; ``auto``: one per core. Raises UserError."""
    return available_cores() if threads == "auto" else (whole(1) | one_of("auto")).read("threads", threads)


def threads_for_numpy(count: int) -> None:
    """Bounds the threads of NumPy's linear algebra, which pycma uses, where NumPy brings OpenBLAS along.

    Its threads wait for each other without pause, and its variable is read when NumPy is imported.
    """
    library = ctypes.CDLL(np._core._multiarray_umath.__file__)
    for name in ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads"):
        if hasattr(library, name):
            getattr(library, name)(count)


def machine_name() -> str:
    """Processor and how many cores of it this process may use."""
    cores = available_cores()
    return f"{processor() or 'unknown processor'}, {cores} {'core' if cores == 1 else 'cores'}"


def processor() -> str | None:
    """The processor's model, None where the system does not tell."""
    return cpuinfo("model name") or platform.processor() or None


def cpuinfo(key: str) -> str | None:
    """The first processor's entry of Linux's /proc/cpuinfo; None for a key or a system without it."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in entries if name.strip() == key), None)


def use_precision(name: str, device: torch.device) -> None:
    """Makes this process compute so, and says what that means on a GPU, and where bf16 is slow.

    Float32 is float32: TF32, which rounds the factors of matrix products and convolutions to 10 bits of
    mantissa, is off for both. Torch's default is off for the former and on for the latter.

    Args:
        name: ``float32``, or ``bf16``: networks run under autocast, parameters and updates stay in float32.
        device: Of the learner.
    """
    _turn_off_tf32()
    if name == FLOAT32:
        if device.type == "cuda":
            log.info("precision: float32 (TF32 off, for matrix products and convolutions)")
        return
    log.info("precision: bf16 (autocast)")
    reason = ""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        reason = "this GPU has no bf16 arithmetic (NVIDIA's have since Ampere) and emulates it"
    elif device.type != "cuda" and (times := bf16_times()) > SLOW:
        reason = f"matrix products take {times:.0f} times as long on this processor"
    if reason:
        log.warning("precision=bf16 makes this run slower: %s. precision=float32 is faster here", reason)


def _turn_off_tf32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def bf16_times() -> float:
    """How many times as long as in float32 a product of matrices of a small network takes here in bf16.

    It is measured: what a processor and torch's kernels can do together is told by no flag (oneDNN claims
    bf16 for every AVX-512, also where it computes it in software).
    """
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


def resolve_simulation(name: str, task_set: TaskSet, device: torch.device, why_not: str | None = None) -> str:
    """Turns the ``simulation`` key of a configuration into where the task is simulated.

    Args:
        name: ``cpu``; ``warp`` (bodies and Gymnasium's MuJoCo tasks) or ``torch`` (the swing-up) on the
            learner's device; ``auto``: on a GPU the task's own if it can, else ``cpu``, which is logged with
            the reason.
        task_set: What is simulated.
        device: Of the learner.
        why_not: Half a sentence, why the algorithm cannot do with it; None: it can.

    Returns:
        ``cpu``, or ``task_set.device_simulation``.

    Raises:
        UserError: One that was asked for and is not possible.
    """
    if name == CPU or (name == "auto" and device.type == "cpu"):
        return CPU
    own, asked = task_set.device_simulation, f"simulation={name} was asked for, but"
    if name != "auto" and own is None:
        raise UserError(f"{asked} {task_set.why_not_on_device()}: use simulation=cpu or simulation=auto")
    if name not in ("auto", own):
        there = f"this task is simulated by {own} on a device"
        raise UserError(f"{asked} {there}: use simulation={own}, cpu or auto")
    why_not = why_not or task_set.why_not_on_device() or (_why_no_warp(device) if own == WARP else None)
    if why_not is None:
        slow = ", by the kernels made for a GPU, slowly" if device.type == "cpu" else ""
        log.info("simulation: %s on %s%s", own, device, slow)
        return own
    if name == "auto":
        log.info("simulation: cpu (%s)", why_not)
        return CPU
    raise UserError(f"{asked} {why_not}. Or use simulation=cpu.")


def _why_no_warp(device: torch.device) -> str | None:
    """Half a sentence, if MuJoCo Warp cannot be used; None: it can."""
    if any(importlib.util.find_spec(module) is None for module in WARP_MODULES):
        return "Warp is not installed: pip install 'somite[gpu]'"
    if device.type == "cpu":
        return None
    import warp  # which takes a second, and is not always there

    warp.init()
    if warp.get_cuda_device_count() > (device.index or 0):
        return None
    return f"Warp {warp.__version__} sees no {device}, perhaps for a driver that is too old for it"


def free_memory_of(device: torch.device) -> int:
    """Bytes that can be allocated, those of a GPU that torch keeps for itself included; 0: unknown."""
    if device.type != "cuda":
        return free_memory() or 0
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


@contextmanager
def out_of_memory(doing: str, device: torch.device, key: str, count: int) -> Iterator[None]:
    """Turns a GPU's lack of memory into a message with the key to lower and the number that would fit.

    What would fit at most is estimated: bytes in use since the beginning of the block and those of the
    request that failed, per unit of ``count``, against what was free at its beginning.

    Args:
        doing: What fills the memory, for the message.
        device: Whose memory it is; nothing is looked at on a CPU.
        key: Of the configuration, that the memory grows with.
        count: Its value.

    Raises:
        UserError: Torch or Warp could not allocate.
    """
    before = free_memory_of(device) if device.type == "cuda" else 0
    try:
        yield
    except RuntimeError as error:
        requested = _requested(error)
        if requested is None:
            raise
        said = f"{doing} does not fit into the memory of {device}"
        if not before or not requested:
            advice = f"lower it, say {key}={max(1, count // 2)}"
            raise UserError(f"{said} with {key}={count}: {advice}") from error
        needed = max(before - free_memory_of(device), 0) + requested
        fits = int(count * before / needed)
        step = 10 ** max(0, len(str(fits)) - 2)  # to two digits: an estimate that errs on the safe side
        fits = min(fits // step * step, count - 1)
        advice = f"{key}={fits} or fewer may fit" if fits >= 1 else f"not even {key}=1 fits"
        sizes = f"{needed / GIB:.3g} GiB or more and {before / GIB:.3g} GiB were free"
        raise UserError(f"{said}: {key}={count} needs {sizes}; {advice}") from error


def _requested(error: RuntimeError) -> int | None:
    """Bytes that could not be allocated, 0 if they are not told; None: it is another error."""
    if warp := _WARP_FAILED.search(str(error)):
        return int(warp[1])
    if told := _TORCH_FAILED.search(str(error)):
        return round(float(told[1]) * _UNITS[told[2]])
    is_memory = isinstance(error, torch.cuda.OutOfMemoryError) or _FAILED.search(str(error))
    return 0 if is_memory else None
