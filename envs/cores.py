"""How much of a machine this process may use: cores and memory."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from gymnasium import spaces

from .errors import UserError

GIB = 2**30
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

BYTES_OF_AN_ENVIRONMENT = 2048
"""Beside its observations: random streams, counters."""


def available_cores() -> int:
    """Cores that this process may use; at least one.

    The fewest of: the cores that it is bound to (affinity), the processor time that its control groups or its
    container allow it (quotas of version 1 and 2), and what Slurm has given to the task.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([bound, *_quotas(), *_given_by_slurm()])))  # half a core is no core to itself


def thread_count(threads: int, most: int) -> int:
    """Threads that share work: as many as asked for (0: `available_cores`), but not more than ``most``."""
    return max(1, min(threads or available_cores(), most))


def free_memory() -> int | None:
    """Bytes that this process may still take; None where the system does not say.

    The fewest of what the machine has left and what the process's control groups allow it.
    """
    left = [*_left_by_groups(), *_left_by_machine()]
    return max(0, min(left)) if left else None


def check_memory(needed: float, what: str, advice: str, free: int | None = None) -> None:
    """Refuses what does not fit into the memory, before the system ends the process for it.

    Args:
        needed: bytes.
        what: takes them, in words.
        advice: what to change.
        free: bytes of the device; None: `free_memory` of the host.

    Raises:
        UserError: more than are free.
    """
    free = free_memory() if free is None else free
    if free is not None and needed > free:
        raise UserError(
            f"{what} takes about {needed / GIB:,.1f} GiB, and {free / GIB:,.1f} GiB are free; {advice}"
        )


def check_memory_of_environments(num_envs: int, space: spaces.Dict, copies: int) -> None:
    """Refuses environments that do not fit into the memory, before they are made.

    Args:
        num_envs: how many.
        space: of one observation.
        copies: bytes that one takes, in those of its observation (measured).

    Raises:
        UserError: they do not.
    """
    observed = sum(part.dtype.itemsize * math.prod(part.shape) for part in space.values())
    check_memory(
        num_envs * (copies * observed + BYTES_OF_AN_ENVIRONMENT),
        f"the simulation of {num_envs:,} environments, whose observations take {observed:,} bytes each,",
        "take fewer environments (algorithm.num_envs) or smaller observations",
    )


def _given_by_slurm() -> Iterator[int]:
    # Without --cpus-per-task only the cores of all tasks on this node are told.
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        if os.environ.get(name, "").isdecimal():
            yield int(os.environ[name])
            return


def _left_by_machine() -> Iterator[int]:
    for line in _lines(Path("/proc/meminfo")):
        if line[0] == "MemAvailable:":
            yield 1024 * int(line[1])
            return
    try:
        yield os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return


def _left_by_groups() -> Iterator[int]:
    """Bytes that control groups leave, of each with a limit; files that are only cached count as free."""
    for group in _groups("memory"):
        for most, used, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, now = _lines(group / most), _lines(group / used)
            if limit and now and limit[0][0] != "max":
                stat = dict(_lines(group / "memory.stat"))
                yield int(limit[0][0]) - int(now[0][0]) + int(stat.get(cached, 0))


def _quotas() -> Iterator[float]:
    """Cores that control groups allow, of every one that this process is in and that has a limit."""
    for group in _groups("cpu"):
        parts = (_lines(group / f"cpu.cfs_{part}_us") for part in ("quota", "period"))
        lines = _lines(group / "cpu.max") or itertools.chain(*parts)
        words = [word for line in lines for word in line]
        if len(words) == 2 and words[0] != "max" and float(words[0]) > 0 and float(words[1]) > 0:
            yield float(words[0]) / float(words[1])  # a quota of -1: no limit, in version 1


def _groups(controller: str) -> Iterator[Path]:
    """Where the control groups that this process is in may be shown, of one controller."""
    try:
        lines = OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2, beside version 1 or alone
            mounts = [CGROUPS, CGROUPS / "unified"]
        elif controller in controllers.split(","):
            mounts = [CGROUPS / controllers, CGROUPS / controller]
        else:
            continue
        own = PurePosixPath(path)
        # A container may tell the machine's path but show its own group alone, at the top: hence all parents.
        for group in (own, *own.parents):
            for mount in mounts:
                yield mount / group.relative_to("/")


def _lines(file: Path) -> list[list[str]]:
    """The words of each line of a file of the system; none where it is not shown here."""
    try:
        return [words for line in file.read_text(encoding="utf-8").splitlines() if (words := line.split())]
    except (OSError, ValueError):
        return []
