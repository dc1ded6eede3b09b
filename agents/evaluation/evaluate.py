"""What ``somite-evaluate`` does: returns on seen and unseen bodies as a table, or suites and their report."""

from __future__ import annotations

import itertools
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress, track

from ...envs.errors import UserError
from ...envs.locomotion import BodySet
from ...envs.locomotion.pictures.rendering import file_name
from ...envs.task_set import TaskSet, task_set_of
from ..agent import Agent
from ..device import resolve_device, set_threads, thread_limit
from ..show.video import film_episode, to_film
from ..storage.policy import load_policy
from ..storage.policy_json import policy_folders
from .episodes import Episodes, run_episodes
from .plan import Chunk, EpisodeStore, Planner, misfit, run_chunks, told_apart
from .report import Report
from .runs import agent_name, beside, run_name, task_of, trained_on
from .statistics import half_width
from .suites import OTHER_BODIES, read_suite
from .tables import (
    IN_THE_TERMINAL,
    few_shot_table,
    markdown,
    ratios_table,
    returns_table,
    runs_table,
    suite_table,
    terminal_table,
)

log = logging.getLogger(__name__)

EPISODES = 10  # of each body, where nothing else is said; suites have their own numbers


@dataclass(frozen=True)
class Row:
    """One body's result under one policy, a row of ``results.csv``.

    ``mean`` and ``deviation`` are of the episodes' returns; ``interval`` is the half width of the 95 %
    interval of Student's t over episodes (None for one episode); ``random_mean`` is the mean return of
    random actions from the same starts (None where it was not asked for). ``family`` is the body's where
    several are evaluated, else "".
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
    family: str = ""


def evaluate(config: DictConfig) -> list[Row]:
    """Evaluate what ``conf/evaluate.yaml`` describes; print the table, write it beside the run.

    Returns:
        The rows of the table; of suites none.

    Raises:
        UserError: a run or body that is not there, or what does not fit.
    """
    set_threads(config.threads)
    device, folders = resolve_device(config.device), policy_folders(config.run)
    plain = OmegaConf.to_container(config, resolve=True)
    if plain.get("suite") or plain["joint"] is not None:
        evaluate_suites(plain, folders, device)
        return []
    rows: list[Row] = []
    for folder in folders:
        agent, run = load_policy(folder, device), run_name(folder)
        task = task_of(agent, plain["env"]).for_evaluation()
        names = task.choose(plain["bodies"] or "all")
        filmed = to_film(task) if plain["video"] else None
        own = _evaluate_agent(agent, run, task, names, plain)
        if plain["output"] is None:
            output = beside(folder, "evaluation")
        else:  # each of several has a folder of its own
            output = Path(plain["output"]) / (run.replace("/", "-") if len(folders) > 1 else "")
        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps([asdict(row) for row in own], indent=1)
        (output / "results.json").write_text(text + "\n", encoding="utf-8")
        frame_of(own).to_csv(output / "results.csv", index=False)
        steps = agent.description.get("training", {}).get("steps")
        trained = f", {steps:,} steps" if steps else ""
        title = "; ".join([f"{run} ({type(agent.policy).__name__}{trained})", *task.notes()])
        Console().print(terminal_table(title, returns_table(frame_of(own))))
        if filmed:
            _film(agent, filmed, plain["video"], output, plain["seed"])
        log.info("written to %s", output)
        rows += own
    if len(folders) > 1:
        summarize(rows, Path(plain["output"] or "evaluation") / "summary.md")
    return rows


def _evaluate_agent(
    agent: Agent, run: str, task: TaskSet, names: Sequence[str], plain: Mapping[str, Any]
) -> list[Row]:
    reason = None if task.kind == "limbs" else misfit(agent, task)
    if reason:
        raise UserError(reason)
    seen, episodes = trained_on(agent, task), plain["episodes"] or EPISODES
    with Progress(transient=True) as progress:

        def episodes_of(actor: Agent | None, what: str) -> list[Episodes]:
            bar = progress.add_task(what, total=task.max_episode_steps)
            options = {
                "threads": thread_limit(plain["threads"]),
                "progress": lambda step: progress.update(bar, completed=step),
            }
            return run_episodes(actor, task, names, episodes, plain["seed"], **options)

        found = episodes_of(agent, f"{len(names)} bodies × {episodes} episodes")
        randoms = episodes_of(None, "random actions") if plain["random_baseline"] else []
    families = {}
    if isinstance(task, BodySet) and len(task.sets) > 1:  # whose returns have scales of their own
        families = {name: task.set_of(name).source.name for name in names}
    rows = []
    for result, random in itertools.zip_longest(found, randoms):
        returns, several = result.returns, episodes > 1
        row = Row(
            run,
            agent_name(agent),
            result.body,
            result.body in seen,
            episodes,
            mean=float(returns.mean()),
            deviation=float(returns.std(ddof=1)) if several else 0.0,
            interval=half_width(returns) if several else None,
            mean_length=float(result.lengths.mean()),
            random_mean=random and float(random.returns.mean()),
            family=families.get(result.body, ""),
        )
        rows.append(row)
    return rows


def frame_of(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a table, NaN for None."""
    return pd.DataFrame(rows).astype({"interval": float, "random_mean": float})


