"""Trees of limbs as tensors: who hangs from whom, by levels of depth and by relation.

``parent`` is (B, N), the index of the limb that each limb hangs from, -1 for a root; ``mask`` is
(B, N). A parent's index may be larger than its child's, there may be several roots, and padding may
stand anywhere. Other leading dimensions than one batch are fine throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor


def depths(parent: Tensor, mask: Tensor) -> Tensor:
    """Number of limbs above each limb, (..., N) int64, 0 for roots and -1 at padding.

    Raises:
        ValueError: A parent is itself, absent or out of range, or limbs hang from each other.
    """
    exists = mask != 0
    given, parent = parent, torch.where(exists, parent.long(), -1)
    n_limbs = parent.shape[-1]
    above = parent.clamp(0, n_limbs - 1)
    has_parent = parent != -1
    wrong = (parent < -1) | (parent >= n_limbs) | (has_parent & ~exists.gather(-1, above))
    if wrong.any():
        raise ValueError(_complaint("parents must be -1 or the index of an existing limb", wrong, given))
    depth = has_parent.long()
    ancestor = parent.gather(-1, above)
    for _ in range(n_limbs):
        climbing = has_parent & (ancestor >= 0)
        if not climbing.any():
            return torch.where(exists, depth, -1)
        depth = depth + climbing
        ancestor = torch.where(climbing, parent.gather(-1, ancestor.clamp(min=0)), -1)
    raise ValueError(_complaint("limbs hang from each other in a cycle", has_parent & (ancestor >= 0), given))


def schedule(parent: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Order limbs by depth, so that messages can pass through all trees of a batch at once.

    A slot (level, place) holds one limb of that depth or nothing; D is the largest number of levels,
    W the largest number of limbs on one level, both over the whole batch.

    Returns:
        ``tree_place`` (..., D * W, N) float32: 1 where the slot holds the limb. Multiplied from the left
        it puts limbs into slots, its transpose puts slots back to limbs, with 0 where nothing is.
        ``tree_child`` (..., D - 1, W, W) float32: [level, p, c] is 1 where the limb in place c of the
        next level hangs from the limb in place p of this level.

    Matrices of zeros and ones, not indices: small products are faster than gathering and, above all,
    than the scattering in its gradient, and they run under ``vmap`` with or without a batch of trees.

    Raises:
        ValueError: As :func:`depths`.
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


def relations(parent: Tensor, mask: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Depth of each limb and the path between each pair of limbs, by operations of static shape.

    Args:
        parent: (..., N), without cycles.
        mask: (..., N).
        limit: Largest depth and number of steps told apart.

    Returns:
        Depth (..., N) in [0, limit], and relation (..., N, N) in [0, (limit + 1)^2]: up + (limit + 1)
        * down for the steps up from limb i to the nearest common ancestor and down from it to limb j.
        So 0 is the limb itself, 1 the parent, limit + 1 a child, limit + 2 a sibling; their sum is the
        distance in the graph. The last number stands for limbs of different trees and padding.
    """
    n_limbs = parent.shape[-1]
    exists = (mask != 0).float()
    reach = parents_of(parent, mask) + torch.diag_embed(exists)  # [i, j]: j is i or its parent
    for _ in range(max(n_limbs - 1, 1).bit_length()):
        reach = (reach @ reach).clamp(max=1)  # doubles the number of steps: then all ancestors
    common = reach @ reach.mT  # common: (..., N, N), number of common ancestors, the limbs included
    depth = reach.sum(-1)  # depth: (..., N), counted from 1
    up = (depth.unsqueeze(-1) - common).clamp(max=limit)
    down = (depth.unsqueeze(-2) - common).clamp(max=limit)
    relation = torch.where(common > 0, up + (limit + 1) * down, float((limit + 1) ** 2))
    return (depth - 1).clamp(0, limit).long(), relation.long()


def parents_of(parent: Tensor, mask: Tensor) -> Tensor:
    """(..., N, N) float32: [i, j] is 1 where limb j is the parent of limb i and both exist."""
    limbs = torch.arange(parent.shape[-1], device=parent.device)
    exists = mask != 0
    return ((parent.unsqueeze(-1) == limbs) & exists.unsqueeze(-1) & exists.unsqueeze(-2)).float()


def _complaint(message: str, wrong: Tensor, parent: Tensor) -> str:
    row = wrong.nonzero()[0][:-1]
    return f"{message}; body {row.tolist()} of the batch has parents {parent[tuple(row)].tolist()}"
