"""What ``somite-train`` does: the run that a configuration describes."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from .algorithms.clone import Clone
from .algorithms.cma_es import CMAES
from .algorithms.ppo import PPO
from .clone_run import CloneRun
from .cma_run import CMARun
from .device import resolve_device, set_threads
from .ppo_run import PPORun
from .run import Run

RUNS: dict[type, type[Run]] = {PPO: PPORun, Clone: CloneRun, CMAES: CMARun}
"""How each algorithm is run."""


def train(config: DictConfig, folder: Path) -> None:
    """Learn what ``config`` describes in ``folder``; go on from its last checkpoint if it has one.

    Raises:
        UserError: a configuration that cannot be meant.
    """
    device = resolve_device(config.device)
    set_threads(config.threads)
    algorithm = hydra.utils.get_class(config.algorithm._target_)
    RUNS[algorithm](config, folder, device).learn()