def summarize(rows: Sequence[Row], file: Path) -> None:
    """Print what several runs returned, side by side, and write it as Markdown."""
    table = runs_table(frame_of(rows))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(markdown(table) + "\n", encoding="utf-8")
    Console().print(terminal_table("mean return ± 95 % over training runs", table))
    log.info("summary written to %s", file)


def _film(agent: Agent, task: TaskSet, wanted: Any, output: Path, seed: int) -> None:
    if wanted is True or task.kind != "limbs":
        names = (task.unseen or task.seen)[:1]
    else:
        names = task.choose(wanted)
    for name in names:
        if not film_episode(agent, task, name, output / f"{file_name(name)}.mp4", seed):
            return


def evaluate_suites(plain: Mapping[str, Any], folders: Sequence[Path], device: torch.device) -> None:
    """Run the suites of ``conf/evaluate.yaml`` as far as they have not been run, and write ``report/``.

    Raises:
        UserError: a suite or body that is not there, or what does not fit.
    """
    workers = _workers(plain["workers"], plain["threads"], device)
    suites = [read_suite(str(name), node) for name, node in (plain.get("suite") or {}).items()]
    if plain["joint"] is not None and OTHER_BODIES not in (s.name for s in suites):
        raise UserError(f"joint={plain['joint']} is compared with in suite={OTHER_BODIES} alone")
    if plain["output"] is not None:
        output = Path(plain["output"])
    else:
        output = Path("report") if len(folders) > 1 else beside(folders[0], "report")
    planner = Planner(plain, suites, device.type, output.absolute() / "few_shot")
    plans = [planner.plan(folder) for folder in folders]
    for name, count in Counter(plan.run for plan in plans).items():
        if count > 1:
            raise UserError(f"{count} runs are called {name}: rename a folder, to tell them apart")
    plans = told_apart(plans)
    filmed = [to_film(task_set_of(plan.trials[0].environment)) for plan in plans] if plain["video"] else []
    store = EpisodeStore(output / "episodes.jsonl")
    trials = [trial for plan in plans for trial in plan.trials]
    chunks = [chunk for trial in trials for chunk in (*trial.chunks, *trial.baseline, *trial.joint)]
    run_missing(chunks, store, device, workers, thread_limit(plain["threads"]))
    report = Report(plans, suites, store, output, plain["seed"])
    report.write(video=any(filmed))
    for suite in report.suites:
        rows = report.agents[report.agents["suite"] == suite.name]
        if suite.trains:
            few = report.few_shot[report.few_shot["suite"] == suite.name]
            means = few[few["body"].isna()]  # the report has those of each body, too
            table = few_shot_table(means if len(means) else few)
            Console().print(terminal_table(suite.title, table, title_justify="left"))
        elif len(rows):
            table = suite_table(rows)
            table = table[[name for name in table if name in IN_THE_TERMINAL]]
            left = 2 if "agent" in table else 1
            Console().print(terminal_table(suite.title, table, left, title_justify="left"))
        if suite.name == OTHER_BODIES and len(report.ratios):
            table = ratios_table(report.ratios)
            Console().print(terminal_table("against who saw these bodies", table, title_justify="left"))
    log.info("report: %s", output / "report.html")


def run_missing(
    chunks: Sequence[Chunk], store: EpisodeStore, device: torch.device, workers: int, threads: int
) -> None:
    """Run the chunks that the store has not, each once."""
    wanted = {chunk.key: chunk for chunk in chunks}
    missing = [chunk for key, chunk in wanted.items() if key not in store]
    if len(missing) < len(wanted):
        log.info("%d of %d parts were done before: %s", len(wanted) - len(missing), len(wanted), store.path)
    # The longest first, so that no worker is left with one at the end; of a training the fewest steps.
    missing.sort(key=lambda c: c.training.steps if c.training else -c.episodes * len(c.bodies))
    done = run_chunks(missing, device, workers, threads)
    try:
        for chunk, bodies in track(done, "parts of the evaluation", len(missing), transient=True):
            store.keep(chunk.key, bodies)
    except (KeyboardInterrupt, SystemExit):  # the latter of a worker that trains, and has saved
        log.warning("interrupted; the same command goes on from what is in %s", store.path)
        raise SystemExit(130) from None


def _workers(given: Any, threads: Any, device: torch.device) -> int:
    """Processes: as many as threads; one where a GPU does the work. Raises UserError: more than threads."""
    if given == "auto":
        return 1 if device.type != "cpu" else thread_limit(threads)
    if threads != "auto" and given > thread_limit(threads):
        raise UserError(f"workers={given} are more than threads={threads}, which bounds all of them")
    return given
