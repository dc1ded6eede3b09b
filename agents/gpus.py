"""Which GPUs torch sees, and why it sees none."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from pathlib import Path

import torch

from ..envs.errors import one_line, shown

DRIVER = Path("/proc/driver/nvidia")
_TOO_OLD = re.compile(r"driver on your system is too old \(found version (\d+)\)")


def count_gpus() -> int:
    """How many GPUs torch can use; what it warns of otherwise is for `why_no_gpu` to say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cuda.device_count() if torch.cuda.is_available() else 0


def why_no_gpu() -> str:
    """Half a sentence where torch sees no GPU: why, and what would help if the machine has one."""
    version = torch.__version__
    if torch.version.cuda is None:
        without = f"torch {version} (built for the CPU only) sees no GPU"
        if not has_nvidia_driver():
            return without
        plain = version.partition("+")[0]
        return (
            f"{without}, though this machine has an NVIDIA driver: for a build with CUDA, "
            f"pip uninstall torch, then pip install torch=={plain}"
        )
    without = f"torch {version} (built for CUDA {torch.version.cuda}) sees no GPU"
    found = _initialization_error()
    too_old = _TOO_OLD.search(found)
    if too_old:
        number = int(too_old[1])
        return (
            f"{without}: the NVIDIA driver is too old, it knows CUDA {number // 1000}.{number % 1000 // 10} "
            f"and this torch needs a driver for CUDA {torch.version.cuda}; update the driver, or install a "
            "torch that is built for the older CUDA (pytorch.org)"
        )
    if not has_nvidia_driver():
        return without
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    said = f"CUDA_VISIBLE_DEVICES is {hidden!r}" if hidden is not None else shown(one_line(found), 300)
    return f"{without}, though this machine has an NVIDIA driver ({said or 'no reason is given'})"


def has_nvidia_driver() -> bool:
    """Whether this machine has one, whatever torch was built for."""
    return DRIVER.exists() or shutil.which("nvidia-smi") is not None


def _initialization_error() -> str:
    """What torch says of a GPU that it cannot use. Its warning comes once only, its error every time."""
    try:
        torch.cuda.init()
    except RuntimeError as error:
        return str(error)
    return ""
