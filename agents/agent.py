"""Acting with a policy on raw observations, outside any learning library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn


class Agent:
    """A policy that takes NumPy observations of one or many environments and gives NumPy actions.

    It keeps the policy's memory between calls; call `reset` when an episode starts.

    Args:
        policy: A policy of ``somite.agents.policies``.
        environment: The configuration of the environments it was trained in.
        description: The whole content of its ``policy.json``.
        seed: Of the exploration noise, where ``act`` is asked for it.
    """

    def __init__(
        self,
        policy: nn.Module,
        environment: Mapping[str, Any] | None = None,
        description: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.policy = policy.eval()
        self.environment, self.description = dict(environment or {}), dict(description or {})
        self._generator = torch.Generator().manual_seed(seed)
        self._memory: dict[str, torch.Tensor] | None = None
        self._memory_shape: tuple[int, ...] | None = None

    @property
    def device(self) -> torch.device:
        """Where the policy computes."""
        parameter = next(self.policy.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def reset(self, rows: np.ndarray | torch.Tensor | None = None) -> None:
        """Forgets what the policy remembers of an episode.

        Args:
            rows: (batch,) bool, the environments whose episode starts; all of them when None.
        """
        if rows is None or self._memory is None:
            self._memory = self._memory_shape = None
            return
        start = self.policy.initial_memory(*self._memory_shape)
        which = torch.as_tensor(rows, dtype=torch.bool, device=self.device)
        for key, value in self._memory.items():
            shape = (-1,) + (1,) * (value.ndim - 1)
            self._memory[key] = torch.where(which.reshape(shape), start[key].to(value), value)

    def snapshot(self) -> dict[str, Any]:
        """What the policy remembers of the present episodes."""
        memory = None if self._memory is None else {k: v.clone() for k, v in self._memory.items()}
        return {"memory": memory, "shape": None if memory is None else list(self._memory_shape)}

    def restore(self, taken: Mapping[str, Any]) -> None:
        """Inverse of `snapshot`."""
        memory, shape = taken["memory"], taken["shape"]
        self._memory = memory and {key: value.to(self.device) for key, value in memory.items()}
        self._memory_shape = shape and tuple(shape)

    @torch.inference_mode()
    def act(self, observation: Mapping[str, Any], deterministic: bool = True) -> np.ndarray | torch.Tensor:
        """Chooses actions.

        Args:
            observation: As an environment gives it: one observation, or a batch of them. It is not changed.
            deterministic: Without exploration noise.

        Returns:
            Nominal actions, float32 in [-1, 1], or numbers of choices, with a batch dimension if the
            observation had one: of tensors a tensor on the policy's device, of arrays an array.

        Raises:
            ValueError: If the observation does not fit the policy, with expected and received shapes.
        """
        prepared, memory = self.before_acting(observation)
        features, self._memory = self.policy.encode(prepared, memory)
        self._memory_shape = tuple(prepared["tokens"].shape[:2])
        action = self.policy.act(features, prepared).float()
        if self.policy.discrete:
            action = self.policy.choose(action) if deterministic else self._drawn(action)
        else:
            if not deterministic:
                noise = torch.randn(action.shape, generator=self._generator).to(action.device)
                action = action + noise * self.policy.log_std.float().exp()
                if "action_mask" in prepared:
                    action = action * prepared["action_mask"]
            action = action.clamp(-1.0, 1.0)
        action = action[0] if np.ndim(observation["tokens"]) == 2 else action
        return action if isinstance(observation["tokens"], torch.Tensor) else action.cpu().numpy()

    @torch.inference_mode()
    def before_acting(self, observation: Mapping[str, Any]) -> tuple[Mapping[str, torch.Tensor], Any]:
        """What the policy's networks get when `act` is called with this observation: nothing is changed.

        Returns:
            The prepared observation, always with a batch dimension, and the memory, which the caller
            leaves as it is.

        Raises:
            ValueError: as `act`.
        """
        single = self._check(observation)
        batch = {key: self._tensor(value, single) for key, value in observation.items()}
        shape = tuple(batch["tokens"].shape[:2])
        memory = self.policy.initial_memory(*shape) if self._memory is None else self._memory
        if memory and self._memory is not None and self._memory_shape != shape:
            raise ValueError(
                f"the policy remembers {self._memory_shape} (environments, tokens), the observation has "
                f"{shape}; call reset() before other environments or bodies"
            )
        return self.policy.prepare(batch), memory

    def _drawn(self, logits: torch.Tensor) -> torch.Tensor:
        """Choices (B,), or (B, K) of several decisions, drawn by logits (B, A)."""
        discrete = self.policy.discrete
        counts = [logits.shape[-1]] if discrete is True else list(discrete)
        parts = (part.softmax(-1) for part in logits.cpu().split(counts, -1))
        drawn = torch.cat([torch.multinomial(part, 1, generator=self._generator) for part in parts], -1)
        return drawn[:, 0] if discrete is True else drawn

    def _tensor(self, value: Any, single: bool) -> torch.Tensor:
        # Copies: the caller's arrays and tensors may be a simulation's own memory.
        if isinstance(value, torch.Tensor):
            tensor = value.to(self.device, copy=True)
        else:
            tensor = torch.tensor(np.asarray(value), device=self.device)
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        return tensor.unsqueeze(0) if single else tensor

    def _check(self, observation: Mapping[str, Any]) -> bool:
        """Whether the observation is a single one; raises ValueError where it does not fit."""
        spec = self.policy.spec
        wanted = {"tokens": (2, spec.token_size)}
        wanted |= {"joints": (3, spec.joint_size)} if spec.joint_size else {}
        wanted |= {"traces": (2, spec.trace_size)} if spec.trace_size else {}
        wanted |= {"neighbors": (2, 4)} if spec.has_neighbors else {}
        missing = [key for key in wanted if key not in observation]
        if missing:
            there = ", ".join(map(str, observation))
            raise ValueError(f"the observation lacks {', '.join(missing)}; it has {there}")
        batched = set()
        for key, (rank, size) in wanted.items():
            shape = np.shape(observation[key])
            if len(shape) not in (rank, rank + 1) or shape[-1] != size:
                features = getattr(spec, key.removesuffix("s"), ())
                names = ", ".join(f"{f.name} ({f.size})" for f in features) or "slots, at its sides"
                sizes = f"(tokens, {size})" if rank == 2 else f"(tokens, joints, {size})"
                raise ValueError(
                    f"{key} has shape {shape}; this policy wants {sizes}, or the same with a batch dimension "
                    f"in front; its {size} features are: {names}"
                )
            batched.add(len(shape) == rank + 1)
        if len(batched) > 1:
            raise ValueError("some parts of the observation have a batch dimension and others have none")
        return not batched.pop()
