"""A policy of sensors or patches as a video: the world, what the agent receives, and where it looks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import imageio
import numpy as np
from PIL import Image

from ...envs.images.patches import join
from ...envs.sensors import SensorTask, SensorVectorEnv
from ..agent import Agent
from .inside import attention_of, by_channel

ENLARGED = 4
"""Pixels of the video for one of a picture, where it is small."""

HEIGHT = 400
"""Pixels that enlarged pictures have at most."""

DIM = 0.25
"""How bright what is not looked at remains."""

MOST_SECONDS = 20
"""Of a video, which shows the beginning of an episode that is longer."""


def film_sensors(agent: Agent, task: SensorTask, path: Path, seed: int) -> None:
    """Write an mp4 of one episode; see `frames_of`.

    Args:
        agent: acts deterministically.
        task: made by `SensorTask.for_filming`.
        path: of the file.
        seed: of the start, as in `run_episodes`.

    Raises:
        UserError: what the environment draws is no picture.
    """
    rate = task.frames_per_second
    with (
        closing(frames_of(agent, task, seed)) as frames,
        imageio.get_writer(path, fps=rate, macro_block_size=None) as writer,
    ):
        size = None
        for frame in itertools.islice(frames, round(MOST_SECONDS * rate)):
            # The codec wants one size for all, and even numbers.
            size = size or tuple(max(2, side // 2 * 2) for side in frame.shape[:2])
            writer.append_data(frame[: size[0], : size[1]] if _covers(frame, size) else _scaled(frame, *size))


def _covers(frame: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether only an odd row or column is cut off."""
    return all(0 <= side - wanted < 2 for side, wanted in zip(frame.shape, size, strict=False))


def frames_of(agent: Agent, task: SensorTask, seed: int, every: int = 1) -> Iterator[np.ndarray]:
    """Pictures (H, W, 3) uint8 of one episode, of each step before it is made.

    Of an environment that draws itself, what it draws. Of patches, three pictures side by side: the world, in
    front of it what the environment draws, if it does; the newest frame with its patches as they are handed
    over, in their slots; and the world once more, patches the brighter the more attention their slots get. A
    policy that attends to nothing has no third.

    Args:
        agent: acts deterministically.
        task: made by `SensorTask.for_filming`.
        seed: of the start, as in `run_episodes`.
        every: steps between pictures.
    """
    with closing(task.make_vec(num_envs=1, threads=1, once=True)) as env:
        observation, _ = env.reset(seed=[[seed, 0]])
        agent.reset()
        for step in itertools.count():
            if step % every == 0:
                yield _frame(agent, env, observation, task.renders)
            observation, _, terminated, truncated, _ = env.step(agent.act(observation))
            if terminated[0] or truncated[0]:
                return


def _frame(
    agent: Agent, env: SensorVectorEnv, observation: dict[str, np.ndarray], renders: bool
) -> np.ndarray:
    if env.kind == "sensors":
        return env.source.render(0)
    picture = _picture(agent, env, observation)
    if not renders:
        return picture
    drawn = env.source.render(0)
    height = picture.shape[0]
    return np.concatenate(
        (_scaled(drawn, height, round(drawn.shape[1] * height / drawn.shape[0])), picture), 1
    )


def _scaled(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8."""
    return np.asarray(Image.fromarray(picture).resize((width, height)))


def thumbnail(picture: np.ndarray, height: int) -> np.ndarray:
    """The picture, no higher than so many pixels."""
    factor = height / picture.shape[0]
    return picture if factor >= 1 else _scaled(picture, height, round(picture.shape[1] * factor))


def _picture(agent: Agent, env: SensorVectorEnv, observation: dict[str, np.ndarray]) -> np.ndarray:
    attention = attention_of(agent, observation)
    picture = patch_picture(env, observation, None if attention is None else attention[0])
    times = min(ENLARGED, max(1, HEIGHT // picture.shape[0]))
    return picture.repeat(times, 0).repeat(times, 1)


def patch_picture(
    env: SensorVectorEnv, observation: dict[str, np.ndarray], attention: np.ndarray | None
) -> np.ndarray:
    """(H, 3 * W, 3) uint8, the pictures of `frames_of` of row 0, or (H, 2 * W, 3) without attention.

    Args:
        env: of patches.
        observation: its last one.
        attention: (N,) share that each slot gets, or None.
    """
    world = env.source.pictures[0]
    grid, size = env.source.sizes["grid"], env.source.sizes["patch_size"]
    patches = grid[0] * grid[1]  # further slots, of copies and noise, have no place in a picture
    rows = len(observation["tokens"])
    frames = observation["tokens"].reshape(rows, -1, env.senses.history, np.prod(env.source.reading_shape))
    received = join(frames[:1, :patches, 0], grid, size)[0]
    parts = [world, np.broadcast_to(received, world.shape)]
    if attention is not None:
        true = by_channel(attention, env.slots.order[0])
        bright = true[:patches] / max(true[:patches].max(), 1e-9)
        bright = np.repeat(np.repeat(bright.reshape(grid), size, 0), size, 1)[..., None]
        parts.append((world * (DIM + (1 - DIM) * bright)).astype(np.uint8))
    return np.concatenate(parts, 1)
