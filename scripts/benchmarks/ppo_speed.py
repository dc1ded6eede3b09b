"""Where the time of a PPO run goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from omegaconf import DictConfig

from ...agents.device import set_threads
from .naive_transformer import NaiveTransformer
from .rates import interleave, make_rows
from .training_setup import TrainingSetup, compose

PHASES = ("env", "policy", "update", "rest")


class PPOSpeed:
    """Iterations of PPO, one at a time, as ``somite-train`` with these arguments makes them.

    The phases are ``env`` (simulation, observation, reward and its scaling), ``policy`` (forward passes
    while collecting), ``update`` (all epochs and the normaliser) and ``rest`` (the rollout buffer,
    advantages, what SB3 does between steps).

    Args:
        config: of :func:`ppo_configs`.
    """

    def __init__(self, config: DictConfig) -> None:
        self._setup = TrainingSetup(config)
        self._learner = self._setup.learner
        self._seconds = dict.fromkeys(PHASES, 0.0)
        policy = self._learner.policy
        self._in_policy = 0.0
        policy.forward = self._timed(policy.forward)
        policy.predict_values = self._timed(policy.predict_values)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self._in_policy += time.perf_counter() - start
            return result

        return timed

    def measure(self) -> float:
        """One iteration: collect a rollout, update. Returns environment steps per second."""
        learner, algorithm = self._learner, self._setup.algorithm
        set_threads(self._setup.torch_threads)  # rivals that run in turns have their own number
        before, policy_before = dict(learner.seconds), self._in_policy
        steps = algorithm.n_steps * algorithm.num_envs
        start = time.perf_counter()
        learner.learn(steps, reset_num_timesteps=False, log_interval=None)
        elapsed = time.perf_counter() - start
        spent = {name: learner.seconds[name] - before[name] for name in ("env", "update")}
        spent["policy"] = self._in_policy - policy_before
        spent["rest"] = elapsed - sum(spent.values())
        for phase in PHASES:
            self._seconds[phase] += spent[phase]
        return steps / elapsed

    def forget(self) -> None:
        """Count phases from now on, after iterations that warmed up."""
        self._seconds = dict.fromkeys(PHASES, 0.0)

    def describe(self) -> dict[str, Any]:
        """Fields of a report's row."""
        setup, total = self._setup, sum(self._seconds.values())
        policy = setup.policy
        return {
            "shares": {phase: self._seconds[phase] / total for phase in PHASES} if total else {},
            "agent": type(policy).__name__,
            "parameters": sum(parameter.numel() for parameter in policy.parameters()),
            "precision": setup.precision,
            "device": str(next(policy.parameters()).device),
            "torch_threads": setup.torch_threads,
            "bodies": len(setup.bodies.seen),
            "num_envs": setup.algorithm.num_envs,
        }

    def close(self) -> None:
        """Let the simulations go."""
        self._setup.rows.close()


def ppo_configs(variants: Mapping[str, Sequence[str]], train: Sequence[str]) -> dict[str, DictConfig]:
    """Configurations of variants of PPO, made before minutes are spent, so that a wrong name is told at once.

    Args:
        variants: arguments of ``somite-train`` by the variant's name; ``agent=naive`` is a choice too.
        train: further ones for all of them.

    Raises:
        UserError: an argument that cannot be meant.
    """
    # Every measured iteration is the last that SB3 knows of, where a linear rate would be zero.
    train = [*train, "algorithm.learning_rate_schedule=constant"]
    return {f"ppo/{name}": compose([*given, *train]) for name, given in variants.items()}


def ppo_rows(
    configs: Mapping[str, DictConfig], iterations: int, announce: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows of a report: variants of PPO in turn, after an iteration of each that is not counted.

    Args:
        configs: of :func:`ppo_configs`; the others are compared with those whose agent is the naive one.
        iterations: of each.
        announce: told what comes next.
    """
    with ExitStack() as stack:
        variants: dict[str, PPOSpeed] = {}
        for name, config in configs.items():
            variants[name] = PPOSpeed(config)
            stack.callback(variants[name].close)
        measures = {name: variant.measure for name, variant in variants.items()}
        interleave(measures, 1, lambda text: announce(f"warm-up: {text}"))
        for variant in variants.values():
            variant.forget()
        rates = interleave(measures, iterations, announce)
        more = {name: variant.describe() for name, variant in variants.items()}
        naive = [name for name, row in more.items() if row["agent"] == NaiveTransformer.__name__]
        return make_rows(rates, naive, more)
