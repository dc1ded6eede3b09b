"""A policy as a learner evaluates it: by threads, without padding, with memory; and how it explores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional

from ...envs.in_place import wide
from ..policies.base import Discrete, Memory, Observation, Policy
from ..rollout.buffer import Batch

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class MaskedGaussian:
    """Independent Gaussians of one deviation around the means (B, ...), over the actuators that exist.

    Log-probability and entropy are sums over these, so that padding and bodies of other sizes have no
    influence on each other. ``mask`` is 1 where there is an actuator; None: everywhere.
    """

    def __init__(self, mean: Tensor, mask: Tensor | None, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std
        self.mask = torch.ones_like(mean) if mask is None else mask.to(mean.dtype)

    def sample(self) -> Tensor:
        """Actions as the means, 0 where there is no actuator."""
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean) * self.mask

    def log_prob(self, actions: Tensor) -> Tensor:
        """(B,) of actions, flattened or not."""
        deviation = (actions.view_as(self.mean) - self.mean) * torch.exp(-self.log_std)
        each = (-0.5 * deviation.square() - self.log_std - _LOG_SQRT_2PI) * self.mask
        return each.flatten(1).sum(1)

    def entropy(self) -> Tensor:
        """(B,)."""
        return (0.5 + _LOG_SQRT_2PI + self.log_std) * self.mask.flatten(1).sum(1)


class Choices:
    """One decision or several, each independent of the others given what is observed.

    Logits (B, A) are those of each decision side by side; ``discrete`` is as of `Policy`.
    """

    def __init__(self, logits: Tensor, discrete: Discrete) -> None:
        self._is_one = discrete is True
        parts = [logits] if discrete is True else logits.split(list(discrete), -1)
        self._each = [Categorical(logits=part, validate_args=False) for part in parts]

    def sample(self) -> Tensor:
        """(B,), or (B, K) of several decisions.

        As `torch.multinomial` draws one choice, but for its check of the probabilities, which waits for the
        device: the least of exponential times whose rates are the probabilities.
        """
        probabilities = [decision.probs for decision in self._each]
        drawn = [(p / torch.empty_like(p).exponential_()).argmax(-1) for p in probabilities]
        return drawn[0] if self._is_one else torch.stack(drawn, -1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """(B,) of choices (B,), (B, 1) or (B, K)."""
        pairs = zip(self._each, actions.reshape(len(actions), -1).long().unbind(-1), strict=True)
        return sum(decision.log_prob(choice) for decision, choice in pairs)

    def entropy(self) -> Tensor:
        """(B,)."""
        return sum(decision.entropy() for decision in self._each)


def distribution(
    outputs: Tensor, discrete: Discrete, mask: Tensor | None, log_std: Tensor
) -> MaskedGaussian | Choices:
    """What a policy explores by: means (B, ...) or, where it is ``discrete``, logits (B, A)."""
    return Choices(outputs, discrete) if discrete else MaskedGaussian(outputs, mask, log_std)


Evaluate = Callable[[Observation], tuple[Tensor, ...]]

COST_OF_A_GROUP = 300
"""Of a batch of limbs that is evaluated in groups of similar length: in limbs, what one more group costs."""

SMALLEST_SHARED = 768
"""Samples; a smaller batch of limbs is not worth several threads."""


class Network:
    """Evaluates a policy on batches; the policy is trained in place.

    Args:
        policy: evaluated.
        precision: ``float32``, or ``bf16`` to compute under autocast.
        threads: that share the work of a batch; on a CPU only.
        values: whether values are asked for, too.

    Attributes:
        memory: of a rollout's environments, empty where nothing is remembered; ``before``: the same before
            the last actions.
    """

    def __init__(
        self, policy: Policy, precision: str = "float32", threads: int = 1, values: bool = True
    ) -> None:
        self.policy, self.precision, self.values = policy, precision, values
        self.remembers = bool(policy.initial_memory(1, 1))
        self.memory: Memory = {}
        self.before: Memory = {}
        self.device = next(policy.parameters()).device
        # A network of aligned slots is a few large products, which torch shares out well by itself.
        shares = threads > 1 and self.device.type == "cpu" and not policy.aligned_slots
        self.shards = Shards(threads) if shares else None

    def act(self, observation: Observation) -> tuple[Tensor, ...]:
        """Means (B, ...) or logits (B, A) and, where asked for, values (B,), of a rollout's next step."""
        if not self.remembers:
            return self._shared(self._evaluate, observation)
        self.before = self._memory_of(observation)
        *found, self.memory = self._step(observation, self.before)
        return tuple(found)

    def value(self, observation: Observation, memory: Memory | None = None) -> Tensor:
        """Values (B,), with this memory; None: with the rollout's present one."""
        if not self.remembers:
            return self._shared(self._evaluate, observation)[1]
        return self._step(observation, self._memory_of(observation) if memory is None else memory)[1]

    def learn(self, batch: Batch) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """What `act` gives of a batch, to be differentiated, and the auxiliary loss if the policy has one."""
        if batch.starts is not None:
            return self._sequences(batch), None
        if not self.policy.has_auxiliary_loss:
            return self._shared(self._evaluate, batch.observation), None
        *found, auxiliary = self._shared(self._evaluate_to_learn, batch.observation)
        return tuple(found), auxiliary.float().mean()

    def forget(self, rows: Tensor) -> None:
        """Episodes have ended in ``rows`` (B,) bool."""
        if self.memory:
            start = self.policy.initial_memory(*next(iter(self.memory.values())).shape[:2])
            self.memory = _forget(self.memory, start, rows.to(self.device))

    def _memory_of(self, observation: Observation) -> Memory:
        size = observation["tokens"].shape[:2]
        if not self.memory or next(iter(self.memory.values())).shape[:2] != size:
            self.memory = self.policy.initial_memory(*size)
        return self.memory

    def _step(self, observation: Observation, memory: Memory) -> tuple[Any, ...]:
        """Outputs, values, and the next memory."""
        observation = self.policy.prepare(observation)
        with self._autocast():
            features, memory = self.policy.encode(observation, memory)
            return (*self._heads(features, observation), memory)

    def _heads(self, features: Tensor, observation: Observation) -> tuple[Tensor, ...]:
        outputs = self.policy.act(features, observation).float()
        return (outputs, self.policy.value(features, observation).float()) if self.values else (outputs,)

    def _evaluate(self, observation: Observation) -> tuple[Tensor, ...]:
        return self._step(observation, {})[:-1]

    def _evaluate_to_learn(self, observation: Observation) -> tuple[Tensor, ...]:
        observation = self.policy.prepare(observation)
        with self._autocast():
            features, auxiliary = self.policy.encode_to_learn(observation)
            return (*self._heads(features, observation), auxiliary)

    def _sequences(self, batch: Batch) -> tuple[Tensor, ...]:
        """Of stretches of steps, by back-propagation through time."""
        rows = batch.starts.shape[1]
        start = self.policy.initial_memory(rows, batch.observation["tokens"].shape[1])
        steps = {key: value.unflatten(0, (-1, rows)) for key, value in batch.observation.items()}
        memory, features = batch.memory, []
        with self._autocast():
            for step, starts in enumerate(batch.starts):  # starts: (b,)
                memory = _forget(memory, start, starts)
                found, memory = self.policy.encode({k: v[step] for k, v in steps.items()}, memory)
                features.append(found)
            return self._heads(torch.cat(features), batch.observation)

    def _shared(self, evaluate: Evaluate, observation: Observation) -> tuple[Tensor, ...]:
        """``evaluate`` of parts of a batch, beside each other on the threads that there are."""
        is_limbs = self.policy.kind == "limbs" and not self.policy.aligned_slots
        # On a GPU the host would have to wait to learn which token sets are short.
        if is_limbs and self.device.type == "cpu":
            return self._trimmed(evaluate, observation)
        if is_limbs or self.shards is None:
            return evaluate(observation)
        count = self.shards.count
        split = {key: value.tensor_split(count) for key, value in observation.items()}
        parts = [{key: values[i] for key, values in split.items()} for i in range(count)]
        found = self.shards.map(evaluate, parts, self.policy)
        return tuple(torch.cat(tensors) for tensors in zip(*found, strict=True))

    def _trimmed(self, evaluate: Evaluate, observation: Observation) -> tuple[Tensor, ...]:
        """Evaluates samples of similar length together, without what is empty in all of them.

        Of the cheetahs, that is four slots in ten. Results are the same but for the order of sums.
        """
        mask = observation["mask"]
        shards = self.shards if len(mask) >= SMALLEST_SHARED else None
        numbers = torch.arange(1, mask.shape[1] + 1)
        used, order = ((mask != 0) * numbers).amax(1).sort(descending=True, stable=True)  # (B,), last in use
        threads, parts = shards.count if shards else 1, []
        for rows, slots in groups_by_length(used, order, COST_OF_A_GROUP * threads):
            for own in rows.tensor_split(min(threads, len(rows))):
                parts.append({k: v.index_select(0, own)[:, :slots] for k, v in observation.items()})
        found = [evaluate(p) for p in parts] if shards is None else shards.map(evaluate, parts, self.policy)
        means, *others = zip(*found, strict=True)
        padded = [functional.pad(mean, (0, 0, 0, mask.shape[1] - mean.shape[1])) for mean in means]
        back = order.argsort()
        return tuple(torch.cat(tensors).index_select(0, back) for tensors in (padded, *others))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def groups_by_length(used: Tensor, order: Tensor, cost: int) -> list[tuple[Tensor, int]]:
    """Samples in groups of similar length, so that padding and groups together cost least.

    ``used`` (B,) are the lengths from the longest on, ``order`` (B,) whose they are. A group costs its slots,
    filled or not, and ``cost``. Gives the samples of each group, and its slots.
    """
    lengths, counts = torch.unique_consecutive(used, return_counts=True)
    lengths, ends = lengths.clamp(min=1).tolist(), [0, *counts.cumsum(0).tolist()]
    best = [(0, 0)]  # of the samples up to each end: the least cost, and where their last group begins
    for end in ends[1:]:
        at = len(best)
        best.append(min((best[i][0] + (end - ends[i]) * lengths[i] + cost, i) for i in range(at)))
    groups, at = [], len(lengths)
    while at:
        first = best[at][1]
        groups.append((order[ends[first] : ends[at]], lengths[first]))
        at = first
    return groups[::-1]


