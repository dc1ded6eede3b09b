"""What ``somite-evaluate`` does: returns of saved policies on seen and unseen bodies, as a table."""

from __future__ import annotations

import glob
import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ..envs.errors import UserError
from ..envs.locomotion.body_set import with_morphology
from ..envs.locomotion.pictures.rendering import file_name
from ..envs.numbers import whole_number
from ..envs.saved import task_set_of
from ..envs.task_set import TaskSet, with_changes
from .acting import Agent
from .checkpoint import load_policy, policy_folder_of
from .composition import check_fit
from .device import resolve_device
from .evaluation import Episodes, run_episodes
from .patch_video import film_patches
from .results import Row, half_width, write_results
from .summary import write_summary
from .video import film

log = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> list[Row]:
    """Evaluate what ``conf/evaluate.yaml`` describes; print the table, write it beside the run.

    Raises:
        UserError: a run, body or number that is not there or cannot be meant.
    """
    episodes = whole_number(config.episodes, "episodes", minimum=1)
    seed = whole_number(config.seed, "seed")
    device = resolve_device(config.device)
    runs = list(config.run) if isinstance(config.run, ListConfig) else [config.run]
    folders = [policy_folder_of(run) for given in runs for run in _expanded(str(given))]
    rows: list[Row] = []
    for folder in folders:
        agent = load_policy(folder, device)
        bodies = body_set_of(agent, _changes(config)).for_evaluation()
        names = bodies.choose(_plain(config.bodies))
        own = _evaluate_agent(agent, bodies, names, episodes, seed, _run_name(folder), config.random_baseline)
        output = _output(config.output, folder, several=len(folders) > 1)
        write_results(own, output)
        _print(own, agent, bodies.notes())
        if config.video and bodies.kind == "patches":
            path = output / f"{file_name(bodies.name)}.mp4"
            film_patches(agent, bodies, path, seed)
            log.info("video: %s", path)
        elif config.video and bodies.kind != "limbs":
            log.warning("no video: there are pictures of bodies and of tasks with pictures only")
        elif config.video:
            _film(agent, bodies, config.video, output, seed)
        log.info("written to %s", output)
        rows += own
    if len(folders) > 1:
        together = Path(config.output) if config.output else Path("evaluation")
        Console().print(write_summary(rows, together))
        log.info("summary written to %s", together / "summary.md")
    return rows


def _changes(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config.env, resolve=True)


def body_set_of(agent: Agent, changes: Mapping[str, Any] | None = None) -> TaskSet:
    """The bodies and the task that a policy was trained with, from its ``policy.json``.

    Args:
        agent: the policy.
        changes: what is to vary otherwise, as in the node ``env`` of ``conf/evaluate.yaml``.

    Raises:
        UserError: bodies have since changed sides of the split that was trained on.
    """
    environment = agent.environment
    changes = dict(changes or {})
    config, robot = environment["config"], changes.pop("morphology", None)
    if robot is not None and agent.policy.aligned_slots:
        raise UserError(
            f"{type(agent.policy).__name__} has slots for the limbs it was trained on and fits no other "
            f"({robot}); modular policies do: smp, limb_transformer"
        )
    if robot is not None:
        return task_set_of(with_changes(with_morphology(config, robot), changes))
    bodies = task_set_of(with_changes(config, changes))
    if set(bodies.unseen) & set(environment["seen"]):
        raise UserError(
            f"the policy was trained on {sorted(set(bodies.unseen) & set(environment['seen']))}, which "
            f"split {bodies.split.name!r} holds out today; it was saved by another version"
        )
    return bodies


def trained_on(agent: Agent, bodies: TaskSet) -> frozenset[str]:
    """Names of the bodies that the policy was trained on and that are still what they were.

    A robot's file may have changed since: its hash tells, and it then counts as unseen, with a warning.
    """
    hashes = agent.environment.get("hashes")
    if not hashes:  # a task without bodies; or saved before hashes were
        return frozenset(set(bodies.seen) & set(agent.environment["seen"]))
    same = {name for name, found in bodies.hashes().items() if found in hashes.values()}
    for name in set(bodies.seen) & set(hashes) - same:
        log.warning("%s is not the body of that name that was trained on: it counts as unseen", name)
    return frozenset(same)


def _evaluate_agent(
    agent: Agent,
    bodies: TaskSet,
    names: tuple[str, ...],
    episodes: int,
    seed: int,
    run: str,
    random_baseline: bool,
) -> list[Row]:
    limit, seen = bodies.max_episode_steps, trained_on(agent, bodies)
    if bodies.kind != "limbs":
        check_fit(agent.policy, bodies.make_vec(names, 1))
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
                progress=lambda step: progress.update(bar, completed=step),
            )
    return [
        _row(run, _kind(agent), result, result.body in seen, random)
        for result, random in zip(results, baseline, strict=True)
    ]


_OF_THE_TASK = ("n_privileged", "n_sensors", "grid", "discrete")


def _kind(agent: Agent) -> str:
    """``SMP``, or ``SMP messages=up`` where the architecture is not the default one."""
    policy = agent.policy
    defaults = {name: p.default for name, p in inspect.signature(type(policy)).parameters.items()}
    other = [
        f"{name}={value}"
        for name, value in policy.architecture().items()
        if defaults[name] not in (inspect.Parameter.empty, value) and name not in _OF_THE_TASK
    ]
    return " ".join([type(policy).__name__, *other])


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
    table = Table(title="; ".join([title, *notes]))
    table.add_column("body")
    table.add_column("in training")
    for name in ("return", "± 95 %", "length", "random"):
        table.add_column(name, justify="right")
    for seen in (True, False):
        group = [row for row in rows if row.seen == seen]
        for row in group:
            table.add_row(
                row.body,
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
    if wanted is True:
        names = (bodies.unseen or bodies.seen)[:1]
    else:
        names = bodies.choose(_plain(wanted))
    for name in names:
        path = output / f"{file_name(name)}.mp4"
        try:
            film(agent, bodies, name, path, seed)
        except UserError as error:  # nothing here draws: the numbers stand without pictures
            log.warning("no video: %s", error)
            return
        log.info("video: %s", path)


def _output(given: str | None, folder: Path, several: bool) -> Path:
    """Where the results of a policy go; each of several has a folder of its own."""
    if given is None:
        return folder.parent / ("evaluation_of_best" if folder.name == "best" else "evaluation")
    return Path(given) / _run_name(folder).replace("/", "-") if several else Path(given)


def _plain(value: Any) -> Any:
    return [str(item) for item in value] if isinstance(value, ListConfig) else value


def _expanded(run: str) -> list[str]:
    """The folders that a pattern such as ``runs/*`` means, those with a policy; any other name as it is."""
    if not set(run) & set("*?["):
        return [run]
    found = sorted(path for path in glob.glob(run) if (Path(path) / "policy").is_dir())
    if not found:
        raise UserError(f"no folder that matches {run!r} has a policy/")
    return found


def _run_name(folder: Path) -> str:
    """``<run>``, ``<run>/best``, ``<run>/<step of a checkpoint>``, or the name of a folder of its own."""
    folder = folder.resolve()
    if folder.name == "best":
        return f"{folder.parent.name}/best"
    if folder.parent.parent.name == "checkpoints":
        return f"{folder.parents[2].name}/{folder.parent.name}"
    return folder.parent.name if folder.name == "policy" else folder.name
