"""What an evaluation by suites consists of: trials, their episodes in chunks, the file that keeps them."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...envs.errors import UserError
from ...envs.task_set import TaskSet, task_set_of, with_changes
from ..agent import Agent
from ..composition import check_fit
from ..device import set_threads
from ..storage.policy import load_policy
from ..storage.policy_json import installed_version
from .episodes import recovery_steps, run_episodes
from .runs import agent_name, changed_environment, run_name, saved_environment, task_of, trained_on
from .suites import Condition, Suite, undisturbed

log = logging.getLogger(__name__)

EPISODES = {"limbs": 20, "sensors": 200, "patches": 100}
"""Of each body, or of the task, where nothing else is said."""

ROWS = {"limbs": 256, "sensors": 1000, "patches": 50}
"""Episodes that run side by side at most. A change would change numbers in their last digits."""


@dataclass(frozen=True)
class Chunk:
    """Episodes of one condition, assigned beforehand, run by whoever is free."""

    policy: Path | None  # folder; None: random actions
    environment: Mapping[str, Any]  # the whole configuration, the condition's changes included
    bodies: tuple[str, ...]  # names
    seed: int  # of the starts
    first: int  # number of the first episode
    episodes: int  # of each body
    disturbed_at: int | None  # as in `Condition`
    until: int | None  # step at which the next disturbance comes
    key: str  # as of `key_of`


@dataclass(frozen=True)
class Trial:
    """One agent under one condition, or why that cannot be."""

    suite: str
    condition: str
    environment: Mapping[str, Any]  # the whole configuration
    chunks: tuple[Chunk, ...] = ()  # its episodes
    baseline: tuple[Chunk, ...] = ()  # random actions on the same bodies, undisturbed
    why_not: str | None = None  # why there are no chunks; None where there are


@dataclass(frozen=True)
class AgentPlan:
    """All trials of one policy."""

    folder: Path  # of the policy
    run: str  # what it is called
    agent: str  # kind of policy, the same for other training seeds
    kind: str  # of its tokens
    seen: frozenset[str]  # names of the bodies that it was trained on
    description: Mapping[str, Any]  # its ``policy.json``
    notes: tuple[str, ...]  # what must stand beside every score
    trials: tuple[Trial, ...]  # in the suites' order


@dataclass(frozen=True)
class Planner:
    """What every policy is to do, of which `plan` makes its own."""

    suites: Sequence[Suite]  # in order
    changes: Mapping[str, Any]  # of the environment, for all conditions
    bodies: Any  # names, or a group, in place of the conditions' own; None: these
    episodes: int | None  # of each body; None: as `EPISODES` has it
    seed: int  # of the starts
    random_baseline: bool  # whether random actions are tried as well
    skip_unfit: bool  # leave out suites that do not fit the agent instead of failing
    device: str = "cpu"  # kind of it; another one rounds otherwise

    def plan(self, folder: Path) -> AgentPlan:
        """What the policy of a folder is to do. Raises UserError: an unfit suite, or an invalid value."""
        agent, run = load_policy(folder), run_name(folder)
        plain = undisturbed(saved_environment(agent))
        base, task = changed_environment(agent, self.changes, plain), task_of(agent, self.changes, plain)
        trials: list[Trial] = []
        for suite in self.suites:
            reason = suite.why_not(task.kind, base)
            if reason and not self.skip_unfit:
                raise UserError(f"suite={suite.name} does not fit {run}: {reason}; suite=all skips it")
            if reason:
                log.info("%s: suite %s is left out: %s", run, suite.name, reason)
                continue
            own = [self._trial(folder, agent, base, suite.name, c) for c in suite.conditions]
            unfit = sum(trial.why_not is not None for trial in own)
            if unfit:
                words = run, unfit, len(own), suite.name
                log.info("%s: %d of %d conditions of %s do not fit; the report says why", *words)
            trials += own
        if not trials:
            raise UserError(f"no suite of {', '.join(s.name for s in self.suites)} fits {run}")
        seen, kind = trained_on(agent, task), task.kind
        parts = (run, agent_name(agent), kind, seen, agent.description, task.notes())
        return AgentPlan(folder, *parts, tuple(trials))

    def _trial(
        self, folder: Path, agent: Agent, base: Mapping[str, Any], suite: str, condition: Condition
    ) -> Trial:
        environment = with_changes(base, condition.env)
        try:
            task = task_set_of(environment).for_evaluation()
        except UserError as error:
            raise UserError(f"suite {suite}, condition {condition.name}: {error}") from error
        names, at = (
            task.choose(condition.bodies if self.bodies is None else self.bodies),
            condition.disturbed_at,
        )
        why_not = None
        if not names:
            why_not = "there are no such bodies"
        elif at is not None and at >= task.max_episode_steps:
            why_not = f"an episode has {task.max_episode_steps} steps"
        elif task.kind != "limbs":  # limb policies fit every body; the padded one those of its family
            why_not = misfit(agent, task)
        if why_not:
            return Trial(suite, condition.name, environment, why_not=why_not)
        # In a series disturbances come in equal distances, so that the second one ends the recovery.
        until = 2 * at if condition.sweep and at else None
        chunks = self._chunks(folder, agent, environment, names, at, until)
        baseline = self._chunks(None, agent, base, names, None, None) if self.random_baseline else ()
        return Trial(suite, condition.name, environment, chunks, baseline)

    def _chunks(
        self,
        policy: Path | None,
        agent: Agent,
        environment: Mapping[str, Any],
        names: tuple[str, ...],
        at: int | None,
        until: int | None,
    ) -> tuple[Chunk, ...]:
        """Their size depends on the kind of task and the number of bodies alone.

        So neither an interruption nor the number of workers can change a number.
        """
        kind, made = agent.policy.kind, []
        count = EPISODES[kind] if self.episodes is None else self.episodes
        size = max(1, ROWS[kind] // len(names))
        for first in range(0, count, size):
            episodes = min(size, count - first)
            meant = {
                "policy": None if policy is None else agent.description["sha256"],
                "class": None if policy is None else agent.description["policy"],
                "environment": environment,
                "bodies": names,
                "seed": self.seed,
                "first": first,
                "episodes": episodes,
                "disturbed": [at, until],
                "device": self.device,
                "versions": [installed_version(name) for name in ("somite", "torch", "mujoco")],
            }
            key = key_of(meant)
            made.append(Chunk(policy, environment, names, self.seed, first, episodes, at, until, key))
        return tuple(made)


def misfit(agent: Agent, task: TaskSet) -> str | None:
    """Why an agent cannot act in a task; None: it can."""
    try:
        with closing(task.make_env(task.seen, 1, threads=1)) as env:
            check_fit(agent.policy, env)
    except UserError as error:  # said in the report, beside the conditions that do fit
        return str(error)
    return None


def run_chunk(chunk: Chunk, device: str, threads: int) -> dict[str, Any]:
    """The episodes of a chunk.

    Of each body ``returns``, ``lengths`` and, where something happens, ``recovery``: steps, -1 for never,
    None where it could not be told; plain values.
    """
    task = task_set_of(chunk.environment).for_evaluation()
    agent = None if chunk.policy is None else _agent(str(chunk.policy), device)
    disturbed = chunk.disturbed_at is not None
    options = {"threads": threads, "first": chunk.first, "keep_rewards": disturbed}
    results = run_episodes(agent, task, chunk.bodies, chunk.episodes, chunk.seed, **options)
    record: dict[str, Any] = {}
    for result in results:
        record[result.body] = {"returns": result.returns.tolist(), "lengths": result.lengths.tolist()}
        if disturbed:
            until = chunk.until or task.max_episode_steps
            steps = recovery_steps(result.rewards, result.lengths, chunk.disturbed_at, until)
            record[result.body]["recovery"] = [None if math.isnan(s) else int(s) for s in steps]
    return record


@functools.lru_cache(maxsize=4)
def _agent(folder: str, device: str) -> Agent:
    return load_policy(folder, device)


def run_chunks(
    chunks: Sequence[Chunk], device: torch.device, workers: int, threads: int = 0
) -> Iterator[tuple[Chunk, dict[str, Any]]]:
    """Every chunk with its record, as they are done.

    In ``workers`` processes, each on one core, or in this one with ``threads`` (0: one for each core).
    """
    if workers == 1 or len(chunks) <= 1:
        try:
            for chunk in chunks:
                yield chunk, run_chunk(chunk, str(device), threads)
        finally:
            _agent.cache_clear()  # a policy may be another one the next time, in the same folder
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(min(workers, len(chunks)), context, _begin_worker) as pool:
        running = {pool.submit(run_chunk, chunk, str(device), 1): chunk for chunk in chunks}
        try:
            for done in as_completed(running):
                yield running[done], done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # leaves at once at an interruption; its parent says so
    set_threads(1)


def key_of(meant: Mapping[str, Any]) -> str:
    """A name for a piece of work, of all that its numbers depend on: equal for equal work alone."""
    text = json.dumps(meant, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class EpisodeStore:
    """Episodes on disk as they come, one line for each chunk, so that what was interrupted goes on.

    Raises:
        UserError: a line that is damaged; the last one may have been cut by an interruption and is left out.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._records = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # an interruption has cut the last line
            os.truncate(path, len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = json.loads(line)
                self._records[record["key"]] = record
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(
                    f"{path}, line {number}, is damaged ({error}); move the file away to begin anew"
                ) from error

    def get(self, key: str) -> dict[str, Any] | None:
        """The piece of work of that key, if it has been done."""
        return self._records.get(key)

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a piece of work; when this returns, it is on disk."""
        record = {"key": key, **record}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._records[key] = record
