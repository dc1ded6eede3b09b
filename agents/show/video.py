"""An episode of any agent as a video: its body, what its environment draws, or what it receives."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import imageio
import numpy as np
from PIL import Image

from ...envs.errors import UserError
from ...envs.images.patches import join
from ...envs.locomotion.pictures.rendering import BodyRenderer
from ...envs.task_set import TaskSet
from ...envs.token_env import TokenEnv
from ..agent import Agent
from ..evaluation.episodes import Observation, watch_episode
from .inside import attention_of, by_channel, shown_by_slots

log = logging.getLogger(__name__)

# Frames per second of a body's video, its seconds at most, and its pixels (width, height).
BODY_RATE, BODY_SECONDS, BODY_SIZE = 25, 10, (480, 320)
SENSOR_SECONDS = 20  # at most, of a video of sensors or patches, which has a frame for each step
# Pixels of the video for one of a small picture of patches, and the height up to which it is enlarged.
ENLARGED, HEIGHT = 4, 400
DIM = 0.25  # how bright what is not looked at remains


def to_film(task: TaskSet) -> TaskSet | None:
    """The task as `film_episode` wants it; None, and a warning why, where there can be no video of it."""
    try:
        return task if task.kind == "limbs" else task.for_filming()
    except UserError as error:
        log.warning("no video: %s", error)
        return None


def film_episode(agent: Agent, task: TaskSet, body: str, path: Path, seed: int) -> bool:
    """Write an mp4 of the beginning of one episode, in real time, or log why there is none.

    The task is made by `to_film`, the start is that of `run_episodes` with this seed.

    Returns:
        Whether there is one.
    """
    of_body = task.kind == "limbs"
    rate, seconds = (BODY_RATE, BODY_SECONDS) if of_body else (task.frames_per_second, SENSOR_SECONDS)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            closing(frames_of(agent, task, body, seed, 1 / rate)) as frames,
            imageio.get_writer(path, fps=rate, macro_block_size=None) as writer,
        ):
            size = None
            for frame in itertools.islice(frames, round(seconds * rate)):
                # The codec wants one size for all, and even numbers.
                size = size or tuple(max(2, side // 2 * 2) for side in frame.shape[:2])
                nearly = all(0 <= side - want < 2 for side, want in zip(frame.shape, size, strict=False))
                writer.append_data(frame[: size[0], : size[1]] if nearly else _scaled(frame, *size))
    except UserError as error:  # nothing here draws: the numbers stand without pictures
        log.warning("no video: %s", error)
        return False
    log.info("video: %s", path)
    return True


def frames_of(
    agent: Agent,
    task: TaskSet,
    body: str,
    seed: int,
    between: float,
    size: tuple[int, int] = BODY_SIZE,
    shadows: bool = True,
) -> Iterator[np.ndarray]:
    """Pictures (H, W, 3) uint8 of one episode.

    Of a body, it from the side. Of an environment that draws itself, what it draws. Of patches, three
    pictures side by side: the world, in front of it what the environment draws, if it does; the newest frame
    with its patches as they are handed over, in their slots; and the world once more, patches the brighter
    the more attention their slots get. A policy that attends to nothing has no third.

    They are so many seconds of the episode apart (``between``); a step that lasts longer has several. Of
    bodies, ``size`` is in pixels (width, height); without shadows a picture takes a third of the time.

    Raises:
        UserError: nothing draws on this machine, or what an environment draws is no picture.
    """
    of_body = task.kind == "limbs"
    with ExitStack() as stack:
        env = task.make_env([body], 1, aligned=agent.policy.aligned_slots, threads=1, once=True)
        stack.enter_context(closing(env))
        if of_body:
            renderer = stack.enter_context(closing(BodyRenderer(env, *size, shadows=shadows)))
        duration, drawn = env.step_duration if of_body else 1 / task.frames_per_second, 0
        for observation, rewards in watch_episode(agent, env, seed):
            if len(rewards) * duration < drawn * between:
                continue
            picture = renderer.picture(0) if of_body else _drawn(agent, env, observation, task)
            while len(rewards) * duration >= drawn * between:
                yield picture
                drawn += 1


def _drawn(agent: Agent, env: TokenEnv, observation: Observation, task: TaskSet) -> np.ndarray:
    """What `frames_of` shows of sensors or patches."""
    if task.kind == "sensors":
        return env.source.render(0)
    attention = attention_of(agent, observation)
    picture = patch_picture(env, observation, None if attention is None else attention[0])
    times = min(ENLARGED, max(1, HEIGHT // picture.shape[0]))
    picture = picture.repeat(times, 0).repeat(times, 1)
    if not task.renders:
        return picture
    return np.concatenate((_scaled(env.source.render(0), picture.shape[0]), picture), 1)


def patch_picture(env: TokenEnv, observation: Observation, attention: np.ndarray | None) -> np.ndarray:
    """(H, 3 * W, 3) uint8, the pictures of `frames_of`, or (H, 2 * W, 3) without attention.

    Of the first environment, its last observation and the (N,) share of the attention that each slot gets.
    """
    world = env.source.pictures[0]
    grid, size = env.source.sizes["grid"], env.source.sizes["patch_size"]
    patches = grid[0] * grid[1]  # further slots, of copies and noise, have no place in a picture
    shape = 1, -1, env.senses.history, np.prod(env.source.reading_shape)
    frames = np.asarray(observation["tokens"][:1]).reshape(shape)
    received = join(frames[:, :patches, 0], grid, size)[0]
    parts = [world, np.broadcast_to(received, world.shape)]
    if attention is not None:
        true = by_channel(attention, shown_by_slots(env))
        bright = true[:patches] / max(true[:patches].max(), 1e-9)
        bright = np.repeat(np.repeat(bright.reshape(grid), size, 0), size, 1)[..., None]
        parts.append((world * (DIM + (1 - DIM) * bright)).astype(np.uint8))
    return np.concatenate(parts, 1)


def thumbnail(picture: np.ndarray, height: int) -> np.ndarray:
    """The picture, no higher than so many pixels."""
    return picture if height >= picture.shape[0] else _scaled(picture, height)


def _scaled(picture: np.ndarray, height: int, width: int | None = None) -> np.ndarray:
    """(height, width, 3) uint8; without ``width`` as wide as the picture is for its height."""
    width = width or round(picture.shape[1] * height / picture.shape[0])
    return np.asarray(Image.fromarray(picture).resize((width, height)))
