"""How many of a machine's cores this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

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


def _quotas() -> Iterator[float]:
    """Cores that control groups allow, of every one that this process is in and that has a limit."""
    try:
        lines = OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2, beside version 1 or alone
            mounts = [CGROUPS, CGROUPS / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [CGROUPS / controllers, CGROUPS / "cpu"]
        else:
            continue
        own = PurePosixPath(path)
        # A container may tell the machine's path but show its own group alone, at the top: hence all parents.
        for group in (own, *own.parents):
            for mount in mounts:
                yield from _quota(mount / group.relative_to("/"))


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
