"""What every policy has in common."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...envs.tokens import TokenSpec
from .choices import Discrete, choose
from .normalizer import TokenNormalizer

Observation = Mapping[str, Tensor]
Memory = dict[str, Tensor]


class Policy(nn.Module, abc.ABC):
    """From sets of tokens to actions and a value.

    B is the batch, N the token slots, J the joint slots of a limb. A policy knows no RL library and
    no simulator. Its forward code (:meth:`encode`, :meth:`act`, :meth:`value`) has no data-dependent
    shapes and writes no buffers, so it runs under ``torch.func.vmap`` over stacked parameters; what
    needs data-dependent shapes is done before, in :meth:`prepare`.

    A subclass keeps every argument of its constructor as an attribute of the same name, which is
    what :meth:`architecture` reads.

    Args:
        spec: What the columns of ``tokens`` and ``joints`` mean.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.
        normalizer: of what it reads; None: of tokens and joints.
    """

    kind = "limbs"
    """What it reads: ``limbs``, ``sensors`` or ``patches``."""

    discrete: Discrete = False
    """Whether actions are choices; see `choices`."""

    has_gradient = True
    """False where actions depend on a choice that has none: such a policy can only be evolved."""

    aligned_slots = False
    """True where the slots have fixed meanings, so that the environment must align them."""

    value_parts: tuple[str, ...] = (
        "critic", "critic_trunk", "pooled_critic", "value_head", "normalizer", "identity"
    )  # fmt: skip
    """Modules that only training uses, for values and for `encode_to_learn`."""

    training_sizes: tuple[str, ...] = ("n_privileged", "n_sensors")
    """Sizes of the task that only training needs, so that another task's may differ."""

    has_auxiliary_loss = False
    """Whether `encode_to_learn` gives one."""

    def __init__(
        self, spec: TokenSpec, initial_log_std: float, normalizer: TokenNormalizer | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.initial_log_std = initial_log_std
        self.normalizer = TokenNormalizer(spec) if normalizer is None else normalizer
        # One scalar for all joints: a parameter per action would tie the policy to one body.
        self.log_std = nn.Parameter(torch.tensor(float(initial_log_std)))

    def architecture(self) -> dict[str, int | float | bool | str | list[int]]:
        """The keyword arguments that, with ``spec``, build this policy anew; plain JSON values."""
        names = list(inspect.signature(type(self)).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def acting_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that actions depend on, by name, in a fixed order: no critic, no exploration."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name != "log_std" and name.partition(".")[0] not in self.value_parts
        }

    def initial_memory(self, batch_size: int, n_tokens: int) -> Memory:
        """Memory at the start of an episode, each (B, N, ...); empty where nothing is remembered."""
        return {}

    def prepare(self, observation: Observation) -> Observation:
        """Add what depends on data-dependent shapes; call it before the forward code."""
        return observation

    @abc.abstractmethod
    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """Features, of limbs (B, N, width), meaningless at padding, of sensors (B, width); next memory."""

    def encode_to_learn(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Features as of `encode`, without memory, and an auxiliary loss of each sample (B,), weighted.

        Raises:
            NotImplementedError: a policy without (``has_auxiliary_loss``).
        """
        raise NotImplementedError(f"{type(self).__name__} has no auxiliary loss")

    def attention(self, observation: Observation, memory: Memory) -> Tensor | None:
        """What `encode` attends to, given the same; None: this policy has no attention.

        Returns:
            Of sensors and patches (B, N): the share of the attention that each slot gets. Of limbs
            (B, layers, N, N): in each layer, what the limb of a row takes from each limb, the mean over
            heads. Rows sum to 1, of limbs that do not exist to 0; what does not exist gets nothing.
        """
        return None

    def message_sizes(self, observation: Observation) -> Mapping[str, Tensor] | None:
        """How much the messages between limbs tell in `encode`; None: this policy sends none.

        Returns:
            ``up`` and ``down``, those that are sent, each (B, N): the length of what limb i's message adds
            to the hidden state of its parent, and of what the parent's adds to limb i's. Roots have 0.
        """
        return None

    @abc.abstractmethod
    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means in nominal units, of limbs (B, N, J), of sensor tasks (B, A) or logits (B, A)."""

    def choose(self, outputs: Tensor) -> Tensor:
        """What is done by what `act` gives, without noise: the most probable choices, or the means."""
        return choose(outputs, self.discrete)

    @abc.abstractmethod
    def value(self, features: Tensor, observation: Observation) -> Tensor:
        """Estimated return (B,) in the learner's units."""
