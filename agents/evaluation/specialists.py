"""What ``somite-references`` does: the returns of specialists and of random actions, as a kept table."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.progress import track

from ...envs.errors import UserError
from ...envs.numbers import whole_number
from ...envs.saved import task_set_of
from ..agent import Agent
from ..device import set_threads, thread_limit
from ..storage.policy import load_policy
from ..storage.policy_json import policy_folders
from .conditions import undisturbed
from .episodes import run_episodes
from .evaluated_runs import body_set_of, run_name, saved_environment
from .references import read_table, signature, task_of

log = logging.getLogger(__name__)

FLAT = 0.05
"""A curve has flattened when its last tenth is no more than this share above the tenth before."""


def make_references(config: DictConfig) -> Path:
    """Measure what ``conf/references.yaml`` describes and write the table.

    Entries of other bodies and tasks, and of other seeds of the same body, stay.

    Returns:
        The file.

    Raises:
        UserError: a run that is not there, or that was trained on other than one body.
    """
    episodes = whole_number(config.episodes, "episodes", minimum=1)
    seed = whole_number(config.seed, "seed")
    set_threads(config.threads)
    threads, output = thread_limit(config.threads), Path(config.output)
    if output.suffix != ".json":
        raise UserError(f"output={config.output} must be a .json file")
    table = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else read_table()
    for folder in track(policy_folders(config.run), "specialists", transient=True):
        _add(table, folder, episodes, seed, threads)
    output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(table, indent=1, sort_keys=True)
    output.write_text(text + "\n", encoding="utf-8")
    log.info("written to %s", output)
    return output


def _add(table: dict[str, Any], folder: Path, episodes: int, seed: int, threads: int) -> None:
    agent = load_policy(folder)
    seen = agent.environment.get("seen", [])
    if agent.policy.kind != "limbs" or len(seen) != 1:
        raise UserError(f"{run_name(folder)} was trained on {', '.join(seen)}: a specialist has one body")
    bodies = body_set_of(agent, None, undisturbed(saved_environment(agent)))
    environment = undisturbed(saved_environment(agent))
    (name,) = seen
    specialist = _returns(agent, environment, name, episodes, seed, threads)
    random = _returns(None, environment, name, episodes, seed, threads)
    entry = table.setdefault(signature(environment), task_of(environment) | {"bodies": {}})
    body = entry["bodies"].setdefault(name, {"specialists": []})
    body |= {"random": random, "hash": bodies.morphology(name).hash}
    training = agent.description["training"]
    others = [one for one in body["specialists"] if one["seed"] != training["seed"]]
    own = {
        "seed": training["seed"],
        "agent": type(agent.policy).__name__,
        "steps": training["steps"],
        "return": specialist,
        "episodes": episodes,
        **_flatness(folder),
    }
    body["specialists"] = sorted([*others, own], key=lambda one: one["seed"])
    log.info("%s: specialist %.0f, random %.0f", name, specialist, random)


def _returns(
    agent: Agent | None, environment: dict[str, Any], name: str, episodes: int, seed: int, threads: int
) -> float:
    bodies = task_set_of(environment).for_evaluation()
    act, aligned = None, False
    if agent is not None:
        agent.reset()
        act, aligned = agent.act, agent.policy.aligned_slots
    (result,) = run_episodes(act, bodies, [name], episodes, seed, aligned=aligned, threads=threads)
    return float(result.returns.mean())


def _flatness(folder: Path) -> dict[str, Any]:
    """Whether the training curve has flattened; nothing where it was not kept."""
    from .plots import read_curve  # with Matplotlib and pandas

    curve = read_curve(folder)
    if curve is None:
        return {}
    returns = curve["rollout/ep_rew_mean"].dropna().to_numpy()
    tenth = len(returns) // 10
    if tenth == 0:
        return {}
    last, before = returns[-tenth:].mean(), returns[-2 * tenth : -tenth].mean()
    growth = float((last - before) / max(abs(last), 1e-9))
    return {"growth": round(growth, 4), "flattened": bool(np.abs(growth) <= FLAT)}
