"""A training run without its run folder, from arguments of ``somite-train``; iterations of PPO in turns."""

from __future__ import annotations

import time
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

from ...agents.algorithms.base import Learner
from ...agents.device import resolve_device, set_threads, use_precision
from ...agents.training.loop import make_algorithm, make_setup
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


def task_set(arguments: Sequence[str] | DictConfig) -> TaskSet:
    """What ``somite-train`` with these arguments, or this configuration, would train on."""
    config = arguments if isinstance(arguments, DictConfig) else compose(arguments)
    return hydra.utils.instantiate(config.env, _convert_="all")


class PPOSpeed(Rival):
    """Iterations of PPO, one at a time, as ``somite-train`` makes them.

    The phases are ``env`` (simulation, observation, reward), ``policy`` (forward passes while collecting; on
    a GPU within ``rest``, since to time them would be to wait for them), ``update`` (all epochs and the
    normaliser) and ``rest`` (the rollout buffer, advantages).

    Args:
        name: of the row.
        config: of `compose`. The learning rate must be constant: every measured iteration may be the last
            that the learner knows of, where a falling rate would be zero.
        against: see `Rival`.
    """

    def __init__(self, name: str, config: DictConfig, against: Sequence[str] = ()) -> None:
        super().__init__(name, self._start, against)
        self._config = config

    def make(self, stack: ExitStack) -> Learner:
        """The learner; what there is to say about it is kept."""
        config = self._config
        self._threads, self._device = set_threads(config.threads), resolve_device(config.device)
        use_precision(config.precision, self._device)
        algorithm = make_algorithm(config)
        setup = make_setup(config, algorithm, self._device)
        learner = algorithm.make_learner(setup)
        stack.callback(learner.close)
        self.more |= {
            "agent": type(learner.policy).__name__,
            "parameters": sum(parameter.numel() for parameter in learner.policy.parameters()),
            "simulation": setup.task_set.simulation,
            "precision": setup.precision,
            "device": str(self._device),
            "torch_threads": self._threads,
            "bodies": len(setup.task_set.seen),
            "num_envs": algorithm.num_envs,
            "batch_size": algorithm.batch_size,
        }
        return learner

    def _start(self, stack: ExitStack) -> Turn:
        learner, in_policy, spent = self.make(stack), [0.0], dict[str, float]()
        on_cpu = self._device.type == "cpu"
        if on_cpu:
            for name in ("act", "value"):
                setattr(learner.network, name, _timed(getattr(learner.network, name), in_policy))

        def turn() -> float:
            set_threads(self._threads)  # rivals that run in turns have their own number
            before, in_policy[0], steps = dict(learner.seconds), 0.0, learner.steps
            wait(self._device)
            start = time.perf_counter()
            learner.update(lambda: False)
            wait(self._device)
            elapsed = time.perf_counter() - start
            found = {"env": learner.seconds["env"] - before["env"]}
            found |= {"policy": in_policy[0]} if on_cpu else {}
            found["update"] = learner.seconds["update"] - before["update"]
            found["rest"] = elapsed - sum(found.values())
            spent.update({phase: spent.get(phase, 0.0) + seconds for phase, seconds in found.items()})
            self.more["shares"] = {phase: part / sum(spent.values()) for phase, part in spent.items()}
            return (learner.steps - steps) / elapsed

        turn()  # which is not counted
        spent.clear()
        return turn

    def learn_until(self, target: float, limit: float) -> Row:
        """Learn until the mean return of all bodies is ``target``, or for ``limit`` seconds.

        A body's return is the mean of its last whole episodes, acting with exploration.

        Returns:
            ``seconds_to_return``, None where it was not reached; a ``curve`` of seconds, steps and the mean
            return after each rollout, which is None until all bodies have one.
        """
        begun, reached, curve = time.perf_counter(), None, [(0.0, 0, None)]
        with ExitStack() as stack:
            learner = self.make(stack)
            set_up = time.perf_counter() - begun
            begun = time.perf_counter()
            while reached is None and curve[-1][0] < limit:
                learner.update(lambda: False)
                scalars = learner.episodes.scalars()
                found = [value for name, value in scalars.items() if name.startswith("bodies/")]
                mean = float(np.mean(found)) if len(found) == self.more["bodies"] else None
                curve.append((time.perf_counter() - begun, learner.steps, mean))
                reached = curve[-1][0] if mean is not None and mean >= target else None
        last = dict(zip(("seconds", "steps", "return"), curve[-1], strict=True))
        about = {"target": target, "limit": limit, "seconds_to_return": reached, "seconds_of_setup": set_up}
        return {**about, **last, "curve": curve, **self.more}


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
