"""Writes what a run shows in TensorBoard beside its scalars."""

from __future__ import annotations

import logging
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ....envs.locomotion import BodySet
from ....envs.task_set import TaskSet
from ...agent import Agent
from ...algorithms.base import Algorithm
from ...policies.base import Policy
from ...storage.policy import PACKAGES
from ...storage.policy_json import installed_version
from .pictures import Pictures
from .zero_shot import MEAN, REFERENCE, ZeroShotSuite, left_alone, read_settings

Charts = Mapping[str, Sequence[str]]
"""By title regular expressions, from the beginning of a scalar's name.

TensorBoard puts charts of several runs together where title and scalars are the same, so both are the same
for all algorithms.
"""

RETURNS: Charts = {
    "Return": ("rollout/ep_rew_mean$", "validation/mean_reward$"),
    "Length of an episode": ("rollout/ep_len_mean$",),
}
DIVERGED: Charts = {"Simulations that diverged": ("rollout/diverged$",)}
BODIES: Charts = {"Return of each body": ("bodies/.+",)}
BAND = "All bodies: mean, worst, best", ("rollout/body_mean", "rollout/body_worst", "rollout/body_best")
ZERO_SHOT: Charts = {
    "Mean of the conditions, and undisturbed": ("zero_shot/mean$", "zero_shot/undisturbed$"),
    "Each condition": ("zero_shot/(?!mean$).+",),
}
SPEED: Charts = {
    "Environment steps per second": ("time/fps$",),
    "Share of the time": ("time/.+_share$",),
}


def pages(own: Charts, several: bool, tries: bool) -> dict[str, dict[str, list[Any]]]:
    """Pages for a run, as `SummaryWriter.add_custom_scalars` takes them.

    Args:
        own: charts of its algorithm.
        several: whether it trains on several bodies.
        tries: whether it has a zero-shot suite.

    Returns:
        By page and title the kind of chart and its scalars; only what the run logs.
    """
    title, scalars = BAND
    found = {"Training": _lines({**RETURNS, **own, **DIVERGED})}
    found["Bodies"] = {title: ["Margin", list(scalars)]} if several else {}
    found["Bodies"] |= _lines(BODIES)
    if tries:
        found["Zero-shot"] = _lines(ZERO_SHOT)
    return {**found, "Speed": _lines(SPEED)}


def _lines(charts: Charts) -> dict[str, list[Any]]:
    return {title: ["Multiline", list(scalars)] for title, scalars in charts.items()}


log = logging.getLogger(__name__)

SCORES = {
    "rollout/ep_rew_mean": "return",
    "validation/mean_reward": "validation",
    f"zero_shot/{MEAN}": "zero-shot",
}
"""Scores that stand beside the hyperparameters, under these names."""

GROUPS = ("agent", "algorithm", "env")
FIRST = ("agent", "algorithm", "algorithm.learning_rate", "env", "seed")
"""Columns that the tab shows unasked; the others can be ticked."""

_NAMES_OF_TASKS = ("family", "morphology", "id")
_NO_SETTINGS = ("keep_checkpoints", "checkpoint_every", "zero_shot_every")


class Dashboard:
    """Pages, texts, hyperparameters and pictures of one run, and its zero-shot suite.

    Args:
        writer: of the run's event file.
        config: of the run.
        policy: that is trained.
        algorithm: its settings.
        bodies: how many are trained on.
        first_step: environment steps made before.

    Attributes:
        suite: the zero-shot suite; None: the run has none.

    Raises:
        UserError: an invalid condition of the suite.
    """

    def __init__(
        self,
        writer: SummaryWriter,
        config: DictConfig,
        policy: Policy,
        algorithm: Algorithm,
        bodies: int,
        first_step: int = 0,
    ) -> None:
        self._writer = writer
        plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)
        tries = 0 < algorithm.zero_shot_every <= getattr(algorithm, algorithm.budget)
        self.suite = self._make_suite(plain, policy) if tries else None
        self._pictures: Pictures | None = None
        if self.suite is not None and plain["zero_shot"]["pictures"] and REFERENCE in self.suite.tasks:
            task = self.suite.tasks[REFERENCE]
            self._pictures = Pictures(task, _largest(task))
        writer.add_custom_scalars(pages(algorithm.charts(policy), bodies > 1, self.suite is not None))
        self._tell(config, first_step)
        logged = (True, algorithm.validates, self.suite is not None)
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


def flat(config: Mapping[str, Any]) -> dict[str, float | str]:
    """The configuration with dotted keys, as the table of hyperparameters takes it.

    What is built is told by its class's name (``agent``: LimbTransformer), the environment by its family,
    robot or id; lists and truth values are text; null is left out, as is what changes no result.

    Args:
        config: of the run, resolved.
    """
    found: dict[str, float | str] = {"seed": config["seed"]}
    if config.get("start_from"):
        found["start_from"] = str(config["start_from"])
    found |= {name: str(config[name]) for name in ("precision", "simulation") if config.get(name)}
    for group in GROUPS:
        node = config[group]
        found[group] = str(node["_target_"]).rpartition(".")[2]
        found |= _flat(node, group)
    for name in _NAMES_OF_TASKS:
        if config["env"].get(name):
            found["env"] = str(config["env"][name])
    return found


def _flat(node: Mapping[str, Any], prefix: str) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}.{key}")
        elif value is not None and key != "_target_" and key not in _NO_SETTINGS:
            plain = isinstance(value, (int, float, str)) and not isinstance(value, bool)
            found[f"{prefix}.{key}"] = value if plain else str(value)
    return found


def summaries(
    values: Mapping[str, float | str], metrics: Mapping[str, str]
) -> tuple[Summary, Summary, Summary]:
    """What the tab reads: the experiment, the start of the run and its end.

    They belong into the run's own event file; `SummaryWriter.add_hparams` would begin a run of its own. The
    tab shows the last value of each metric, while the run is going on, too.

    Args:
        values: of `flat`.
        metrics: names of scalars, and what stands over their columns.
    """
    experiment, begun, ended = hparams(dict(values), dict.fromkeys(metrics, 0.0))
    # The tab shows the columns that are said to differ before the others.
    plugin = experiment.value[0].metadata.plugin_data
    told = HParamsPluginData.FromString(plugin.content)
    for column in told.experiment.hparam_infos:
        column.differs = column.name in FIRST
    for metric in told.experiment.metric_infos:
        metric.display_name = metrics[metric.name.tag]
    plugin.content = told.SerializeToString()
    return experiment, begun, ended
