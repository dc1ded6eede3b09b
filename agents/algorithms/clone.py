"""Cloning: a student of any senses learns to act as a teacher that sees the task undisturbed.

Behaviour cloning on the teacher's states at first, then on the student's own with the teacher's action as
label (DAgger: Ross, Gordon, Bagnell, "A reduction of imitation learning and structured prediction to
no-regret online learning", AISTATS 2011), all environments at once. Only the newest rollout is learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.numbers import NULL, POSITIVE, TEXT, checked, real, whole
from ...envs.sensors import Senses, SensorTask
from ...envs.task_set import task_set_of
from ..agent import Agent
from ..composition import check_fit
from ..evaluation.runs import saved_environment
from ..policies.base import Policy
from ..storage.policy import load_policy
from ..storage.policy_json import policy_folder_of
from .base import ENVS, EPISODES, EPOCHS, STEPS, Algorithm, Setup
from .on_policy import OnPolicyLearner, common_charts
from .ppo import RATE


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
    teacher: Annotated[str | None, TEXT | NULL] = None
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
    """Collects what the student meets and what the teacher would do, and regresses it."""

    settings: Clone

    def __init__(self, settings: Clone, setup: Setup) -> None:
        task = setup.task_set
        if not isinstance(task, SensorTask):
            raise UserError("algorithm=clone trains on tasks of sensors; for bodies: algorithm=ppo or cma_es")
        setup.policy_class(by_gradient=True)  # says now if it does not fit
        self.teacher = load_policy(policy_folder_of(settings.teacher), setup.device)
        senses = _undisturbed(self.teacher, task)
        sees = "readings" if self.teacher.policy.kind == task.kind else "state"
        if settings.episode_steps is not None:
            task = task.cut_short(settings.episode_steps)
        env = setup.make_env(settings.num_envs, task, stagger=True, beside=senses, beside_sees=sees)
        self._rng = np.random.default_rng(setup.learner_seed)
        columns = {"labels": (env.sizes["n_actions"],)}
        super().__init__(settings, setup, env, columns, values=False)

    def begin_episodes(self) -> None:  # noqa: D102
        super().begin_episodes()
        self.teacher.reset()

    @property
    def teacher_share(self) -> float:
        """Of the environments of the next rollout, how many the teacher acts in."""
        since, handover = self.steps - self.settings.teacher_steps, self.settings.handover_steps
        return float(since < 0) if not handover else min(1.0, max(0.0, 1 - since / handover))

    def _collect(self, stop: Any) -> bool:
        draws = self._rng.random(self.env.num_envs)
        self._teaching = torch.from_numpy(draws < self.teacher_share).to(self.device)  # (B,)
        return super()._collect(stop)

    def _act(self) -> tuple[Tensor, dict[str, Tensor]]:
        (outputs,) = self.network.act(self.observation)
        taught = self.teacher.act(self.env.beside_observation())  # (B, A), or choices (B,) or (B, K)
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

    def _forget(self, ended: Tensor) -> None:
        super()._forget(ended)
        self.teacher.reset(ended)

    def _learn(self) -> dict[str, float]:
        settings, auxiliary = self.settings, None
        rate = settings.learning_rate * max(0.0, 1 - self.steps / settings.total_steps)
        self._set_rate(rate)
        losses: list[Tensor] = []
        for _ in range(settings.n_epochs):
            for batch in self.buffer.batches(settings.batch_size):
                (outputs,), auxiliary = self.network.learn(batch)
                loss = self._loss(outputs, batch["labels"])
                losses.append(loss.detach())
                self._minimize(loss if auxiliary is None else loss + auxiliary)
        scalars = {"clone/loss": float(torch.stack(losses).mean()), "clone/teacher_share": self.teacher_share}
        if auxiliary is not None:
            scalars["clone/auxiliary_loss"] = float(auxiliary.detach())
        return {**scalars, "train/learning_rate": rate}

    def _loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        discrete = self.policy.discrete
        if not discrete:
            return functional.mse_loss(outputs, labels)
        counts = [outputs.shape[-1]] if discrete is True else list(discrete)
        parts = zip(outputs.split(counts, -1), labels.split(counts, -1), strict=True)
        return sum(functional.cross_entropy(*part) for part in parts)

    def _snapshot(self) -> dict[str, Any]:
        rng = self._rng.bit_generator.state
        return {**super()._snapshot(), "teacher": self.teacher.snapshot(), "rng": rng}

    def _go_on(self, state: Mapping[str, Any]) -> Sequence[str]:
        self.teacher.restore(state["teacher"])
        self._rng.bit_generator.state = state["rng"]
        return super()._go_on(state)


def _undisturbed(teacher: Agent, task: SensorTask) -> Senses:
    """The teacher's own senses, in the task's order and with nothing lost.

    Raises:
        UserError: a teacher of another task, or one that cannot do without noise channels.
    """
    if teacher.policy.kind not in ("sensors", task.kind):
        name = type(teacher.policy).__name__
        raise UserError(f"the teacher is a {name}, which reads {teacher.policy.kind}, not {task.kind}")
    own = task_set_of(saved_environment(teacher))
    if own.name != task.name or own.notes() != task.notes():
        described = "; ".join([own.name, *own.notes()]), "; ".join([task.name, *task.notes()])
        raise UserError(f"the teacher was trained on {described[0]}, the student is to learn {described[1]}")
    senses = replace(own.senses, shuffle="never", noise_channels=0, missing=0.0, blinking=0.0, stuck=0)
    with closing(own.changed(senses=senses).make_env(own.seen, 1, threads=1)) as env:
        check_fit(teacher.policy, env)
    return senses
