"""What ``somite-evaluate suite=...`` does: plans, runs what has not been run, and reports."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...envs.errors import UserError
from ...envs.numbers import whole_number
from ...envs.saved import task_set_of
from ..device import resolve_device, thread_limit
from ..show.filming import to_film
from ..storage.policy_json import policy_folders
from .chunks import Chunk, run_chunks
from .conditions import read_suite
from .evaluated_runs import beside
from .plan import AgentPlan, make_plan
from .store import EpisodeStore
from .training_conditions import told_apart

if TYPE_CHECKING:
    from .report import Report

log = logging.getLogger(__name__)

STORE = "episodes.jsonl"


def evaluate_suites(config: DictConfig) -> Report:
    """Run the suites of ``conf/evaluate.yaml`` and write ``report/``.

    Raises:
        UserError: a run, suite, body or number that is not there, does not fit or cannot be meant.
    """
    episodes = None if config.episodes is None else whole_number(config.episodes, "episodes", minimum=1)
    seed, device = whole_number(config.seed, "seed"), resolve_device(config.device)
    workers = _workers(config.workers, config.threads, device)
    plain = OmegaConf.to_container(config, resolve=True)
    suites = [read_suite(str(name), node) for name, node in plain["suite"].items()]
    folders = policy_folders(config.run)
    if config.unfit not in ("fail", "skip"):
        raise UserError(f"unfit={config.unfit!r}: a suite that does not fit fails, or is skipped: fail, skip")
    plans = [
        make_plan(
            folder,
            suites,
            plain["env"],
            plain["bodies"],
            episodes,
            seed,
            bool(config.random_baseline),
            config.unfit == "skip",
            device.type,
        )
        for folder in folders
    ]
    _check_names(plans)
    plans = told_apart(plans)
    output = _output(config.output, folders)
    video = config.video and [to_film(task_set_of(plan.trials[0].environment)) for plan in plans]
    store = EpisodeStore(output / STORE)
    _run(plans, store, device, workers, thread_limit(config.threads))
    # Pandas and Matplotlib take seconds, and no episode needs them.
    from .report import write_report
    from .tables import suite_cells, terminal_table

    report = write_report(plans, suites, store, output, seed, video=bool(video) and any(video))
    for suite in suites:
        rows = report.agents[report.agents["suite"] == suite.name]
        if len(rows):
            Console().print(terminal_table(suite.title, suite_cells(rows)))
    log.info("report: %s", output / "report.html")
    return report


def _run(
    plans: Sequence[AgentPlan], store: EpisodeStore, device: torch.device, workers: int, threads: int
) -> None:
    """Run the chunks that the store has not, each once."""
    wanted: dict[str, Chunk] = {}
    for plan in plans:
        for trial in plan.trials:
            for chunk in (*trial.chunks, *trial.baseline):
                wanted.setdefault(chunk.key, chunk)
    missing = [chunk for key, chunk in wanted.items() if store.get(key) is None]
    if len(missing) < len(wanted):
        log.info("%d of %d parts were done before: %s", len(wanted) - len(missing), len(wanted), store.path)
    # The longest first, so that no worker is left with one at the end.
    missing.sort(key=lambda chunk: -chunk.episodes * len(chunk.bodies))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, transient=True) as progress:
            bar = progress.add_task("parts of the evaluation", total=len(missing))
            for chunk, bodies in run_chunks(missing, device, workers, threads):
                store.append(chunk.key, {"bodies": bodies})
                progress.advance(bar)
    except KeyboardInterrupt:
        log.warning("interrupted; the same command goes on from what is in %s", store.path)
        raise SystemExit(130) from None


def _workers(given: Any, threads: Any, device: torch.device) -> int:
    """Processes: as many as threads; one where a GPU does the work. Raises UserError: more than threads."""
    if given == "auto":
        return 1 if device.type != "cpu" else thread_limit(threads)
    workers = whole_number(given, "workers (or auto)", minimum=1)
    if threads != "auto" and workers > thread_limit(threads):
        raise UserError(f"workers={workers} are more than threads={threads}, which bounds all of them")
    return workers


def _check_names(plans: Sequence[AgentPlan]) -> None:
    names = [plan.run for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"{names.count(name)} runs are called {name}: rename a folder, to tell them apart"
            )


def _output(given: str | None, folders: Sequence[Path]) -> Path:
    """``report/`` beside the one run's policy, or in this folder for several."""
    if given is not None:
        return Path(given)
    return Path("report") if len(folders) > 1 else beside(folders[0], "report")
