"""The machine that a run was made on."""

from __future__ import annotations

import platform
from pathlib import Path

from ..envs.cores import available_cores


def machine_name() -> str:
    """Processor and how many cores of it this process may use."""
    cores = available_cores()
    return f"{processor() or 'unknown processor'}, {cores} {'core' if cores == 1 else 'cores'}"


def processor() -> str | None:
    """The processor's model, None where the system does not tell."""
    return cpuinfo("model name") or platform.processor() or None


def cpuinfo(key: str) -> str | None:
    """The first processor's entry of Linux's /proc/cpuinfo; None for a key or a system without it."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return None
