"""What ``somite-evaluate`` does: returns on seen and unseen bodies as a table, or suites and their report."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...envs.errors import UserError
from ...envs.locomotion.pictures.rendering import file_name
from ...envs.numbers import whole_number
from ...envs.task_set import TaskSet, task_set_of
from ..agent import Agent
from ..device import resolve_device, set_threads, thread_limit
from ..show.video import film_episode, to_film
from ..storage.policy import load_policy
from ..storage.policy_json import policy_folders
from .episodes import run_episodes
from .plan import AgentPlan, Chunk, EpisodeStore, Planner, misfit, run_chunks
from .runs import agent_name, beside, run_name, task_of, told_apart, trained_on
from .suites import read_suite

if TYPE_CHECKING:
    from .report import Report

# Pandas, SciPy and Matplotlib take seconds, and no episode needs them: they are imported after the episodes.

log = logging.getLogger(__name__)

EPISODES = 10
"""Of each body, where nothing else is said; suites have their own numbers."""

STORE = "episodes.jsonl"


@dataclass(frozen=True)
class Row:
    """One body's result under one policy, a row of ``results.csv``.

    ``mean`` and ``deviation`` are of the episodes' returns; ``interval`` is the half width of the 95 %
    interval of Student's t over episodes (None for one episode); ``random_mean`` is the mean return of
    random actions from the same starts (None where it was not asked for).
    """

    run: str
    agent: str
    body: str
    seen: bool
    episodes: int
    mean: float
    deviation: float
    interval: float | None
    mean_length: float
    random_mean: float | None


def evaluate(config: DictConfig) -> list[Row]:
    """Evaluate what ``conf/evaluate.yaml`` describes; print the table, write it beside the run.

    Returns:
        The rows of the table; of suites none.

    Raises:
        UserError: a run, body or number that is not there or invalid.
    """
    set_threads(config.threads)
    if config.get("suite"):
        evaluate_suites(config)
        return []
    plain = OmegaConf.to_container(config, resolve=True)
    episodes = EPISODES if config.episodes is None else whole_number(config.episodes, "episodes", minimum=1)
    seed, device = whole_number(config.seed, "seed"), resolve_device(config.device)
    folders, threads = policy_folders(config.run), thread_limit(config.threads)
    rows: list[Row] = []
    for folder in folders:
        agent, run = load_policy(folder, device), run_name(folder)
        task = task_of(agent, plain["env"]).for_evaluation()
        names = task.choose(_names(plain["bodies"] or "all"))
        filmed = to_film(task) if config.video else None
        own = _evaluate_agent(agent, run, task, names, episodes, seed, config.random_baseline, threads)
        if config.output is None:
            output = beside(folder, "evaluation")
        else:  # each of several has a folder of its own
            output = Path(config.output) / (run.replace("/", "-") if len(folders) > 1 else "")
        _write_results(own, output)
        _print_returns(own, agent, task.notes())
        if filmed:
            _film(agent, filmed, plain["video"], output, seed)
        log.info("written to %s", output)
        rows += own
    if len(folders) > 1:
        file = Path(config.output or "evaluation") / "summary.md"
        _summarize(rows, file)
        log.info("summary written to %s", file)
    return rows


def _evaluate_agent(
    agent: Agent,
    run: str,
    task: TaskSet,
    names: Sequence[str],
    episodes: int,
    seed: int,
    random_baseline: bool,
    threads: int,
) -> list[Row]:
    seen, reason = trained_on(agent, task), None if task.kind == "limbs" else misfit(agent, task)
    if reason:
        raise UserError(reason)
    actors = {f"{len(names)} bodies × {episodes} episodes": agent}
    if random_baseline:
        actors["random actions"] = None
    found = []
    with Progress(transient=True) as progress:
        for text, actor in actors.items():
            bar = progress.add_task(text, total=task.max_episode_steps)

            def show(step: int, bar: Any = bar) -> None:
                progress.update(bar, completed=step)

            found.append(run_episodes(actor, task, names, episodes, seed, threads=threads, progress=show))
    from .statistics import half_width

    randoms = (
        [float(random.returns.mean()) for random in found[1]] if random_baseline else [None] * len(names)
    )
    rows = []
    for result, random in zip(found[0], randoms, strict=True):
        returns, several = result.returns, len(result.returns) > 1
        deviation = float(returns.std(ddof=1)) if several else 0.0
        interval = half_width(returns) if several else None
        scores = (float(returns.mean()), deviation, interval, float(result.lengths.mean()), random)
        rows.append(Row(run, agent_name(agent), result.body, result.body in seen, len(returns), *scores))
    return rows


def _frame(rows: Sequence[Row]) -> Any:
    import pandas

    return pandas.DataFrame(rows).astype({"interval": float, "random_mean": float})


def _write_results(rows: Sequence[Row], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(row) for row in rows], indent=1)
    (output / "results.json").write_text(text + "\n", encoding="utf-8")
    _frame(rows).to_csv(output / "results.csv", index=False)


def _print_returns(rows: Sequence[Row], agent: Agent, notes: Sequence[str]) -> None:
    from .tables import returns_table, terminal_table

    steps = agent.description.get("training", {}).get("steps")
    trained = f", {steps:,} steps" if steps else ""
    title = "; ".join([f"{rows[0].run} ({type(agent.policy).__name__}{trained})", *notes])
    Console().print(terminal_table(title, returns_table(_frame(rows))))


def _summarize(rows: Sequence[Row], file: Path) -> None:
    """Print what several runs returned, side by side, and write it as Markdown."""
    from .tables import markdown, runs_table, terminal_table

    table = runs_table(_frame(rows))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(markdown(table) + "\n", encoding="utf-8")
    Console().print(terminal_table("mean return ± 95 % over training runs", table))


def _film(agent: Agent, task: TaskSet, wanted: Any, output: Path, seed: int) -> None:
    if wanted is True or task.kind != "limbs":
        names = (task.unseen or task.seen)[:1]
    else:
        names = task.choose(_names(wanted))
    for name in names:
        if not film_episode(agent, task, name, output / f"{file_name(name)}.mp4", seed):
            return


def _names(given: Any) -> Any:
    return [str(name) for name in given] if isinstance(given, list) else given


def evaluate_suites(config: DictConfig) -> Report:
    """Run the suites of ``conf/evaluate.yaml`` as far as they have not been run, and write ``report/``.

    Raises:
        UserError: a run, suite, body or number that is not there, does not fit or is invalid.
    """
    episodes = None if config.episodes is None else whole_number(config.episodes, "episodes", minimum=1)
    seed, device = whole_number(config.seed, "seed"), resolve_device(config.device)
    workers = _workers(config.workers, config.threads, device)
    plain = OmegaConf.to_container(config, resolve=True)
    suites = [read_suite(str(name), node) for name, node in plain["suite"].items()]
    folders = policy_folders(config.run)
    if config.unfit not in ("fail", "skip"):
        raise UserError(f"unfit={config.unfit!r}: a suite that does not fit fails, or is skipped: fail, skip")
    skip, baseline = config.unfit == "skip", bool(config.random_baseline)
    planner = Planner(suites, plain["env"], plain["bodies"], episodes, seed, baseline, skip, device.type)
    plans = [planner.plan(folder) for folder in folders]
    names = [plan.run for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"{names.count(name)} runs are called {name}: rename a folder, to tell them apart"
            )
    plans = told_apart(plans)
    if config.output is not None:
        output = Path(config.output)
    else:
        output = Path("report") if len(folders) > 1 else beside(folders[0], "report")
    filmed = [to_film(task_set_of(plan.trials[0].environment)) for plan in plans] if config.video else []
    store = EpisodeStore(output / STORE)
    _run_missing(plans, store, device, workers, thread_limit(config.threads))

    from .report import write_report
    from .tables import IN_THE_TERMINAL, suite_table, terminal_table

    report = write_report(plans, suites, store, output, seed, video=any(filmed))
    for suite in report.suites:
        rows = report.agents[report.agents["suite"] == suite.name]
        if len(rows):
            table = suite_table(rows)
            table = table[[name for name in table if name in IN_THE_TERMINAL]]
            left = 2 if "agent" in table else 1
            Console().print(terminal_table(suite.title, table, left, title_justify="left"))
    log.info("report: %s", output / "report.html")
    return report


def _run_missing(
    plans: Sequence[AgentPlan], store: EpisodeStore, device: torch.device, workers: int, threads: int
) -> None:
    """Run the chunks that the store has not, each once."""
    wanted: dict[str, Chunk] = {}
    for trial in (trial for plan in plans for trial in plan.trials):
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
