"""Several runs by one command: ``somite-train -m agent=smp,mlp seed=0,1,2``, and what is left of them.

Hydra composes the jobs and launches them, on this machine or by a launcher's plugin; which jobs there are,
and in which folders, is written down first, so that ``resume=<sweep>`` runs those that are missing::

    runs/<date-time with microseconds>-sweep/sweep.json
    runs/<date-time with microseconds>-<env>-<agent>-<algorithm>-<number>/    its runs, beside it
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
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
from .arguments import configuration, key_of, parse
from .jobs import Task, check_composed, do_task, hydra_knows, user_message
from .resume import check_own_classes, check_said_again, is_said_again, next_configuration

FILE, SUFFIX, LAST = "sweep.json", "-sweep", "last_sweep"
FORMAT_VERSION = 1

FINISHED, IN_USE, TO_RUN = "finished", "in use", ("goes on", "begins", "damaged")
"""How far a run of a sweep has come. A damaged one is tried, and says what is wrong."""

_RESUME, _SUBDIR = "resume=", "hydra.sweep.subdir"
_GROUPS = ("env", "agent", "algorithm", "experiment")


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its own arguments, without those of Hydra, and its folder."""

    overrides: tuple[str, ...]
    folder: Path


def arguments_of_sweep(folder: Path, arguments: Sequence[str]) -> list[str]:
    """What Hydra is started with for a sweep that is gone on with; the keys of its first run come first.

    Keys beside ``resume=`` count for all of its runs.

    Raises:
        UserError: They replace a whole section, change what the sweep varies, or Hydra cannot write there.
    """
    check_folder(folder)
    others = [argument for argument in arguments if not argument.startswith(_RESUME)]
    jobs = read_sweep(folder)
    varied = {o.partition("=")[0] for job in jobs for o in set(job.overrides) ^ set(jobs[0].overrides)}
    fixed = {*_GROUPS, *(key for key in varied if not is_said_again(key))}
    for argument in others:
        if parse([argument]).multirun or key_of(argument) in fixed:
            raise UserError(
                f"{argument}: a sweep goes on with its own runs; single keys that it does not vary may"
                " change, such as algorithm.total_steps=5e6, and Hydra's"
            )
    pairs = (override.partition("=")[::2] for job in jobs for override in job.overrides)
    check_own_classes(pairs, set(map(key_of, others)), folder / FILE)
    return [*jobs[0].overrides, f"hydra.sweep.dir={hydra_quoted(folder.parent)}", *others]


def run_sweep(
    task: Task, config_name: str, arguments: Sequence[str], folder: Path | None = None
) -> list[Exception] | None:
    """Runs the jobs of a multirun that are not finished, each in a folder of its own.

    Args:
        task: What to do with each composed configuration.
        config_name: The primary configuration in ``conf/``.
        arguments: Of the command line; of `arguments_of_sweep` for a sweep that goes on.
        folder: Of the sweep that goes on; None: a new one.

    Returns:
        The errors of jobs that failed; the others went on. None: a plugin decides which jobs come next, so
        that the multirun is left to Hydra.

    Raises:
        UserError: The jobs cannot be composed, or another process runs this sweep.
    """
    parsed = parse(arguments)
    with configuration(parsed) as loader:
        name = parsed.config_name or config_name
        config = loader.load_configuration(name, parsed.overrides, RunMode.MULTIRUN)
        sweeper = str(config.hydra.sweeper._target_)
        if folder is None and not sweeper.endswith(f".{BasicSweeper.__name__}"):
            return None
        context = HydraContext(config_loader=loader, callbacks=Callbacks(config))
        keys: list[str] = []
        if folder is None:
            jobs, composed = _planned(config, context, config_name)
            folder = write_sweep(config.hydra.sweep.dir, jobs)
        else:
            jobs = read_sweep(folder)
            keys = OmegaConf.to_container(config.hydra.overrides.task)[len(jobs[0].overrides) :]
            composed = _compose(config, context, [[*job.overrides, *keys] for job in jobs])
            for one in composed:
                check_said_again(one, set(map(key_of, keys)), folder / FILE)
        with hold(folder):
            states = [state_of(job, one.algorithm) for job, one in zip(jobs, composed, strict=True)]
            left = [job for job, (word, _) in zip(jobs, states, strict=True) if word in TO_RUN]
            done, used = ([word for word, _ in states].count(word) for word in (FINISHED, IN_USE))
            print(table(jobs, states))
            print(f"{folder}: {len(jobs)} runs, {done} finished, {used} in use, {len(left)} to run")
            sys.stdout.flush()
            return _launch(partial(_do_swept, task), config, context, folder, left, keys)


