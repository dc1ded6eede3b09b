"""What a sweep leaves behind: which runs it has, and in which folders; and how far each of them has come.

::

    runs/<date-time with microseconds>-sweep/sweep.json
    runs/<date-time with microseconds>-<env>-<agent>-<algorithm>-<number>/    its runs, beside it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ...envs.errors import UserError, nearest
from ..storage.atomic import replace_file
from ..storage.run_folder import (
    ROOT,
    TIME_FORMAT,
    claim_folder,
    holder,
    last_checkpoint,
    list_checkpoints,
    step_of,
)
from ..storage.training_state import read_facts
from ..storage.untrusted import check_links, read_json

FILE = "sweep.json"
SUFFIX = "-sweep"
LAST = "last_sweep"
FORMAT_VERSION = 1
LARGEST_FILE = 2**26
"""Bytes; a larger sweep.json is none of ours."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its own arguments, without those of Hydra, and its folder."""

    overrides: tuple[str, ...]
    folder: Path


@dataclass(frozen=True)
class Sweep:
    """Runs that were started by one command, in the order in which they are run.

    ``folder`` is that of ``sweep.json``; the runs lie beside it.
    """

    folder: Path
    jobs: tuple[Job, ...]

    @property
    def root(self) -> Path:
        """The folder that holds the runs."""
        return self.folder.parent


def write_sweep(root: str | Path, jobs: Sequence[Job]) -> Sweep:
    """Writes a sweep's file into a new folder beside those of its runs. Raises OSError."""
    folder = claim_folder(Path(root) / f"{datetime.now().strftime(TIME_FORMAT)}{SUFFIX}")
    described = [
        {"overrides": list(job.overrides), "folder": str(job.folder.relative_to(root))} for job in jobs
    ]
    text = json.dumps({"format": FORMAT_VERSION, "jobs": described}, indent=2)
    replace_file(folder / FILE, text.encode() + b"\n")
    return Sweep(folder, tuple(jobs))


def find_sweep(name: str, root: str | Path = ROOT) -> Path | None:
    """The folder of a sweep; None if the name is of none.

    Args:
        name: ``last_sweep``, its folder or the file in it, or its name in ``root``.
        root: Where runs are.

    Raises:
        UserError: ``last_sweep``, and there is none.
    """
    root = Path(root)
    if name == LAST:
        found = sorted(path.parent for path in root.glob(f"*{SUFFIX}/{FILE}"))
        if not found:
            raise UserError(f"there is no sweep in {root.resolve()}; somite-train -m makes one")
        return found[-1]
    for folder in (Path(name), Path(name).parent, root / name):
        if (folder / FILE).is_file() and (folder != Path(name).parent or Path(name).name == FILE):
            return folder
    return None


def read_sweep(folder: str | Path) -> Sweep:
    """Reads the file of a sweep, by its folder.

    Raises:
        UserError: It is damaged, or names a folder that is not beside it, or arguments of Hydra, which could
            run code.
    """
    folder = Path(folder)
    check_links(folder)
    path = folder / FILE
    said = read_json(path, LARGEST_FILE)
    found = said.get("format") if isinstance(said, dict) else None
    if found != FORMAT_VERSION:
        raise UserError(f"{path} is of format {found!r}; this version reads {FORMAT_VERSION}")
    jobs = said.get("jobs")
    if not isinstance(jobs, list) or not jobs:
        raise UserError(f"{path} is damaged: it has no jobs")
    return Sweep(folder, tuple(_read_job(path, number, job) for number, job in enumerate(jobs)))


def _read_job(path: Path, number: int, job: Any) -> Job:
    overrides = job.get("overrides") if isinstance(job, dict) else None
    name = job.get("folder") if isinstance(job, dict) else None
    if not isinstance(name, str) or not isinstance(overrides, list):
        raise UserError(f"{path} is damaged: job {number} has no folder or no overrides")
    for override in overrides:
        is_ours = isinstance(override, str) and not override.lstrip("+~").startswith(("hydra", "-"))
        if not is_ours or "${" in override:  # nothing is looked up for a stranger
            raise UserError(f"{path}: job {number} has {override!r}; only keys and groups of a run are taken")
    root = path.parent.parent.resolve()
    folder = root / name
    if root not in folder.resolve().parents:
        raise UserError(f"{path}: the folder of job {number}, {name!r}, is not beside the sweep's")
    check_links(folder)
    return Job(tuple(overrides), path.parent.parent / name)


FINISHED, STOPPED, NEW, IN_USE, DAMAGED = "finished", "goes on", "begins", "in use", "damaged"


@dataclass(frozen=True)
class State:
    """How far a run of a sweep has come: one of the words above, and what is to be said with it."""

    word: str
    detail: str = ""

    @property
    def is_to_run(self) -> bool:
        """Whether there is something left to do. A damaged one is tried, and says what is wrong."""
        return self.word in (STOPPED, NEW, DAMAGED)


def state_of(job: Job, algorithm: Mapping[str, Any]) -> State:
    """How far a run has come, by what it says itself in its last checkpoint.

    ``algorithm`` is its settings as they are composed today: a raised budget makes a finished run go on.
    """
    user = holder(job.folder) if job.folder.is_dir() else None
    if user is not None:
        return State(IN_USE, f"by {user}")
    if not list_checkpoints(job.folder):
        return State(NEW)
    checkpoint = last_checkpoint(job.folder)
    try:
        facts = read_facts(checkpoint)
        done, key = facts["done"], facts["of"]
    except UserError as error:
        return State(DAMAGED, str(error))
    except KeyError as error:
        return State(DAMAGED, f"{checkpoint} does not say {error}")
    if key not in algorithm:
        raise UserError(f"{checkpoint} counts {key!r}, which its algorithm has not; {nearest(key, algorithm)}")
    budget, unit = float(algorithm[key]), key.removeprefix("total_")
    if done >= budget:
        return State(FINISHED, f"{done:,} {unit}")
    return State(STOPPED, f"from step {step_of(checkpoint):,}, {done:,} of {budget:,.0f} {unit}")


def table(jobs: Sequence[Job], states: Sequence[State]) -> str:
    """Which run is finished, goes on or begins, a line each, with what is not the same for all of them."""
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    lines, width = [], max(len(state.word) for state in states)
    for job, state in zip(jobs, states, strict=True):
        detail = f" ({state.detail})" if state.detail else ""
        own = " ".join(override for override in job.overrides if override not in common)
        lines.append(f"{state.word:{width}}  {job.folder.name}  {own}{detail}")
    return "\n".join(lines)
