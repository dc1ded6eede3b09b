"""A policy on one body as a video."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import imageio

from ...envs.locomotion import BodySet
from ...envs.locomotion.pictures.rendering import BodyRenderer
from ..agent import Agent

FRAMES_PER_SECOND = 25


def film(agent: Agent, bodies: BodySet, body: str, path: Path, seed: int, seconds: float = 10.0) -> None:
    """Write an mp4 of one episode, in real time.

    Args:
        agent: acts deterministically.
        bodies: gives the task.
        body: name.
        path: of the file.
        seed: of the start, as in `run_episodes`.
        seconds: of simulated time at most.

    Raises:
        UserError: no backend draws on this machine.
    """
    env = bodies.make_vec([body], 1, aligned=agent.policy.aligned_slots, threads=1)
    with closing(env), closing(BodyRenderer(env)) as renderer:
        observation, _ = env.reset(seed=[[seed, 0]])
        agent.reset()
        # The body's steps rarely divide into frames: a frame is drawn when its time has come.
        time, next_frame = 0.0, 0.0
        with imageio.get_writer(path, fps=FRAMES_PER_SECOND, macro_block_size=None) as writer:
            while time < seconds:
                if time >= next_frame:
                    writer.append_data(renderer.picture(0))
                    next_frame += 1 / FRAMES_PER_SECOND
                observation, _, terminated, truncated, _ = env.step(agent.act(observation))
                time += env.step_duration
                if terminated[0] or truncated[0]:
                    break
