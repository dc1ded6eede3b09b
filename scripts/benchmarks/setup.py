"""The parts of a training run, from arguments of ``somite-train``, without its run folder; PPO in turns."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from ...agents.algorithms.ppo import PPO, TokenPPO
from ...agents.composition import build_policy, policy_class
from ...agents.device import resolve_device, resolve_simulation, set_threads, thread_limit, use_precision
from ...agents.rollout.training_rows import TrainingRows
from ...agents.training.run_callback import EPISODES_KEPT
from ...envs.errors import UserError
from ...envs.task_set import TaskSet
from ..cli.arguments import CONFIG_MODULE, check_names, check_targets
from ..cli.values import check_values
from .harness import Rival, Row, Turn
from .rivals import NaiveTransformer

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


def task_set(arguments: Sequence[str]) -> TaskSet:
    """What ``somite-train`` with these arguments would train on."""
    return instantiate(compose(arguments).env)


def instantiate(node: DictConfig) -> Any:
    """What a checked node builds."""
    return hydra.utils.instantiate(node, _convert_="all")


class TrainingSetup:
    """Task, environments, policy and learner as a training run has them.

    Args:
        config: of `compose`.
    """

    def __init__(self, config: DictConfig) -> None:
        self.torch_threads, self.threads = set_threads(config.threads), thread_limit(config.threads)
        self.device = resolve_device(config.device)
        seeds = np.random.SeedSequence([int(config.seed), 0]).generate_state(3)
        learner_seed, env_seed, init_seed = (int(seed) for seed in seeds)
        self.bodies: TaskSet = instantiate(config.env)
        self.algorithm: PPO = instantiate(config.algorithm)
        self.aligned: bool = policy_class(config.agent, self.bodies.kind, by_gradient=True).aligned_slots
        self.simulation = resolve_simulation(config.simulation, self.bodies, self.device)
        self.precision = str(config.precision)
        use_precision(self.precision, self.device)
        self.rows: TrainingRows = self.algorithm.make_rows(
            self.bodies, self.aligned, self.threads, self.simulation, self.device
        )
        torch.manual_seed(init_seed)
        self.policy = build_policy(config.agent, self.rows.env).to(self.device)
        self.learner: TokenPPO = self.algorithm.make_learner(
            self.policy, self.rows, self.device, learner_seed, env_seed, self.precision
        )
        self.learner.set_logger(Logger(None, []))

    def close(self) -> None:
        """Let the simulations go."""
        self.rows.close()


class PPOSpeed(Rival):
    """Iterations of PPO, one at a time, as ``somite-train`` with these arguments makes them.

    The phases are ``env`` (simulation, observation, reward), ``policy`` (forward passes while collecting; on
    a GPU within ``rest``, since to time them would be to wait for them), ``update`` (all epochs and the
    normaliser) and ``rest`` (the rollout buffer, advantages).

    Args:
        name: of the row.
        config: of `compose`. The learning rate must be constant: every measured iteration is the last that
            the learner knows of, where a falling rate would be zero.
        against: see `Rival`.
    """

    def __init__(self, name: str, config: DictConfig, against: Sequence[str] = ()) -> None:
        super().__init__(name, self._start, against)
        self._config = config

    def make(self, stack: ExitStack) -> TrainingSetup:
        """The run, and what there is to say about it."""
        setup = TrainingSetup(self._config)
        stack.callback(setup.close)
        self.more |= {
            "agent": type(setup.policy).__name__,
            "parameters": sum(parameter.numel() for parameter in setup.policy.parameters()),
            "simulation": setup.simulation,
            "precision": setup.precision,
            "device": str(setup.device),
            "torch_threads": setup.torch_threads,
            "bodies": len(setup.bodies.seen),
            "num_envs": setup.algorithm.num_envs,
            "batch_size": setup.learner.batch_size,
        }
        return setup

    def _start(self, stack: ExitStack) -> Turn:
        setup = self.make(stack)
        learner, device = setup.learner, setup.device
        steps = setup.algorithm.n_steps * setup.algorithm.num_envs
        in_policy = [0.0]
        if device.type == "cpu":
            learner.policy.forward = _timed(learner.policy.forward, in_policy)
            learner.policy.predict_values = _timed(learner.policy.predict_values, in_policy)
        spent: dict[str, float] = {}

        def turn() -> float:
            set_threads(setup.torch_threads)  # rivals that run in turns have their own number
            before, in_policy[0] = dict(learner.seconds), 0.0
            wait(device)
            start = time.perf_counter()
            learner.learn(steps, reset_num_timesteps=False, log_interval=None)
            wait(device)
            elapsed = time.perf_counter() - start
            found = {name: learner.seconds[name] - before[name] for name in ("env", "update")}
            if device.type == "cpu":
                found = {"env": found["env"], "policy": in_policy[0], "update": found["update"]}
            found["rest"] = elapsed - sum(found.values())
            spent.update({phase: spent.get(phase, 0.0) + seconds for phase, seconds in found.items()})
            total = sum(spent.values())
            self.more["shares"] = {phase: seconds / total for phase, seconds in spent.items()}
            return steps / elapsed

        turn()  # which is not counted
        spent.clear()
        return turn


def _timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = function(*args, **kwargs)
        seconds[0] += time.perf_counter() - start
        return result

    return timed


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ppo_rivals(variants: Mapping[str, Sequence[str]], train: Sequence[str]) -> list[PPOSpeed]:
    """Variants of PPO, composed before minutes are spent, so that a wrong name is told at once.

    Args:
        variants: arguments of ``somite-train`` by the variant's name; ``agent=naive`` is a choice too, which
            the others are compared with.
        train: further ones for all of them.
    """
    train = [*train, "algorithm.learning_rate_schedule=constant"]
    configs = {f"ppo/{name}": compose([*given, *train]) for name, given in variants.items()}
    naive = [name for name, config in configs.items() if NaiveTransformer.__name__ in config.agent._target_]
    return [PPOSpeed(name, config, naive * (name not in naive)) for name, config in configs.items()]


def learn_until(rival: PPOSpeed, target: float, seconds: float) -> Row:
    """Learns until the mean return of all bodies is high enough, or the time is up.

    A body's return is the mean of its last whole episodes, acting with exploration.

    Args:
        rival: the run.
        target: the return.
        seconds: at most.

    Returns:
        ``seconds_to_return``, None where it was not reached; a ``curve`` of seconds, steps and the mean
        return after each rollout, which is None until all bodies have one.
    """
    begun = time.perf_counter()
    with ExitStack() as stack:
        setup = rival.make(stack)
        watch = _Watch(target, seconds, len(setup.bodies.seen))
        set_up = time.perf_counter() - begun
        set_threads(setup.torch_threads)
        setup.learner.learn(2**62, callback=watch, log_interval=None)
        wait(setup.device)
    last = dict(zip(("seconds", "steps", "return"), (watch.curve or [(None, 0, None)])[-1], strict=True))
    about = {"target": target, "limit": seconds, "seconds_to_return": watch.reached, **last}
    return about | {"seconds_of_setup": set_up, "curve": watch.curve, **rival.more}


class _Watch(BaseCallback):
    def __init__(self, target: float, seconds: float, bodies: int) -> None:
        super().__init__()
        self._target, self._seconds = target, seconds
        self._returns = [deque(maxlen=EPISODES_KEPT) for _ in range(bodies)]
        self.curve: list[tuple[float, int, float | None]] = []
        self.reached: float | None = None

    def _on_training_start(self) -> None:
        self._start = time.perf_counter()

    def _on_step(self) -> bool:
        return self.reached is None and time.perf_counter() - self._start < self._seconds

    def _on_rollout_end(self) -> None:
        finished = self.model.finished
        for body, kept in enumerate(self._returns):
            kept.extend(finished.returns[finished.bodies == body][-EPISODES_KEPT:].tolist())
        mean = float(np.mean([np.mean(kept) for kept in self._returns])) if all(self._returns) else None
        self.curve.append((time.perf_counter() - self._start, self.num_timesteps, mean))
        if mean is not None and mean >= self._target:
            self.reached = self.curve[-1][0]
