"""What a run shows in TensorBoard beside its scalars: pages of curves, texts, hyperparameters, pictures."""

from __future__ import annotations

import functools
import io
import itertools
import logging
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import imageio
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from omegaconf import DictConfig, OmegaConf
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import custom_scalars, hparams, text

from ...envs.errors import UserError
from ...envs.locomotion import BodySet
from ...envs.sensors import SensorTask
from ...envs.sensors.gymnasium_task import RenderedTask
from ...envs.task_set import TaskSet
from ..agent import Agent
from ..algorithms.base import Algorithm
from ..policies.base import Policy
from ..show.figures import inside_figure
from ..show.inside import looks_inside, record_inside
from ..show.video import frames_of, thumbnail
from ..storage.policy import PACKAGES
from ..storage.policy_json import installed_version
from .records import EventFile
from .resume import leaves
from .zero_shot import MEAN, REFERENCE, ZeroShotSuite, left_alone, read_settings

log = logging.getLogger(__name__)

GROUPS = ("agent", "algorithm", "env")
FIRST = ("agent", "algorithm", "algorithm.learning_rate", "env", "seed")
"""Hyperparameters that the tab shows unasked; the others can be ticked."""

PICTURES_SEED = 7_000_025
"""Of the episode's start, the same for every picture; the cart-pole's is one from which episodes last."""

FRAMES = 12
WIDTH, HEIGHT = 240, 160
"""Pixels of the video of a body."""

FRAME_HEIGHT = 192
"""Most pixels of the video of sensors and patches, upwards."""

BETWEEN = 0.125
"""Seconds between frames of a body."""

INSIDE_STEPS = 50
"""Steps over which attention and messages are drawn."""

_NAMES_OF_TASKS = ("family", "families", "morphology", "id")
_NO_SETTINGS = ("_target_", "keep_checkpoints", "checkpoint_every", "zero_shot_every")


class Dashboard:
    """Pages, texts, hyperparameters and pictures of one run, and its zero-shot suite, if it has one.

    Args:
        events: the run's event file.
        config: of the run.
        policy: that is trained.
        algorithm: its settings.
        bodies: how many are trained on.
        first_step: environment steps made before.

    Raises:
        UserError: an invalid condition of the suite.
    """

    def __init__(
        self,
        events: EventFile,
        config: DictConfig,
        policy: Policy,
        algorithm: Algorithm,
        bodies: int,
        first_step: int = 0,
    ) -> None:
        self._events = events
        plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)
        tries = 0 < algorithm.zero_shot_every <= getattr(algorithm, algorithm.budget)
        self.suite = self._make_suite(plain, policy) if tries else None
        self._pictures: Pictures | None = None
        if self.suite is not None and plain["zero_shot"]["pictures"] and REFERENCE in self.suite.tasks:
            task = self.suite.tasks[REFERENCE]
            self._pictures = Pictures(task, _largest(task))
        events.add(custom_scalars(pages(algorithm.charts(policy), bodies > 1, self.suite is not None)))
        versions = {"python": platform.python_version()}
        versions |= {name: installed_version(name) or "not installed" for name in PACKAGES}
        rows = "\n".join(f"| {name} | {version} |" for name, version in versions.items())
        for name, said in (
            ("config", f"```yaml\n{OmegaConf.to_yaml(config)}```"),
            ("command", f"```\n{command_line()}\n```"),
            ("versions", f"| package | version |\n|---|---|\n{rows}"),
        ):
            events.add(text(name, said), first_step)
        scores = {"rollout/ep_rew_mean": "return"}
        if algorithm.validates:
            scores["validation/mean_reward"] = "validation"
        if self.suite is not None:
            scores[f"zero_shot/{MEAN}"] = "zero-shot"
        experiment, begun, self._ended = summaries(flat(plain), scores)
        events.add(experiment)
        events.add(begun)

    @staticmethod
    def _make_suite(config: Mapping[str, Any], policy: Policy) -> ZeroShotSuite | None:
        if not config.get("zero_shot"):
            log.info("no zero-shot suite: this run was begun without one")
            return None
        suite = ZeroShotSuite(read_settings(config["zero_shot"]), config["env"], policy)
        if set(suite.tasks) <= {REFERENCE}:
            log.info("no zero-shot suite: none of its conditions is left")
            return None
        return suite

    def try_out(self, policy: Policy, step: int) -> dict[str, float]:
        """Run the zero-shot suite and draw pictures at a step; scalars. The policy is left as it is."""
        scores = {f"zero_shot/{name}": score for name, score in self.suite.scores(policy).items()}
        if self._pictures is not None:
            with self.suite.timed(), left_alone(policy):
                for tag, image in self._pictures.draw(Agent(policy)).items():
                    self._events.add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
        return scores

    def finish(self) -> None:
        """The run has made all its steps: say so beside its hyperparameters."""
        self._events.add(self._ended)


def _largest(task: TaskSet) -> str:
    """The training body with the most limbs, or the task."""
    if isinstance(task, BodySet):
        return max(task.seen, key=lambda name: task.morphology(name).n_limbs)
    return task.seen[0]


