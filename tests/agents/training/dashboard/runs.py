"""Runs so small that a test can afford them, each with a zero-shot suite."""

from __future__ import annotations

from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from somite.agents.training.loop import Run
from tests.agents.runs import ROLLOUT, TINY, compose

SUITE = ("zero_shot.rows=2", "zero_shot.steps={limbs:10,sensors:10,patches:4}", "zero_shot.pictures=false")
LIMBS = (*TINY, *SUITE, f"algorithm.zero_shot_every={ROLLOUT}")
CMA = (
    "env=cartpole_swingup",
    "env.max_episode_steps=15",
    "agent=sensor_transformer",
    "agent.width=8",
    "algorithm=cma_es",
    "algorithm.start=initial",
    "algorithm.diagonal=true",
    "algorithm.generations=3",
    "algorithm.population=4",
    "algorithm.episodes=2",
    "algorithm.validate_every=1",
    "algorithm.validation_episodes=2",
    "algorithm.zero_shot_every=1",
    "device=cpu",
    "threads=1",
    *SUITE,
)


def limb_run(folder: Path, *overrides: str) -> Run:
    """Two cheetahs, three updates, the suite after each."""
    return Run(compose(*LIMBS, *overrides), folder, torch.device("cpu"))


def cma_run(folder: Path, *overrides: str) -> Run:
    """The swing-up, three generations, the suite after each."""
    return Run(compose(*CMA, *overrides), folder, torch.device("cpu"))


def events_of(folder: Path) -> EventAccumulator:
    """All that a run's event files hold."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events
