"""What an evaluation by suites consists of: trials, their episodes in chunks, the file that keeps them."""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import json
import logging
import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...envs.errors import UserError
from ...envs.locomotion.pictures.rendering import file_name
from ...envs.task_set import TaskSet, task_set_of, with_changes
from ..agent import Agent
from ..composition import check_fit
from ..device import set_threads
from ..storage.policy import load_policy
from ..storage.policy_json import installed_version, policy_folder_of
from .episodes import recovery_steps, run_episodes
from .runs import (
    agent_name,
    changed_environment,
    has_seen,
    run_name,
    saved_environment,
    task_of,
    trained_on,
)
from .suites import OTHER_BODIES, UNDISTURBED, VARIED, Condition, Suite, Training, undisturbed

log = logging.getLogger(__name__)

# Of each body, or of the task, where nothing else is said.
EPISODES = {"limbs": 20, "sensors": 200, "patches": 100}
# Episodes that run side by side at most. A change would change numbers in their last digits.
ROWS = {"limbs": 256, "sensors": 1000, "patches": 50}
LIKE_BUDGETS = 1.25  # most that the training steps of two seeds of one agent differ by, as a factor
_OF_DRAWING = ("variants", "seed", "draw", "extrapolation")  # how something is drawn, not what varies


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
    training: Training | None = None  # of the policy on the body, before the episodes
    run: Path | None = None  # folder of that training


@dataclass(frozen=True)
class Trial:
    """One agent under one condition, or why that cannot be."""

    suite: str
    condition: str
    environment: Mapping[str, Any]  # the whole configuration
    chunks: tuple[Chunk, ...] = ()  # its episodes
    baseline: tuple[Chunk, ...] = ()  # random actions on the same bodies, undisturbed
    joint: tuple[Chunk, ...] = ()  # of a policy that saw all of them
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
    """Plans what every policy is to do; ``config`` is that of ``conf/evaluate.yaml``."""

    config: Mapping[str, Any]
    suites: Sequence[Suite]  # in order
    device: str = "cpu"  # kind of it; another one rounds otherwise
    trainings: Path = Path("few_shot")  # folder of the runs that suites train

    def plan(self, folder: Path) -> AgentPlan:
        """What the policy of a folder is to do. Raises UserError: an unfit suite, or an invalid value."""
        agent, run, changes = load_policy(folder), run_name(folder), self.config["env"]
        plain = undisturbed(saved_environment(agent))
        base, task = changed_environment(agent, changes, plain), task_of(agent, changes, plain)
        trials: list[Trial] = []
        for suite in self.suites:
            reason = suite.why_not(task.kind, base)
            if reason and self.config["unfit"] == "fail":
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
        if trials and not any(trial.chunks for trial in trials) and self.config["unfit"] == "fail":
            first = trials[0]
            raise UserError(f"suite={first.suite} does not fit {run}: {first.why_not}; bodies=all tries all")
        if not trials:
            raise UserError(f"no suite of {', '.join(s.name for s in self.suites)} fits {run}")
        seen, description = trained_on(agent, task), agent.description
        name, notes = agent_name(agent), task.notes()
        return AgentPlan(folder, run, name, task.kind, seen, description, notes, tuple(trials))

    def _trial(
        self, folder: Path, agent: Agent, base: Mapping[str, Any], suite: str, condition: Condition
    ) -> Trial:
        environment, at = with_changes(base, condition.env), condition.disturbed_at
        try:
            task = task_set_of(environment).for_evaluation()
        except UserError as error:
            raise UserError(f"suite {suite}, condition {condition.name}: {error}") from error
        bodies = self.config["bodies"]
        names = task.choose(condition.bodies if bodies is None else bodies)
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
        config = self.config

        def chunks_for(bodies: tuple[str, ...], training: Training | None = None) -> tuple[Chunk, ...]:
            given = agent, bodies, config["episodes"], config["seed"], self.device, (at, until)
            return chunks_of(folder, environment, *given, training, self.trainings)

        if condition.training is None:
            chunks = chunks_for(names)
        else:  # a policy of its own for each
            chunks = tuple(itertools.chain(*(chunks_for((name,), condition.training) for name in names)))
        own = agent, names, config["episodes"], config["seed"], self.device
        baseline = chunks_of(None, base, *own) if config["random_baseline"] else ()
        compares = suite == OTHER_BODIES and config.get("joint") is not None
        joint = self._joint(environment, task, names) if compares else ()
        return Trial(suite, condition.name, environment, chunks, baseline, joint)

    def _joint(
        self, environment: Mapping[str, Any], task: TaskSet, names: tuple[str, ...]
    ) -> tuple[Chunk, ...]:
        """The same episodes of the policy ``joint``. Raises UserError: it was not trained on a body."""
        folder = policy_folder_of(self.config["joint"])
        agent = load_policy(folder)
        lacking = [name for name in names if not has_seen(agent, task, name)]
        if lacking:
            raise UserError(f"joint={run_name(folder)} was not trained on {', '.join(lacking)}")
        own = names, self.config["episodes"], self.config["seed"], self.device
        return chunks_of(folder, environment, agent, *own)


