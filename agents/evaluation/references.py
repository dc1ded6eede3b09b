"""The scale of scores: what random actions and specialists return on a body, and ``somite-references``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.progress import track

from ...envs.errors import UserError
from ...envs.locomotion import BodySet
from ...envs.locomotion.bodies.families import Family
from ...envs.task_set import task_set_of
from ..device import set_threads, thread_limit
from ..storage.policy import load_policy
from ..storage.policy_json import policy_folders
from .episodes import run_episodes
from .plan import AgentPlan, key_of
from .runs import run_name, saved_environment
from .suites import undisturbed

log = logging.getLogger(__name__)

TABLE = "references.json"  # in this package; ``somite-references`` makes it
FLAT = 0.05  # a curve has flattened when its last tenth is no more than this share above the tenth before


def specialists_of(plans: Sequence[AgentPlan]) -> dict[tuple[str, str], float]:
    """Mean returns of specialists of the tasks that agents are tried in, by run and body, where known."""
    of_runs = {p.run: specialists_in(p.trials[0].environment) for p in plans if p.kind == "limbs"}
    return {(run, body): found for run, kept in of_runs.items() for body, found in kept.items()}


def specialists_in(environment: Mapping[str, Any]) -> dict[str, float]:
    """Mean returns of the specialists, over their training seeds, in an environment's task, by body."""
    table, found = read_table(), {}
    for own in task_set_of(environment).sets:
        for body, entry in table.get(signature(own), {}).get("bodies", {}).items():
            if entry.get("specialists"):
                found[body] = float(np.mean([one["return"] for one in entry["specialists"]]))
    return found


def read_table() -> dict[str, Any]:
    """The kept returns: for each signature ``family`` and ``bodies``, by name."""
    return json.loads(resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))


def signature(bodies: BodySet) -> str:
    """A name for the task of a family's bodies: specialists of another one are no measure."""
    return key_of(_measured_in(bodies))[:16]


def _measured_in(bodies: BodySet) -> dict[str, Any]:
    """What a body's return depends on, its own parameters aside: family, length of a step, reward, ends."""
    task = asdict(bodies.task)
    if task["goal"] != "reach":  # these have no meaning for bodies that travel
        del task["goal"], task["reach_weight"]
    source = bodies.source
    is_family = isinstance(source, Family)
    names = {"family": source.name if is_family else None, "morphology": None if is_family else source.source}
    return json.loads(json.dumps({**names, "frame_skip": bodies.frame_skip, "task": task}))


def make_references(config: DictConfig) -> Path:
    """Measure what ``conf/references.yaml`` describes, write the table and return its file.

    Entries of other bodies and tasks, and of other seeds of the same body, stay.

    Raises:
        UserError: a run that is not there, or that was trained on other than one body.
    """
    set_threads(config.threads)
    threads, output = thread_limit(config.threads), Path(config.output)
    if output.suffix != ".json":
        raise UserError(f"output={config.output} must be a .json file")
    table = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else read_table()
    for folder in track(policy_folders(config.run), "specialists", transient=True):
        _measure(table, folder, config.episodes, config.seed, threads)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    log.info("written to %s", output)
    return output


def _measure(table: dict[str, Any], folder: Path, episodes: int, seed: int, threads: int) -> None:
    """Put a specialist into the table."""
    agent = load_policy(folder)
    seen = agent.environment.get("seen", [])
    if agent.policy.kind != "limbs" or len(seen) != 1:
        raise UserError(f"{run_name(folder)} was trained on {', '.join(seen)}: a specialist has one body")
    task = task_set_of(undisturbed(saved_environment(agent))).for_evaluation()
    specialist, random = (
        float(run_episodes(actor, task, seen, episodes, seed, threads=threads)[0].returns.mean())
        for actor in (agent, None)
    )
    own = task.set_of(seen[0])
    entry = table.setdefault(signature(own), _measured_in(own) | {"bodies": {}})
    body = entry["bodies"].setdefault(seen[0], {"specialists": []})
    body |= {"random": random, "hash": task.morphology(seen[0]).hash}
    training = agent.description["training"]
    own = {
        "seed": training["seed"],
        "agent": type(agent.policy).__name__,
        "steps": training["steps"],
        "return": specialist,
        "episodes": episodes,
        **_flatness(folder),
    }
    others = [one for one in body["specialists"] if one["seed"] != training["seed"]]
    body["specialists"] = sorted([*others, own], key=lambda one: one["seed"])
    log.info("%s: specialist %.0f, random %.0f", seen[0], specialist, random)


def _flatness(folder: Path) -> dict[str, Any]:
    """Whether the training curve has flattened; nothing where it was not kept."""
    from .plots import read_curve  # with Matplotlib and pandas

    curve = read_curve(folder)
    returns = [] if curve is None else curve["rollout/ep_rew_mean"].dropna().to_numpy()
    tenth = len(returns) // 10
    if tenth == 0:
        return {}
    last, before = returns[-tenth:].mean(), returns[-2 * tenth : -tenth].mean()
    growth = float((last - before) / max(abs(last), 1e-9))
    return {"growth": round(growth, 4), "flattened": bool(np.abs(growth) <= FLAT)}
