"""What every policy has in common."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from ...envs.errors import UserError
from ...envs.numbers import checked, real, whole
from ...envs.tokens import TokenSpec
from .normalizer import TokenNormalizer

Observation = Mapping[str, Tensor]
Memory = dict[str, Tensor]

Discrete = bool | Sequence[int]
"""Whether actions are choices: False; True, one of A; or how many choices each of K decisions has."""


@checked("agent")
class Policy(nn.Module, abc.ABC):
    """From sets of tokens to actions and a value.

    B is the batch, N the token slots, J the joint slots of a limb. A policy knows no RL library and
    no simulator. Its forward code (`encode`, `act`, `value`) has no data-dependent shapes and writes no
    buffers, so it runs under ``torch.func.vmap`` over stacked parameters; what needs data-dependent shapes
    is done before, in `prepare`.

    A subclass keeps every argument of its constructor as an attribute of the same name, which is what
    `architecture` reads. Arguments that its base class asks for by name it may take as ``**common`` and hand
    on; they count as its own. What the keys of ``agent`` mean stands in ``conf/agent``.

    Args:
        spec: What the columns of ``tokens`` and ``joints`` mean.
        normalizer: of what it reads; None: of tokens and joints.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.
    """

    kind = "limbs"
    """What it reads: ``limbs``, ``sensors`` or ``patches``."""

    discrete: Discrete = False

    has_gradient = True
    """False where actions depend on a choice that has none: such a policy can only be evolved."""

    aligned_slots = False
    """True where the slots have fixed meanings, so that the environment must align them."""

    training_modules: tuple[str, ...] = ()
    """Modules (or parameters) that only training uses, for `value` or for the loss of `encode_to_learn`.

    Evolution leaves them as they are. `check_policy` finds those that are missing here.
    """

    training_sizes: tuple[str, ...] = ("n_privileged", "n_sensors")
    """Sizes of the task that only training needs, so that another task's may differ."""

    has_auxiliary_loss = False
    """Whether `encode_to_learn` gives one."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__signature__ = _whole_signature(cls)

    def __init__(
        self,
        spec: TokenSpec,
        normalizer: TokenNormalizer | None = None,
        /,
        *,
        initial_log_std: Annotated[float, real(-20, 5)] = -0.5,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.initial_log_std = initial_log_std
        self.normalizer = TokenNormalizer(spec) if normalizer is None else normalizer
        # One scalar for all joints: a parameter per action would tie the policy to one body.
        self.log_std = nn.Parameter(torch.tensor(float(initial_log_std)))

    def architecture(self) -> dict[str, int | float | bool | str | list[int]]:
        """The keyword arguments that, with ``spec``, build this policy anew; plain JSON values."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names if name != "spec"}

    def acting_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that actions depend on, by name, in a fixed order: no critic, no exploration scale."""
        others = ("log_std", "normalizer", *self.training_modules)
        return {name: value for name, value in self.named_parameters() if _module(name) not in others}

    def set_flat(self, values: Sequence[float]) -> None:
        """Set the acting parameters from one row of numbers, as agents are published.

        Raises:
            UserError: not as many numbers as this policy has acting parameters.
        """
        parameters = list(self.acting_parameters().values())
        sizes = [parameter.numel() for parameter in parameters]
        flat, name = torch.as_tensor(np.asarray(values, np.float32)), type(self).__name__
        if flat.shape != (sum(sizes),):
            raise UserError(f"{tuple(flat.shape)} parameters given; this {name} has {sum(sizes)}")
        with torch.no_grad():
            for parameter, part in zip(parameters, flat.split(sizes), strict=True):
                parameter.copy_(part.view_as(parameter))

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
        """Actions without noise of what `act` gives: the means, or the most probable choices.

        Of logits (..., A) these are (...) of one decision and (..., K) of several, whose logits stand side by
        side.
        """
        if isinstance(self.discrete, bool):
            return outputs.argmax(-1) if self.discrete else outputs
        return torch.stack([logits.argmax(-1) for logits in outputs.split(list(self.discrete), -1)], -1)

    @abc.abstractmethod
    def value(self, features: Tensor, observation: Observation) -> Tensor:
        """Estimated return (B,) in the learner's units."""

    def _expect_slots(self, built_for: Any, what: str, got: Any) -> None:
        """Refuses other slots than an ordinary network has. Raises UserError."""
        if built_for != got:
            raise UserError(
                f"{type(self).__name__} was built for {built_for} {what}, got {got}; its slots have fixed "
                "meanings: use an invariant policy for other numbers of them"
            )


