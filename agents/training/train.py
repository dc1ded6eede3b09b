"""What ``somite-train`` does: the run that a configuration describes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig

from ...envs.numbers import whole_number
from ..algorithms.clone import Clone
from ..algorithms.cma_es import CMAES
from ..algorithms.ppo import PPO
from ..device import (
    check_precision,
    out_of_memory,
    resolve_device,
    set_threads,
    use_precision,
)
from ..rollout.compute import check_algorithm, compute_of
from ..storage.run_folder import hold, tidy
from ..storage.save_errors import cannot_begin, keep_log_going
from .clone_run import CloneRun
from .cma_run import CMARun
from .ppo_run import PPORun
from .run import Run
from .signals import StopSignals

RUNS: dict[type, type[Run]] = {PPO: PPORun, Clone: CloneRun, CMAES: CMARun}
"""How each algorithm is run."""


def train(config: DictConfig, folder: Path) -> None:
    """Learn what ``config`` describes in ``folder``; go on from its last checkpoint if it has one.

    Raises:
        SystemExit: stopped by a signal, with 128 plus its number; or the end could not be saved.
        UserError: a configuration that cannot be meant, or a folder that another process uses or that cannot
            be written into.
    """
    with ExitStack() as stack:
        stack.enter_context(StopSignals())  # from here on a signal ends in a checkpoint
        check_precision(config.precision, _kind(config).name)
        device = resolve_device(config.device)
        set_threads(config.threads)
        use_precision(config.precision, device)
        keep_log_going()
        stack.enter_context(out_of_memory("this run", device, *_rows(config)))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(folder))
            tidy(folder)
            run = _make(config, folder, device)
        except OSError as error:
            message = cannot_begin(folder, error)
            if message is None:
                raise
            raise message from error
        run.learn()
        run.save_errors.check_end()


def _kind(config: DictConfig) -> type[Run]:
    return RUNS[hydra.utils.get_class(config.algorithm._target_)]


def _rows(config: DictConfig) -> tuple[str, int]:
    """The key that the memory of a rollout grows with, and its value."""
    algorithm = config.algorithm
    if "num_envs" in algorithm:
        return "algorithm.num_envs", whole_number(algorithm.num_envs, "algorithm.num_envs", 1)
    size = algorithm.population if algorithm.shard_size == "auto" else algorithm.shard_size
    return "algorithm.shard_size", whole_number(size, "algorithm.shard_size", 1)


def _make(config: DictConfig, folder: Path, device: torch.device) -> Run:
    kind = _kind(config)
    check_algorithm(compute_of(config), kind.name)
    return kind(config, folder, device)
