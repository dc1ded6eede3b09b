"""Writes what a run shows in TensorBoard beside its scalars."""

from __future__ import annotations

import logging
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from ....envs.locomotion import BodySet
from ....envs.task_set import TaskSet
from ...agent import Agent
from ...policies.base import Policy
from ...storage.policy import PACKAGES
from ...storage.policy_json import installed_version
from .hparams import flat, summaries
from .layout import layout, traits_of
from .pictures import Pictures
from .zero_shot import MEAN, REFERENCE, ZeroShotSuite, left_alone, read_settings

log = logging.getLogger(__name__)

SCORES = {
    "rollout/ep_rew_mean": "return",
    "validation/mean_reward": "validation",
    f"zero_shot/{MEAN}": "zero-shot",
}
"""Scores that stand beside the hyperparameters, under these names."""


class Dashboard:
    """Pages, texts, hyperparameters and pictures of one run, and its zero-shot suite.

    Args:
        writer: of the run's event file.
        config: of the run.
        policy: that is trained.
        algorithm: ``ppo``, ``cma_es`` or ``clone``.
        bodies: how many are trained on.
        validates: whether ``validation/mean_reward`` is logged.
        tries: whether the run is long enough for its zero-shot suite.
        first_step: environment steps made before.

    Attributes:
        suite: the zero-shot suite; None: the run has none.

    Raises:
        UserError: a condition of the suite that cannot be meant.
    """

    def __init__(
        self,
        writer: SummaryWriter,
        config: DictConfig,
        policy: Policy,
        *,
        algorithm: str,
        bodies: int,
        validates: bool,
        tries: bool,
        first_step: int,
    ) -> None:
        self._writer = writer
        plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)
        self.suite = self._make_suite(plain, policy) if tries else None
        self._pictures: Pictures | None = None
        if self.suite is not None and plain["zero_shot"]["pictures"] and REFERENCE in self.suite.tasks:
            task = self.suite.tasks[REFERENCE]
            self._pictures = Pictures(task, _largest(task))
        traits = {
            "continuous": not getattr(policy, "discrete", False),
            "identify": policy.has_auxiliary_loss,
            "several": bodies > 1,
            "validation": validates,
            "zero_shot": self.suite is not None,
        }
        writer.add_custom_scalars(layout(traits_of(algorithm, policy.kind, traits)))
        self._tell(config, first_step)
        logged = (True, validates, self.suite is not None)
        scores = {
            name: title for (name, title), is_there in zip(SCORES.items(), logged, strict=True) if is_there
        }
        experiment, begun, self._ended = summaries(flat(plain), scores)
        self._write(experiment)
        self._write(begun)

    @staticmethod
    def _make_suite(config: Mapping[str, Any], policy: Policy) -> ZeroShotSuite | None:
        if not config.get("zero_shot"):
            log.info("no zero-shot suite: this run was begun without one")
            return None
        suite = ZeroShotSuite(read_settings(config["zero_shot"]), config["env"], policy)
        if suite.is_empty:
            log.info("no zero-shot suite: none of its conditions is left")
            return None
        return suite

    def _tell(self, config: DictConfig, step: int) -> None:
        """The configuration, the command and the versions as texts."""
        text = f"```yaml\n{OmegaConf.to_yaml(config)}```"
        self._writer.add_text("config", text, global_step=step)
        self._writer.add_text("command", f"```\n{command_line()}\n```", global_step=step)
        versions = {"python": platform.python_version()}
        versions |= {name: installed_version(name) or "not installed" for name in PACKAGES}
        rows = "\n".join(f"| {name} | {version} |" for name, version in versions.items())
        self._writer.add_text("versions", f"| package | version |\n|---|---|\n{rows}", global_step=step)

    def try_out(self, policy: Policy, step: int) -> dict[str, float]:
        """Run the zero-shot suite and draw pictures; the policy is left as it is.

        Args:
            policy: acts deterministically.
            step: environment steps made so far.

        Returns:
            Scalars by name.
        """
        scores = {f"zero_shot/{name}": score for name, score in self.suite.scores(policy).items()}
        if self._pictures is not None:
            with self.suite.timed(), left_alone(policy):
                for tag, image in self._pictures.draw(Agent(policy)).items():
                    self._write(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
        return scores

    def finish(self) -> None:
        """The run has made all its steps: say so beside its hyperparameters."""
        self._write(self._ended)

    def _write(self, summary: Summary, step: int | None = None) -> None:
        self._writer.file_writer.add_summary(summary, step)


def _largest(task: TaskSet) -> str:
    """The training body with the most limbs, or the task."""
    if isinstance(task, BodySet):
        return max(task.seen, key=lambda name: task.morphology(name).n_limbs)
    return task.seen[0]


def command_line() -> str:
    """What this program was started with, as it could be typed."""
    words = sys.orig_argv[1:] if len(sys.orig_argv) > 1 else sys.orig_argv
    if not words[0].startswith("-"):  # an installed command is called by its name
        words = [Path(words[0]).name, *words[1:]]
    else:
        words = [Path(sys.orig_argv[0]).name, *words]
    return shlex.join(words)
