"""Shared modular policies: one network per limb, messages along the limbs' tree."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.numbers import checked, one_of
from ...envs.tokens import TokenSpec
from .base import Observation
from .layers import RELU_GAIN, SIZE, linear
from .limb_policy import CRITICS, LimbPolicy, LimbReader, parents_of, schedule

MESSAGES = ("both", "up", "down", "none")


class Messages(nn.Module):
    """Messages of length 1 along the tree: up to each limb's parent, or down to its children.

    Up, hidden = tanh(A limb + C sum of the children's messages); down, hidden = relu(A limb + C message of
    the parent), of which a root reads 0.
    """

    def __init__(self, width: int, message: int, up: bool) -> None:
        super().__init__()
        self.up, self.activation = up, torch.tanh if up else functional.relu
        self.limb = linear(width, width, 1.0 if up else RELU_GAIN)
        self.source = "from_children" if up else "from_parent"
        self.add_module(self.source, linear(message, width, bias=False))
        self.message = linear(width, message)

    def told(self, hidden: Tensor) -> Tensor:
        """Messages (..., message) of limbs with these states (..., width)."""
        return unit(self.message(hidden))

    def heard(self, messages: Tensor) -> Tensor:
        """What messages add to the state of a limb, (..., width)."""
        return getattr(self, self.source)(messages)

    def forward(self, limbs: Tensor, child: Tensor) -> Tensor:
        """From limbs in slots (B, D, W, width) and ``tree_child`` to hidden (B, D, W, width)."""
        levels, links = self.limb(limbs).unbind(-3), child.unbind(-3)  # (B, W, width) and (B, W, W) each
        if self.up:
            levels, links = levels[::-1], links[::-1]
        hidden = [self.activation(levels[0])]
        for limb, is_child in zip(levels[1:], links, strict=True):
            link = is_child if self.up else is_child.mT  # link: (B, W, W), [who hears, who tells]
            hidden.append(self.activation(limb + self.heard(torch.matmul(link, self.told(hidden[-1])))))
        return torch.stack(hidden[::-1] if self.up else hidden, -3)


class Trunk(nn.Module):
    """Reader and messages."""

    def __init__(self, spec: TokenSpec, width: int, message: int, messages: str) -> None:
        super().__init__()
        self.reader = LimbReader(spec, width)
        self.bottom_up = Messages(width, message, up=True) if messages in ("both", "up") else None
        self.top_down = Messages(width, message, up=False) if messages in ("both", "down") else None
        self.alone = linear(width, width, RELU_GAIN) if self.top_down is None else None

    def forward(self, tokens: Tensor, joints: Tensor, observation: Observation) -> Tensor:
        """(B, N, width), from tokens (B, N, F) and joints (B, N, J, G), both normalised."""
        x = self.reader(tokens, joints, observation["joint_mask"])  # x: (B, N, width)
        if self.bottom_up is None and self.top_down is None:
            return functional.relu(self.alone(x))
        x, place, child = self._slots(x, observation)
        if self.bottom_up is not None:
            x = self.bottom_up(x, child)
        x = functional.relu(self.alone(x)) if self.top_down is None else self.top_down(x, child)
        return torch.matmul(place.mT, x.flatten(-3, -2))  # (B, N, width)

    def message_sizes(self, tokens: Tensor, joints: Tensor, observation: Observation) -> dict[str, Tensor]:
        """As of `Policy.message_sizes`, of limbs that `forward` gets."""
        x = self.reader(tokens, joints, observation["joint_mask"])
        x, place, child = self._slots(x, observation)
        hangs = parents_of(observation["parent"], observation["mask"])  # hangs: (B, N, N), [limb, parent]
        sizes = {}
        for way, messages in (("up", self.bottom_up), ("down", self.top_down)):
            if messages is not None:
                x = messages(x, child)
                told = messages.heard(messages.told(x)).norm(dim=-1)  # told: (B, D, W)
                told = torch.matmul(place.mT, told.flatten(-2).unsqueeze(-1))  # told: (B, N, 1)
                hangs_on = hangs.sum(-1, keepdim=True)
                sizes[way] = (told * hangs_on if way == "up" else torch.matmul(hangs, told)).squeeze(-1)
        return sizes

    @staticmethod
    def _slots(x: Tensor, observation: Observation) -> tuple[Tensor, Tensor, Tensor]:
        """Limbs (B, N, width) in slots (B, D, W, width), and the schedule in their number type."""
        place, child = observation["tree_place"], observation["tree_child"]
        place, child = place.to(x.dtype), child.to(x.dtype)
        x = torch.matmul(place, x)  # x: (B, D * W, width)
        return x.unflatten(-2, (child.shape[-3] + 1, child.shape[-1])), place, child


@checked("agent")
class SMP(LimbPolicy):
    """Shared modular policies with messages up, down, both ways or none.

    After Huang, Mordatch, Pathak, "One policy to control them all: shared modular policies for
    agent-agnostic control", ICML 2020, sections 3.2 to 3.4: bottom-up messages of 32 values and
    length 1, then top-down. There, the children's messages stand side by side in slots and the
    parent sends a message of its own into each slot, so swapping two children changes what the body
    does, and the number of slots bounds the children. Here the children's messages are summed, and
    the parent sends one message to all, which each child reads together with its own features: any
    number of children in any order.

    All trees of a batch go through the networks level by level, each limb once.
    """

    def __init__(
        self,
        spec: TokenSpec,
        width: Annotated[int, SIZE] = 64,
        message: Annotated[int, SIZE] = 32,
        messages: Annotated[str, one_of(*MESSAGES)] = "both",
        critic: Annotated[str, one_of(*CRITICS)] = "shared",
        **common: Any,
    ) -> None:
        make_trunk = functools.partial(Trunk, spec, width, message, messages)
        super().__init__(spec, make_trunk, width, critic, **common)
        self.message, self.messages = message, messages

    def prepare(self, observation: Observation) -> Observation:
        """Add the trees' schedule, ``tree_place`` and ``tree_child``, see `schedule`.

        Raises:
            ValueError: ``parent`` describes no tree.
        """
        if self.messages == "none":
            return observation
        return {**observation, **schedule(observation["parent"], observation["mask"])}

    def message_sizes(self, observation: Observation) -> dict[str, Tensor] | None:
        """Lengths of what messages add, ``up`` and ``down``, each (B, N); None where none are sent."""
        if self.messages == "none":
            return None
        return self.trunk.message_sizes(*self.normalizer(observation), observation)


def unit(values: Tensor) -> Tensor:
    """Values scaled to length 1 over the last dimension."""
    return values * torch.rsqrt(values.square().sum(-1, keepdim=True) + 1e-8)
