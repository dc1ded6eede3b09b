"""Policies of limbs: what they have in common, how their tree is read, and the transformer.

Shapes: B batch, N limb slots, J joint slots of a limb, F token features, G joint features. ``parent`` is
(B, N), the index of the limb that each limb hangs from, -1 for a root; ``mask`` is (B, N). A parent's index
may be larger than its child's, there may be several roots, and padding may stand anywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.numbers import FLAG, checked, one_of
from ...envs.tokens import TokenSpec
from .base import Memory, Observation, Policy
from .layers import (
    RELU_GAIN,
    REPEATS,
    SIZE,
    Beside,
    blocks,
    existing,
    heads_divide_width,
    linear,
    masked_mean,
    norm,
)
from .normalizer import TokenNormalizer

CRITICS = ("pooled", "trunk", "shared")

TREE_LIMIT = 4
"""Depths and steps along the tree above this number are not told apart."""


class LimbReader(nn.Module):
    """One network that reads a limb's token and its joint rows, in any number and order.

    A row is read together with the token: hidden = relu(A token) + sum over existing joint rows of
    relu(A token + C joint + c). The sum is free of order and counts the joints, which a mean would
    not. There is no further layer: the trunk begins with a linear one.
    """

    def __init__(self, spec: TokenSpec, width: int) -> None:
        super().__init__()
        self.token = linear(spec.token_size, width, RELU_GAIN)
        self.joint = linear(spec.joint_size, width, RELU_GAIN)

    def forward(self, tokens: Tensor, joints: Tensor, joint_mask: Tensor) -> Tensor:
        """From (B, N, F), (B, N, J, G) and (B, N, J) to embeddings (B, N, width)."""
        token = self.token(tokens)  # token: (B, N, width)
        rows = functional.relu(token.unsqueeze(-2) + self.joint(joints))  # rows: (B, N, J, width)
        rows = rows * (joint_mask != 0).to(rows.dtype).unsqueeze(-1)
        return functional.relu(token) + rows.sum(-2)  # (B, N, width)


class BodyReader(nn.Module):
    """What each limb is like, whatever it does: from descriptors alone."""

    def __init__(self, spec: TokenSpec, width: int) -> None:
        super().__init__()
        parts = (
            tuple(f for f in features if f.kind == "descriptor") for features in (spec.token, spec.joint)
        )
        self.reader = LimbReader(TokenSpec(*parts), width)
        self.limb = linear(width, width, RELU_GAIN)
        for name, is_state in (("token", spec.token_is_state()), ("joint", spec.joint_is_state())):
            columns = torch.from_numpy(np.flatnonzero(~is_state))
            self.register_buffer(f"{name}_columns", columns, persistent=False)

    def forward(self, tokens: Tensor, joints: Tensor, joint_mask: Tensor) -> Tensor:
        """From (B, N, F), (B, N, J, G) and (B, N, J) to embeddings (B, N, width), normalised."""
        tokens = tokens.index_select(-1, self.token_columns)
        joints = joints.index_select(-1, self.joint_columns)
        x = self.reader(tokens, joints, joint_mask)  # x: (B, N, width)
        return norm(functional.relu(self.limb(norm(x))))


class JointHead(nn.Module):
    """One network from (limb embedding, joint row) to that joint's action mean.

    The last layer starts with a gain of 0.01, so that a new policy acts near zero and its noise
    explores around the bodies' rest (Andrychowicz et al., "What matters in on-policy reinforcement
    learning?", 2021, section 3.2).
    """

    def __init__(self, spec: TokenSpec, width: int) -> None:
        super().__init__()
        self.limb = linear(width, width, RELU_GAIN)
        self.joint = linear(spec.joint_size, width, RELU_GAIN, bias=False)
        self.action = linear(width, 1, 0.01)

    def forward(self, features: Tensor, joints: Tensor, action_mask: Tensor) -> Tensor:
        """From (B, N, width), (B, N, J, G) and (B, N, J) to means (B, N, J), 0 where masked."""
        hidden = self.limb(features).unsqueeze(-2) + self.joint(joints)  # hidden: (B, N, J, width)
        mean = self.action(functional.relu(hidden)).squeeze(-1)  # mean: (B, N, J)
        return torch.where(action_mask != 0, mean, 0.0)


class ValueHead(nn.Module):
    """A value per limb, averaged over the limbs that exist.

    A mean, not a sum: returns are normalised per body, so the scale must not grow with the limbs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.limb = linear(width, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """From (B, N, width) and (B, N) to values (B,)."""
        return masked_mean(self.limb(features).squeeze(-1), mask)


class PooledCritic(nn.Module):
    """The value of a body as a set of limbs: each read by one network, then pooled, then valued.

    After Zaheer et al., "Deep sets", NeurIPS 2017, with the mean and the largest over limbs. A value asks
    less of a network than actions do: it needs no messages between limbs. Having parameters of its own,
    it leaves the actor's trunk to the policy gradient; that a shared trunk costs returns is known
    (Andrychowicz et al., section 3.2, as above), and a second trunk would cost half the learner's speed.
    """

    def __init__(self, spec: TokenSpec, width: int) -> None:
        super().__init__()
        self.reader = LimbReader(spec, width)
        self.limb = linear(width, width, RELU_GAIN)
        self.pooled = linear(2 * width, 2 * width, RELU_GAIN)
        self.value = linear(2 * width, 1)

    def forward(self, tokens: Tensor, joints: Tensor, joint_mask: Tensor, mask: Tensor) -> Tensor:
        """From (B, N, F), (B, N, J, G), (B, N, J) and (B, N) to values (B,)."""
        x = self.reader(tokens, joints, joint_mask)  # x: (B, N, width)
        x = functional.relu(self.limb(norm(x)))  # at least 0, so that padding, as 0, is no maximum
        exists = (mask != 0).to(x.dtype).unsqueeze(-1)  # exists: (B, N, 1)
        mean = masked_mean(x.mT, mask.unsqueeze(-2))  # mean: (B, width)
        x = torch.cat((mean, (x * exists).amax(-2)), -1)  # x: (B, 2 width)
        return self.value(functional.relu(self.pooled(norm(x)))).squeeze(-1)


class LimbPolicy(Policy):
    """A trunk, a head for each joint's action, and a head for each limb's value.

    ``make_trunk`` builds a module from normalised tokens (B, N, F), joints (B, N, J, G) and the observation
    to features (B, N, width). The value comes from a small network that pools limbs (``critic`` is
    ``pooled``), from a ``trunk`` of its own, or from the actor's (``shared``). With ``one_way_joints`` it
    does not matter to which side the axis of a joint points: see `TokenNormalizer`.
    """

    training_modules = ("critic_trunk", "pooled_critic", "value_head")

    def __init__(
        self,
        spec: TokenSpec,
        make_trunk: Callable[[], nn.Module],
        width: int,
        critic: str,
        /,
        *,
        one_way_joints: Annotated[bool, FLAG] = False,
        **common: Any,
    ) -> None:
        super().__init__(spec, TokenNormalizer(spec, one_way=one_way_joints), **common)
        self.one_way_joints = one_way_joints
        self.width, self.critic = width, critic
        self.trunk = make_trunk()
        self.critic_trunk = make_trunk() if critic == "trunk" else None
        self.pooled_critic = PooledCritic(spec, width) if critic == "pooled" else None
        self.action_head = JointHead(spec, width)
        self.value_head = None if critic == "pooled" else ValueHead(width)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """Features of the limbs, (B, N, width), meaningless at padding, and the empty memory."""
        return self.trunk(*self.normalizer(observation), observation), memory

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, N, J) in nominal units, 0 where ``action_mask`` is 0."""
        mean = self.action_head(features, self.normalizer.joints(observation), observation["action_mask"])
        if self.one_way_joints:
            mean = torch.where(self.normalizer.turned(observation["joints"]), -mean, mean)
        return mean

    def value(self, features: Tensor, observation: Observation) -> Tensor:
        """Estimated return (B,)."""
        if self.pooled_critic is not None:
            tokens, joints = self.normalizer(observation)
            return self.pooled_critic(tokens, joints, observation["joint_mask"], observation["mask"])
        if self.critic_trunk is not None:
            features = self.critic_trunk(*self.normalizer(observation), observation)
        return self.value_head(features, observation["mask"])


def parents_of(parent: Tensor, mask: Tensor) -> Tensor:
    """(..., N, N) float32: [i, j] is 1 where limb j is the parent of limb i and both exist."""
    limbs = torch.arange(parent.shape[-1], device=parent.device)
    exists = mask != 0
    return ((parent.unsqueeze(-1) == limbs) & exists.unsqueeze(-1) & exists.unsqueeze(-2)).float()


def depths(parent: Tensor, mask: Tensor) -> Tensor:
    """Number of limbs above each limb, (..., N) int64, 0 for roots and -1 at padding.

    Raises:
        ValueError: A parent is itself, absent or out of range, or limbs hang from each other.
    """
    exists, n_limbs = mask != 0, parent.shape[-1]
    above = torch.where(exists, parent.long(), -1)
    is_missing = (above != -1) & ~exists.gather(-1, above.clamp(0, n_limbs - 1))
    _refuse((above < -1) | (above >= n_limbs) | is_missing, "the index of an existing limb", parent)
    depth, ancestor = torch.zeros_like(above), above
    for _ in range(n_limbs):
        climbing = ancestor >= 0
        if not climbing.any():
            break
        depth = depth + climbing
        ancestor = torch.where(climbing, above.gather(-1, ancestor.clamp(min=0)), -1)
    _refuse(ancestor >= 0, "a limb that does not hang from it in a cycle", parent)
    return torch.where(exists, depth, -1)


def _refuse(wrong: Tensor, wanted: str, parent: Tensor) -> None:
    if wrong.any():
        body = tuple(wrong.nonzero()[0][:-1].tolist())
        found = f"body {list(body)} of the batch has parents {parent[body].tolist()}"
        raise ValueError(f"the parent of a limb must be -1 or {wanted}; {found}")


def schedule(parent: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Order limbs by depth, so that messages can pass through all trees of a batch at once.

    A slot (level, place) holds one limb of that depth or nothing; D is the largest number of levels,
    W the largest number of limbs on one level, both over the whole batch. Matrices of zeros and ones, not
    indices: small products are faster than gathering and, above all, than the scattering in its gradient,
    and they run under ``vmap`` with or without a batch of trees.

    Returns:
        ``tree_place`` (..., D * W, N) float32: 1 where the slot holds the limb. Multiplied from the left
        it puts limbs into slots, its transpose puts slots back to limbs, with 0 where nothing is.
        ``tree_child`` (..., D - 1, W, W) float32: [level, p, c] is 1 where the limb in place c of the
        next level hangs from the limb in place p of this level.

    Raises:
        ValueError: As `depths`.
    """
    depth = depths(parent, mask)  # depth: (..., N)
    n_levels = max(int(depth.max()) + 1, 1)
    on_level = depth.unsqueeze(-1) == torch.arange(n_levels, device=depth.device)  # (..., N, D)
    counts = on_level.long().cumsum(-2)  # counts: (..., N, D)
    width = max(int(counts.max()), 1)
    place = (counts * on_level).sum(-1) - 1  # place: (..., N), -1 at padding
    slot = torch.where(depth >= 0, depth * width + place, -1)
    slots = torch.arange(n_levels * width, device=depth.device)
    slot_holds = (slots.unsqueeze(-1) == slot.unsqueeze(-2)).float()  # (..., D * W, N)

    slot_has_child = slot_holds @ parents_of(parent, mask).mT  # [slot, limb]: limb hangs from the slot's limb
    pairs = slot_has_child @ slot_holds.mT  # pairs: (..., D * W, D * W), [slot, slot of a child]
    pairs = pairs.unflatten(-1, (n_levels, width)).unflatten(-3, (n_levels, width))
    pairs = pairs.diagonal(1, -4, -2)  # pairs: (..., W, W, D - 1)
    return {"tree_place": slot_holds, "tree_child": pairs.movedim(-1, -3).contiguous()}


