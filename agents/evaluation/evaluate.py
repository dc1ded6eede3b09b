"""What ``somite-evaluate`` does: returns of saved policies on seen and unseen bodies, as a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from ...envs.locomotion.pictures.rendering import file_name
from ...envs.numbers import whole_number
from ...envs.task_set import TaskSet
from ..agent import Agent
from ..composition import check_fit
from ..device import resolve_device, set_threads, thread_limit
from ..show.filming import film_episode, to_film
from ..storage.policy import load_policy
from ..storage.policy_json import policy_folders
from .episodes import Episodes, run_episodes
from .evaluated_runs import agent_name, beside, body_set_of, run_name, trained_on
from .results import Row, half_width, write_results
from .summary import write_summary

log = logging.getLogger(__name__)

EPISODES = 10
"""Of each body, where nothing else is said."""


def evaluate(config: DictConfig) -> list[Row]:
    """Evaluate what ``conf/evaluate.yaml`` describes; print the table, write it beside the run.

    Raises:
        UserError: a run, body or number that is not there or cannot be meant.
    """
    set_threads(config.threads)
    if config.get("suite"):
        from .suites import evaluate_suites

        evaluate_suites(config)
        return []
    episodes = EPISODES if config.episodes is None else whole_number(config.episodes, "episodes", minimum=1)
    seed = whole_number(config.seed, "seed")
    device = resolve_device(config.device)
    folders = policy_folders(config.run)
    rows: list[Row] = []
    threads = thread_limit(config.threads)
    for folder in folders:
        agent = load_policy(folder, device)
        bodies = body_set_of(agent, _changes(config)).for_evaluation()
        names = bodies.choose(_plain(config.bodies or "all"))
        filmed = to_film(bodies) if config.video else None
        own = _evaluate_agent(
            agent, bodies, names, episodes, seed, run_name(folder), config.random_baseline, threads
        )
        output = _output(config.output, folder, several=len(folders) > 1)
        write_results(own, output)
        _print(own, agent, bodies.notes())
        if filmed:
            _film(agent, filmed, config.video, output, seed)
        log.info("written to %s", output)
        rows += own
    if len(folders) > 1:
        together = Path(config.output) if config.output else Path("evaluation")
        Console().print(write_summary(rows, together))
        log.info("summary written to %s", together / "summary.md")
    return rows


def _changes(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config.env, resolve=True)


def _evaluate_agent(
    agent: Agent,
    bodies: TaskSet,
    names: tuple[str, ...],
    episodes: int,
    seed: int,
    run: str,
    random_baseline: bool,
    threads: int,
) -> list[Row]:
    limit, seen = bodies.max_episode_steps, trained_on(agent, bodies)
    if bodies.kind != "limbs":
        with closing(bodies.make_vec(names, 1, threads=1)) as env:
            check_fit(agent.policy, env)
    aligned = agent.policy.aligned_slots
    with Progress(transient=True) as progress:
        bar = progress.add_task(f"{len(names)} bodies × {episodes} episodes", total=limit)
        agent.reset()
        results = run_episodes(
            agent.act,
            bodies,
            names,
            episodes,
            seed,
            aligned=aligned,
            threads=threads,
            progress=lambda step: progress.update(bar, completed=step),
        )
        baseline: list[Episodes] | list[None] = [None] * len(names)
        if random_baseline:
            progress.reset(bar, description="random actions")
            baseline = run_episodes(
                None,
                bodies,
                names,
                episodes,
                seed,
                threads=threads,
                progress=lambda step: progress.update(bar, completed=step),
            )
    return [
        _row(run, agent_name(agent), result, result.body in seen, random)
        for result, random in zip(results, baseline, strict=True)
    ]


def _row(run: str, agent: str, result: Episodes, seen: bool, random: Episodes | None) -> Row:
    returns = result.returns
    interval = half_width(returns) if len(returns) > 1 else None
    return Row(
        run=run,
        agent=agent,
        body=result.body,
        seen=seen,
        episodes=len(returns),
        mean=float(returns.mean()),
        deviation=float(returns.std(ddof=1)) if len(returns) > 1 else 0.0,
        interval=interval,
        mean_length=float(result.lengths.mean()),
        random_mean=None if random is None else float(random.returns.mean()),
    )


def _print(rows: list[Row], agent: Agent, notes: Sequence[str]) -> None:
    steps = agent.description.get("training", {}).get("steps")
    trained = f", {steps:,} steps" if steps else ""
    title = f"{rows[0].run} ({type(agent.policy).__name__}{trained})"
    table = Table(title=escape("; ".join([title, *notes])))
    table.add_column("body")
    table.add_column("in training")
    for name in ("return", "± 95 %", "length", "random"):
        table.add_column(name, justify="right")
    for seen in (True, False):
        group = [row for row in rows if row.seen == seen]
        for row in group:
            table.add_row(
                escape(row.body),
                "seen" if seen else "unseen",
                f"{row.mean:z.0f}",
                "-" if row.interval is None else f"{row.interval:z.0f}",
                f"{row.mean_length:z.0f}",
                "-" if row.random_mean is None else f"{row.random_mean:z.0f}",
            )
        if group:
            mean, random = np.mean([row.mean for row in group]), [row.random_mean for row in group]
            shown = "-" if None in random else f"{np.mean(random):z.0f}"
            kind = "seen" if seen else "unseen"
            table.add_row(f"mean of {len(group)}", kind, f"{mean:z.0f}", "", "", shown, style="bold")
            table.add_section()
    Console().print(table)


def _film(agent: Agent, bodies: TaskSet, wanted: Any, output: Path, seed: int) -> None:
    if wanted is True or bodies.kind != "limbs":
        names = (bodies.unseen or bodies.seen)[:1]
    else:
        names = bodies.choose(_plain(wanted))
    for name in names:
        if not film_episode(agent, bodies, name, output / f"{file_name(name)}.mp4", seed):
            return


def _output(given: str | None, folder: Path, several: bool) -> Path:
    """Where the results of a policy go; each of several has a folder of its own."""
    if given is None:
        return beside(folder, "evaluation")
    return Path(given) / run_name(folder).replace("/", "-") if several else Path(given)


def _plain(value: Any) -> Any:
    return [str(item) for item in value] if isinstance(value, ListConfig) else value