def _launch(
    function: Task,
    config: DictConfig,
    context: HydraContext,
    folder: Path,
    jobs: Sequence[Job],
    keys: Sequence[str],
) -> list[Exception]:
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=function, config=config
    )
    again = command("somite-train", resume=folder.absolute())
    size, results = config.hydra.sweeper.max_batch_size or max(1, len(jobs)), []
    try:
        for first in range(0, len(jobs), size):
            batch = [_arguments(job, folder, keys) for job in jobs[first : first + size]]
            results += launcher.launch(batch, initial_job_idx=first)
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
    configs, folders = _compose(config, context, jobs), []
    for composed in configs:
        check_composed(composed, config_name, root)
        try:
            with hydra_knows(composed):
                folders.append(root / str(composed.hydra.sweep.subdir))
        except OmegaConfBaseException as error:
            raise UserError(f"{_SUBDIR} must be known before the jobs start: {error}") from error
    if len(set(folders)) < len(folders):
        twice = max(folders, key=folders.count)
        raise UserError(f"{_SUBDIR} gives two runs of this sweep the folder {twice}")
    folders = folders if named else [claim_folder(folder) for folder in folders]
    return [Job(tuple(overrides), at) for overrides, at in zip(jobs, folders, strict=True)], configs


def _compose(config: DictConfig, context: HydraContext, jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
    configs = [context.config_loader.load_sweep_config(config, list(overrides)) for overrides in jobs]
    for number, composed in enumerate(configs):
        with open_dict(composed):
            composed.hydra.job.num = number
    return configs


def _arguments(job: Job, sweep: Path, keys: Sequence[str]) -> list[str]:
    """What a launcher composes a job from."""
    more = [f"{_SUBDIR}={hydra_quoted(job.folder.relative_to(sweep.parent))}"]
    if list_checkpoints(job.folder):
        more.append(f"hydra.output_subdir={next_configuration(job.folder)}")
    return [*job.overrides, *keys, *more]


def _do_swept(task: Task, config: DictConfig) -> None:
    """A task as a launcher calls it, in this process or another: failures are said, and handed on."""
    try:
        do_task(task, config, "train")
    except Exception as error:
        message = user_message(error) or f"{type(error).__name__}: {error}"
        print(f"{Path(HydraConfig.get().runtime.output_dir).name} failed: {message}", file=sys.stderr)
        raise


def write_sweep(root: str | Path, jobs: Sequence[Job]) -> Path:
    """Writes a sweep's file into a new folder beside those of its runs, and gives it. Raises OSError."""
    folder = claim_folder(Path(root) / f"{datetime.now().strftime(TIME_FORMAT)}{SUFFIX}")
    told = [{"overrides": job.overrides, "folder": str(job.folder.relative_to(root))} for job in jobs]
    text = json.dumps({"format": FORMAT_VERSION, "jobs": told}, indent=2)
    replace_file(folder / FILE, text.encode() + b"\n")
    return folder


def find_sweep(name: str, root: str | Path = ROOT) -> Path | None:
    """The folder of a sweep by ``last_sweep``, its folder or file, or its name in ``root``; None: it is none.

    Raises:
        UserError: ``last_sweep``, and there is none.
    """
    root, path = Path(root), Path(name)
    if name == LAST:
        found = sorted(path.parent for path in root.glob(f"*{SUFFIX}/{FILE}"))
        if not found:
            raise UserError(f"there is no sweep in {root.resolve()}; somite-train -m makes one")
        return found[-1]
    places = (path.parent if path.name == FILE else path, root / name)
    return next((folder for folder in places if (folder / FILE).is_file()), None)


def read_sweep(folder: str | Path) -> list[Job]:
    """The runs of a sweep, by its folder, in the order in which they are run.

    Raises:
        UserError: The file is damaged, or names another folder than one beside it, or arguments of Hydra.
    """
    folder = Path(folder)
    check_links(folder)
    path = folder / FILE
    said = read_json(path, 2**26)
    found = said.get("format") if isinstance(said, dict) else None
    if found != FORMAT_VERSION:
        raise UserError(f"{path} is of format {found!r}; this version reads {FORMAT_VERSION}")
    jobs = said.get("jobs")
    if not isinstance(jobs, list) or not jobs:
        raise UserError(f"{path} is damaged: it has no jobs")
    return [_read_job(path, number, job) for number, job in enumerate(jobs)]


def _read_job(path: Path, number: int, job: Any) -> Job:
    overrides, name = (job.get(key) for key in ("overrides", "folder")) if isinstance(job, dict) else (0, 0)
    if not isinstance(name, str) or not isinstance(overrides, list):
        raise UserError(f"{path} is damaged: job {number} has no folder or no overrides")
    check_kept(overrides, f"{path}: job {number}")
    root = path.parent.parent
    folder = root / name
    if root.resolve() not in folder.resolve().parents:
        raise UserError(f"{path}: the folder of job {number}, {name!r}, is not beside the sweep's")
    check_links(folder)
    return Job(tuple(overrides), folder)


def check_kept(overrides: Sequence[Any], where: str) -> None:
    """Raises UserError: arguments of a file, perhaps a stranger's, are for Hydra or look something up."""
    for override in overrides:
        is_ours = isinstance(override, str) and not override.lstrip("+~").startswith(("hydra", "-"))
        if not is_ours or "${" in override:
            raise UserError(f"{where} has {override!r}; only keys and groups of a run are taken")


def state_of(job: Job, algorithm: Mapping[str, Any]) -> tuple[str, str]:
    """How far a run has come, in a word and what is to be said with it, by what its last checkpoint says.

    ``algorithm`` is its settings as they are composed today: a raised budget makes a finished run go on.
    """
    user = holder(job.folder) if job.folder.is_dir() else None
    if user is not None:
        return IN_USE, f"by {user}"
    if not list_checkpoints(job.folder):
        return "begins", ""
    checkpoint = last_checkpoint(job.folder)
    try:
        facts = read_facts(checkpoint)
        done, key = facts["done"], facts["of"]
    except UserError as error:
        return "damaged", str(error)
    except KeyError as error:
        return "damaged", f"{checkpoint} does not say {error}"
    if key not in algorithm:
        hint = nearest(key, algorithm)
        raise UserError(f"{checkpoint} counts {key!r}, which is no setting of its algorithm; {hint}")
    budget, unit = float(algorithm[key]), key.removeprefix("total_")
    if done >= budget:
        return FINISHED, f"{done:,} {unit}"
    return "goes on", f"from step {step_of(checkpoint):,}, {done:,} of {budget:,.0f} {unit}"


def table(jobs: Sequence[Job], states: Sequence[tuple[str, str]]) -> str:
    """Which run is finished, goes on or begins, a line each, with what is not the same for all of them."""
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    lines, width = [], max(len(word) for word, _ in states)
    root = os.path.commonpath([job.folder.parent for job in jobs])
    for job, (word, detail) in zip(jobs, states, strict=True):
        own = " ".join(override for override in job.overrides if override not in common)
        name = job.folder.relative_to(root)
        lines.append(f"{word:{width}}  {name}  {own}{f' ({detail})' if detail else ''}")
    return "\n".join(lines)
