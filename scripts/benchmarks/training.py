"""A training run without its run folder, from arguments of ``somite-train``; iterations of PPO in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from ...agents.composition import make_task
from ...agents.device import resolve_device, set_threads, use_precision
from ...agents.policies import Observation
from ...agents.policies.limb_policy import LimbPolicy
from ...agents.training.loop import make_algorithm, make_setup
from ...envs.errors import UserError
from ...envs.task_set import TaskSet
from ...envs.tokens import TokenSpec
from ..cli.arguments import CONFIG_MODULE, check_names, check_targets
from ..cli.values import check_values
from .harness import Rival, Turn

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
    return make_task(config)


class NaiveTransformer(LimbPolicy):
    """What one writes first: ``nn.TransformerEncoder`` over limbs, and a second one for the critic.

    All is as PyTorch ships it, but for dropout, which is off, since PPO compares probabilities of the same
    network before and after an update. Embedding a limb is one linear layer on its token beside the sum
    of its joint rows. Normaliser, heads and exploration scale are those of every policy here, so it
    trains with the same code; it cannot be saved as a run's policy.
    """

    def __init__(
        self,
        spec: TokenSpec,
        width: int = 64,
        layers: int = 2,
        heads: int = 2,
        feedforward: int = 128,
        initial_log_std: float = -0.5,
    ) -> None:
        make_encoder = partial(_Encoder, spec, width, layers, heads, feedforward)
        super().__init__(spec, make_encoder, width, "trunk", initial_log_std=initial_log_std)
        self.layers, self.heads, self.feedforward = layers, heads, feedforward


class _Encoder(nn.Module):
    """From normalised tokens (B, N, F) and joints (B, N, J, G) to limb features (B, N, width)."""

    def __init__(self, spec: TokenSpec, width: int, layers: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(spec.token_size + spec.joint_size, width)
        layer = nn.TransformerEncoderLayer(width, heads, feedforward, dropout=0.0, batch_first=True)
        # Nested tensors are a prototype that warns, and with seven limbs made this three times slower.
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, joints: Tensor, observation: Observation) -> Tensor:
        limbs = torch.cat((tokens, joints.sum(-2)), -1)  # limbs: (B, N, F + G); padding is zero
        return self.encoder(self.embedding(limbs), src_key_padding_mask=observation["mask"] == 0)


class PPOSpeed(Rival):
    """Iterations of PPO, one at a time, as ``somite-train`` with a configuration of `compose` makes them.

    The phases are ``env`` (simulation, observation, reward), ``policy`` (forward passes while collecting; on
    a GPU within ``rest``, since to time them would be to wait for them), ``update`` (all epochs and the
    normaliser) and ``rest`` (the rollout buffer, advantages). The learning rate must be constant: every
    measured iteration may be the last that the learner knows of, where a falling rate would be zero.
    """

    def __init__(self, name: str, config: DictConfig, against: Sequence[str] = ()) -> None:
        super().__init__(name, self._start, against)
        self._config = config

    def _start(self, stack: ExitStack) -> Turn:
        config, in_policy, spent = self._config, [0.0], dict[str, float]()
        threads, device = set_threads(config.threads), resolve_device(config.device)
        use_precision(config.precision, device)
        algorithm = make_algorithm(config)
        setup = make_setup(config, algorithm, device)
        learner = algorithm.make_learner(setup)
        stack.callback(learner.close)
        self.more |= {
            "agent": type(learner.policy).__name__,
            "parameters": sum(parameter.numel() for parameter in learner.policy.parameters()),
            "simulation": setup.task_set.simulation,
            "precision": setup.precision,
            "device": str(device),
            "torch_threads": threads,
            "bodies": len(setup.task_set.seen),
            "num_envs": algorithm.num_envs,
            "batch_size": algorithm.batch_size,
        }
        on_cpu = device.type == "cpu"
        if on_cpu:
            for name in ("act", "value"):
                setattr(learner.network, name, _timed(getattr(learner.network, name), in_policy))

        def turn() -> float:
            set_threads(threads)  # rivals that run in turns have their own number
            before, in_policy[0], steps = dict(learner.seconds), 0.0, learner.steps
            wait(device)
            start = time.perf_counter()
            learner.update(lambda: False)
            wait(device)
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
    """Variants of PPO: arguments of ``somite-train`` by their names, and further ones for all of them.

    They are composed before minutes are spent, so that a wrong name is told at once. ``agent=naive`` is a
    choice, too, which the others are compared with.
    """
    train = [*train, "algorithm.learning_rate_schedule=constant"]
    configs = {f"ppo/{name}": compose([*given, *train]) for name, given in variants.items()}
    naive = [name for name, config in configs.items() if NaiveTransformer.__name__ in config.agent._target_]
    return [PPOSpeed(name, config, naive * (name not in naive)) for name, config in configs.items()]
