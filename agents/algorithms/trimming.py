"""Bodies of few limbs without the padding of those of many.

In a batch of several bodies every token set is as long as that of the largest one: of the slots of the
twelve training cheetahs four in ten are padding. Padding is without influence, so a learner may evaluate
rows of similar length together and cut what is empty in all of them; the results are the same but for
the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

GROUPS = 3
"""Groups that a batch is cut into: more save less padding than their smaller operations cost."""

GROUPS_OF_A_SHARD = 2
"""Groups for every thread, where there are several, so that long and short ones are shared evenly."""

SMALLEST_GROUP = 256
"""Rows; below it one large operation is faster than several small ones."""

Evaluate = Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]


def evaluate_trimmed(
    evaluate: Evaluate,
    observation: Mapping[str, Tensor],
    share: Callable[[Evaluate, list[dict[str, Tensor]]], list[tuple[Tensor, Tensor]]] | None = None,
    shards: int = 1,
) -> tuple[Tensor, Tensor]:
    """Action means (B, N, J) and values (B,), as ``evaluate(observation)`` gives them, with less work.

    On a GPU the batch stays whole: the host would have to wait to learn which rows are short.

    Args:
        evaluate: from an observation of any number of rows and slots to means and values.
        observation: limb token sets, (B, N, ...).
        share: evaluates groups beside each other; None: one after the other.
        shards: how many groups ``share`` has threads for.
    """
    mask = observation["mask"]
    size, n_slots = mask.shape
    groups = GROUPS if share is None else GROUPS_OF_A_SHARD * shards
    if size < GROUPS * SMALLEST_GROUP or mask.device.type != "cpu":
        return evaluate(observation)
    numbers = torch.arange(1, n_slots + 1, device=mask.device)
    used, order = ((mask != 0) * numbers).amax(1).sort(descending=True)  # used: (B,) last slot in use
    parts = []
    for rows, lengths in zip(order.tensor_split(groups), used.tensor_split(groups), strict=True):
        slots = max(int(lengths[0]), 1)
        parts.append({key: value.index_select(0, rows)[:, :slots] for key, value in observation.items()})
    results = [evaluate(part) for part in parts] if share is None else share(evaluate, parts)
    means = [functional.pad(mean, (0, 0, 0, n_slots - mean.shape[1])) for mean, _ in results]
    back = order.argsort()
    return torch.cat(means).index_select(0, back), torch.cat([v for _, v in results]).index_select(0, back)
