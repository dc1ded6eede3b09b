"""Cloning: a student learns to act as its teachers do.

On a task of sensors a student of any senses has one teacher, which sees the task undisturbed. Each body is
taught by a policy that was trained on it and sees what the student sees: so specialists become one policy
(Xiong et al., "Distilling morphology-conditioned hypernetworks for efficient universal morphology control",
ICML 2024).

Behaviour cloning on the teacher's states at first, then on the student's own with the teacher's action as
label (DAgger: Ross, Gordon, Bagnell, "A reduction of imitation learning and structured prediction to
no-regret online learning", AISTATS 2011), all environments at once. Only the newest rollout is learnt from.
"""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.locomotion import BodySet
from ...envs.numbers import NAMES, NULL, POSITIVE, checked, real, whole
from ...envs.sensors import Senses, SensorTask
from ...envs.task_set import TaskSet, task_set_of
from ..agent import Agent
from ..composition import check_fit
from ..evaluation.runs import own_identities, saved_environment
from ..policies.base import Policy
from ..storage.policy import load_policy
from ..storage.policy_json import policy_folders
from .base import ENVS, EPISODES, EPOCHS, STEPS, Algorithm, Setup
from .on_policy import OnPolicyLearner, common_charts
from .ppo import RATE

log = logging.getLogger(__name__)


@checked("algorithm")
@dataclass(kw_only=True)
class Clone(Algorithm):
    """Settings of cloning; ``conf/algorithm/clone.yaml`` says what its keys mean.

    While the teacher hands over, each environment's actor is drawn for a rollout: so the teacher brings back
    what the student has led astray, where its own states would soon tell it nothing.

    Raises:
        UserError: an invalid value, or no teacher.
    """

    name = "clone"
    teacher: Annotated[str | Sequence[str] | None, NAMES | NULL] = None
    total_steps: Annotated[int, whole(1)] = 8_000_000
    teacher_steps: Annotated[int, whole()] = 500_000
    handover_steps: Annotated[int, whole()] = 0
    num_envs: Annotated[int, ENVS] = 512
    n_steps: Annotated[int, STEPS] = 32
    episode_steps: Annotated[int | None, whole(1) | NULL] = None
    batch_size: Annotated[int, whole(1)] = 2048
    n_epochs: Annotated[int, EPOCHS] = 2
    sequence_length: Annotated[int, STEPS] = 16
    learning_rate: Annotated[float, RATE] = 1e-3
    noise: Annotated[float, real(0, 10)] = 0.0
    max_grad_norm: Annotated[float, POSITIVE] = 1.0
    checkpoint_every: Annotated[int, whole(1)] = 1_000_000
    validate_every: Annotated[int, whole()] = 0
    validation_episodes: Annotated[int, EPISODES] = 100
    zero_shot_every: Annotated[int, whole()] = 800_000

    def __post_init__(self) -> None:
        if not self.teacher:
            raise UserError("whom to clone? say algorithm.teacher=<a run of the same task>")

    def make_learner(self, setup: Setup) -> CloneLearner:  # noqa: D102
        return CloneLearner(self, setup)

    def charts(self, policy: Policy) -> dict[str, Sequence[str]]:  # noqa: D102
        return {
            "Error of the student's actions": ("clone/loss$",),
            "Share of environments in which the teacher acts": ("clone/teacher_share$",),
            **common_charts(policy),
        }