def relations(
    parent: Tensor, mask: Tensor, limit: int, doublings: int | None = None
) -> tuple[Tensor, Tensor]:
    """Depth of each limb and the path between each pair of limbs, by operations of static shape.

    ``parent`` and ``mask`` are (..., N), without cycles; ``limit`` is the largest depth and number of steps
    told apart; ``doublings`` of the number of steps up a tree are as many as N limbs may need, if None.

    Returns:
        Depth (..., N) in [0, limit], and relation (..., N, N) in [0, (limit + 1)^2]: up + (limit + 1)
        * down for the steps up from limb i to the nearest common ancestor and down from it to limb j.
        So 0 is the limb itself, 1 the parent, limit + 1 a child, limit + 2 a sibling; their sum is the
        distance in the graph. The last number stands for limbs of different trees and padding.
    """
    if doublings is None:
        doublings = max(parent.shape[-1] - 1, 1).bit_length()
    reach = parents_of(parent, mask) + torch.diag_embed((mask != 0).float())  # [i, j]: j is i or its parent
    for _ in range(doublings):
        reach = (reach @ reach).clamp(max=1)  # doubles the number of steps: then all ancestors
    common = reach @ reach.mT  # common: (..., N, N), number of common ancestors, the limbs included
    depth = reach.sum(-1)  # depth: (..., N), counted from 1
    up = (depth.unsqueeze(-1) - common).clamp(max=limit)
    down = (depth.unsqueeze(-2) - common).clamp(max=limit)
    relation = torch.where(common > 0, up + (limit + 1) * down, float((limit + 1) ** 2))
    return (depth - 1).clamp(0, limit).long(), relation.long()


