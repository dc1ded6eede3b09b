"""Which episodes an evaluation by suites consists of, and which conditions do not fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...envs.errors import UserError
from ...envs.saved import task_set_of
from ...envs.task_set import TaskSet, with_changes
from ..agent import Agent
from ..composition import check_fit
from ..storage.policy import load_policy
from ..storage.policy_json import installed_version
from .chunks import Chunk, parts
from .conditions import Condition, Suite, undisturbed
from .evaluated_runs import (
    agent_name,
    body_set_of,
    changed_environment,
    run_name,
    saved_environment,
    trained_on,
)
from .store import key_of

log = logging.getLogger(__name__)

EPISODES = {"limbs": 20, "sensors": 200, "patches": 100}
"""Of each body, or of the task, where nothing else is said."""


@dataclass(frozen=True)
class Trial:
    """One agent under one condition, or why that cannot be.

    Attributes:
        suite, condition: names.
        environment: the whole configuration.
        bodies: names.
        chunks: its episodes.
        baseline: chunks of random actions on the same bodies, undisturbed.
        why_not: why there are none; None where there are.
    """

    suite: str
    condition: str
    environment: Mapping[str, Any]
    bodies: tuple[str, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    baseline: tuple[Chunk, ...] = ()
    why_not: str | None = None


@dataclass(frozen=True)
class AgentPlan:
    """All trials of one policy.

    Attributes:
        folder: of the policy.
        run: what it is called.
        agent: kind of policy, the same for other training seeds.
        kind: of its tokens.
        seen: names of the bodies that it was trained on.
        description: its ``policy.json``.
        notes: what must stand beside every score.
        trials: in the suites' order.
    """

    folder: Path
    run: str
    agent: str
    kind: str
    seen: frozenset[str]
    description: Mapping[str, Any]
    notes: tuple[str, ...]
    trials: tuple[Trial, ...]


def make_plan(
    folder: Path,
    suites: Sequence[Suite],
    changes: Mapping[str, Any],
    bodies: Any,
    episodes: int | None,
    seed: int,
    random_baseline: bool,
    skip_unfit: bool,
    device: str = "cpu",
) -> AgentPlan:
    """What one policy is to do.

    Args:
        folder: of the policy.
        suites: in order.
        changes: of the environment, for all conditions.
        bodies: names, or a group, in place of the conditions' own; None: these.
        episodes: of each body; None: as `EPISODES` has it.
        seed: of the starts.
        random_baseline: whether random actions are tried as well.
        skip_unfit: leave out suites that do not fit the agent instead of failing.
        device: kind of it; another one rounds otherwise.

    Raises:
        UserError: a suite that does not fit, or a value that cannot be meant.
    """
    agent = load_policy(folder)
    plain = undisturbed(saved_environment(agent))
    base, task = changed_environment(agent, changes, plain), body_set_of(agent, changes, plain)
    count = EPISODES[task.kind] if episodes is None else episodes
    maker = _Maker(folder, agent, base, task.kind, bodies, count, seed, random_baseline, device)
    trials: list[Trial] = []
    for suite in suites:
        reason = suite.why_not(task.kind, base)
        if reason and not skip_unfit:
            raise UserError(
                f"suite={suite.name} does not fit {run_name(folder)}: {reason}; suite=all skips it"
            )
        if reason:
            log.info("%s: suite %s is left out: %s", run_name(folder), suite.name, reason)
            continue
        own = [maker.trial(suite, condition) for condition in suite.conditions]
        unfit = sum(trial.why_not is not None for trial in own)
        if unfit:
            words = run_name(folder), unfit, len(own), suite.name
            log.info("%s: %d of %d conditions of %s do not fit; the report says why", *words)
        trials += own
    if not trials:
        raise UserError(f"no suite of {', '.join(s.name for s in suites)} fits {run_name(folder)}")
    return AgentPlan(
        folder,
        run_name(folder),
        agent_name(agent),
        task.kind,
        trained_on(agent, task),
        agent.description,
        task.notes(),
        tuple(trials),
    )


@dataclass(frozen=True)
class _Maker:
    """Makes the trials of one policy; see `make_plan`."""

    folder: Path
    agent: Agent
    base: Mapping[str, Any]
    kind: str
    bodies: Any
    episodes: int
    seed: int
    random_baseline: bool
    device: str

    def trial(self, suite: Suite, condition: Condition) -> Trial:
        """One condition's."""
        place = f"suite {suite.name}, condition {condition.name}"
        environment = with_changes(self.base, condition.env)
        try:
            task = task_set_of(environment).for_evaluation()
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
        names = task.choose(condition.bodies if self.bodies is None else self.bodies)
        why_not = None
        if not names:
            why_not = "there are no such bodies"
        elif condition.disturbed_at is not None and condition.disturbed_at >= task.max_episode_steps:
            why_not = f"an episode has {task.max_episode_steps} steps"
        elif task.kind != "limbs":  # limb policies fit every body; the padded one those of its family
            why_not = self._misfit(task)
        if why_not:
            return Trial(suite.name, condition.name, environment, names, why_not=why_not)
        chunks = self._chunks(self.folder, environment, names, condition.disturbed_at, _until(condition))
        baseline = self._chunks(None, self.base, names, None, None) if self.random_baseline else ()
        return Trial(suite.name, condition.name, environment, names, chunks, baseline)

    def _misfit(self, task: TaskSet) -> str | None:
        try:
            with closing(task.make_vec(task.seen, 1, threads=1)) as env:
                check_fit(self.agent.policy, env)
        except UserError as error:  # said in the report, beside the conditions that do fit
            return str(error)
        return None

    def _chunks(
        self,
        policy: Path | None,
        environment: Mapping[str, Any],
        names: tuple[str, ...],
        at: int | None,
        until: int | None,
    ) -> tuple[Chunk, ...]:
        made = []
        for first, episodes in parts(self.kind, len(names), self.episodes):
            meant = {
                "policy": None if policy is None else self.agent.description["sha256"],
                "class": None if policy is None else self.agent.description["policy"],
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


def _until(condition: Condition) -> int | None:
    """Step of the second disturbance, where they come in equal distances."""
    return 2 * condition.disturbed_at if condition.sweep and condition.disturbed_at else None
