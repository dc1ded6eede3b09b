"""What a policy does and looks at, as images of TensorBoard: a short video, attention, messages."""

from __future__ import annotations

import functools
import io
import itertools
import logging
from collections.abc import Sequence
from contextlib import closing

import imageio
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from tensorboard.compat.proto.summary_pb2 import Summary

from ....envs.errors import UserError
from ....envs.sensors import SensorTask
from ....envs.sensors.gymnasium_task import RenderedTask
from ....envs.task_set import TaskSet
from ...agent import Agent
from ...show.figures import inside_figure
from ...show.inside import looks_inside, record_inside
from ...show.video import frames_of, thumbnail

log = logging.getLogger(__name__)

PICTURES_SEED = 7_000_025
"""Of the start that is looked at each time: of the cart-pole, one that lasts whatever is done."""

FRAMES = 12
WIDTH, HEIGHT = 240, 160
"""Pixels of the video of a body."""

FRAME_HEIGHT = 192
"""Most pixels of the video of sensors and patches, upwards."""

BETWEEN = 0.125
"""Seconds between frames of a body."""

INSIDE_STEPS = 50
"""Steps over which attention and messages are drawn."""


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