class Trunk(nn.Module):
    """Reader and blocks."""

    doublings: int | None = None
    """See `relations`."""

    def __init__(
        self,
        spec: TokenSpec,
        width: int,
        layers: int,
        heads: int,
        feedforward: int,
        tree_encoding: bool,
        attends_by: str,
    ) -> None:
        super().__init__()
        self.reader = LimbReader(spec, width)
        self.body = BodyReader(spec, width) if attends_by == "body" else None
        self.blocks = blocks(layers, width, heads, feedforward)
        self.tree_encoding = tree_encoding
        if tree_encoding:
            self.depth = nn.Parameter(torch.zeros(TREE_LIMIT + 1, width))
            self.relation = nn.Parameter(torch.zeros((TREE_LIMIT + 1) ** 2 + 1, heads))
            nn.init.normal_(self.depth, std=0.1)
            nn.init.normal_(self.relation, std=0.1)

    def forward(self, tokens: Tensor, joints: Tensor, observation: Observation) -> Tensor:
        """(B, N, width), from tokens (B, N, F) and joints (B, N, J, G), both normalised."""
        x, beside = self._read(tokens, joints, observation)
        for block in self.blocks:
            x = block(x, beside)
        return norm(x)

    def attention(self, tokens: Tensor, joints: Tensor, observation: Observation) -> Tensor:
        """What each limb takes from each in `forward`, (B, layers, N, N), [layer, reader, read]."""
        x, beside = self._read(tokens, joints, observation)
        layers = []
        for block in self.blocks:
            layers.append(block.shares(x, beside) * beside.exists.mT)
            x = block(x, beside)
        return torch.stack(layers, 1)

    def _read(self, tokens: Tensor, joints: Tensor, observation: Observation) -> tuple[Tensor, Beside]:
        """Limbs (B, N, width), and what is beside them in each block."""
        x = self.reader(tokens, joints, observation["joint_mask"])  # x: (B, N, width)
        related = None
        if self.tree_encoding:
            parent, mask = observation["parent"], observation["mask"]
            depth, relation = relations(parent, mask, TREE_LIMIT, self.doublings)
            x = x + functional.embedding(depth, self.depth)
            related = functional.embedding(relation, self.relation).unbind(-1)  # each: (B, N, N)
        asking = None if self.body is None else self.body(tokens, joints, observation["joint_mask"])
        return x, Beside(existing(observation, x), related, asking)


