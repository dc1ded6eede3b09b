"""A policy of patches as a video: the world, what the agent receives, and where it looks."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import imageio
import numpy as np

from ..envs.images.patches import join
from ..envs.sensors import SensorTask, SensorVectorEnv
from .acting import Agent
from .inside.record import attention_of, by_channel

ENLARGED = 4
"""Pixels of the video for one of a picture."""

DIM = 0.25
"""How bright what is not looked at remains."""


def film_patches(agent: Agent, task: SensorTask, path: Path, seed: int) -> None:
    """Write an mp4 of one episode.

    Three pictures stand side by side: the world; the newest frame with its patches as they are handed over,
    in their slots; and the world once more, patches the brighter the more attention their slots get. A
    policy that attends to nothing has the first two only.

    Args:
        agent: acts deterministically.
        task: of patches.
        path: of the file.
        seed: of the start, as in `run_episodes`.
    """
    env = task.make_vec(num_envs=1, threads=1, once=True)
    with closing(env):
        observation, _ = env.reset(seed=[[seed, 0]])
        agent.reset()
        running = True
        with imageio.get_writer(path, fps=task.frames_per_second, macro_block_size=None) as writer:
            while running:
                writer.append_data(_picture(agent, env, observation))
                observation, _, terminated, truncated, _ = env.step(agent.act(observation))
                running = not (terminated[0] or truncated[0])


def _picture(agent: Agent, env: SensorVectorEnv, observation: dict[str, np.ndarray]) -> np.ndarray:
    attention = attention_of(agent, observation)
    picture = patch_picture(env, observation, None if attention is None else attention[0])
    return picture.repeat(ENLARGED, 0).repeat(ENLARGED, 1)


def patch_picture(
    env: SensorVectorEnv, observation: dict[str, np.ndarray], attention: np.ndarray | None
) -> np.ndarray:
    """(H, 3 * W, 3) uint8, the pictures of `film_patches` of row 0, or (H, 2 * W, 3) without attention.

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
