"""How much of a machine this process may use: cores and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .errors import UserError

GIB = 2**30
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_cores() -> int:
    """Cores that this process may use; at least one.

    The fewest of: the cores that it is bound to (affinity), the processor time that its control groups or its
    container allow it (quotas of version 1 and 2), and what Slurm has given to the task.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([bound, *_quotas(), *_given_by_slurm()])))  # half a core is no core to itself


def thread_count(threads: int, most: int) -> int:
    """Threads or processes that share work.

    Args:
        threads: that were asked for; 0: one for each of `available_cores`.
        most: more have nothing to do.
    """
    return max(1, min(threads or available_cores(), most))


def _given_by_slurm() -> Iterator[int]:
    # Without --cpus-per-task only the cores of all tasks on this node are told.
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        if os.environ.get(name, "").isdecimal():
            yield int(os.environ[name])
            return


def free_memory() -> int | None:
    """Bytes that this process may still take; None where the system does not say.

    The fewest of what the machine has left and what the process's control groups allow it.
    """
    left = [*_left_by_groups(), *_left_by_machine()]
    return max(0, min(left)) if left else None


def check_memory(needed: float, what: str, advice: str) -> None:
    """Refuses what does not fit into the memory, before the system ends the process for it.

    Args:
        needed: bytes.
        what: takes them, in words.
        advice: what to change.

    Raises:
        UserError: more than `free_memory`.
    """
    free = free_memory()
    if free is not None and needed > free:
        raise UserError(
            f"{what} takes about {needed / GIB:,.1f} GiB, and {free / GIB:,.1f} GiB are free; {advice}"
        )


def _left_by_machine() -> Iterator[int]:
    path = Path("/proc/meminfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024 * int(line.split()[1])
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
            try:
                limit = int((group / most).read_text(encoding="utf-8"))
                stat = dict(
                    line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines()
                )
                yield limit - int((group / used).read_text(encoding="utf-8")) + int(stat.get(cached, 0))
            except (OSError, ValueError):  # no such group is shown here, or its limit is "max"
                continue


def _quotas() -> Iterator[float]:
    """Cores that control groups allow, of every one that this process is in and that has a limit."""
    for group in _groups("cpu"):
        yield from _quota(group)


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


def _quota(group: Path) -> Iterator[float]:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        else:
            files = (group / f"cpu.cfs_{part}_us" for part in ("quota", "period"))
            quota, period = (file.read_text(encoding="utf-8") for file in files)
        if quota != "max" and float(quota) > 0 and float(period) > 0:  # -1: no limit, in version 1
            yield float(quota) / float(period)
    except (OSError, ValueError):  # no such group is shown here, or it has no limit to read
        return
