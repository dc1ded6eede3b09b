"""What an algorithm is: settings that make a learner. `somite.agents.training.loop` does everything else."""

# No postponed annotations: those of settings are read where subclasses are, in other modules.
import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from omegaconf import DictConfig
from torch import Tensor

from ...envs.errors import UserError
from ...envs.numbers import SHARE, whole
from ...envs.task_set import TaskSet
from ...envs.token_env import TokenEnv
from ..composition import policy_class
from ..policies.base import Policy
from ..rollout.compute import Compute
from ..rollout.episodes import EpisodeLog

Stop = Callable[[], bool]
EPISODES, EPOCHS = whole(0, 10**6), whole(1, 10**4)
ENVS, STEPS = whole(1, 10**6), whole(1, 10**6)


@dataclass
class Setup:
    """What a run gives to its learner.

    Attributes:
        task_set: trained on, simulated where the run wants it.
        agent: the agent's node of the configuration.
        environment: configuration of the task, of which other processes can make it.
        device, precision: of the policy: ``float32`` or ``bf16``.
        threads: that whatever computes may have.
        compute: where candidates are evaluated.
        seed: of the run. learner_seed, env_seed: streams of its own for the learner and the environments'
            starts; where a resumed run cannot go on with its streams, others than at its start.
        continued: whether the policy begins with what another run has learnt.
        episodes: what the run tells of its episodes.
        make_policy: builds the policy for an environment, on the device.
    """

    task_set: TaskSet
    agent: DictConfig
    environment: Mapping[str, Any]
    device: torch.device
    precision: str
    threads: int
    compute: Compute
    seed: int
    learner_seed: int
    env_seed: int
    continued: bool
    episodes: EpisodeLog
    make_policy: Callable[[Any], Policy]

    def policy_class(self, by_gradient: bool) -> type[Policy]:
        """Of the agent. Raises UserError: it does not fit the task, or has no gradient."""
        return policy_class(self.agent, self.task_set.kind, by_gradient)

    def make_env(
        self, num_envs: int, task_set: TaskSet | None = None, by_gradient: bool = True, **options: Any
    ) -> TokenEnv:
        """Environments of all training bodies, of the run's task or another, where the run simulates them.

        A policy to be trained ``by_gradient`` must have one; ``options`` are those of `TaskSet.make_env`.

        Raises:
            UserError: fewer environments than bodies, or as by `TaskSet.make_env`.
        """
        task = task_set or self.task_set
        if num_envs < len(task.seen):
            raise UserError(
                f"algorithm.num_envs is {num_envs}, but {len(task.seen)} bodies are trained on; each needs "
                "at least one"
            )
        device = "cpu" if task.simulation == "cpu" else self.device
        options = {"aligned": self.policy_class(by_gradient).aligned_slots, **options}
        return task.make_env(None, num_envs, device, threads=self.threads, **options)


class Learner(abc.ABC):
    """Improves a policy, one update after another.

    Attributes:
        policy: in the state to be saved.
        episodes: what the run tells of its episodes; the loop logs its scalars.
        steps: environment steps made so far.
        seconds: spent so far, by what for (``env``, ``update``), logged as shares of the run's time.
        is_whole: False in the midst of changing parameters, where `state` is of no use.
    """

    policy: Policy
    episodes: EpisodeLog
    steps = 0
    is_whole = True

    def __init__(self, setup: Setup) -> None:
        self.episodes = setup.episodes
        self.seconds: dict[str, float] = {}

    @property
    def done(self) -> int:
        """How much of the algorithm's ``budget`` has been made."""
        return self.steps

    @abc.abstractmethod
    def update(self, stop: Stop) -> dict[str, float] | None:
        """One rollout and what is learnt from it, or one generation.

        Returns:
            Scalars by name; None: stopped in its midst, which ``stop`` asks for again and again. `state` then
            is that before it.

        Raises:
            RunFault: too many simulations diverged.
            NotFinite: a gradient or a parameter is not finite; the run stops and writes a diagnosis.
        """

    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """All that the next update depends on beside the policy's parameters: tensors and plain values."""

    @abc.abstractmethod
    def restore(self, state: Mapping[str, Any], new_episodes: bool) -> Sequence[str]:
        """Go on from `state`; the policy has its parameters already.

        If ``new_episodes``, the environments are others than before, so that episodes begin anew.

        Returns:
            What makes the rest another than it would have been without a stop, a phrase each.
        """

    def validate(self, score: Callable[[], float]) -> dict[str, float]:
        """Decide what is saved; scalars. By default one, the policy's score.

        ``score`` gives the mean return of the present `policy`, and keeps the best so far as ``best/``.
        """
        return {"validation/mean_reward": score()}

    def newest(self) -> Policy:
        """What the zero-shot suite tries."""
        return self.policy

    def learnt_from(self) -> Mapping[str, Tensor]:
        """What the last update learns from, by name, for a diagnosis."""
        return {}

    def close(self) -> None:  # noqa: B027
        """Let simulations and processes go."""


@dataclass(kw_only=True)
class Algorithm(abc.ABC):
    """Settings; the keys of the algorithm's file in ``conf/algorithm``. A subclass is ``@checked``.

    What comes every so often counts in units of the budget, and not at all if it is 0. Validations on the
    training bodies choose ``best/``; the suite of ``conf/zero_shot.yaml`` chooses nothing, a run that is
    shorter than its interval has none, a longer one another at its end.

    Raises:
        UserError: an invalid value.
    """

    name: ClassVar[str]
    """As in ``conf/algorithm``."""
    budget: ClassVar[str] = "total_steps"
    """The setting that says how long a run is; everything that comes now and then counts in its units."""
    influences: ClassVar[tuple[str, ...]] = ("device", "processor", "threads")
    """What numbers depend on beside the settings, the simulation and the packages."""
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bf16")
    spreads: ClassVar[bool] = False
    """Whether a cluster can share its work (``compute``)."""

    max_diverged: Annotated[float, SHARE] = 0.02
    checkpoint_every: Annotated[int, whole(1)] = 500_000
    keep_checkpoints: Annotated[int, whole()] = 2
    validate_every: Annotated[int, whole()] = 500_000
    validation_episodes: Annotated[int, EPISODES] = 1
    zero_shot_every: Annotated[int, whole()] = 300_000

    @abc.abstractmethod
    def make_learner(self, setup: Setup) -> Learner:
        """Raises UserError: what the run asks for does not go together."""

    def memory_setting(self) -> tuple[str, int]:
        """The setting that the memory of an update grows with, and its value."""
        return "num_envs", getattr(self, "num_envs", 1)

    def charts(self, policy: Policy) -> dict[str, Sequence[str]]:
        """Charts of its own for the dashboard: by title regular expressions of what its updates tell."""
        return {}

    def without_influence(self) -> tuple[str, ...]:
        """Settings that do not change what is learnt, beside those of this class."""
        return ()

    @property
    def validates(self) -> bool:
        """Whether policies are scored on the training bodies."""
        return bool(self.validate_every and self.validation_episodes)
