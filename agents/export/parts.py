"""Parts of policies, computed by operations that ONNX has, for any number of tokens.

Each takes the place of a module in a copy of the policy, with its parameters and its arguments, and gives the
same numbers but for rounding, which every export checks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.nn import functional

from ..policies import SMP, LimbTransformer, PatchJigsaw, limb_transformer, smp
from ..policies.base import Observation, Policy
from ..policies.layers import norm
from ..policies.limb_policy import parents_of
from ..policies.patch_jigsaw import LEAST, Jigsaw

DOUBLINGS = 10
"""Of the number of steps up a tree, which holds for trees of 1024 levels."""


def exportable(policy: Policy) -> Policy:
    """A copy of the policy that acts alike, without `prepare`, and whose graph is the same for all sizes."""
    made = copy.deepcopy(policy).eval().requires_grad_(False)
    if isinstance(made, SMP) and made.messages != "none":
        made.trunk = MessagesByParent(made.trunk)
    elif isinstance(made, LimbTransformer) and made.tree_encoding:
        made.trunk = AttentionByParent(made.trunk)
    elif isinstance(made, PatchJigsaw) and made.spec.has_neighbors:
        made.jigsaw = JigsawByGathering(made.jigsaw)
    return made


class MessagesByParent(nn.Module):
    """The trunk of `SMP` from ``parent`` as it is: all limbs send messages until no limb changes.

    In training, limbs are sorted by their depth beforehand, by code whose shapes depend on the data. A limb
    is right as soon as those that it hears from are, so this comes to the same.
    """

    def __init__(self, trunk: smp.Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, tokens: Tensor, joints: Tensor, observation: Observation) -> Tensor:
        """From (B, N, F) and (B, N, J, G) to (B, N, width)."""
        x = self.trunk.reader(tokens, joints, observation["joint_mask"])  # x: (B, N, width)
        above = parents_of(observation["parent"], observation["mask"])
        if self.trunk.bottom_up is not None:
            x = self._up(x, above.mT.contiguous())
        return functional.relu(self.trunk.alone(x)) if self.trunk.top_down is None else self._down(x, above)

    def _up(self, x: Tensor, below: Tensor) -> Tensor:
        up = self.trunk.bottom_up
        limbs = up.limb(x)

        def hear_children(hidden: Tensor) -> Tensor:
            message = torch.matmul(below, unit(up.message(hidden)))  # message: (B, N, message)
            return torch.tanh(limbs + up.from_children(message))

        return settled(hear_children, torch.tanh(limbs))

    def _down(self, x: Tensor, above: Tensor) -> Tensor:
        down = self.trunk.top_down
        limbs = down.limb(x)

        def hear_parent(hidden: Tensor) -> Tensor:
            message = torch.matmul(above, unit(down.message(hidden)))  # message: (B, N, message)
            return functional.relu(limbs + down.from_parent(message))

        return settled(hear_parent, functional.relu(limbs))


class AttentionByParent(nn.Module):
    """The trunk of `LimbTransformer` with its tree encoding, for a number of limbs that is not known."""

    def __init__(self, trunk: limb_transformer.Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, tokens: Tensor, joints: Tensor, observation: Observation) -> Tensor:
        """From (B, N, F) and (B, N, J, G) to (B, N, width)."""
        x = self.trunk.reader(tokens, joints, observation["joint_mask"])  # x: (B, N, width)
        exists = (observation["mask"] != 0).to(x.dtype)
        depth, relation = self._relations(parents_of(observation["parent"], observation["mask"]), exists)
        x = x + functional.embedding(depth, self.trunk.depth)
        related = functional.embedding(relation, self.trunk.relation).unbind(-1)  # each: (B, N, N)
        for block in self.trunk.blocks:
            x = block(x, exists.unsqueeze(-2), related)
        return norm(x)

    @staticmethod
    def _relations(above: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
        """As `policies.tree.relations`, whose number of operations depends on that of limbs."""
        limit = limb_transformer.TREE_LIMIT
        reach = above + torch.diag_embed(exists)  # [i, j]: j is i or its parent; then any limb above it
        for _ in range(DOUBLINGS):
            reach = torch.matmul(reach, reach).clamp(max=1)
        common = torch.matmul(reach, reach.mT)  # common: (B, N, N), number of common ancestors
        depth = reach.sum(-1)  # depth: (B, N), counted from 1
        up = (depth.unsqueeze(-1) - common).clamp(max=limit)
        down = (depth.unsqueeze(-2) - common).clamp(max=limit)
        relation = torch.where(common > 0, up + (limit + 1) * down, float((limit + 1) ** 2))
        return (depth - 1).clamp(0, limit).long(), relation.long()


class JigsawByGathering(nn.Module):
    """`Jigsaw` with the slots of each sample for themselves, gathered: ONNX has no sums of bags."""

    def __init__(self, jigsaw: Jigsaw) -> None:
        super().__init__()
        self.jigsaw = jigsaw

    def forward(self, evidence: Tensor, matches: Tensor, neighbors: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, N, R + C), of the arguments of `Jigsaw.forward`."""
        jigsaw, slots = self.jigsaw, neighbors.long()  # slots: (B, N, 4)
        own = torch.arange(slots.shape[1], device=slots.device).unsqueeze(-1)
        is_there = (mask != 0).long().unsqueeze(-1).expand(-1, -1, 4).gather(1, slots)  # (B, N, 4)
        silent = (slots == own) | (is_there == 0)
        weights = jigsaw.trust(matches).sigmoid().masked_fill(silent, 0.0)  # weights: (B, N, 4)
        beliefs = evidence  # beliefs: (B, N, R + C)
        for _ in range(jigsaw.rounds):
            heard = 0.0
            for direction, messages in enumerate(self._messages(beliefs)):  # messages: (B, N, R + C)
                index = slots[..., direction : direction + 1].expand(-1, -1, messages.shape[-1])
                heard = heard + weights[..., direction : direction + 1] * messages.gather(1, index)
            beliefs = evidence + heard
        return beliefs

    def _messages(self, beliefs: Tensor) -> tuple[Tensor, ...]:
        """To whoever has the slot to its right, left, below, above; each (B, N, R + C)."""
        rows, columns = (b.log_softmax(-1).clamp(min=LEAST) for b in beliefs.split(self.jigsaw.grid, -1))
        pairs = (
            (rows, _shifted(columns, -1)),
            (rows, _shifted(columns, 1)),
            (_shifted(rows, -1), columns),
            (_shifted(rows, 1), columns),
        )
        return tuple(torch.cat(pair, -1) for pair in pairs)


