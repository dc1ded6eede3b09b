"""What a policy does and looks at, as images of TensorBoard: a short video, attention, messages."""

from __future__ import annotations

import functools
import io
import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import closing

import imageio
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensorboard.compat.proto.summary_pb2 import Summary

from ....envs.errors import UserError
from ....envs.locomotion.pictures.rendering import BodyRenderer
from ....envs.sensors import SensorTask
from ....envs.sensors.rendered import RenderedTask
from ....envs.task_set import TaskSet
from ...agent import Agent
from ...show.inside import looks_inside, record_inside
from ...show.inside_figures import attention_over_time, limb_graph
from ...show.patch_video import frames_of, thumbnail

log = logging.getLogger(__name__)

PICTURES_SEED = 7_000_025
"""Of the start that is looked at each time: of the cart-pole, one that lasts whatever is done."""

FRAMES = 12
WIDTH, HEIGHT = 240, 160
"""Pixels of the video of a body."""

FRAME_HEIGHT = 192
"""Most pixels of the video of sensors and patches, upwards."""

INSIDE_STEPS = 50
"""Steps over which attention and messages are drawn."""


class Pictures:
    """Draws pictures of a policy for one run.

    Args:
        task: in which it acts, without anything that disturbs it.
        body: name of a body trained on, or of the task.
    """

    def __init__(self, task: TaskSet, body: str) -> None:
        self.task, self.body = task, body
        self._cannot: set[str] = set()

    def draw(self, agent: Agent) -> dict[str, Summary.Image]:
        """Images by tag; what cannot be drawn on this machine is left out, and that is said once."""
        makers: dict[str, Callable[[Agent], Summary.Image]] = {}
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
        if self.task.kind == "limbs":
            return animation(*_film_body(agent, self.task, self.body, PICTURES_SEED))
        return animation(*_film_sensors(agent, self._filmed, PICTURES_SEED))

    @functools.cached_property
    def _filmed(self) -> SensorTask:
        return self.task.for_filming()

    def _inside(self, agent: Agent) -> Summary.Image:
        record = record_inside(agent, self.task, self.body, PICTURES_SEED, INSIDE_STEPS)
        return still(limb_graph(record) if record.kind == "limbs" else attention_over_time(record))


def animation(frames: Sequence[np.ndarray], seconds: float) -> Summary.Image:
    """An animated GIF, which TensorBoard shows among its images.

    Args:
        frames: each (height, width, 3) uint8.
        seconds: that each is seen.
    """
    file = io.BytesIO()
    # Browsers show no frame for less than 20 ms.
    imageio.mimwrite(file, list(frames), format="GIF", duration=max(20, round(1000 * seconds)), loop=0)
    height, width, _ = frames[0].shape
    return Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file.getvalue())


def still(figure: Figure) -> Summary.Image:
    """A figure as a PNG."""
    canvas, file = FigureCanvasAgg(figure), io.BytesIO()
    canvas.print_png(file)
    width, height = canvas.get_width_height()
    return Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=file.getvalue())


def _film_body(
    agent: Agent, bodies: TaskSet, body: str, seed: int, every_seconds: float = 0.125
) -> tuple[list[np.ndarray], float]:
    """Frames of a body's first seconds, and how long each is seen: twice as fast as in life.

    Raises:
        UserError: no backend draws on this machine.
    """
    env = bodies.make_vec([body], 1, aligned=agent.policy.aligned_slots, threads=1)
    every = max(1, round(every_seconds / env.step_duration))
    frames: list[np.ndarray] = []
    # Without shadows it is three times as fast.
    with closing(env), closing(BodyRenderer(env, WIDTH, HEIGHT, shadows=False)) as renderer:
        observation, _ = env.reset(seed=[[seed, 0]])
        agent.reset()
        for step in range(FRAMES * every):
            if step % every == 0:
                frames.append(renderer.picture(0))
            observation, _, terminated, truncated, _ = env.step(agent.act(observation))
            if terminated[0] or truncated[0]:
                break
    return frames, every * env.step_duration / 2


def _film_sensors(
    agent: Agent, task: SensorTask, seed: int, every: int = 8
) -> tuple[list[np.ndarray], float]:
    """Frames as `frames_of` makes them, of every eighth step, and how long each is seen.

    Raises:
        UserError: what the environment draws is no picture.
    """
    with closing(frames_of(agent, task, seed, every)) as found:
        return [thumbnail(frame, FRAME_HEIGHT) for frame in itertools.islice(found, FRAMES)], 1 / 8
