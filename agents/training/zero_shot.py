"""A small suite of conditions never trained on, run now and then while a policy trains."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np

from ...envs.errors import EnvironmentFault, UserError, nearest
from ...envs.locomotion.varied.variation import QUANTITIES, intervals_of
from ...envs.numbers import EPISODE_STEPS, FLAG, NULL, VALUES, checked, whole
from ...envs.task_set import TaskSet, task_set_of, with_changes
from ..agent import Agent
from ..composition import check_fit
from ..device import threads_of_an_operation
from ..evaluation.episodes import run_episodes
from ..evaluation.suites import KINDS, undisturbed
from ..policies.base import Policy
from .resume import put_random_states, take_random_states

log = logging.getLogger(__name__)

ZERO_SHOT_SEED = 7_000_007
"""Starts of the suite; neither validation nor evaluation uses them."""

REFERENCE, MEAN = "undisturbed", "mean"

_HOW = ("_target_", "per", "draw", "variants", "seed", "extrapolation", "noise_std")
"""Keys that say how something is drawn, not what differs."""

_UNTOUCHED = (None, 0, 0.0, False, "never")
_SELDOM = {"episode": 1e18, "never": math.inf}
"""Steps between shuffles."""

_ROWS = whole(1, 10**6)


@checked("zero_shot")
@dataclass
class Settings:
    """The keys of ``conf/zero_shot.yaml``.

    Args:
        rows: episodes of each condition, shared out among the bodies; at least one for each.
        bodies: at most so many of the training bodies are tried.
        steps: of an episode at most, by kind of tokens.
        pictures: whether pictures are drawn, too.
        conditions: by kind of tokens and name, changes of the environment's configuration.

    Raises:
        UserError: an invalid value, or a name that is taken.
    """

    rows: Annotated[int, _ROWS]
    bodies: Annotated[int, _ROWS]
    steps: Annotated[Mapping[str, int], VALUES]
    pictures: Annotated[bool, FLAG]
    conditions: Annotated[Mapping[str, Mapping[str, Mapping[str, Any]]], VALUES]

    def __post_init__(self) -> None:
        for name in ("steps", "conditions"):
            for kind in getattr(self, name):
                if kind not in KINDS:
                    raise UserError(f"zero_shot.{name} has no {kind!r}; {nearest(str(kind), KINDS)}")
        self.steps = {k: EPISODE_STEPS.read(f"zero_shot.steps.{k}", self.steps.get(k)) for k in KINDS}
        for kind, conditions in self.conditions.items():
            (VALUES | NULL).read(f"zero_shot.conditions.{kind}", conditions)
            for name, changes in (conditions or {}).items():
                if name in (REFERENCE, MEAN):
                    raise UserError(f"zero_shot.conditions.{kind}.{name}: that name is taken; choose another")
                if not isinstance(changes, Mapping) or not changes:
                    raise UserError(
                        f"zero_shot.conditions.{kind}.{name} must be keys of env and their values, such as "
                        f"{{senses: {{missing: 0.2}}}}; got {changes!r}"
                    )


def read_settings(node: Mapping[str, Any]) -> Settings:
    """Settings of a node of the configuration. Raises UserError: a key or an invalid value."""
    known = [field.name for field in fields(Settings)]
    for key in node:
        if key not in known:
            raise UserError(f"zero_shot has no key {key!r}; {nearest(str(key), known)}")
    return Settings(**node)


class ZeroShotSuite:
    """Conditions made ready for a run that trains ``policy`` in an environment of this configuration.

    Attributes:
        bodies: that are tried, all of them trained on.
        tasks: by condition, the reference first.
        seconds: spent in it.

    Raises:
        UserError: an invalid condition.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, Any], policy: Policy) -> None:
        self.settings, self._policy = settings, policy
        plain = undisturbed(environment)
        reference = self._task(plain)
        self.bodies = _evenly(reference.seen, settings.bodies)
        self.tasks: dict[str, TaskSet] = {REFERENCE: reference}
        self.seconds = 0.0
        for name, changes in (settings.conditions.get(policy.kind) or {}).items():
            task = self._task(with_changes(plain, changes))  # first: it says what is invalid
            if is_trained_on(changes, environment):
                log.info("zero_shot/%s is left out: this run trains on it", name)
            else:
                self.tasks[name] = task
        for name, task in list(self.tasks.items()):
            # The reference may be among them: trained with noise channels that it cannot do without, say.
            if reason := self._why_not(task):
                log.info("zero_shot/%s is left out: %s", name, reason)
                del self.tasks[name]

    def _task(self, config: Mapping[str, Any]) -> TaskSet:
        """The task with episodes cut short."""
        steps = self.settings.steps[self._policy.kind]
        return task_set_of(config).cut_short(steps).for_evaluation()

    def _why_not(self, task: TaskSet) -> str | None:
        """Why the policy cannot act there; None: it can."""
        policy = self._policy
        try:
            with closing(task.make_env(task.seen[:1], 1, aligned=policy.aligned_slots, threads=1)) as env:
                check_fit(policy, env)
                with left_alone(policy):  # some can tell only when they see it
                    Agent(policy).act(env.reset([[ZERO_SHOT_SEED, 0]]))
        except EnvironmentFault:  # which no condition is to blame for
            raise
        except UserError as error:
            return str(error)
        return None

    def scores(self, policy: Policy) -> dict[str, float]:
        """Mean return of each condition over the bodies, and their ``mean`` without the reference.

        The policy acts deterministically; it is left as it is, and so is every random stream.
        """
        found: dict[str, float] = {}
        episodes = max(1, self.settings.rows // len(self.bodies))
        with self.timed(), left_alone(policy):
            for name, task in self.tasks.items():
                results = run_episodes(Agent(policy), task, self.bodies, episodes, ZERO_SHOT_SEED, threads=1)
                found[name] = float(np.mean([result.returns.mean() for result in results]))
        found[MEAN] = float(np.mean([score for name, score in found.items() if name != REFERENCE]))
        return found

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Within it, time counts as ``seconds`` of the suite."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


@contextmanager
def left_alone(policy: Policy) -> Iterator[None]:
    """Within it, nothing reaches the training: random streams and the policy's mode come back."""
    device, mode = next(policy.parameters()).device, policy.training
    states = take_random_states(device)
    try:
        with threads_of_an_operation(1):  # few rows are too little work to share
            yield
    finally:
        put_random_states(states, device)
        policy.train(mode)


def _evenly(names: Sequence[str], count: int) -> tuple[str, ...]:
    """At most ``count`` of the names, the first among them, evenly spread."""
    if len(names) <= count:
        return tuple(names)
    return tuple(names[i * len(names) // count] for i in range(count))


def is_trained_on(changes: Mapping[str, Any], environment: Mapping[str, Any]) -> bool:
    """Whether training has all changes of its environment's configuration.

    It has what is at least as hard, or drawn from a range that the change lies in.
    """
    found = []
    for node, tried in changes.items():
        trained = environment.get(node)
        if isinstance(tried, Mapping):
            trained = trained or {}
            found += [_has(key, value, trained.get(key)) for key, value in tried.items() if key not in _HOW]
        else:
            found.append(trained == tried)
    return bool(found) and all(found)


def _has(key: str, tried: Any, trained: Any) -> bool:
    """Whether the values ``trained`` with hold what is ``tried``."""
    if trained == tried or trained in _UNTOUCHED:
        return trained == tried
    if key in QUANTITIES:
        pairs = itertools.product(intervals_of(tried), intervals_of(trained))
        return any(low < end and start < high for (low, high), (start, end) in pairs)
    if key == "shuffle":  # a number of steps is that often, and at the start of every episode
        return float(_SELDOM.get(trained, trained)) <= float(_SELDOM.get(tried, tried))
    if isinstance(trained, Sequence) and not isinstance(trained, str):
        if key != "noise_channels":
            return tried in trained
        low, high = tried if isinstance(tried, Sequence) else (tried, tried)
        return trained[0] <= low and high <= trained[1]
    return isinstance(trained, (int, float)) and isinstance(tried, (int, float)) and trained >= tried