class CloneLearner(OnPolicyLearner):
    """Collects what the student meets and what its teachers would do, and regresses it."""

    settings: Clone

    def __init__(self, settings: Clone, setup: Setup) -> None:
        task, options = setup.task_set, {}
        setup.policy_class(by_gradient=True)  # says now if it does not fit
        taught = teachers_of(settings.teacher, task, setup.device)
        self.teachers = [teacher for teacher, _ in taught]
        self._taught_by = [[teacher.description["sha256"], *names] for teacher, names in taught]
        self._is_beside = task.kind != "limbs"
        if self._is_beside:
            (teacher,) = self.teachers
            sees = "readings" if teacher.policy.kind == task.kind else "state"
            options = {"beside": _undisturbed(teacher, task), "beside_sees": sees}
        elif any(teacher.policy.aligned_slots for teacher in self.teachers):
            options = {"aligned": True}  # in which slots limbs stand is the same to a student of limbs
        if settings.episode_steps is not None:
            task = task.cut_short(settings.episode_steps)
        env = setup.make_env(settings.num_envs, task, stagger=True, **options)
        shape = (env.sizes["n_actions"],) if self._is_beside else env.single_action_space.shape
        if not self._is_beside:
            for teacher, bodies in taught:
                check_fit(teacher.policy, env)
                _tell(teacher, bodies, task)
        names = np.array(task.seen)[env.body_of_row]  # (B,)
        rows = [np.flatnonzero(np.isin(names, own)) for _, own in taught]
        self._rows = [torch.from_numpy(own).to(setup.device) for own in rows]  # of each teacher
        self._rng = np.random.default_rng(setup.learner_seed)
        columns = {"labels": shape}
        super().__init__(settings, setup, env, columns, values=False)

    def begin_episodes(self) -> None:  # noqa: D102
        super().begin_episodes()
        for teacher in self.teachers:
            teacher.reset()

    @property
    def teacher_share(self) -> float:
        """Of the environments of the next rollout, how many a teacher acts in."""
        since, handover = self.steps - self.settings.teacher_steps, self.settings.handover_steps
        return float(since < 0) if not handover else min(1.0, max(0.0, 1 - since / handover))

    def _collect(self, stop: Any) -> bool:
        draws = self._rng.random(self.env.num_envs)
        self._teaching = torch.from_numpy(draws < self.teacher_share).to(self.device)  # (B,)
        return super()._collect(stop)

    def _act(self) -> tuple[Tensor, dict[str, Tensor]]:
        (outputs,) = self.network.act(self.observation)
        taught = self._taught()
        own = self.policy.choose(outputs)
        if discrete := self.policy.discrete:  # labels: (B, A) of choices (B,), or of several decisions (B, K)
            counts = [outputs.shape[-1]] if discrete is True else discrete
            pairs = zip(taught.long().view(len(taught), -1).unbind(-1), counts, strict=True)
            labels = torch.cat([functional.one_hot(choice, count) for choice, count in pairs], -1).float()
        else:
            labels = taught
            if self.settings.noise:
                noise = self._rng.standard_normal(tuple(own.shape))
                own = own + self.settings.noise * torch.from_numpy(noise).to(own)
        teaching = self._teaching.view(-1, *[1] * (taught.ndim - 1))
        return torch.where(teaching, taught, own), {"labels": labels}

    def _taught(self) -> Tensor:
        """(B, N, J) for bodies; of sensors (B, A), or choices (B,) or (B, K)."""
        observation = self.env.beside_observation() if self._is_beside else self.observation
        if len(self.teachers) == 1:
            return self.teachers[0].act(observation)
        actions = torch.zeros_like(observation["action_mask"], dtype=torch.float32)
        for teacher, rows in zip(self.teachers, self._rows, strict=True):
            actions[rows] = teacher.act({key: value[rows] for key, value in observation.items()})
        return actions

    def _forget(self, ended: Tensor) -> None:
        super()._forget(ended)
        ended = ended.to(self.device)
        for teacher, rows in zip(self.teachers, self._rows, strict=True):
            teacher.reset(ended[rows])

    def _learn(self) -> dict[str, float]:
        settings, auxiliary = self.settings, None
        rate = settings.learning_rate * max(0.0, 1 - self.steps / settings.total_steps)
        self._set_rate(rate)
        losses: list[Tensor] = []
        for _ in range(settings.n_epochs):
            for batch in self.buffer.batches(settings.batch_size):
                (outputs,), auxiliary = self.network.learn(batch)
                loss = self._loss(outputs, batch["labels"], batch.observation.get("action_mask"))
                losses.append(loss.detach())
                self._minimize(loss if auxiliary is None else loss + auxiliary)
        scalars = {"clone/loss": float(torch.stack(losses).mean()), "clone/teacher_share": self.teacher_share}
        if auxiliary is not None:
            scalars["clone/auxiliary_loss"] = float(auxiliary.detach())
        return {**scalars, "train/learning_rate": rate}

    def _loss(self, outputs: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
        discrete = self.policy.discrete
        if mask is not None:  # of each sample the mean over the actuators that exist: bodies weigh the same
            errors = (outputs - labels).square() * mask
            return (errors.flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)).mean()
        if not discrete:
            return functional.mse_loss(outputs, labels)
        counts = [outputs.shape[-1]] if discrete is True else list(discrete)
        parts = zip(outputs.split(counts, -1), labels.split(counts, -1), strict=True)
        return sum(functional.cross_entropy(*part) for part in parts)

    def _snapshot(self) -> dict[str, Any]:
        rng = self._rng.bit_generator.state
        teachers = [teacher.snapshot() for teacher in self.teachers]
        taught = {"teachers": teachers, "taught_by": self._taught_by}
        return {**super()._snapshot(), **taught, "rng": rng}

    def restore(self, state: Mapping[str, Any], new_episodes: bool) -> Sequence[str]:  # noqa: D102
        notes = super().restore(state, new_episodes)
        same = state.get("taught_by") == self._taught_by
        return notes if same else (*notes, "algorithm.teacher holds other policies than before")

    def _go_on(self, state: Mapping[str, Any]) -> Sequence[str]:
        if state.get("taught_by") == self._taught_by:
            for teacher, memory in zip(self.teachers, state["teachers"], strict=True):
                teacher.restore(memory)
        self._rng.bit_generator.state = state["rng"]
        return super()._go_on(state)