def checked_discrete(discrete: Discrete, n_actions: int) -> bool | list[int]:
    """As plain JSON values. Raises UserError: the choices of all decisions together are not ``n_actions``."""
    if isinstance(discrete, bool):
        return discrete
    counts = [whole(1).read("choices of a decision", count) for count in discrete]
    if sum(counts) != n_actions:
        raise UserError(f"decisions between {counts} choices have {sum(counts)} logits, not {n_actions}")
    return counts


def _whole_signature(cls: type[Policy]) -> inspect.Signature:
    """Of its constructor, with the arguments that ``**common`` hands on to base classes.

    What stands before the slash in a base class's constructor a subclass gives itself.
    """
    found: dict[str, inspect.Parameter] = {}
    for base in (base for base in cls.__mro__ if "__init__" in vars(base)):
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind is parameter.KEYWORD_ONLY or parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                found.setdefault(parameter.name, parameter.replace(kind=parameter.KEYWORD_ONLY))
        if parameters[-1].kind is not inspect.Parameter.VAR_KEYWORD:
            break
    return inspect.Signature(list(found.values()))


def check_policy(policy: Policy, observation: Observation) -> None:
    """Refuses a policy that does not keep its contract; each of ours does, a user's own may not.

    Args:
        policy: newly built, on the CPU.
        observation: (B, ...) of its environment.

    Raises:
        UserError: actions, values or memory of other shapes; or modules that only `Policy.value` uses and
            that are not in ``training_modules``, or some there that actions depend on.
    """
    name, (batch, n_tokens) = type(policy).__name__, observation["mask"].shape
    observation, memory = policy.prepare(observation), policy.initial_memory(batch, n_tokens)
    features, after = policy.encode(observation, dict(memory))
    actions, value = policy.act(features, observation), policy.value(features, observation)
    if policy.kind == "limbs":
        shape = tuple(observation["action_mask"].shape)
    else:
        shape = (batch, observation["recent_actions"].shape[-1])
    for what, came, asked in (
        ("act", tuple(actions.shape), shape),
        ("value", tuple(value.shape), (batch,)),
        ("encode's memory", _shapes(after), _shapes(memory)),
    ):
        if came != asked:
            raise UserError(f"{name}: {what} gives {came}, expected {asked} for {batch} observations")
    if not policy.has_gradient:
        return  # what actions depend on cannot be told by a gradient
    acting, declared = policy.acting_parameters(), policy.training_modules
    by_act, by_value = _reached(policy, actions), _reached(policy, value)
    missing = _modules(n for n in by_value if n in acting and n not in by_act)
    if missing:
        raise UserError(
            f"{name}.value uses {', '.join(missing)}, which act does not: evolution would search it, too; "
            f"write {name}.training_modules = {(*declared, *missing)}"
        )
    wrong = _modules(n for n in by_act if n not in acting and n != "log_std")
    if wrong:
        told = f"{name}.training_modules names {', '.join(wrong)}"
        raise UserError(f"{told}, which {name}.act uses; leave it out")


def _shapes(memory: Memory) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in memory.items()}


def _reached(policy: Policy, outputs: Tensor) -> list[str]:
    """Names of the parameters that outputs depend on."""
    if not outputs.requires_grad:
        return []
    names, parameters = zip(*policy.named_parameters(), strict=True)
    gradients = torch.autograd.grad(outputs.sum(), parameters, retain_graph=True, allow_unused=True)
    return [name for name, gradient in zip(names, gradients, strict=True) if gradient is not None]


def _modules(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(map(_module, names)))


def _module(name: str) -> str:
    return name.partition(".")[0]
