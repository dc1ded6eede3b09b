"""The parts of a training run, from arguments of ``somite-train``, without its run folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from stable_baselines3.common.logger import Logger

from ...agents.algorithms.ppo import PPO, TokenPPO
from ...agents.composition import build_policy, policy_class
from ...agents.device import resolve_device, resolve_simulation, set_threads, thread_limit
from ...agents.rollout.training_rows import TrainingRows
from ...envs.errors import UserError
from ...envs.task_set import TaskSet
from ..cli.arguments import CONFIG_MODULE, check_names, check_targets
from ..cli.values import check_values

WITH_RIVALS = "hydra.searchpath=[pkg://somite.scripts.benchmarks.conf]"
"""Adds our rivals to the choices of the group ``agent``, of benchmarks only."""


def compose(arguments: Sequence[str]) -> DictConfig:
    """The configuration of ``somite-train`` with these arguments, ``agent=naive`` among them.

    Raises:
        UserError: an argument names what does not exist, or has an invalid value.
    """
    arguments = [WITH_RIVALS, *arguments]
    try:
        with _beside_the_job():
            check_names(arguments, "train")
            with hydra.initialize_config_module(CONFIG_MODULE, version_base="1.3"):
                config = hydra.compose("train", arguments)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"arguments of somite-train {arguments[1:]}: {error}") from error
    check_targets(config)
    check_values(config, "train", Path.cwd())
    return config


@contextmanager
def _beside_the_job() -> Iterator[None]:
    """Hydra composes for one job at a time: the one that runs steps aside."""
    state = GlobalHydra.instance()
    running, state.hydra = state.hydra, None
    try:
        yield
    finally:
        state.hydra = running


class TrainingSetup:
    """Bodies, rows, policy and learner as a training run has them.

    Args:
        config: of :func:`compose`.
    """

    def __init__(self, config: DictConfig) -> None:
        self.torch_threads, self.threads = set_threads(config.threads), thread_limit(config.threads)
        device = resolve_device(config.device)
        seeds = np.random.SeedSequence([int(config.seed), 0]).generate_state(3)
        learner_seed, env_seed, init_seed = (int(seed) for seed in seeds)
        self.bodies: TaskSet = hydra.utils.instantiate(config.env, _convert_="all")
        self.algorithm: PPO = hydra.utils.instantiate(config.algorithm, _convert_="all")
        self.aligned: bool = policy_class(config.agent, self.bodies.kind, by_gradient=True).aligned_slots
        self.simulation = resolve_simulation(config.simulation, self.bodies, device)
        self.precision = str(config.precision)
        self.rows: TrainingRows = self.algorithm.make_rows(
            self.bodies, self.aligned, self.threads, self.simulation, device
        )
        torch.manual_seed(init_seed)
        self.policy = build_policy(config.agent, self.rows.env).to(device)
        self.learner: TokenPPO = self.algorithm.make_learner(
            self.policy, self.rows, device, learner_seed, env_seed, self.precision
        )
        self.learner.set_logger(Logger(None, []))