def _forget(memory: Mapping[str, Tensor], start: Mapping[str, Tensor], rows: Tensor) -> Memory:
    """The memory, with that of an episode's start in ``rows`` (B,) bool."""
    return {key: torch.where(wide(rows, value), start[key], value) for key, value in memory.items()}


class Shards:
    """Threads that evaluate parts of a batch and their gradients; each runs its operations alone.

    The networks are small: threads within every operation wait for each other after each. Threads that take
    parts of a batch through the whole network meet once forward and once backward.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="shard")

    def map(
        self, evaluate: Evaluate, parts: Sequence[Observation], module: nn.Module
    ) -> list[tuple[Tensor, ...]]:
        """``evaluate`` of every part; gradients reach the parameters of ``module``, and no others."""
        if not torch.is_grad_enabled():
            return list(self._threads.map(torch.no_grad()(evaluate), parts))
        parameters = [p for p in module.parameters() if p.requires_grad]
        flat = _Apart.apply(self._threads, evaluate, parts, *parameters)
        size = len(flat) // len(parts)
        return [flat[i * size : (i + 1) * size] for i in range(len(parts))]


class _Apart(torch.autograd.Function):
    """A graph for every part, which the graph of the whole does not see."""

    @staticmethod
    def forward(ctx: Any, threads: Any, evaluate: Any, parts: Any, *parameters: Tensor) -> Any:  # noqa: D102
        results = list(threads.map(torch.enable_grad()(evaluate), parts))
        ctx.threads, ctx.results, ctx.parameters = threads, results, parameters
        return tuple(tensor.detach() for tensors in results for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:  # noqa: D102
        results, parameters = ctx.results, ctx.parameters
        size = len(results[0])

        def differentiate(part: int) -> tuple[Tensor | None, ...]:
            given = gradients[part * size : (part + 1) * size]
            return torch.autograd.grad(results[part], parameters, given, allow_unused=True)

        sums: list[Tensor | None] = [None] * len(parameters)
        # In the order of the parts, whichever is done first, so that sums are the same every time.
        for found in ctx.threads.map(differentiate, range(len(results))):
            for index, gradient in enumerate(found):
                if gradient is not None:
                    sums[index] = gradient if sums[index] is None else sums[index].add_(gradient)
        return (None, None, None, *sums)
