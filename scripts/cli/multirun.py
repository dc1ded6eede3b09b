"""Several runs by one command: ``somite-train -m agent=smp,mlp seed=0,1,2``, and what is left of them.

Hydra composes the jobs and launches them, on this machine or by a launcher's plugin; which jobs there are,
and in which folders, is written down first, so that ``resume=<sweep>`` runs those that are missing::

    runs/<date-time with microseconds>-sweep/sweep.json
    runs/<date-time with microseconds>-<env>-<agent>-<algorithm>-<number>/    its runs, beside it
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ...agents.storage.atomic import replace_file
from ...agents.storage.paths import check_folder, command, hydra_quoted
from ...agents.storage.run_folder import (
    ROOT,
    TIME_FORMAT,
    claim_folder,
    hold,
    holder,
    last_checkpoint,
    list_checkpoints,
    step_of,
)
from ...agents.storage.training_state import read_facts
from ...agents.storage.untrusted import check_links, read_json
from ...envs.errors import UserError, nearest
from .arguments import CONFIG_MODULE, key_of, parse
from .jobs import Task, check_composed, do_task, hydra_knows, user_message
from .resume import check_own_classes, check_said_again, is_said_again, next_configuration, resumed_run

FILE = "sweep.json"
SUFFIX = "-sweep"
LAST = "last_sweep"
FORMAT_VERSION = 1
LARGEST_FILE = 2**26
"""Bytes; a larger sweep.json is none of ours."""

FINISHED, STOPPED, NEW, IN_USE, DAMAGED = "finished", "goes on", "begins", "in use", "damaged"
"""How far a run of a sweep has come."""

_RESUME, _SUBDIR = "resume=", "hydra.sweep.subdir"
_GROUPS = ("env", "agent", "algorithm", "experiment")


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


@dataclass(frozen=True)
class State:
    """How far a run of a sweep has come: one of these words, and what is to be said with it."""

    word: str
    detail: str = ""

    @property
    def is_to_run(self) -> bool:
        """Whether there is something left to do. A damaged one is tried, and says what is wrong."""
        return self.word in (STOPPED, NEW, DAMAGED)


def sweep_to_resume(arguments: Sequence[str]) -> Path | None:
    """The folder of the sweep that ``resume=`` names, if it names one."""
    name = resumed_run(arguments)
    return None if name is None else find_sweep(name)


def arguments_of_sweep(folder: Path, arguments: Sequence[str]) -> list[str]:
    """What Hydra is to be started with for a sweep that is gone on with.

    Keys beside ``resume=`` count for all of its runs.

    Raises:
        UserError: They replace a whole section, change what the sweep varies, or Hydra cannot write there.
    """
    check_folder(folder)
    others = [argument for argument in arguments if not argument.startswith(_RESUME)]
    jobs = read_sweep(folder).jobs
    varied = {o.partition("=")[0] for job in jobs for o in set(job.overrides) ^ set(jobs[0].overrides)}
    fixed = {*_GROUPS, *(key for key in varied if not is_said_again(key))}
    for argument in others:
        if parse([argument]).multirun or key_of(argument) in fixed:
            raise UserError(
                f"{argument}: a sweep goes on with its own runs; single keys that it does not vary may"
                " change, such as algorithm.total_steps=5e6, and Hydra's"
            )
    given = {key_of(argument) for argument in others}
    pairs = (override.partition("=")[::2] for job in jobs for override in job.overrides)
    check_own_classes(pairs, given, folder / FILE)
    return [f"hydra.sweep.dir={hydra_quoted(folder.parent)}", *others]


def has_basic_sweeper(parsed: argparse.Namespace, config_name: str) -> bool:
    """Whether all jobs of a multirun are known before it starts: no plugin decides which come next."""
    with _hydra(parsed, config_name) as (config, _):
        return str(config.hydra.sweeper._target_).endswith(f".{BasicSweeper.__name__}")


def run_sweep(
    task: Task, config_name: str, arguments: Sequence[str], folder: Path | None = None
) -> list[Exception]:
    """Runs the jobs of a multirun that are not finished, each in a folder of its own.

    Args:
        task: What to do with each composed configuration.
        config_name: The primary configuration in ``conf/``.
        arguments: Of the command line, looked up before; of `arguments_of_sweep` for a sweep that goes on.
        folder: Of the sweep that goes on; None: a new one.

    Returns:
        The errors of jobs that failed; the others went on.

    Raises:
        SystemExit: A signal stopped it; how to go on has been said.
        UserError: The jobs cannot be composed, or another process runs this sweep.
    """
    # The keys of a sweep's runs are those of its own choices of groups.
    own = [] if folder is None else list(read_sweep(folder).jobs[0].overrides)
    with _hydra(parse([*own, *arguments]), config_name) as (config, context):
        if folder is None:
            keys: list[str] = []
            planned, composed = _planned(config, context, config_name)
            sweep = write_sweep(config.hydra.sweep.dir, planned)
        else:
            keys = OmegaConf.to_container(config.hydra.overrides.task)[len(own) :]
            sweep = read_sweep(folder)
            composed = _compose(config, context, [[*job.overrides, *keys] for job in sweep.jobs])
            for one in composed:
                check_said_again(one, set(map(key_of, keys)), sweep.folder / FILE)
        with hold(sweep.folder):
            return _run_rest(task, config, context, sweep, composed, keys)


def _run_rest(
    task: Task,
    config: DictConfig,
    context: HydraContext,
    sweep: Sweep,
    composed: list[DictConfig],
    keys: list[str],
) -> list[Exception]:
    states = [state_of(job, of.algorithm) for job, of in zip(sweep.jobs, composed, strict=True)]
    print(table(sweep.jobs, states))
    left = [
        _arguments(job, sweep, keys) for job, state in zip(sweep.jobs, states, strict=True) if state.is_to_run
    ]
    done, used = ([s.word for s in states].count(word) for word in (FINISHED, IN_USE))
    print(
        f"{sweep.folder}: {len(states)} runs, {done} finished, {used} in use, {len(left)} to run", flush=True
    )
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=partial(_do_swept, task), config=config
    )
    again = command("somite-train", resume=sweep.folder.absolute())
    size = config.hydra.sweeper.max_batch_size or max(1, len(left))
    results: list[JobReturn] = []
    try:
        for first in range(0, len(left), size):
            results += launcher.launch(left[first : first + size], initial_job_idx=first)
    except (SystemExit, KeyboardInterrupt):
        print(f"the sweep goes on with: {again}", file=sys.stderr)
        raise
    errors = [result._return_value for result in results if result.status == JobStatus.FAILED]
    if errors:
        print(f"{len(errors)} failed; try these again with: {again}", file=sys.stderr)
    return errors


def _planned(
    config: DictConfig, context: HydraContext, config_name: str
) -> tuple[list[Job], list[DictConfig]]:
    """The jobs of a new sweep, their folders made where the user has not named them; and as composed."""
    given = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    given += OmegaConf.to_container(config.hydra.overrides.task)
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(given), None)
    root, named = Path(config.hydra.sweep.dir), _SUBDIR in str(config.hydra.overrides.hydra)
    configs, planned = _compose(config, context, jobs), []
    for overrides, composed in zip(jobs, configs, strict=True):
        check_composed(composed, config_name, root)
        try:
            with hydra_knows(composed):
                folder = root / str(composed.hydra.sweep.subdir)
        except OmegaConfBaseException as error:
            raise UserError(f"{_SUBDIR} must be known before the jobs start: {error}") from error
        planned.append(Job(tuple(overrides), folder))
    folders = [job.folder for job in planned]
    if len(set(folders)) < len(folders):
        raise UserError(
            f"{_SUBDIR} gives two runs of this sweep the folder {max(folders, key=folders.count)}"
        )
    if not named:
        planned = [Job(job.overrides, claim_folder(job.folder)) for job in planned]
    return planned, configs


def _compose(config: DictConfig, context: HydraContext, jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
    configs = [context.config_loader.load_sweep_config(config, list(overrides)) for overrides in jobs]
    for number, composed in enumerate(configs):
        with open_dict(composed):
            composed.hydra.job.num = number
    return configs


def _arguments(job: Job, sweep: Sweep, keys: Sequence[str]) -> list[str]:
    """What a launcher composes a job from."""
    more = [f"{_SUBDIR}={hydra_quoted(job.folder.relative_to(sweep.root))}"]
    if list_checkpoints(job.folder):
        more.append(f"hydra.output_subdir={next_configuration(job.folder)}")
    return [*job.overrides, *keys, *more]


@contextmanager
def _hydra(parsed: argparse.Namespace, config_name: str) -> Iterator[tuple[DictConfig, HydraContext]]:
    """Hydra as its own command line sets it up, and the configuration of the whole sweep."""
    search_path = create_config_search_path(f"pkg://{CONFIG_MODULE}")
    if parsed.config_dir:
        search_path.prepend("command-line", f"file://{Path(parsed.config_dir).absolute()}")
    program = Hydra.create_main_hydra2(task_name=config_name, config_search_path=search_path)
    try:
        config = program.compose_config(
            config_name=config_name, overrides=parsed.overrides, run_mode=RunMode.MULTIRUN
        )
        yield config, HydraContext(config_loader=program.config_loader, callbacks=Callbacks(config))
    finally:
        GlobalHydra.instance().clear()


def _do_swept(task: Task, config: DictConfig) -> None:
    """A task as a launcher calls it, in this process or another: failures are said, and handed on."""
    try:
        do_task(task, config, "train")
    except Exception as error:
        message = user_message(error) or f"{type(error).__name__}: {error}"
        print(f"{Path(HydraConfig.get().runtime.output_dir).name} failed: {message}", file=sys.stderr)
        raise


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
        raise UserError(
            f"{checkpoint} counts {key!r}, which its algorithm has not; {nearest(key, algorithm)}"
        )
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