def pages(
    own: Mapping[str, Sequence[str]], several: bool, tries: bool
) -> dict[str, dict[str, tuple[str, list[str]]]]:
    """The kind and the scalars of each chart, by page and title, as TensorBoard's custom scalars take them.

    Scalars are regular expressions, from the beginning of a name. TensorBoard puts charts of several runs
    together where title and scalars are the same, so both are the same for all algorithms but for charts of
    their ``own``, bands over ``several`` bodies, and the zero-shot suite of a run that ``tries`` one.
    """
    lines = {
        "Training": {
            "Return": ("rollout/ep_rew_mean$", "validation/mean_reward$"),
            "Length of an episode": ("rollout/ep_len_mean$",),
            **own,
            "Simulations that diverged": ("rollout/diverged$",),
        },
        "Bodies": {"Return of each body": ("bodies/.+",)},
        "Zero-shot": {
            "Mean of the conditions, and undisturbed": ("zero_shot/mean$", "zero_shot/undisturbed$"),
            "Each condition": ("zero_shot/(?!mean$).+",),
        },
        "Speed": {
            "Environment steps per second": ("time/fps$",),
            "Share of the time": ("time/.+_share$",),
        },
    }
    found = {
        page: {title: ("Multiline", list(scalars)) for title, scalars in charts.items()}
        for page, charts in lines.items()
    }
    if several:
        band = [f"rollout/body_{name}" for name in ("mean", "worst", "best")]
        found["Bodies"] = {"All bodies: mean, worst, best": ("Margin", band), **found["Bodies"]}
    if not tries:
        del found["Zero-shot"]
    return found


def command_line() -> str:
    """What this program was started with, as it could be typed."""
    words = sys.orig_argv[1:] if len(sys.orig_argv) > 1 else sys.orig_argv
    if not words[0].startswith("-"):  # an installed command is called by its name
        words = [Path(words[0]).name, *words[1:]]
    else:
        words = [Path(sys.orig_argv[0]).name, *words]
    return shlex.join(words)


def flat(config: Mapping[str, Any]) -> dict[str, float | str]:
    """A run's resolved configuration with dotted keys, as the table of hyperparameters takes it.

    What is built is told by its class's name (``agent``: LimbTransformer), the environment by its family,
    robot or id; lists and truth values are text; null is left out, as is what changes no result.
    """
    found: dict[str, float | str] = {"seed": config["seed"]}
    for name in ("start_from", "precision", "simulation"):
        if config.get(name):
            found[name] = str(config[name])
    for group in GROUPS:
        found[group] = str(config[group]["_target_"]).rpartition(".")[2]
        for key, value in leaves(config[group], group).items():
            if value is not None and key.rpartition(".")[2] not in _NO_SETTINGS:
                plain = isinstance(value, (int, float, str)) and not isinstance(value, bool)
                found[key] = value if plain else str(value)
    for name in _NAMES_OF_TASKS:
        if config["env"].get(name):
            found["env"] = str(config["env"][name])
    return found


def summaries(
    values: Mapping[str, float | str], metrics: Mapping[str, str]
) -> tuple[Summary, Summary, Summary]:
    """What the tab of hyperparameters reads: the experiment, the start of the run and its end.

    They belong into the run's own event file; `SummaryWriter.add_hparams` would begin a run of its own. The
    tab shows the last value of each metric, under its title, while the run is going on, too.
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


class Pictures:
    """Draws pictures of a policy in a task that nothing disturbs, of one body (or the task's name)."""

    def __init__(self, task: TaskSet, body: str) -> None:
        self.task, self.body = task, body
        self._cannot: set[str] = set()

    def draw(self, agent: Agent) -> dict[str, Summary.Image]:
        """Images by tag; what cannot be drawn on this machine is left out, and that is said once."""
        makers = {}
        if self.task.kind != "sensors" or isinstance(self.task, RenderedTask):  # numbers have no picture
            makers[f"video/{self.body}"] = self._video
        if looks_inside(agent.policy):
            makers[f"inside/{self.body}"] = self._inside
        drawn = {}
        for tag, make in makers.items():
            if tag in self._cannot:
                continue
            try:
                drawn[tag] = make(agent)
            except UserError as error:
                self._cannot.add(tag)
                log.warning("no pictures of %s: %s", tag, error)
        return drawn

    def _video(self, agent: Agent) -> Summary.Image:
        """The first seconds, each frame seen for as long as it says; bodies twice as fast as in life."""
        if self.task.kind == "limbs":
            task, between, seen = self.task, BETWEEN, BETWEEN / 2
        else:
            task, seen = self._filmed, 1 / 8
            between = 8 / task.frames_per_second  # a frame for every eighth step
        found = frames_of(agent, task, self.body, PICTURES_SEED, between, (WIDTH, HEIGHT), shadows=False)
        with closing(found):
            frames = [thumbnail(frame, FRAME_HEIGHT) for frame in itertools.islice(found, FRAMES)]
        return animation(frames, seen)

    @functools.cached_property
    def _filmed(self) -> SensorTask:
        return self.task.for_filming()

    def _inside(self, agent: Agent) -> Summary.Image:
        record = record_inside(agent, self.task, self.body, PICTURES_SEED, INSIDE_STEPS)
        canvas, file = FigureCanvasAgg(inside_figure(record)), io.BytesIO()
        canvas.print_png(file)
        width, height = canvas.get_width_height()
        return Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=file.getvalue())


def animation(frames: Sequence[np.ndarray], seconds: float) -> Summary.Image:
    """An animated GIF of (height, width, 3) uint8, each seen so long; TensorBoard shows it as an image."""
    file = io.BytesIO()
    # Browsers show no frame for less than 20 ms.
    imageio.mimwrite(file, list(frames), format="GIF", duration=max(20, round(1000 * seconds)), loop=0)
    height, width, _ = frames[0].shape
    return Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file.getvalue())
