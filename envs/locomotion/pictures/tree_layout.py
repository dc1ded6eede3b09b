"""Where the boxes of a tree stand: root on top, children side by side below, parents above their middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def tidy_tree(
    parents: Sequence[int], sizes: np.ndarray, gap: tuple[float, float]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Places of boxes of different sizes, none of which overlap.

    Subtrees of one parent stand as near to each other as the boxes of each level allow. Several trees
    stand side by side.

    Args:
        parents: index of each box's parent, -1 for a root; parents stand before children.
        sizes: (N, 2) width and height of each box.
        gap: between boxes side by side, and between levels.

    Returns:
        (N, 2) places of the middle of each box's upper edge, y downwards, from (0, 0) on; the width and
        height of all.
    """
    children: list[list[int]] = [[] for _ in parents]
    depth = np.zeros(len(parents), int)
    for box, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(box)
            depth[box] = depth[parent] + 1
    shift = np.zeros(len(parents))  # of a box against its parent
    contours: list[list[tuple[float, float]]] = [[] for _ in parents]
    for box in reversed(range(len(parents))):
        placed, below = _side_by_side([contours[child] for child in children[box]], gap[0])
        shift[children[box]] = placed
        contours[box] = [(-sizes[box, 0] / 2, sizes[box, 0] / 2), *below]
    roots = [box for box, parent in enumerate(parents) if parent < 0]
    shift[roots], outline = _side_by_side([contours[root] for root in roots], gap[0])

    levels = [sizes[depth == level, 1].max() for level in range(depth.max() + 1)]
    tops = np.concatenate([[0.0], np.cumsum(np.array(levels) + gap[1])])
    left, right = min(low for low, _ in outline), max(high for _, high in outline)
    x = np.zeros(len(parents))
    for box, parent in enumerate(parents):
        x[box] = shift[box] + (x[parent] if parent >= 0 else -left)
    return np.stack([x, tops[depth]], 1), (float(right - left), float(tops[-1] - gap[1]))


def _side_by_side(
    contours: list[list[tuple[float, float]]], gap: float
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Places of subtrees about 0, and the left and right end of each level of them together."""
    places: list[float] = []
    joined: list[tuple[float, float]] = []
    for contour in contours:
        pairs = zip(joined, contour, strict=False)
        place = max((before[1] + gap - own[0] for before, own in pairs), default=0.0)
        places.append(place)
        moved = [(low + place, high + place) for low, high in contour]
        both = [(a[0], b[1]) for a, b in zip(joined, moved, strict=False)]
        joined = both + joined[len(both) :] + moved[len(both) :]
    middle = (places[0] + places[-1]) / 2 if places else 0.0
    return np.array(places) - middle, [(low - middle, high - middle) for low, high in joined]