@checked("agent", heads_divide_width)
class LimbTransformer(LimbPolicy):
    """Transformer over limb tokens.

    After Amorpheus (Kurin et al., "My body is a cage", ICLR 2021) and MetaMorph (Gupta et al., ICLR
    2022), with ``tree_encoding`` after SWAT (Hong et al., "Structure-aware transformer policy for
    inhomogeneous multi-task RL", ICLR 2022). SWAT numbers limbs by traversals, which depend on the
    order of children; here a limb is told its depth, and attention the path between two limbs (steps
    up, steps down), which do not. With ``attends_by`` "body", what limbs take from which depends on what they
    are like and not on what they do: queries and keys are made from descriptors, values from all (the fixed
    attention of Xiong et al., "Universal morphology control via contextual modulation", ICML 2023).
    """

    def __init__(
        self,
        spec: TokenSpec,
        width: Annotated[int, SIZE] = 64,
        layers: Annotated[int, REPEATS] = 2,
        heads: Annotated[int, REPEATS] = 2,
        feedforward: Annotated[int, SIZE] = 64,
        tree_encoding: Annotated[bool, FLAG] = False,
        attends_by: Annotated[str, one_of("state", "body")] = "state",
        critic: Annotated[str, one_of(*CRITICS)] = "pooled",
        **common: Any,
    ) -> None:
        trunk = width, layers, heads, feedforward, tree_encoding, attends_by
        super().__init__(spec, functools.partial(Trunk, spec, *trunk), width, critic, **common)
        self.layers, self.heads, self.feedforward = layers, heads, feedforward
        self.tree_encoding, self.attends_by = tree_encoding, attends_by

    def attention(self, observation: Observation, memory: Memory) -> Tensor:
        """What each limb takes from each, (B, layers, N, N), [layer, reader, read]."""
        return self.trunk.attention(*self.normalizer(observation), observation)
