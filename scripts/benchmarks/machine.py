"""The machine that figures were taken on, and whether it had other work to do."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

from ...agents.device import cpuinfo, processor
from ...envs.cores import available_cores

PACKAGES = ("somite", "torch", "mujoco", "gymnasium", "stable-baselines3", "numpy")
BUSY_LOAD_PER_CORE = 0.25
"""Above it, something else was running in the minute before: the start of a benchmark loads little."""


def describe_machine() -> dict[str, Any]:
    """Processor, memory, load and versions, as plain JSON values; None for what cannot be known."""
    return {
        "cpu": processor(),
        "cores": available_cores(),
        "memory_gib": _memory_gib(),
        "bf16_in_hardware": _has_bf16(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load_average_at_start": _load_average(),
    }


def busy_message(machine: dict[str, Any]) -> str | None:
    """A warning for the reader of the figures, or None if the machine was quiet."""
    load = machine["load_average_at_start"]
    if load is None or load[0] <= BUSY_LOAD_PER_CORE * machine["cores"]:
        return None
    return (
        f"The machine was busy: load average {load[0]:.2f} on {machine['cores']} cores in the minute before. "
        f"Ratios of interleaved rounds still tell something, steps/s little."
    )


def _load_average() -> list[float] | None:
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _has_bf16() -> bool | None:
    flags = cpuinfo("flags")
    return None if flags is None else any(name in flags.split() for name in ("avx512_bf16", "amx_bf16"))