def _shifted(places: Tensor, by: int) -> Tensor:
    """What is believed of place p is told of p + ``by``; of the place at the edge nothing is."""
    if by < 0:
        return functional.pad(places[..., 1:], (0, 1), value=LEAST)
    return functional.pad(places[..., :-1], (1, 0), value=LEAST)


def unit(values: Tensor) -> Tensor:
    """As `smp.unit`, scaled: the exporter takes 1e-8 for 0, and a message of 0 would become NaN."""
    return values * torch.rsqrt(1e4 * values.square().sum(-1, keepdim=True) + 1e-4) * 100


def settled(step: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """``step`` applied to (B, N, ...) until nothing changes, N times at most.

    Along trees of N limbs nothing changes after N - 1 steps. Limbs that hang from each other in a ring,
    which training refuses, come to an end, too.
    """
    left = torch.ones_like(start[:1, :, 0].sum(0)).sum()  # N, as a tensor

    def goes_on(value: Tensor, changed: Tensor, left: Tensor) -> Tensor:
        return changed & (left > 0)

    def once(value: Tensor, changed: Tensor, left: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        after = step(value)
        return after, (after != value).any(), left - 1

    state = start, left > 0, left
    if torch.compiler.is_exporting():
        return while_loop(goes_on, once, state)[0]
    while goes_on(*state):
        state = once(*state)
    return state[0]
