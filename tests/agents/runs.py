"""Training runs so small that a test can afford them."""

from __future__ import annotations

import copy
import csv
import functools
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig

from somite.agents.training.loop import Run

ROLLOUT = 8 * 16
TINY = (
    "env.bodies=[cheetah_2_back,cheetah_3_front]",
    "env.task.max_episode_steps=20",
    "agent.width=16",
    "algorithm.num_envs=8",
    "algorithm.n_steps=16",
    "algorithm.batch_size=64",
    "algorithm.n_epochs=2",
    f"algorithm.total_steps={3 * ROLLOUT}",
    f"algorithm.checkpoint_every={ROLLOUT}",
    f"algorithm.validate_every={ROLLOUT}",
    "device=cpu",
    "threads=1",
)
"""Two cheetahs, three updates of 128 steps each."""


def compose(*overrides: str, name: str = "train") -> DictConfig:
    """A configuration as the command line composes it."""
    return copy.deepcopy(_composed(name, overrides))


@functools.cache  # Hydra needs a fifth of a second, and tests of runs that go on ask for the same again
def _composed(name: str, overrides: tuple[str, ...]) -> DictConfig:
    with hydra.initialize_config_module("somite.conf", version_base="1.3"):
        return hydra.compose(name, list(overrides))


def make_run(folder: Path, *overrides: str) -> Run:
    """A tiny run in ``folder``, not yet learning."""
    return Run(compose(*TINY, *overrides), folder, torch.device("cpu"))


def read_metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