def teachers_of(
    teacher: str | Sequence[str], task: TaskSet, device: torch.device | str = "cpu"
) -> list[tuple[Agent, list[str]]]:
    """The policies that have something to teach, each with the training bodies, or the task, that it teaches.

    A body is taught by the policy that was trained on it, by what it is, not by its name; of several by that
    of the fewest bodies. What a policy's beginning (``start_from``) was trained on does not count.

    Raises:
        UserError: no such run; one that reads other tokens; several of a task of sensors; a body that no
            policy was trained on, or several on equally few bodies.
    """
    if not isinstance(task, BodySet | SensorTask):
        raise UserError("algorithm=clone trains on bodies and on tasks of sensors; on others: algorithm=ppo")
    folders = list(dict.fromkeys(policy_folders(teacher)))
    agents = {os.path.relpath(folder): load_policy(folder, device) for folder in folders}
    fitting = (task.kind,) if task.kind == "limbs" else ("sensors", task.kind)
    for folder, agent in agents.items():
        if agent.policy.kind not in fitting:
            read = f"{type(agent.policy).__name__}, which reads {agent.policy.kind}, not {task.kind}"
            raise UserError(f"the teacher {folder} is a {read}")
    if task.kind != "limbs":
        if len(agents) > 1:
            told = f"algorithm.teacher names {len(agents)} policies: {', '.join(agents)}"
            raise UserError(f"{told}; a task of sensors has one teacher, only bodies may have several")
        return [(agent, list(task.seen)) for agent in agents.values()]
    known = {folder: own_identities(agent) for folder, agent in agents.items()}
    taught: dict[str, list[str]] = {folder: [] for folder in agents}
    untaught, wanted = [], task.identities()
    for name, identity in wanted.items():
        able = [folder for folder in agents if identity in known[folder].values()]
        fewest = min((len(known[folder]) for folder in able), default=0)
        able = [folder for folder in able if len(known[folder]) == fewest]
        if len(able) > 1:
            told = f"{' and '.join(able)} were all trained on {name} and on equally many bodies ({fewest})"
            raise UserError(f"{told}; leave all but one out of algorithm.teacher")
        if able:
            taught[able[0]].append(name)
        else:
            untaught.append(name)
    if untaught:
        told = "; ".join(f"{folder} on {_listed(own, wanted)}" for folder, own in known.items())
        raise UserError(
            f"no teacher was trained on {_listed(untaught)}. Trained were {told}. Add a run to "
            "algorithm.teacher, or leave these bodies out by env.bodies"
        )
    return [(agents[folder], names) for folder, names in taught.items() if names]


def _listed(names: Sequence[str] | Mapping[str, str], wanted: Mapping[str, str] | None = None) -> str:
    """The first names; of bodies that are others than those of that name that are wanted it says so."""
    others = {name for name in wanted or () if name in names and names[name] != wanted[name]}
    told = [f"another {name}" if name in others else name for name in names]
    return ", ".join(told[:8] + [f"{len(told) - 8} more"] * (len(told) > 8)) or "no body that it names"


def _tell(teacher: Agent, bodies: Sequence[str], task: BodySet) -> None:
    """Say whom a teacher teaches, and what was otherwise when it learnt to act there."""
    trained, identities = task_set_of(saved_environment(teacher)), own_identities(teacher)
    names, otherwise = {identity: name for name, identity in identities.items()}, {}
    for body in bodies:
        here, there = task.set_of(body), trained.set_of(names[task.morphology(body).identity])
        for key in ("frame_skip", "task.direction", "task.target_speed"):
            now, then = (operator.attrgetter(key)(own) for own in (here, there))
            if now != then:
                otherwise[key] = f"env.{key}={then}, here {now}"
    log.info("%s is taught by a policy that was trained on %s", _listed(bodies), _listed(identities))
    if otherwise:
        log.warning("a teacher of %s was trained with %s", _listed(bodies), "; ".join(otherwise.values()))


def _undisturbed(teacher: Agent, task: SensorTask) -> Senses:
    """The teacher's own senses, in the task's order and with nothing lost.

    Raises:
        UserError: a teacher of another task, or one that cannot do without noise channels.
    """
    own = task_set_of(saved_environment(teacher))
    if own.name != task.name or own.notes() != task.notes():
        described = "; ".join([own.name, *own.notes()]), "; ".join([task.name, *task.notes()])
        raise UserError(f"the teacher was trained on {described[0]}, the student is to learn {described[1]}")
    senses = replace(own.senses, shuffle="never", noise_channels=0, missing=0.0, blinking=0.0, stuck=0)
    with closing(own.changed(senses=senses).make_env(own.seen, 1, threads=1)) as env:
        check_fit(teacher.policy, env)
    return senses