def chunks_of(
    folder: Path | None,
    environment: Mapping[str, Any],
    agent: Agent,
    names: tuple[str, ...],
    episodes: int | None,
    seed: int,
    device: str,
    disturbed: tuple[int | None, int | None] = (None, None),
    training: Training | None = None,
    trainings: Path | None = None,
) -> tuple[Chunk, ...]:
    """The episodes of a policy, in parts.

    Their size depends on the kind of task and the number of bodies alone, so that neither an interruption nor
    the number of workers can change a number.

    Args:
        folder: of the agent's policy; None: random actions instead of it.
        environment: the whole configuration.
        agent: which acts, or that random actions are compared with.
        names: of bodies.
        episodes: of each; None: as many as its kind has by default.
        seed: of the starts.
        device: kind of it.
        disturbed: ``disturbed_at`` and ``until`` of `Chunk`.
        training: of the policy on the one body of ``names``.
        trainings: folder of the run that does it.
    """
    kind, made = agent.policy.kind, []
    count = episodes or EPISODES[kind]
    size = max(1, ROWS[kind] // len(names))
    meant = {
        "policy": folder and agent.description["sha256"],
        "class": folder and agent.description["policy"],
        "environment": environment,
        "bodies": names,
        "seed": seed,
        "disturbed": disturbed,
        "device": device,
        "versions": [installed_version(name) for name in ("somite", "torch", "mujoco")],
    }
    run = None
    if training is not None:
        taught = {key: value for key, value in asdict(training).items() if key not in ("after", "steps")}
        if training.start == "from_nothing":
            del meant["policy"]
        meant |= {"device": "cpu", "training": taught}
        of_run = key_of({name: meant[name] for name in meant if name != "seed"})[:12]
        run = trainings / f"{file_name(names[0])}-{training.start}-{of_run}"
        taught["steps"] = training.steps
    for first in range(0, count, size):
        episodes = min(size, count - first)
        key = key_of(meant | {"first": first, "episodes": episodes})
        own = folder, environment, names, seed, first, episodes, *disturbed, key, training, run
        made.append(Chunk(*own))
    return tuple(made)


def misfit(agent: Agent, task: TaskSet) -> str | None:
    """Why an agent cannot act in a task; None: it can."""
    try:
        with closing(task.make_env(task.seen, 1, threads=1)) as env:
            check_fit(agent.policy, env)
    except UserError as error:  # said in the report, beside the conditions that do fit
        return str(error)
    return None


def key_of(meant: Mapping[str, Any]) -> str:
    """A name for a piece of work, of all that its numbers depend on: equal for equal work alone."""
    text = json.dumps(meant, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def told_apart(plans: Sequence[AgentPlan]) -> list[AgentPlan]:
    """The plans, with what some runs of an agent were trained under, and others not, in its name.

    A report takes runs of one name for training seeds of one agent, and its intervals go over them. Runs that
    were trained for longer, under other shuffles, or on varied bodies, are another experiment.
    """
    named = []
    for plan in plans:
        alike = [other.description for other in plans if other.agent == plan.agent]
        disturbances = [_disturbances(description) for description in alike]
        own = _disturbances(plan.description).items()
        told = [f"{key}={value}" for key, value in own if any(d.get(key) != value for d in disturbances)]
        steps, goes_on = zip(*map(_budget, alike), strict=True)
        if max(steps) > LIKE_BUDGETS * min(steps) > 0 or len(set(goes_on)) > 1:
            own_steps, own_goes_on = _budget(plan.description)
            millions = f"{own_steps / 1e6:.2g}" if own_steps < 1e8 else f"{own_steps / 1e6:,.0f}"
            told.append(f"{millions} M {'more ' if own_goes_on else ''}steps")
        named.append(replace(plan, agent=" ".join([plan.agent, *told])))
    return named


def _budget(description: Mapping[str, Any]) -> tuple[int, bool]:
    """Training steps, and whether they come after those of a run that this one started from."""
    training = description.get("training", {})
    goes_on = any(str(argument).startswith("start_from=") for argument in training.get("command", []))
    return training.get("steps") or 0, goes_on


def _disturbances(description: Mapping[str, Any]) -> dict[str, Any]:
    """What the training did beside the task itself, as ``variation.mass`` and its value."""
    config, plain = description["environment"]["config"], dict(UNDISTURBED)
    for node, kind in VARIED.items():
        parameters = inspect.signature(kind).parameters.items()
        plain[node] = {name: p.default for name, p in parameters if name not in _OF_DRAWING}
    return {
        f"{node}.{key}": value
        for node, defaults in plain.items()
        for key, value in (config.get(node) or {}).items()
        if key in defaults and _listed(value) != _listed(defaults[key])
    }


def _listed(value: Any) -> Any:
    """A file has lists where the code has tuples."""
    return list(value) if isinstance(value, tuple) else value


def run_chunk(chunk: Chunk, device: str, threads: int) -> dict[str, Any]:
    """The episodes of a chunk.

    Of each body ``returns``, ``lengths`` and, where something happens, ``recovery``: steps, -1 for never,
    None where it could not be told; plain values.
    """
    task = task_set_of(chunk.environment).for_evaluation()
    folder = chunk.policy
    if chunk.training is not None:
        from .few_shot import trained  # with TensorBoard and the whole training loop

        folder, device = trained(chunk), "cpu"
    agent = None if folder is None else _agent(str(folder), device)
    disturbed = chunk.disturbed_at is not None
    options = {"threads": threads, "first": chunk.first, "keep_rewards": disturbed}
    record: dict[str, Any] = {}
    for result in run_episodes(agent, task, chunk.bodies, chunk.episodes, chunk.seed, **options):
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

    In ``workers`` processes, each on one core, or in this one with ``threads`` (0: one for each core). What
    trains is in processes always; those of one training follow each other in the order given.
    """
    trains = any(chunk.training for chunk in chunks)
    if not trains and (workers == 1 or len(chunks) <= 1):
        try:
            for chunk in chunks:
                yield chunk, run_chunk(chunk, str(device), threads)
        finally:
            _agent.cache_clear()  # a policy may be another one the next time, in the same folder
        return
    queues: dict[Any, deque[Chunk]] = {}
    for chunk in chunks:
        queues.setdefault(chunk.run or chunk.key, deque()).append(chunk)
    turn = deque(queues.values())
    running: dict[Future, tuple[Chunk, deque[Chunk]]] = {}
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(min(workers, len(queues)), context, _begin_worker) as pool:
        try:
            while turn or running:
                while turn and len(running) < workers:  # no more: what waits in the pool cannot be taken back
                    queue = turn.popleft()
                    chunk = queue.popleft()
                    running[pool.submit(run_chunk, chunk, str(device), 1)] = chunk, queue
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    chunk, queue = running.pop(future)
                    if queue:
                        turn.append(queue)
                    yield chunk, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # leaves at once at an interruption; its parent says so
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    set_threads(1)


def _leave_with_parent() -> None:
    """A parent that was killed waits for nothing, and says to nobody that there is nothing more to do."""
    multiprocessing.parent_process().join()
    os._exit(1)


class EpisodeStore(dict[str, dict[str, Any]]):
    """Chunks' records on disk as they come, one line each, so that what was interrupted goes on; by key.

    Raises:
        UserError: a line that is damaged; the last one may have been cut by an interruption and is left out.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # an interruption has cut the last line
            os.truncate(path, len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = json.loads(line)
                self[record["key"]] = record["bodies"]
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(
                    f"{path}, line {number}, is damaged ({error}); move the file away to begin anew"
                ) from error

    def keep(self, key: str, bodies: dict[str, Any]) -> None:
        """Keep a chunk's record; when this returns, it is on disk."""
        self[key] = bodies
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "bodies": bodies}, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
